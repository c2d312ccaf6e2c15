//! The cluster's certificate authority and the secrets around it. Design: `docs/design/ca.md`.
//!
//! [`RootCa`] issues certificates for a [`Subject`]; [`KeyRequest`] and [`CertificateDir`] are a node's side; [`JoinToken`] and
//! [`UnlockKey`] are what users copy. Formats are `SwarmKit`'s. The crate opens no sockets and decides nothing: who may join,
//! when to renew and when to rotate are the manager's and the agent's business. Time is an argument.

mod base36;
mod der;
mod join_token;
mod pem_text;
mod unlock_key;

mod certificate;
mod cross_sign;
mod request;
mod root;
mod rotation;
mod signer;
mod tls;

mod certificate_dir;
mod sealed_key;

pub use crate::{
    certificate::{
        CertificateError, Issuer, NodeCertificate, Subject, issuer, renewal_time, tls_info,
        verify_chain,
    },
    certificate_dir::{CertificateDir, FileError, Identity, Lock, ResealError},
    join_token::{InvalidJoinToken, JoinToken, SECRET_BYTES, bundle_hash, is_same_secret},
    pem_text::normalize_certificates,
    request::{KeyRequest, PublicKey, RequestError},
    root::{LIFETIME_DEFAULT, LIFETIME_MIN, RootCa, RootError},
    rotation::{RotationError, rotation},
    signer::{SignError, Signer},
    unlock_key::{InvalidUnlockKey, UnlockKey},
};
