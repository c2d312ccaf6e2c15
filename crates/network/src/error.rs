//! What the node network's callers get: its error and its report.

use std::collections::BTreeMap;
use std::error;
use std::fmt;
use std::sync::Arc;

use crate::apply::ApplyError;
use crate::config::ConfigError;
use crate::endpoint::EndpointIdError;
use crate::owner::ENDPOINT_COUNT_MAX;
use crate::plan::Step;
use crate::pool::PoolError;
use crate::ports::PortConflict;
use crate::reservation::ReservationError;
use crate::state::StateError;

/// Why the node network did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration has mistakes.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<ConfigError>),
    /// The owner thread cannot be started.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// The node network is closed.
    #[error("the node network is closed")]
    Closed,
    /// Too many requests wait.
    #[error("too many requests for the node network")]
    Busy,
    /// The endpoint id cannot be used.
    #[error(transparent)]
    Id(#[from] EndpointIdError),
    /// The endpoint exists with other ports or another mode.
    #[error("endpoint `{0}` is attached with other settings")]
    AlreadyAttached(String),
    /// The bridge has no port left.
    #[error("the node network has its maximum of {ENDPOINT_COUNT_MAX} endpoints")]
    EndpointLimit,
    /// No address is left.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A port cannot be published.
    #[error(transparent)]
    Port(#[from] PortConflict),
    /// A program of the node uses a port.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
    /// Endpoints of the state file have addresses outside the configured subnet.
    #[error("endpoints have addresses outside subnet `{0}`; detach them or restore the old subnet")]
    SubnetChanged(ipnet::IpNet),
    /// The addresses of the node network cannot be changed while endpoints have some.
    #[error(
        "{count} endpoints have addresses of the node network, which cannot be changed before they are detached"
    )]
    InUse {
        /// How many.
        count: usize,
    },
    /// The state file cannot be read or written.
    #[error(transparent)]
    State(#[from] Arc<StateError>),
    /// The kernel refused a step.
    #[error(transparent)]
    Apply(#[from] Arc<ApplyError>),
}

/// What a reconciliation found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Steps performed; empty when all was well.
    pub steps: Vec<Step>,
    /// Endpoints that could not be repaired; the next reconciliation tries again.
    pub failures: BTreeMap<String, Arc<ApplyError>>,
    /// Chains of others that drop forwarded packets by policy, as `family table chain`: they may cut containers off.
    pub obstacles: Vec<String>,
}

/// Prints an error with its causes, for logs.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a dyn error::Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
