//! Amounts of CPU, memory and generic resources, and platforms.

mod parse;

pub use self::parse::{
    GENERIC_NAME_LENGTH_MAX, GENERIC_RESOURCES_MAX, GenericError, is_generic_name, parse_generic,
};

/// An amount of resources. Zero means "not set".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Billionths of a CPU core.
    pub nano_cpus: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Named or counted resources such as GPUs.
    pub generic: Vec<GenericResource>,
}

/// One user-defined resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GenericResource {
    /// A particular item, e.g. `NVIDIA-GPU=UUID1`.
    Named {
        /// Resource kind.
        kind: String,
        /// The item.
        value: String,
    },
    /// An amount, e.g. `SSD=4`.
    Discrete {
        /// Resource kind.
        kind: String,
        /// How many.
        value: i64,
    },
}

/// What a task may use at most, and what it needs to be placed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceRequirements {
    /// Enforced on the node.
    pub limits: Resources,
    /// Used by the scheduler only.
    pub reservations: Resources,
    /// Limit of memory plus swap is `limits.memory_bytes + swap_bytes`; -1 is unlimited swap.
    pub swap_bytes: Option<i64>,
    /// Swappiness 0..=100; -1 keeps the kernel's default.
    pub memory_swappiness: Option<i64>,
    /// Process limit; 0 is unlimited. On the wire it is `ContainerSpec.pidsLimit`.
    pub pids_limit: i64,
}

/// Operating system and architecture of a node or an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// `uname -m` style for nodes (`x86_64`), Go style for images (`amd64`).
    pub architecture: String,
    /// Go's name, e.g. `linux`.
    pub os: String,
}

impl GenericResource {
    /// Its kind.
    pub fn kind(&self) -> &str {
        match self {
            Self::Named { kind, .. } | Self::Discrete { kind, .. } => kind,
        }
    }
}
