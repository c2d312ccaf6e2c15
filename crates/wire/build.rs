//! Compiles `proto/` to Rust with protox: no protoc is needed. Services get code with feature `grpc`.

use std::{error::Error, fs, path::PathBuf};

use prost_build::Config;

/// Every file of the package, relative to `proto/`.
const FILES: [&str; 17] = [
    "docker/swarmkit/v1/ca.proto",
    "docker/swarmkit/v1/control.proto",
    "docker/swarmkit/v1/dispatcher.proto",
    "docker/swarmkit/v1/health.proto",
    "docker/swarmkit/v1/logbroker.proto",
    "docker/swarmkit/v1/objects.proto",
    "docker/swarmkit/v1/raft.proto",
    "docker/swarmkit/v1/resource.proto",
    "docker/swarmkit/v1/snapshot.proto",
    "docker/swarmkit/v1/specs.proto",
    "docker/swarmkit/v1/types.proto",
    "docker/swarmkit/v1/watch.proto",
    "skep/v1/directory.proto",
    "skep/v1/errands.proto",
    "skep/v1/logs.proto",
    "skep/v1/peer.proto",
    "skep/v1/stack.proto",
];

/// Messages that hold a secret; `src/secret.rs` gives them a `Debug` that does not show it.
const SECRETS: [&str; 12] = [
    ".docker.swarmkit.v1.AcceptancePolicy.RoleAdmissionPolicy.Secret",
    ".docker.swarmkit.v1.CAConfig",
    ".docker.swarmkit.v1.ContainerSpec.PullOptions",
    ".docker.swarmkit.v1.EncryptionKey",
    ".docker.swarmkit.v1.GetUnlockKeyResponse",
    ".docker.swarmkit.v1.IssueNodeCertificateRequest",
    ".docker.swarmkit.v1.JoinTokens",
    ".docker.swarmkit.v1.RootCA",
    ".docker.swarmkit.v1.RootRotation",
    ".docker.swarmkit.v1.SecretSpec",
    ".docker.swarmkit.v1.VolumeSecret",
    ".skep.v1.StackSpec",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(FILES)?;

    // The tests compare these descriptors with the recorded facts.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    let mut config = Config::new();
    config
        .btree_map(["."])
        .skip_debug(SECRETS)
        // The path above takes the enum inside with it.
        .enum_attribute(".docker.swarmkit.v1.EncryptionKey.Algorithm", "#[derive(Debug)]");
    let descriptors = compiler.file_descriptor_set();
    if std::env::var_os("CARGO_FEATURE_GRPC").is_some() {
        tonic_prost_build::configure()
            .build_transport(false)
            .generate_default_stubs(true)
            .compile_fds_with_config(descriptors, config)?;
    } else {
        config.compile_fds(descriptors)?;
    }
    Ok(())
}
