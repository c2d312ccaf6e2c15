//! The messages of package `skep.v1`, generated from `proto/` by `build.rs`.

#![cfg_attr(
    feature = "grpc",
    expect(unused_qualifications, reason = "generated clients and servers")
)]
#![expect(
    clippy::all,
    missing_docs,
    reason = "generated code; the .proto files are its documentation"
)]
#![cfg_attr(
    feature = "grpc",
    expect(
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated code of the services"
    )
)]

include!(concat!(env!("OUT_DIR"), "/skep.v1.rs"));
