//! Which crate may depend on which of ours: the tiers of the architecture.

use std::collections::{BTreeMap, BTreeSet};

use crate::workspace::{check, metadata, packages};

/// Dependencies only go down: surface, shell, edge, pure. A new edge is a commit of its own that argues for it.
///
/// `dev-dependencies` are free below the surface tier's rule: tests may use what they like of lower tiers.
const EDGES: &[(&str, &[&str])] = &[
    // Pure.
    ("skep-model", &[]),
    ("skep-store", &["skep-model"]),
    ("skep-control", &["skep-model", "skep-store"]),
    ("skep-compose", &["skep-model"]),
    // Edge.
    ("skep-wire", &["skep-model", "skep-store"]),
    ("skep-raft", &[]),
    ("skep-ca", &["skep-model"]),
    ("skep-network", &["skep-model"]),
    // Shell.
    (
        "skep-manager",
        &[
            "skep-ca",
            "skep-control",
            "skep-model",
            "skep-raft",
            "skep-store",
            "skep-wire",
        ],
    ),
    ("skep-agent", &["skep-model", "skep-wire"]),
    // Port 2377: carries the manager's and the agent's words; neither of them knows it.
    (
        "skep-rpc",
        &[
            "skep-agent",
            "skep-ca",
            "skep-control",
            "skep-manager",
            "skep-model",
            "skep-raft",
            "skep-store",
            "skep-wire",
        ],
    ),
    // `Executor` is the agent's trait: the consumer owns it.
    (
        "skep-executor",
        &["skep-agent", "skep-model", "skep-network"],
    ),
    // Surface.
    ("skep-docker-api", &["skep-compose", "skep-model"]),
    (
        "skep-cli",
        &["skep-compose", "skep-docker-api", "skep-model"],
    ),
    (
        "skep-daemon",
        &[
            "skep-agent",
            "skep-ca",
            "skep-docker-api",
            "skep-executor",
            "skep-manager",
            "skep-model",
            "skep-network",
            "skep-raft",
            "skep-rpc",
            "skep-store",
            "skep-wire",
        ],
    ),
    // The binary; `skep monitor` is the executor's, `skep tunnel` the network's.
    (
        "skep",
        &["skep-cli", "skep-daemon", "skep-executor", "skep-network"],
    ),
    // Tests and tools.
    (
        "skep-sim",
        &[
            "skep-agent",
            "skep-ca",
            "skep-control",
            "skep-manager",
            "skep-model",
            "skep-raft",
            "skep-store",
            "skep-wire",
        ],
    ),
    ("skep-conformance", &[]),
    ("skep-guestbook", &[]),
    // The load that counts failed requests, and nothing else.
    ("xtask", &["skep-conformance"]),
];

/// Crates without IO, clock, randomness and tasks.
const PURE: &[&str] = &["skep-model", "skep-store", "skep-control", "skep-compose"];

/// What a pure crate has no use for.
const IMPURE: &[&str] = &[
    "getrandom",
    "hyper",
    "nix",
    "rand",
    "reqwest",
    "rtnetlink",
    "rustix",
    "tokio",
    "tonic",
    "tracing",
];

/// What a pure crate's clippy.toml must ban; it replaces the root's, and so must repeat it.
const BANS: &[&str] = &[
    "std::env::set_var",
    "std::env::remove_var",
    "std::env::var",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::sleep",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "too-many-lines-threshold = 70",
    "allow-unwrap-in-tests = true",
];

#[test]
fn crates_depend_on_lower_tiers_only() {
    let metadata = metadata(false);
    let table: BTreeMap<&str, BTreeSet<&str>> = EDGES
        .iter()
        .map(|&(name, edges)| (name, edges.iter().copied().collect()))
        .collect();
    let mut offenders = Vec::new();
    for package in packages(&metadata) {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = table.get(name) else {
            offenders.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let is_ours = dependency["path"].is_string();
            if is_ours && dependency["kind"] != "dev" && !allowed.contains(to) {
                offenders.push(format!("{name} -> {to}"));
            }
        }
    }
    check(
        &offenders,
        "edges that xtask/tests/tidy/edges.rs does not allow: move the code down a tier, let the consumer own a trait, or \
         argue for the edge in a commit of its own",
    );
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    let metadata = metadata(false);
    let mut offenders = Vec::new();
    for package in packages(&metadata) {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if PURE.contains(&name) && dependency["kind"] != "dev" && IMPURE.contains(&to) {
                offenders.push(format!("{name} -> {to}"));
            }
        }
    }
    check(
        &offenders,
        "pure crates decide and do nothing else: pass time and a seeded generator as arguments",
    );
}

#[test]
fn pure_crates_ban_clocks_and_unordered_maps() {
    let mut offenders = Vec::new();
    for name in PURE {
        let dir = crate::workspace::root()
            .join("crates")
            .join(name.trim_start_matches("skep-"));
        if !dir.exists() {
            continue;
        }
        let text = std::fs::read_to_string(dir.join("clippy.toml")).unwrap_or_default();
        let missing = BANS.iter().filter(|ban| !text.contains(*ban));
        offenders.extend(missing.map(|ban| format!("{name}: `{ban}`")));
    }
    check(
        &offenders,
        "a pure crate has a clippy.toml of its own with these; copy crates/model/clippy.toml",
    );
}
