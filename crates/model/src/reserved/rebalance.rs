//! Whether running tasks are moved when nodes come: settings of the cluster.

use super::Labels;

/// `off`, `on-join` (to nodes that joined or returned) or `continuous`.
pub const MODE: &str = "skep.rebalance";
/// How many tasks move at a time.
pub const BUDGET: &str = "skep.rebalance.budget";
/// `true`: once, whatever [`MODE`] says; the leader removes it when nothing is left to move.
pub const ONCE: &str = "skep.rebalance.once";

/// The labels told of here.
pub const KNOWN: [&str; 3] = [MODE, BUDGET, ONCE];

/// [`BUDGET`] where nothing is said: a move costs a container's start, and perhaps an image.
pub const BUDGET_DEFAULT: usize = 1;
/// Most that [`BUDGET`] may be; more would be a storm.
pub const BUDGET_MAX: usize = 1000;

/// A setting that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRebalance {
    /// No such mode.
    #[error("label `{MODE}`: `{0}` is none of `off`, `on-join` and `continuous`")]
    Mode(String),
    /// Not a number of moves.
    #[error("label `{BUDGET}`: `{0}` is not a number from 1 to {BUDGET_MAX}")]
    Budget(String),
    /// Neither `true` nor `false`.
    #[error("label `{ONCE}`: `{0}` is neither `true` nor `false`")]
    Once(String),
}

/// When tasks are moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    #[default]
    Off,
    /// To nodes that joined, returned or were changed a short while ago.
    OnJoin,
    /// Whenever they could be spread better.
    Continuous,
}

/// What the labels of the cluster say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebalancePolicy {
    /// See [`MODE`].
    pub mode: Mode,
    /// See [`BUDGET`].
    pub budget: usize,
    /// See [`ONCE`].
    pub is_once: bool,
}

impl Default for RebalancePolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            budget: BUDGET_DEFAULT,
            is_once: false,
        }
    }
}

impl RebalancePolicy {
    /// What is said, with the default for what cannot be read.
    pub fn of(labels: &Labels) -> Self {
        Self::read(labels).0
    }

    /// Everything wrong with the labels told of here.
    pub fn problems(labels: &Labels) -> Vec<InvalidRebalance> {
        Self::read(labels).1
    }

    fn read(labels: &Labels) -> (Self, Vec<InvalidRebalance>) {
        let mut policy = Self::default();
        let mut problems = Vec::new();
        match labels.get(MODE).map(String::as_str) {
            None | Some("off") => {}
            Some("on-join") => policy.mode = Mode::OnJoin,
            Some("continuous") => policy.mode = Mode::Continuous,
            Some(other) => problems.push(InvalidRebalance::Mode(other.to_owned())),
        }
        if let Some(value) = labels.get(BUDGET) {
            let budget = value.parse().ok();
            match budget.filter(|budget| (1..=BUDGET_MAX).contains(budget)) {
                Some(budget) => policy.budget = budget,
                None => problems.push(InvalidRebalance::Budget(value.clone())),
            }
        }
        match labels.get(ONCE).map(String::as_str) {
            None | Some("false") => {}
            Some("true") => policy.is_once = true,
            Some(other) => problems.push(InvalidRebalance::Once(other.to_owned())),
        }
        (policy, problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_mistakes_named() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let nothing = RebalancePolicy::of(&Labels::new());
        assert_eq!(nothing, RebalancePolicy::default());
        let said = labels(&[(MODE, "on-join"), (BUDGET, "3"), (ONCE, "true")]);
        let expected = RebalancePolicy {
            mode: Mode::OnJoin,
            budget: 3,
            is_once: true,
        };
        assert_eq!(RebalancePolicy::of(&said), expected);
        assert_eq!(RebalancePolicy::problems(&said), []);
        let wrong = labels(&[(MODE, "yes"), (BUDGET, "0"), (ONCE, "1")]);
        let problems = RebalancePolicy::problems(&wrong);
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "label `skep.rebalance`: `yes` is none of `off`, `on-join` and `continuous`",
                "label `skep.rebalance.budget`: `0` is not a number from 1 to 1000",
                "label `skep.rebalance.once`: `1` is neither `true` nor `false`",
            ]
        );
    }
}
