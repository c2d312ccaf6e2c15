//! From the bytes of a file to value trees: one for each document.
//!
//! The parser's events carry places and the text of scalars, which is what error messages and Go's rules for scalars need.
//! Aliases are copied in, `<<` is merged, keys that stand twice are problems. A file may not grow without bound by its
//! aliases: [`NODE_COUNT_MAX`] counts the copies.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::{
    node::{Edit, Entry, Mapping, Node, Value},
    problem::{Place, Problem, Problems},
    scalar,
};

/// Largest compose file. The largest seen in the wild have some thousand lines.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// Values of one file, copies of aliases included: a few bytes of aliases could otherwise fill the memory.
pub(crate) const NODE_COUNT_MAX: usize = 100_000;
/// Values within values. A compose file needs about ten; recursive functions of this crate go as deep.
pub(crate) const DEPTH_MAX: usize = 64;

const TOO_DEEP: &str = "more than 64 values within each other";

/// The documents of a file. Empty ones are left out. What can be skipped goes to `problems`.
pub(crate) fn parse(
    file: &Arc<Path>,
    bytes: &[u8],
    problems: &mut Problems,
) -> Result<Vec<Node>, Problem> {
    let whole = Place {
        file: Arc::clone(file),
        line: 0,
        column: 0,
    };
    if bytes.len() > FILE_BYTES_MAX {
        return Err(problem(
            whole,
            format!("has more than {FILE_BYTES_MAX} bytes"),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        problem(whole, format!("is not UTF-8 text (byte {at})"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        file: Arc::clone(file),
        open: Vec::new(),
        documents: Vec::new(),
        anchors: BTreeMap::new(),
        node_count: 0,
        problems,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let place = builder.at(error.marker().line(), error.marker().col());
            problem(place, format!("not valid YAML: {}", error.info()))
        })?;
        builder.handle(event, span)?;
    }
    Ok(builder.documents)
}

/// What has been begun and not ended yet.
struct Builder<'a> {
    file: Arc<Path>,
    open: Vec<Frame>,
    documents: Vec<Node>,
    anchors: BTreeMap<usize, Node>,
    node_count: usize,
    problems: &'a mut Problems,
}

/// A list or mapping that is not at its end.
struct Frame {
    place: Place,
    edit: Edit,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        map: Mapping,
        /// The key whose value comes next.
        key: Option<Key>,
        /// What `<<` names, in order.
        merges: Vec<Node>,
    },
}

enum Key {
    Merge,
    /// What is wrong with it has been told.
    Bad,
    Name(String, Place),
}

// === impl Builder ===

impl Builder<'_> {
    fn handle(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let place = self.at(span.start.line(), span.start.col());
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            Event::DocumentStart(_) | Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id) else {
                    return Err(problem(place, "an alias cannot stand in what it names"));
                };
                let node = node.clone();
                self.spend(node.count(), &place)?;
                if self.open.len() + depth_of(&node) > DEPTH_MAX {
                    return Err(problem(place, TOO_DEEP));
                }
                self.add(node, false)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(1, &place)?;
                let is_plain = style == ScalarStyle::Plain;
                let (edit, is_typed) = self.tag_of(tag.as_deref(), &place);
                let value = match is_typed.unwrap_or(is_plain) {
                    true => scalar::resolve(&text),
                    false => Value::Text(text.into_owned()),
                };
                let is_merge = is_plain && value == Value::Text("<<".to_owned());
                let node = Node { place, edit, value };
                self.remember(anchor, &node)?;
                self.add(node, is_merge)
            }
            Event::SequenceStart(anchor, tag) => {
                let content = Content::List(Vec::new());
                self.begin(place, anchor, tag.as_deref(), content)
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map {
                    map: Mapping::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.begin(place, anchor, tag.as_deref(), content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn begin(
        &mut self,
        place: Place,
        anchor: usize,
        tag: Option<&Tag>,
        content: Content,
    ) -> Result<(), Problem> {
        self.spend(1, &place)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(problem(place, TOO_DEEP));
        }
        let (edit, _) = self.tag_of(tag, &place);
        self.open.push(Frame {
            place,
            edit,
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(frame) = self.open.pop() else {
            return Ok(());
        };
        let value = match frame.content {
            Content::List(list) => Value::List(list),
            Content::Map { map, merges, .. } => Value::Map(merge(map, merges)?),
        };
        let node = Node {
            place: frame.place,
            edit: frame.edit,
            value,
        };
        self.remember(frame.anchor, &node)?;
        self.add(node, false)
    }

    /// Keeps what an anchor names.
    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Problem> {
        if anchor != 0 {
            self.spend(node.count(), &node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// Puts a whole value where it belongs.
    fn add(&mut self, node: Node, is_merge: bool) -> Result<(), Problem> {
        let Some(frame) = self.open.last_mut() else {
            if node.value != Value::Null {
                self.documents.push(node);
            }
            return Ok(());
        };
        match &mut frame.content {
            Content::List(list) => list.push(node),
            Content::Map { map, key, merges } => match key.take() {
                None if is_merge => *key = Some(Key::Merge),
                None => {
                    *key = Some(name_of(node, map).unwrap_or_else(|problem| {
                        self.problems.push(problem.place, problem.text);
                        Key::Bad
                    }));
                }
                Some(Key::Bad) => {}
                Some(Key::Merge) => merges.push(node),
                Some(Key::Name(name, place)) => {
                    let mut node = node;
                    if node.value == Value::Null {
                        // The key is what people look for: an absent value has no place of its own.
                        node.place = place.clone();
                    }
                    map.insert(name, Entry { place, node });
                }
            },
        }
        Ok(())
    }

    fn spend(&mut self, count: usize, place: &Place) -> Result<(), Problem> {
        self.node_count += count;
        if self.node_count <= NODE_COUNT_MAX {
            return Ok(());
        }
        let text = format!("more than {NODE_COUNT_MAX} values, with the copies that aliases make");
        Err(problem(place.clone(), text))
    }

    /// What a tag says: an edit, and whether a scalar is resolved although quoted, or not although plain.
    fn tag_of(&mut self, tag: Option<&Tag>, place: &Place) -> (Edit, Option<bool>) {
        let Some(tag) = tag else {
            return (Edit::Merge, None);
        };
        let is_core = tag.is_yaml_core_schema();
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            (_, "str") if is_core => (Edit::Merge, Some(false)),
            (_, "int" | "float" | "bool" | "null") if is_core => (Edit::Merge, Some(true)),
            (_, "seq" | "map") if is_core => (Edit::Merge, None),
            ("!", "reset") => (Edit::Reset, None),
            ("!", "override") => (Edit::Override, None),
            ("" | "!", "" | "!") => (Edit::Merge, Some(false)),
            (handle, suffix) => {
                let handle = if is_core { "!!" } else { handle };
                let text =
                    format!("unknown tag `{handle}{suffix}`; known are `!reset` and `!override`");
                self.problems.push(Some(place.clone()), text);
                (Edit::Merge, None)
            }
        }
    }

    fn at(&self, line: usize, column: usize) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
        }
    }
}

/// The key a value is, and that it is not there yet.
fn name_of(node: Node, map: &Mapping) -> Result<Key, Problem> {
    let name = match &node.value {
        Value::Text(text) => text.clone(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            let text = scalar::print(&node.value).unwrap_or_default();
            let text = format!("a key has to be a string: put `{text}` in quotes");
            return Err(problem(node.place, text));
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            let text = format!("a key has to be a string, and is {}", node.kind());
            return Err(problem(node.place, text));
        }
    };
    if let Some(entry) = map.get(&name) {
        let Place { line, column, .. } = entry.place;
        let text = format!("key `{name}` stands here already: {line}:{column}");
        return Err(problem(node.place, text));
    }
    Ok(Key::Name(name, node.place))
}

/// Adds what `<<` names: keys of the mapping itself win, then those named first.
fn merge(mut map: Mapping, merges: Vec<Node>) -> Result<Mapping, Problem> {
    for node in merges {
        let sources = match node.value {
            Value::List(list) => list,
            Value::Map(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_) => vec![node],
        };
        for source in sources {
            let Value::Map(source_map) = source.value else {
                let text = format!("`<<` merges mappings, and this is {}", source.kind());
                return Err(problem(source.place, text));
            };
            for (key, entry) in source_map {
                map.entry(key).or_insert(entry);
            }
        }
    }
    Ok(map)
}

/// Values within values of this one, 0 for a scalar.
fn depth_of(node: &Node) -> usize {
    match &node.value {
        Value::List(list) => 1 + list.iter().map(depth_of).max().unwrap_or(0),
        Value::Map(map) => {
            1 + map
                .values()
                .map(|entry| depth_of(&entry.node))
                .max()
                .unwrap_or(0)
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => 0,
    }
}

fn problem(place: Place, text: impl Into<String>) -> Problem {
    Problem {
        place: Some(place),
        text: text.into(),
    }
}
