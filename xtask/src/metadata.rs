//! What `cargo metadata` says of the workspace, as far as the gate needs it.

use anyhow::Context;
use serde_json::Value;

use crate::step::{cargo, output};

/// Names of the binaries a package of the workspace has; none if there is no such package.
pub(crate) fn binaries(package: &str) -> anyhow::Result<Vec<String>> {
    let text = output(cargo([
        "metadata",
        "--locked",
        "--no-deps",
        "--format-version=1",
    ]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages
        .filter(|candidate| candidate["name"] == package)
        .flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let is_binary = |target: &&Value| {
        target["kind"]
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"))
    };
    let names = targets
        .filter(is_binary)
        .filter_map(|target| target["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}
