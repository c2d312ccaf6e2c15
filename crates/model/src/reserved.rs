//! Settings only Skep has, kept as labels: here those of the cluster spec, in [`service`] those of
//! services, in [`engine`] what nodes say of themselves.
//!
//! Labels travel through Swarm's wire format, its log and the ordinary API, so that mixed clusters
//! carry them. They are checked when a spec is stored ([`problems`]) and parsed again where they
//! count; one that cannot be read then admits nobody and removes nothing.

pub mod engine;
pub mod rebalance;
pub mod service;
pub mod task;
mod text;

use std::{collections::BTreeMap, fmt, time::Duration};

pub use self::text::{duration as go_duration, shown as go_duration_text};
use crate::{spec::Role, time::Timestamp};

/// How all our labels begin.
pub(crate) const FAMILY: &str = "skep.";

/// How long a worker may be down before it is removed, as a Go duration (`24h`).
pub const NODE_TTL: &str = "skep.node.ttl";
/// When the worker token stops to admit, as RFC 3339.
pub const JOIN_WORKER_EXPIRES: &str = "skep.join.worker.expires";
/// How many nodes the worker token still admits.
pub const JOIN_WORKER_USES: &str = "skep.join.worker.uses";
/// When the manager token stops to admit, as RFC 3339.
pub const JOIN_MANAGER_EXPIRES: &str = "skep.join.manager.expires";
/// How many nodes the manager token still admits.
pub const JOIN_MANAGER_USES: &str = "skep.join.manager.uses";

/// Least [`NODE_TTL`]. A change of leader leaves nodes unknown for seconds and a reboot takes a
/// minute or two; anything shorter removes nodes that are about to come back.
pub const NODE_TTL_MIN: Duration = Duration::from_secs(60);
/// Most uses of a token that can be asked for; more is no limit at all.
pub const JOIN_USES_MAX: u64 = 1_000_000;

const KNOWN: [&str; 5] = [
    NODE_TTL,
    JOIN_WORKER_EXPIRES,
    JOIN_WORKER_USES,
    JOIN_MANAGER_EXPIRES,
    JOIN_MANAGER_USES,
];
/// A label in one of these families that is not known is a slip of the finger.
const FAMILIES: [&str; 3] = ["skep.node.", "skep.join.", rebalance::MODE];

fn known() -> Vec<&'static str> {
    [&KNOWN[..], &rebalance::KNOWN].concat()
}

type Labels = BTreeMap<String, String>;

/// A reserved label that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No such label.
    #[error("unknown label `{0}`: known are {known}", known = known().join(", "))]
    Unknown(String),
    /// Not a Go duration.
    #[error("label `{NODE_TTL}`: `{0}` is not a duration like `24h` or `90m`")]
    Duration(String),
    /// Below [`NODE_TTL_MIN`].
    #[error("label `{NODE_TTL}`: `{0}` is less than 1m; remove the label to keep nodes for ever")]
    DurationTooShort(String),
    /// Not a time.
    #[error("label `{key}`: `{value}` is not a time like `2030-01-31T12:00:00Z`")]
    Time {
        /// The label.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Not a count, or above [`JOIN_USES_MAX`].
    #[error("label `{key}`: `{value}` is not a number between 0 and {JOIN_USES_MAX}")]
    Uses {
        /// The label.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// About moving tasks.
    #[error(transparent)]
    Rebalance(#[from] rebalance::InvalidRebalance),
}

/// Everything wrong with the reserved labels among `labels`.
pub fn problems(labels: &Labels) -> Vec<Invalid> {
    let mut found = Vec::new();
    for key in labels.keys() {
        let is_ours = FAMILIES.iter().any(|family| key.starts_with(family));
        if is_ours && !known().contains(&key.as_str()) {
            found.push(Invalid::Unknown(key.clone()));
        }
    }
    found.extend(node_ttl(labels).err());
    for keys in [WORKER, MANAGER] {
        found.extend(expires(labels, keys).err());
        found.extend(uses(labels, keys).err());
    }
    let rebalance = rebalance::RebalancePolicy::problems(labels);
    found.extend(rebalance.into_iter().map(Invalid::from));
    found
}

/// How long a worker may be down before it is removed; `None` keeps nodes for ever.
pub fn node_ttl(labels: &Labels) -> Result<Option<Duration>, Invalid> {
    let Some(value) = labels.get(NODE_TTL) else {
        return Ok(None);
    };
    let ttl = text::duration(value).ok_or_else(|| Invalid::Duration(value.clone()))?;
    if ttl < NODE_TTL_MIN {
        return Err(Invalid::DurationTooShort(value.clone()));
    }
    Ok(Some(ttl))
}

/// Limits of one join token. The default has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JoinPolicy {
    /// From then on nobody is admitted.
    pub expires: Option<Timestamp>,
    /// Nodes that are still admitted.
    pub uses: Option<u64>,
}

/// Why a token that is genuine admits nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// All its uses are spent.
    #[error("the join token has been used as often as it may be")]
    UsedUp,
}

// === impl JoinPolicy ===

impl JoinPolicy {
    /// The limits on the token for `role`.
    pub fn read(labels: &Labels, role: Role) -> Result<Self, Invalid> {
        let keys = keys(role);
        Ok(Self {
            expires: expires(labels, keys)?,
            uses: uses(labels, keys)?,
        })
    }

    /// Whether one more node is admitted at `now`, and how many uses remain after it: the count to
    /// store with [`JoinPolicy::store_uses`] in the transaction that admits the node. `None`: uses
    /// are not counted.
    pub fn admit(&self, now: Timestamp) -> Result<Option<u64>, Refusal> {
        if self.expires.is_some_and(|expires| now >= expires) {
            return Err(Refusal::Expired);
        }
        match self.uses {
            None => Ok(None),
            Some(0) => Err(Refusal::UsedUp),
            Some(uses) => Ok(Some(uses - 1)),
        }
    }

    /// Lifts the limits of the token for `role`: they were the old token's.
    pub fn lift(labels: &mut Labels, role: Role) {
        let keys = keys(role);
        labels.remove(keys.expires);
        labels.remove(keys.uses);
    }

    /// Writes the uses left of the token for `role`.
    pub fn store_uses(labels: &mut Labels, role: Role, uses: u64) {
        labels.insert(keys(role).uses.to_owned(), uses.to_string());
    }
}

/// The labels of one token.
#[derive(Debug, Clone, Copy)]
struct Keys {
    expires: &'static str,
    uses: &'static str,
}

const WORKER: Keys = Keys {
    expires: JOIN_WORKER_EXPIRES,
    uses: JOIN_WORKER_USES,
};
const MANAGER: Keys = Keys {
    expires: JOIN_MANAGER_EXPIRES,
    uses: JOIN_MANAGER_USES,
};

fn keys(role: Role) -> Keys {
    match role {
        Role::Worker => WORKER,
        Role::Manager => MANAGER,
    }
}

fn expires(labels: &Labels, keys: Keys) -> Result<Option<Timestamp>, Invalid> {
    let key = keys.expires;
    let parse = |value: &String| {
        text::time(value).ok_or_else(|| Invalid::Time {
            key,
            value: value.clone(),
        })
    };
    labels.get(key).map(parse).transpose()
}

fn uses(labels: &Labels, keys: Keys) -> Result<Option<u64>, Invalid> {
    let key = keys.uses;
    let parse = |value: &String| {
        let is_decimal = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let count = value.parse().ok().filter(|_| is_decimal);
        count
            .filter(|count| *count <= JOIN_USES_MAX)
            .ok_or_else(|| Invalid::Uses {
                key,
                value: value.clone(),
            })
    };
    labels.get(key).map(parse).transpose()
}

impl fmt::Display for JoinPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.expires, self.uses) {
            (None, None) => f.write_str("no limits"),
            (Some(expires), None) => write!(f, "until {expires:?}"),
            (None, Some(uses)) => write!(f, "{uses} uses left"),
            (Some(expires), Some(uses)) => write!(f, "{uses} uses left, until {expires:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
