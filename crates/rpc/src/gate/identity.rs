//! Who is at the other end of a connection, and whom a manager speaks for when it passes a call on.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, http::HeaderValue};
use rustls_pki_types::CertificateDer;
use skep_ca::{NodeCertificate, Subject};
use skep_model::Role;

use crate::{
    gate::{Caller, refusals::Reason},
    limits::ADDR_BYTES_MAX,
    security::{Security, now},
};

/// SwarmKit's metadata of a forwarded call.
const FORWARDED: &str = "forwarded_cert";
const COMMON_NAME: &str = "forwarded_cert_cn";
const ORGANIZATION: &str = "forwarded_cert_org";
const UNIT: &str = "forwarded_cert_ou";
const REMOTE_ADDR: &str = "remote_addr";
const ALL: [&str; 5] = [FORWARDED, COMMON_NAME, ORGANIZATION, UNIT, REMOTE_ADDR];

const MANAGER_UNIT: &str = "swarm-manager";
const WORKER_UNIT: &str = "swarm-worker";

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    pub(crate) certificate: Option<NodeCertificate>,
    /// As it was presented; empty without certificate.
    chain: Vec<CertificateDer<'static>>,
    /// The identity of ours under whose roots the chain was last verified.
    generation: AtomicU64,
}

/// Whom a manager speaks for.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) subject: Option<Subject>,
    pub(crate) addr: Option<String>,
}

// === impl Peer ===

impl Peer {
    /// The peer of a connection made under the identity of ours that `generation` names; TLS has verified `chain`.
    pub(crate) fn new(
        addr: SocketAddr,
        chain: Vec<CertificateDer<'static>>,
        generation: u64,
    ) -> Result<Self, skep_ca::CertificateError> {
        let certificate = chain.first().map(|leaf| NodeCertificate::from_der(leaf));
        Ok(Self {
            addr,
            certificate: certificate.transpose()?,
            chain,
            generation: AtomicU64::new(generation),
        })
    }

    /// Whose certificate it is, if it holds now: connections outlive certificates and roots.
    pub(crate) fn subject(&self, security: &Security) -> Result<Option<Subject>, Reason> {
        let Some(certificate) = &self.certificate else {
            return Ok(None);
        };
        if now() > certificate.not_after {
            return Err(Reason::Expired);
        }
        let generation = security.current().generation;
        if self.generation.load(Ordering::Relaxed) != generation {
            if !security.still_trusts(&self.chain_pem()) {
                return Err(Reason::Untrusted);
            }
            self.generation.store(generation, Ordering::Relaxed);
        }
        Ok(Some(certificate.subject))
    }

    fn chain_pem(&self) -> String {
        let pem = |der: &CertificateDer<'_>| {
            let body = STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        self.chain.iter().map(pem).collect()
    }
}

/// Whom the caller `direct` speaks for; `None` when for itself. Only managers may speak for others.
pub(crate) fn forwarded(
    headers: &HeaderMap,
    direct: Option<&Subject>,
) -> Result<Option<Forwarded>, Reason> {
    if ALL.iter().all(|name| !headers.contains_key(*name)) {
        return Ok(None);
    }
    if direct.is_none_or(|subject| subject.role != Role::Manager) {
        return Err(Reason::Spoofed);
    }
    if only(headers, FORWARDED)? != Some("true") {
        return Err(Reason::Malformed);
    }
    let name = only(headers, COMMON_NAME)?.unwrap_or_default();
    let organization = only(headers, ORGANIZATION)?.unwrap_or_default();
    let units = headers.get_all(UNIT).iter().map(HeaderValue::to_str);
    let units: Result<Vec<_>, _> = units.collect();
    let units = units.map_err(|_| Reason::Malformed)?;
    let addr = only(headers, REMOTE_ADDR)?.filter(|addr| !addr.is_empty());
    if addr.is_some_and(|addr| addr.len() > ADDR_BYTES_MAX) {
        return Err(Reason::Malformed);
    }
    let addr = addr.map(str::to_owned);
    let has_unit = units.iter().any(|unit| !unit.is_empty());
    if name.is_empty() && organization.is_empty() && !has_unit {
        let subject = None;
        return Ok(Some(Forwarded { subject, addr }));
    }
    let role = if units.contains(&MANAGER_UNIT) {
        Role::Manager
    } else if units.contains(&WORKER_UNIT) {
        Role::Worker
    } else {
        return Err(Reason::Malformed);
    };
    let subject = Subject {
        node_id: name.parse().map_err(|_| Reason::Malformed)?,
        role,
        cluster_id: organization.parse().map_err(|_| Reason::Malformed)?,
    };
    let subject = Some(subject);
    Ok(Some(Forwarded { subject, addr }))
}

/// Writes the metadata that says for whom this manager speaks; blank when the caller has no certificate, so that the call can
/// never be taken for this manager's own.
pub(crate) fn speak_for(caller: &Caller, headers: &mut HeaderMap) {
    for name in ALL {
        headers.remove(name);
    }
    let (name, organization, unit) = match &caller.subject {
        None => ("", "", ""),
        Some(subject) => {
            let unit = match subject.role {
                Role::Manager => MANAGER_UNIT,
                Role::Worker => WORKER_UNIT,
            };
            (subject.node_id.as_str(), subject.cluster_id.as_str(), unit)
        }
    };
    let fields = [
        (FORWARDED, "true"),
        (COMMON_NAME, name),
        (ORGANIZATION, organization),
        (UNIT, unit),
        (REMOTE_ADDR, &caller.addr),
    ];
    for (field, value) in fields {
        // Ids and addresses have only printable characters; anything else is left blank.
        let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
        headers.insert(field, value);
    }
}

/// The only value of a field.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Reason> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Reason::Malformed);
    }
    first.to_str().map(Some).map_err(|_| Reason::Malformed)
}

#[cfg(test)]
mod tests;
