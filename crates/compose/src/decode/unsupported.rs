//! Keys of the compose specification that a cluster cannot honour, and why. They are refused, never silently left out.

/// Keys of the top level.
pub(super) const TOP_LEVEL: &[(&str, &str)] = &[("models", "it runs services only")];

/// Keys of services that only concern who develops them.
pub(super) const IGNORED: &[&str] = &["attach", "develop", "extends", "env_file", "label_file"];

const NODE: &str = "it would be a setting of one node";
const LIMITS: &str = "limits of a cluster are in `deploy.resources`";

/// Keys of services.
pub(super) const SERVICE: &[(&str, &str)] = &[
    ("annotations", "it has labels"),
    ("blkio_config", LIMITS),
    (
        "build",
        "it runs images; build and push one, and name it with `image`",
    ),
    ("cgroup", NODE),
    ("cgroup_parent", NODE),
    ("cgroupns_mode", NODE),
    (
        "container_name",
        "a service has as many containers as replicas, and names of its own for them",
    ),
    ("cpu_count", LIMITS),
    ("cpu_percent", LIMITS),
    ("cpu_period", LIMITS),
    ("cpu_quota", LIMITS),
    ("cpu_rt_period", LIMITS),
    ("cpu_rt_runtime", LIMITS),
    ("cpu_shares", LIMITS),
    ("cpuset", LIMITS),
    ("device_cgroup_rules", "name the devices in `devices`"),
    ("domainname", "`hostname` may have dots"),
    (
        "external_links",
        "services are reached by name, on a network both are on",
    ),
    (
        "gpus",
        "reserve them with `deploy.resources.reservations.generic_resources`",
    ),
    (
        "links",
        "services are reached by name, on a network both are on; other names are `aliases` of `networks`",
    ),
    ("log_driver", "use `logging`"),
    ("log_opt", "use `logging`"),
    ("mac_address", "addresses are the cluster's to give"),
    ("mem_swappiness", LIMITS),
    ("memswap_limit", LIMITS),
    ("models", "it runs services only"),
    (
        "net",
        "use `networks`; the node's network is the external network `host`",
    ),
    (
        "network_mode",
        "use `networks`; the node's network is the external network `host`",
    ),
    ("oom_kill_disable", NODE),
    (
        "post_start",
        "a task has one process; use another service and `depends_on`",
    ),
    (
        "pre_start",
        "a task has one process; use another service and `depends_on`",
    ),
    (
        "pre_stop",
        "a task has one process, which gets `stop_signal`",
    ),
    ("provider", "it runs services only"),
    (
        "pull_policy",
        "nodes fetch the image a service was created with, when they do not have it",
    ),
    (
        "pull_refresh_after",
        "nodes fetch the image a service was created with, when they do not have it",
    ),
    ("runtime", NODE),
    ("storage_opt", NODE),
    ("use_api_socket", "mount the socket of the node"),
    ("volume_driver", "use `driver` of `volumes`"),
    ("volumes_from", "use a volume of `volumes` that both mount"),
];

/// Keys of a service's attachment to a network.
pub(super) const SERVICE_NETWORK: &[(&str, &str)] = &[
    ("gw_priority", "the cluster chooses the gateway"),
    ("interface_name", "interfaces are named by the node"),
    (
        "ipv4_address",
        "a service has as many addresses as replicas",
    ),
    (
        "ipv6_address",
        "a service has as many addresses as replicas",
    ),
    (
        "link_local_ips",
        "a service has as many addresses as replicas",
    ),
    ("mac_address", "addresses are the cluster's to give"),
    (
        "priority",
        "networks are attached in the order of their names",
    ),
];

/// Keys of `deploy.resources.reservations`.
pub(super) const RESERVATIONS: &[(&str, &str)] = &[(
    "devices",
    "nodes say what they have, and services reserve it with `generic_resources`",
)];
