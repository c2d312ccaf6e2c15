//! Who may call what: the one place where every request is judged, before any service sees it.
//!
//! [`table`] says what a method wants; [`identity`] says who calls, also when a manager speaks for another node; [`Gate::judge`]
//! compares, with the leader's store where this manager leads. Refusals are logged once per caller and reason ([`refusals`]).
//! Design: `docs/design/rpc.md`.

use std::sync::Arc;

use hyper::HeaderMap;
use skep_ca::Subject;
use skep_manager::{Handle, Published};
use skep_model::Role;
use tokio::sync::watch;
use tonic::Status;

use crate::{
    convert::{no_leader, not_executed},
    security::Security,
};

pub(crate) mod identity;
pub(crate) mod refusals;
pub(crate) mod table;

use self::{
    identity::Peer,
    refusals::{Reason, Refusals},
    table::{Access, Rule, rule},
};

/// Who a request comes from in the end.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None` for callers without certificate.
    pub(crate) subject: Option<Subject>,
    /// `host:port`, as seen by the first manager.
    pub(crate) addr: String,
    /// Whether another manager passed the request on.
    pub(crate) is_forwarded: bool,
}

/// What services know of a request; in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) caller: Caller,
    /// The manager of this node; `None` while none runs.
    pub(crate) handle: Option<Handle>,
}

/// What to do with a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Serve it here.
    Serve(Rule, Context),
    /// Pass it on to the leader at this address.
    Forward {
        rule: Rule,
        addr: String,
        caller: Caller,
    },
    /// Answer this.
    Refuse(Status),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Gate {
    security: Arc<Security>,
    manager: watch::Receiver<Option<Handle>>,
    pub(crate) refusals: Refusals,
}

impl Gate {
    pub(crate) fn new(security: Arc<Security>, manager: watch::Receiver<Option<Handle>>) -> Self {
        Self {
            security,
            manager,
            refusals: Refusals::default(),
        }
    }

    /// Judges a request for `path` with `headers` from `peer`.
    pub(crate) fn judge(&self, peer: &Peer, path: &str, headers: &HeaderMap) -> Verdict {
        let Some(rule) = rule(path) else {
            return Verdict::Refuse(Status::unimplemented("method is not implemented"));
        };
        let handle = self.manager.borrow().clone();
        let view = handle.as_ref().map(Handle::view);
        let caller = match self.admit(peer, headers, rule.access, view.as_deref()) {
            Ok(caller) => caller,
            Err(reason) => {
                self.refusals.note(peer, path, reason);
                return Verdict::Refuse(Status::permission_denied(reason.to_string()));
            }
        };
        if rule.works_without_manager {
            return Verdict::Serve(rule, Context { caller, handle });
        }
        let (Some(handle), Some(view)) = (handle, view) else {
            return Verdict::Refuse(not_executed("no manager runs on this node"));
        };
        if !rule.is_leaders || view.is_leader {
            let handle = Some(handle);
            return Verdict::Serve(rule, Context { caller, handle });
        }
        let group = Arc::clone(&handle.group().borrow());
        match group.leader() {
            // A forwarded call is never forwarded again: two managers with different opinions would play ping-pong.
            Some(leader) if leader.member.raft_id != group.own && !caller.is_forwarded => {
                let addr = leader.member.addr.clone();
                Verdict::Forward { rule, addr, caller }
            }
            None if rule.works_without_leader => {
                let handle = Some(handle);
                Verdict::Serve(rule, Context { caller, handle })
            }
            Some(_) | None => Verdict::Refuse(no_leader()),
        }
    }

    /// Who calls, if they may.
    fn admit(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        access: Access,
        view: Option<&Published>,
    ) -> Result<Caller, Reason> {
        let direct = peer.subject(&self.security)?;
        let forwarded = identity::forwarded(headers, direct.as_ref())?;
        let (subject, addr, is_forwarded) = match forwarded {
            Some(forwarded) => {
                // Who speaks for others must be a manager in the store's eyes too.
                check_store(direct, Role::Manager, view)?;
                (forwarded.subject, forwarded.addr, true)
            }
            None => (direct, None, false),
        };
        if subject.is_some_and(|subject| subject.cluster_id != self.security.cluster_id()) {
            return Err(Reason::Cluster);
        }
        match access {
            Access::Anyone => check_blacklist(subject, view)?,
            Access::Node => check_store(subject, Role::Worker, view)?,
            Access::Manager => check_store(subject, Role::Manager, view)?,
            Access::Member => {
                check_certificate(subject, Role::Manager)?;
                check_blacklist(subject, view)?;
            }
        }
        Ok(Caller {
            subject,
            addr: addr.unwrap_or_else(|| peer.addr.to_string()),
            is_forwarded,
        })
    }
}

/// Whether the certificate gives at least this role.
fn check_certificate(subject: Option<Subject>, least: Role) -> Result<Subject, Reason> {
    let subject = subject.ok_or(Reason::NoCertificate)?;
    if least == Role::Manager && subject.role != Role::Manager {
        return Err(Reason::Role);
    }
    Ok(subject)
}

/// A removed node's certificate is worth nothing, though it has not expired.
fn check_blacklist(subject: Option<Subject>, view: Option<&Published>) -> Result<(), Reason> {
    let cluster = view.and_then(|view| view.store.cluster());
    let (Some(subject), Some(cluster)) = (subject, cluster) else {
        return Ok(());
    };
    if cluster
        .blacklisted_certificates
        .contains_key(subject.node_id.as_str())
    {
        return Err(Reason::Blacklisted);
    }
    Ok(())
}

/// Whether certificate and, where this manager leads, store give at least this role. A follower's store may lag.
fn check_store(
    subject: Option<Subject>,
    least: Role,
    view: Option<&Published>,
) -> Result<(), Reason> {
    let subject = check_certificate(subject, least)?;
    check_blacklist(Some(subject), view)?;
    let Some(view) = view.filter(|view| view.is_leader) else {
        return Ok(());
    };
    let node = view.store.node(subject.node_id).ok_or(Reason::Unknown)?;
    if least == Role::Manager && node.role != Role::Manager {
        return Err(Reason::Demoted);
    }
    Ok(())
}
