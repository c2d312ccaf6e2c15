//! The project: what a set of compose files says once nothing is left to look up.
//!
//! Short forms are long ones, variables are replaced, `env_file` and `label_file` are read in, relative paths are
//! absolute, and what `extends`, `include` and several files say has been merged. Names are those of the file, not yet
//! those of the cluster. Extensions (`x-…`) and keys without effect on a cluster (`version`, `develop`, `attach`) are
//! left out. Absent keys are `None` or empty, so that defaults stay with who converts.

mod deploy;
mod mount;
mod service;

use std::collections::BTreeMap;

use skep_model::redact::Redacted;

pub use self::{
    deploy::{
        Deploy, DeployMode, EndpointMode, FailureAction, GenericResource, Order, Placement,
        Resources, RestartCondition, RestartPolicy, UpdateConfig,
    },
    mount::{
        BindOptions, Mount, MountKind, Propagation, Recursive, Selinux, Tmpfs, TmpfsOptions,
        VolumeOptions,
    },
    service::{
        Condition, CredentialSpec, Dependency, Device, ExtraHost, FileReference, Healthcheck,
        Logging, Platform, Port, Protocol, PublishMode, Restart, Service, ServiceNetwork, Test,
        Ulimit,
    },
};
use crate::problem::Problem;

/// A merged, resolved compose file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Project {
    /// Top-level `name`, or the name given in the options, which wins.
    pub name: Option<String>,
    /// Services whose profiles are active, by name.
    pub services: BTreeMap<String, Service>,
    /// Top-level `networks`. `default` is here only when the file says something of it.
    pub networks: BTreeMap<String, Network>,
    /// Top-level `volumes`.
    pub volumes: BTreeMap<String, Volume>,
    /// Top-level `secrets`.
    pub secrets: BTreeMap<String, FileObject>,
    /// Top-level `configs`.
    pub configs: BTreeMap<String, FileObject>,
    /// What was left out although the file says it: only with `Unsupported::Warn`.
    pub warnings: Vec<Problem>,
}

/// A network of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Name in the cluster; `None`: `<stack>_<key>`, or the key itself when external.
    pub name: Option<String>,
    /// Exists already, and is not made or removed with the stack.
    pub is_external: bool,
    /// `driver`; `None`: the default (`overlay`).
    pub driver: Option<String>,
    /// `driver_opts`.
    pub driver_opts: BTreeMap<String, String>,
    /// `ipam`, when anything of it is set.
    pub ipam: Option<Ipam>,
    /// No way out of the network.
    pub is_internal: bool,
    /// Containers outside services may attach.
    pub is_attachable: bool,
    /// `enable_ipv4`.
    pub is_ipv4: Option<bool>,
    /// `enable_ipv6`.
    pub is_ipv6: Option<bool>,
    /// Labels of the network.
    pub labels: BTreeMap<String, String>,
}

/// Address management of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ipam {
    /// `driver`; `None`: `default`.
    pub driver: Option<String>,
    /// `config`.
    pub pools: Vec<IpamPool>,
    /// `options`.
    pub options: BTreeMap<String, String>,
}

/// A range of addresses. The texts are not checked here: the server has the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpamPool {
    /// `subnet`, in CIDR form.
    pub subnet: Option<String>,
    /// `gateway`.
    pub gateway: Option<String>,
    /// `ip_range`, in CIDR form.
    pub ip_range: Option<String>,
    /// `aux_addresses`: host name to address.
    pub aux_addresses: BTreeMap<String, String>,
}

/// A volume of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Name on the nodes; `None`: `<stack>_<key>`, or the key itself when external.
    pub name: Option<String>,
    /// Exists already, and gets neither driver nor labels.
    pub is_external: bool,
    /// `driver`; `None`: the default (`local`).
    pub driver: Option<String>,
    /// `driver_opts`.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels of the volume.
    pub labels: BTreeMap<String, String>,
}

/// A secret or a config of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileObject {
    /// Name in the cluster; `None`: `<stack>_<key>`, or the key itself when external.
    pub name: Option<String>,
    /// Where the bytes are.
    pub content: Content,
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
    /// `template_driver` (`golang`).
    pub template_driver: Option<String>,
}

/// Where the bytes of a secret or config come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Content {
    /// It exists already.
    #[default]
    External,
    /// These, from `file`, `environment` or `content`.
    Data(Redacted<Vec<u8>>),
    /// A secret driver of the cluster gives them; secrets only.
    Driver {
        /// `driver`.
        name: String,
        /// `driver_opts`.
        options: BTreeMap<String, String>,
    },
}
