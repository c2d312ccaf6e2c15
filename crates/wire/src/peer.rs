//! The messages of package `skep.v1`, generated from `proto/` by `build.rs`.

#![expect(
    clippy::all,
    unused_qualifications,
    missing_docs,
    reason = "generated code; the .proto files are its documentation"
)]

include!(concat!(env!("OUT_DIR"), "/skep.v1.rs"));
