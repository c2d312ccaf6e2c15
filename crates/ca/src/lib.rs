//! The cluster's certificate authority and the secrets around it. Design: `docs/design/ca.md`.
//!
//! [`RootCa`] issues certificates for a [`Subject`]; [`KeyRequest`] and [`CertificateDir`] are a node's side; [`JoinToken`] and
//! [`UnlockKey`] are what users copy. Formats are `SwarmKit`'s. The crate opens no sockets and decides nothing: who may join,
//! when to renew and when to rotate are the manager's and the agent's business. Time is an argument.

mod base36;
mod join_token;
mod unlock_key;

mod certificate;
mod request;
mod root;

mod certificate_dir;

pub use crate::{
    certificate::{
        CertificateError, NodeCertificate, Subject, renewal_time, tls_info, verify_chain,
    },
    certificate_dir::{CertificateDir, FileError, Identity},
    join_token::{InvalidJoinToken, JoinToken, SECRET_BYTES, bundle_hash, is_same_secret},
    request::{KeyRequest, PublicKey, RequestError},
    root::{LIFETIME_DEFAULT, LIFETIME_MIN, RootCa, RootError},
    unlock_key::{InvalidUnlockKey, UnlockKey},
};
