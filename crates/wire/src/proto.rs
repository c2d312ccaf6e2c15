//! The messages of package `docker.swarmkit.v1`, generated from `proto/` by `build.rs`.

#![expect(
    clippy::all,
    unused_qualifications,
    missing_docs,
    reason = "generated code; the .proto files are its documentation"
)]

include!(concat!(env!("OUT_DIR"), "/docker.swarmkit.v1.rs"));
