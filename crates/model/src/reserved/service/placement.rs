//! Where tasks of a service go, beyond Swarm's constraints and preferences: near or apart from tasks of other services,
//! rather here than there, packed instead of spread. `docs/design/scheduler.md` tells what is made of it.
//!
//! A list is separated by commas. An affinity is `service==NAME` or `service.label.KEY==VALUE`, `*` standing for any text,
//! and may end in `over KEY`: a label whose value makes nodes one place (`over node.labels.zone`); where nothing is said
//! each node is its own. A preference is a constraint, or an affinity with `==` (near) or `!=` (apart), and may end in
//! `weight N`.

use crate::{
    constraint::{self, Constraint},
    object::Node,
    reserved::Labels,
    spec::Annotations,
};

/// Tasks only go where tasks of these services are.
pub const AFFINITY: &str = "skep.placement.affinity";
/// Tasks only go where no tasks of these services are; nor do those tasks go where this service's are.
pub const ANTI_AFFINITY: &str = "skep.placement.anti-affinity";
/// Of the nodes a task can go to, those that meet more of these.
pub const PREFER: &str = "skep.placement.prefer";
/// `spread` or `binpack`.
pub const STRATEGY: &str = "skep.placement.strategy";
/// Whether tasks may be moved to spread them better: `on`, `off`, or `auto`: when they keep nothing on their node.
pub const REBALANCE: &str = "skep.placement.rebalance";

/// The labels told of here.
pub const KNOWN: [&str; 5] = [AFFINITY, ANTI_AFFINITY, PREFER, STRATEGY, REBALANCE];

/// Rules in one label. Each costs a look at every node for every group of tasks that is placed.
pub const RULES_MAX: usize = 32;
/// Largest weight of a preference, so that sums of all stay small.
pub const WEIGHT_MAX: u32 = 100;

const SERVICE: &str = "service";
const SERVICE_LABEL_PREFIXES: [&str; 2] = ["service.label.", "service.labels."];

/// A label on placement that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label `{label}`: {problem}")]
pub struct InvalidPlacement {
    label: &'static str,
    problem: String,
}

/// What the labels on placement say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlacementPolicy {
    /// See [`AFFINITY`].
    pub near: Vec<Affinity>,
    /// See [`ANTI_AFFINITY`].
    pub apart: Vec<Affinity>,
    /// See [`PREFER`].
    pub prefer: Vec<Preference>,
    /// See [`STRATEGY`].
    pub strategy: Strategy,
    /// See [`REBALANCE`].
    pub rebalance: Rebalance,
}

/// Tasks of some services, at places of some size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Whose tasks.
    pub who: Who,
    /// What counts as one place.
    pub over: Topology,
}

/// Services by name or label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Services of a name.
    Name(String),
    /// Services with a label.
    Label {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
}

/// Which nodes are one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// Each by itself.
    Node,
    /// Those with the same value of a label; one without it is nowhere.
    Label(String),
}

/// Something that would be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// What.
    pub wish: Wish,
    /// How good: 1 to [`WEIGHT_MAX`].
    pub weight: u32,
}

/// What a preference asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A node like this.
    Node(Constraint),
    /// A place with such tasks.
    Near(Affinity),
    /// A place without such tasks.
    Apart(Affinity),
}

/// How nodes that can take a task are ranked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Fewest tasks of the service first, as Swarm.
    #[default]
    Spread,
    /// Fullest first, as classic Swarm's `binpack`.
    BinPack,
}

/// Whether tasks may be moved for balance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rebalance {
    /// If they keep nothing on their node: no volumes, no directories of the host.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

// === impl PlacementPolicy ===

impl PlacementPolicy {
    /// What is said, without what cannot be read.
    pub fn of(labels: &Labels) -> Self {
        Self::read(labels).0
    }

    /// Everything wrong with the labels told of here.
    pub fn problems(labels: &Labels) -> Vec<InvalidPlacement> {
        Self::read(labels).1
    }

    fn read(labels: &Labels) -> (Self, Vec<InvalidPlacement>) {
        let mut policy = Self::default();
        let mut found = Vec::new();
        policy.near = list(labels, AFFINITY, hard, &mut found);
        policy.apart = list(labels, ANTI_AFFINITY, hard, &mut found);
        policy.prefer = list(labels, PREFER, preference, &mut found);
        match labels.get(STRATEGY).map(String::as_str) {
            None | Some("spread") => {}
            Some("binpack") => policy.strategy = Strategy::BinPack,
            Some(other) => found.push(InvalidPlacement {
                label: STRATEGY,
                problem: format!("`{other}` is neither `spread` nor `binpack`"),
            }),
        }
        match labels.get(REBALANCE).map(String::as_str) {
            None | Some("auto") => {}
            Some("on") => policy.rebalance = Rebalance::On,
            Some("off") => policy.rebalance = Rebalance::Off,
            Some(other) => found.push(InvalidPlacement {
                label: REBALANCE,
                problem: format!("`{other}` is none of `auto`, `on` and `off`"),
            }),
        }
        (policy, found)
    }
}

fn list<T>(
    labels: &Labels,
    label: &'static str,
    parse: fn(&str) -> Result<T, String>,
    found: &mut Vec<InvalidPlacement>,
) -> Vec<T> {
    let Some(text) = labels.get(label) else {
        return Vec::new();
    };
    let mut problem = |problem: String| found.push(InvalidPlacement { label, problem });
    let terms: Vec<&str> = text.split(',').collect();
    if terms.len() > RULES_MAX {
        problem(format!("at most {RULES_MAX} rules are allowed"));
        return Vec::new();
    }
    let mut rules = Vec::new();
    for term in terms {
        let term = term.trim();
        match parse(term) {
            Ok(rule) => rules.push(rule),
            Err(why) => problem(format!("`{term}`: {why}")),
        }
    }
    rules
}

/// An affinity that must hold.
fn hard(term: &str) -> Result<Affinity, String> {
    let (affinity, is_near) = affinity(term)?;
    if is_near {
        Ok(affinity)
    } else {
        Err(format!(
            "use `==`; to keep apart there is `{ANTI_AFFINITY}`"
        ))
    }
}

fn preference(term: &str) -> Result<Preference, String> {
    let (term, weight) = match term.rsplit_once(" weight ") {
        None => (term, 1),
        Some((term, weight)) => {
            let number: Option<u32> = weight.trim().parse().ok();
            let number = number.filter(|number| (1..=WEIGHT_MAX).contains(number));
            let number =
                number.ok_or_else(|| format!("weight is not a number from 1 to {WEIGHT_MAX}"))?;
            (term.trim(), number)
        }
    };
    if term.starts_with(SERVICE) {
        let (affinity, is_near) = affinity(term)?;
        let wish = if is_near {
            Wish::Near(affinity)
        } else {
            Wish::Apart(affinity)
        };
        return Ok(Preference { wish, weight });
    }
    let constraint = constraint::parse_one(term).map_err(|error| error.to_string())?;
    if !constraint.is_on_something_known() {
        return Err("nodes have no such attribute".to_owned());
    }
    Ok(Preference {
        wish: Wish::Node(constraint),
        weight,
    })
}

/// Reads an affinity; true when it was written with `==`.
fn affinity(term: &str) -> Result<(Affinity, bool), String> {
    let (expression, over) = match term.rsplit_once(" over ") {
        None if term.ends_with(" over") => return Err("over what?".to_owned()),
        None => (term, Topology::Node),
        Some((expression, key)) => (expression, topology(key.trim())?),
    };
    let (key, value, is_near) = match (expression.split_once("=="), expression.split_once("!=")) {
        (Some((key, value)), _) => (key.trim(), value.trim(), true),
        (None, Some((key, value))) => (key.trim(), value.trim(), false),
        (None, None) => return Err("expected one operator from ==, !=".to_owned()),
    };
    if value.is_empty() {
        return Err("nothing to compare with".to_owned());
    }
    let value = value.to_owned();
    let mut prefixes = SERVICE_LABEL_PREFIXES.iter();
    let label = prefixes.find_map(|prefix| key.strip_prefix(prefix));
    let who = match label.filter(|label| !label.is_empty()) {
        None if key == SERVICE => Who::Name(value),
        None => return Err("expected `service==NAME` or `service.label.KEY==VALUE`".to_owned()),
        Some(label) => Who::Label {
            key: label.to_owned(),
            value,
        },
    };
    Ok((Affinity { who, over }, is_near))
}

fn topology(key: &str) -> Result<Topology, String> {
    if ["node", "node.id", "node.hostname"].contains(&key) {
        Ok(Topology::Node)
    } else if constraint::is_label(key) {
        Ok(Topology::Label(key.to_owned()))
    } else {
        Err(format!(
            "`{key}` is neither `node` nor a label like `node.labels.zone` or `engine.labels.disk`"
        ))
    }
}

// === impl Who ===

impl Who {
    /// Whether tasks of a service so named and labelled are meant.
    pub fn is(&self, service: &Annotations) -> bool {
        match self {
            Self::Name(name) => is_like(&name.to_lowercase(), &service.name.to_lowercase()),
            Self::Label { key, value } => {
                let label = service.labels.get(key);
                label.is_some_and(|actual| is_like(value, actual))
            }
        }
    }
}

/// Whether `text` is like `pattern`, in which `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((first, others)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = others.rsplit_once('*').unwrap_or(("", others));
    for part in middle.split('*') {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

// === impl Topology ===

impl Topology {
    /// The place a node belongs to; `None`: to none.
    pub fn place<'a>(&self, node: &'a Node) -> Option<&'a str> {
        match self {
            Self::Node => Some(node.id.as_str()),
            Self::Label(key) => {
                constraint::spread_value(key, node).filter(|value| !value.is_empty())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[track_caller]
    fn refused(label: &str, value: &str, expected: &[&str]) {
        let problems = PlacementPolicy::problems(&labels(&[(label, value)]));
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let expected: Vec<String> = expected
            .iter()
            .map(|problem| format!("label `{label}`: {problem}"))
            .collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn rules_are_read() {
        let said = labels(&[
            (AFFINITY, "service==db over node.labels.zone"),
            (ANTI_AFFINITY, "service==web-*, service.label.tier==batch"),
            (
                PREFER,
                "node.labels.disk==ssd weight 10, service!=web over engine.labels.rack weight 2,service==cache",
            ),
            (STRATEGY, "binpack"),
            (REBALANCE, "off"),
        ]);
        assert_eq!(PlacementPolicy::problems(&said), []);
        let policy = PlacementPolicy::of(&said);
        let zone = Topology::Label("node.labels.zone".to_owned());
        assert_eq!(policy.near[0].over, zone);
        assert_eq!(policy.near[0].who, Who::Name("db".to_owned()));
        assert_eq!(policy.apart.len(), 2);
        let weights: Vec<u32> = policy.prefer.iter().map(|rule| rule.weight).collect();
        assert_eq!(weights, [10, 2, 1]);
        assert!(matches!(policy.prefer[1].wish, Wish::Apart(_)));
        assert!(matches!(policy.prefer[2].wish, Wish::Near(_)));
        assert_eq!(policy.strategy, Strategy::BinPack);
        assert_eq!(policy.rebalance, Rebalance::Off);
        let nothing = PlacementPolicy::of(&Labels::new());
        assert_eq!(nothing, PlacementPolicy::default());
    }

    #[test]
    fn services_are_meant_by_name_or_label() {
        let web = Annotations {
            name: "web-Front".to_owned(),
            labels: labels(&[("tier", "batch")]),
        };
        let name = |name: &str| Who::Name(name.to_owned()).is(&web);
        assert!(name("web-front") && name("WEB-*") && name("*") && name("w*b*nt") && name("*t"));
        assert!(!name("web") && !name("web-*x") && !name("*web") && !name("web-front*t"));
        let label = |value: &str| {
            let (key, value) = ("tier".to_owned(), value.to_owned());
            Who::Label { key, value }.is(&web)
        };
        assert!(label("batch") && label("ba*") && !label("Batch"));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        refused(
            AFFINITY,
            "service!=db, app==x,service==",
            &[
                "`service!=db`: use `==`; to keep apart there is `skep.placement.anti-affinity`",
                "`app==x`: expected `service==NAME` or `service.label.KEY==VALUE`",
                "`service==`: nothing to compare with",
            ],
        );
        refused(
            ANTI_AFFINITY,
            "service==db over zone",
            &[
                "`service==db over zone`: `zone` is neither `node` nor a label like `node.labels.zone` or \
               `engine.labels.disk`",
            ],
        );
        refused(
            PREFER,
            "node.labels.disk=ssd,node.disk==ssd,node.role==worker weight 0",
            &[
                "`node.labels.disk=ssd`: constraint expected one operator from ==, !=",
                "`node.disk==ssd`: nodes have no such attribute",
                "`node.role==worker weight 0`: weight is not a number from 1 to 100",
            ],
        );
        let texts = ["`random` is neither `spread` nor `binpack`"];
        refused(STRATEGY, "random", &texts);
        refused(
            REBALANCE,
            "yes",
            &["`yes` is none of `auto`, `on` and `off`"],
        );
        let many = vec!["service==a"; RULES_MAX + 1].join(",");
        refused(AFFINITY, &many, &["at most 32 rules are allowed"]);
    }
}
