//! Docker's objects to model objects and back, one file per object.
//!
//! Reading is fallible and says what is wrong in Docker's words; writing is total. What a node
//! cannot honour yet is refused in one place, [`unsupported`].

mod cluster;
mod container_spec;
mod mount;
mod network;
mod node;
pub(crate) mod secret;
mod service;
mod task;
pub(crate) mod task_spec;
mod unsupported;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use skep_model::{Annotations, Driver, Meta, Timestamp};

pub(crate) use self::{
    cluster::{init_request, join_request, local_info, merge_cluster_spec, swarm, update_base},
    network::{Member, SWARM_SCOPE, check_ipam, containers, peers, services},
    node::merge_node_spec,
    service::{insert_defaults, service_spec},
    unsupported::check_network,
};
use crate::{
    dto::meta,
    error::{ApiError, Result},
    http::timestamp::rfc3339_nano,
};

/// Nanoseconds of a duration.
fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A duration of nanoseconds; `field` is named when it is negative, in Swarm's words.
fn duration(nanos: i64, field: &str) -> Result<Duration> {
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| ApiError::invalid(format!("{field} cannot be negative")))
}

impl From<Meta> for meta::Meta {
    fn from(meta: Meta) -> Self {
        Self {
            version: meta::Version {
                index: meta.version.0,
            },
            created_at: rfc3339_nano(meta.created_at),
            updated_at: rfc3339_nano(meta.updated_at),
        }
    }
}

impl From<&Driver> for meta::Driver {
    fn from(driver: &Driver) -> Self {
        Self {
            name: driver.name.clone(),
            options: driver.options.clone(),
        }
    }
}

impl From<meta::Driver> for Driver {
    fn from(driver: meta::Driver) -> Self {
        Self {
            name: driver.name,
            options: driver.options,
        }
    }
}

fn annotations(name: String, labels: BTreeMap<String, String>) -> Arc<Annotations> {
    Arc::new(Annotations { name, labels })
}

/// A time that Docker leaves out while it is not set.
fn optional_time(time: Option<Timestamp>) -> Option<String> {
    time.filter(|time| *time != Timestamp::ZERO)
        .map(rfc3339_nano)
}
