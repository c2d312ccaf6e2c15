//! Elements of nf_tables maps: changed in transactions, listed for repair.

use super::{
    BATCH_BEGIN, BATCH_END, Buffer, Family, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetfilterError,
    NetfilterSocket, Request, SUBSYSTEM_TABLES, attributes, find,
};

const GET_GENERATION: u16 = 16;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;

/// `NFTA_GEN_ID`.
const GENERATION: u16 = 1;

/// `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_NAME`, `NFTA_RULE_TABLE`.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;

/// `NFTA_SET_ELEM_LIST_*`.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;

/// `NFTA_LIST_ELEM`, `NFTA_SET_ELEM_KEY`, `NFTA_SET_ELEM_DATA`.
const LIST_ITEM: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;

/// `NFTA_SET_ELEM_EXPR`, `NFTA_EXPR_DATA`, `NFTA_COUNTER_PACKETS`.
const EXPRESSION: u16 = 7;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `NFT_GOTO`, -4.
const GOTO: u32 = 0xffff_fffc;

/// A transaction is closed beyond this size. The kernel holds one lock for its length: about a thousand elements, half a
/// millisecond.
pub(crate) const BATCH_BYTES: usize = 96 << 10;

/// One change of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) family: Family,
    pub(crate) map: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) verb: Verb,
}

/// What happens to an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    Add(Data),
    Delete,
}

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Value(Vec<u8>),
    /// A chain to go on with.
    Goto(String),
    /// It is a set, not a map.
    Nothing,
}

/// Transactions written but not sent: the same for every namespace with the same change.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    batches: Vec<Vec<u8>>,
    open: Buffer,
}

/// Sequence number of a transaction's last message, the one that is answered.
const LAST: u32 = 2;

/// Sequence number of all others.
const OTHER: u32 = 1;

// === impl Batches ===

impl Batches {
    /// Adds changes of a table that belong together: they happen in one transaction.
    pub(crate) fn add(&mut self, table: &str, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        if self.open.bytes.is_empty() {
            self.open.control(BATCH_BEGIN, OTHER);
        }
        for change in changes {
            self.write(table, change);
        }
        if self.open.bytes.len() >= BATCH_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.bytes.is_empty() {
            self.open.control(BATCH_END, OTHER);
            self.batches.push(std::mem::take(&mut self.open.bytes));
        }
    }

    fn write(&mut self, table: &str, change: &Change) {
        let (kind, flags) = match change.verb {
            Verb::Add(_) => (NEW_ELEMENT, NLM_F_REQUEST | NLM_F_CREATE),
            Verb::Delete => (DELETE_ELEMENT, NLM_F_REQUEST),
        };
        let request = Request {
            subsystem: SUBSYSTEM_TABLES,
            kind,
            flags,
            family: change.family,
        };
        self.open.message(request, OTHER, |buffer| {
            buffer.text(LIST_TABLE, table);
            buffer.text(LIST_SET, change.map);
            buffer.nest(LIST_ELEMENTS, |buffer| {
                buffer.nest(LIST_ITEM, |buffer| {
                    buffer.nest(KEY, |buffer| buffer.attribute(VALUE, &change.key));
                    match &change.verb {
                        Verb::Add(Data::Nothing) | Verb::Delete => {}
                        Verb::Add(data) => buffer.nest(DATA, |buffer| write_data(buffer, data)),
                    }
                });
            });
        });
    }

    /// The transactions, in order.
    pub(crate) fn finish(mut self) -> Vec<Vec<u8>> {
        self.close();
        self.batches
    }
}

fn write_data(buffer: &mut Buffer, data: &Data) {
    match data {
        Data::Nothing => {}
        Data::Value(value) => buffer.attribute(VALUE, value),
        Data::Goto(chain) => buffer.nest(VERDICT, |buffer| {
            buffer.attribute(VERDICT_CODE, &GOTO.to_be_bytes());
            buffer.text(VERDICT_CHAIN, chain);
        }),
    }
}

// === impl NetfilterSocket ===

impl NetfilterSocket {
    /// The number of the last transaction in this namespace, whoever made it.
    pub(crate) fn generation(&mut self) -> Result<u32, NetfilterError> {
        let sequence = self.next_sequence();
        let mut buffer = Buffer::default();
        let request = Request {
            subsystem: SUBSYSTEM_TABLES,
            kind: GET_GENERATION,
            flags: NLM_F_REQUEST | NLM_F_ACK,
            family: Family::V4,
        };
        buffer.message(request, sequence, |_| ());
        self.send(&buffer.bytes)?;
        let mut generation = None;
        self.answers("find the last transaction", sequence, |_, body| {
            let bytes = find(body, GENERATION).and_then(|bytes| bytes.try_into().ok());
            generation = generation.or(bytes.map(u32::from_be_bytes));
        })?;
        Ok(generation.unwrap_or(0))
    }

    /// Performs transactions, each whole or not at all.
    pub(crate) fn commit(&mut self, batches: &[Vec<u8>]) -> Result<(), NetfilterError> {
        for batch in batches {
            // A transaction is answered by its errors, or by what its last message asks: list a chain that is not there.
            let mut bytes = batch.clone();
            mark_last(&mut bytes);
            self.transact("change a map", &bytes, LAST)?;
        }
        Ok(())
    }

    /// Names of a table's chains, and how many rules it has.
    pub(crate) fn chains(
        &mut self,
        family: Family,
        table: &str,
    ) -> Result<(Vec<String>, usize), NetfilterError> {
        let request = |kind| Request {
            subsystem: SUBSYSTEM_TABLES,
            kind,
            flags: 0,
            family,
        };
        let is_ours = |body: &[u8], kind| find(body, kind).is_some_and(|name| text(name) == table);
        let mut names = Vec::new();
        self.dump(
            "list chains",
            request(GET_CHAIN),
            |_| (),
            |_, body| {
                if is_ours(body, CHAIN_TABLE) {
                    names.extend(find(body, CHAIN_NAME).map(text));
                }
            },
        )?;
        let mut rule_count = 0;
        self.dump(
            "list rules",
            request(GET_RULE),
            |_| (),
            |_, body| {
                rule_count += usize::from(is_ours(body, RULE_TABLE));
            },
        )?;
        Ok((names, rule_count))
    }

    /// All elements of a map.
    pub(crate) fn elements(
        &mut self,
        family: Family,
        table: &str,
        map: &str,
    ) -> Result<Vec<(Vec<u8>, Data)>, NetfilterError> {
        self.list(family, (table, map), read_element)
    }

    /// The packets that a set's elements have counted; nothing of a set that is not there.
    pub(crate) fn tallies(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Vec<(Vec<u8>, u64)>, NetfilterError> {
        match self.list(family, (table, set), read_tally) {
            Err(NetfilterError::Refused { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Vec::new())
            }
            listed => listed,
        }
    }

    fn list<T>(
        &mut self,
        family: Family,
        (table, map): (&str, &str),
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetfilterError> {
        let request = Request {
            subsystem: SUBSYSTEM_TABLES,
            kind: GET_ELEMENT,
            flags: 0,
            family,
        };
        let mut elements = Vec::new();
        let write = |buffer: &mut Buffer| {
            buffer.text(LIST_TABLE, table);
            buffer.text(LIST_SET, map);
        };
        self.dump("list elements", request, write, |_, body| {
            let items = find(body, LIST_ELEMENTS).into_iter().flat_map(attributes);
            elements.extend(items.filter_map(|item| read(item.value)));
        })?;
        Ok(elements)
    }
}

fn read_tally(item: &[u8]) -> Option<(Vec<u8>, u64)> {
    let key = find(find(item, KEY)?, VALUE)?.to_vec();
    let counter = find(find(item, EXPRESSION)?, EXPRESSION_DATA)?;
    let packets = find(counter, COUNTER_PACKETS)?.try_into().ok()?;
    Some((key, u64::from_be_bytes(packets)))
}

fn read_element(item: &[u8]) -> Option<(Vec<u8>, Data)> {
    let key = find(find(item, KEY)?, VALUE)?.to_vec();
    let Some(data) = find(item, DATA) else {
        return Some((key, Data::Nothing));
    };
    let data = match (find(data, VALUE), find(data, VERDICT)) {
        (Some(value), _) => Data::Value(value.to_vec()),
        (None, Some(verdict)) => Data::Goto(text(find(verdict, VERDICT_CHAIN)?)),
        (None, None) => return None,
    };
    Some((key, data))
}

/// A name without its end mark.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks for an answer to the last message before the end mark, and gives it the number that is waited for.
fn mark_last(bytes: &mut [u8]) {
    let mut start = 0;
    let mut last = None;
    while let Some(header) = bytes.get(start..start + 16) {
        let length = u32::from_ne_bytes(*header.first_chunk().expect("a header has 16 bytes"));
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if kind != BATCH_BEGIN && kind != BATCH_END {
            last = Some(start);
        }
        start += usize::try_from(length).map_or(bytes.len(), |length| length.max(16));
    }
    if let Some(start) = last {
        let flags = u16::from_ne_bytes([bytes[start + 6], bytes[start + 7]]) | NLM_F_ACK;
        bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        bytes[start + 8..start + 12].copy_from_slice(&LAST.to_ne_bytes());
    }
}
