//! Managers that join and leave the raft group. A joining one must answer at the address it names before it counts in any quorum.

use std::{net::SocketAddr, sync::Arc};

use skep_manager::command::Command;
use skep_model::NodeId;
use skep_wire::proto::{
    HealthCheckRequest, JoinRequest, JoinResponse, LeaveRequest, LeaveResponse,
    health_check_response::ServingStatus, health_client::HealthClient, raft_membership_server,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status, async_trait};
use tracing::info;

use crate::{
    channels::Channels,
    convert::status_of_command,
    error::ErrorChain,
    limits::{ADDR_BYTES_MAX, DIAL_BACK_TIMEOUT},
    service::{caller, context, handle},
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Membership {
    channels: Arc<Channels>,
}

impl Membership {
    pub(super) fn new(channels: Arc<Channels>) -> Self {
        Self { channels }
    }

    /// Whether `node_id` itself answers at `addr` and takes raft messages.
    async fn dial_back(&self, node_id: NodeId, addr: &str) -> Result<(), String> {
        let connection = self.channels.get(addr).await;
        let connection = connection.map_err(|error| ErrorChain(&error).to_string())?;
        let peer = connection.peer().map(|peer| peer.subject.node_id);
        if peer != Some(node_id) {
            return Err("another node answers there".to_owned());
        }
        let request = HealthCheckRequest {
            service: "Raft".to_owned(),
        };
        let answer = HealthClient::new(connection).check(request).await;
        let answer = answer.map_err(|status| status.message().to_owned())?;
        if answer.into_inner().status() == ServingStatus::Serving {
            Ok(())
        } else {
            Err("its manager is not ready".to_owned())
        }
    }
}

#[async_trait]
impl raft_membership_server::RaftMembership for Membership {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let node_id = caller(&request)?;
        let from = context(&request)?.caller.addr.clone();
        let handle = handle(&request)?;
        let addr = reachable_addr(&request.into_inner().addr, &from)?;
        // Without a leader nobody is let in: a member that never heard that it is one is only told so.
        if handle.view().is_leader {
            let answered = timeout(DIAL_BACK_TIMEOUT, self.dial_back(node_id, &addr)).await;
            let answered = answered.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            answered.map_err(|reason| {
                Status::failed_precondition(format!(
                    "manager is not reachable at `{addr}`, the address it advertises: {reason}"
                ))
            })?;
        }
        let joined = handle.join(node_id, addr.clone()).await;
        let joined = joined.map_err(status_of_command)?;
        info!(node.id = %node_id, addr, raft.id = joined.raft_id, "Manager joined");
        Ok(Response::new(JoinResponse {
            raft_id: joined.raft_id,
            members: joined.members.iter().map(Into::into).collect(),
            removed_members: joined.removed,
        }))
    }

    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<LeaveResponse>, Status> {
        let node_id = caller(&request)?;
        let handle = handle(&request)?;
        let LeaveRequest { node } = request.into_inner();
        if node.is_some_and(|node| !node.node_id.is_empty() && node.node_id != node_id.as_str()) {
            return Err(Status::permission_denied(
                "a manager leaves for itself only",
            ));
        }
        let left = handle.command(Command::LeaveGroup { node_id }).await;
        left.map_err(status_of_command)?;
        Ok(Response::new(LeaveResponse {}))
    }
}

/// Where others reach the manager that says `wanted`: an unspecified host means the one it calls from.
fn reachable_addr(wanted: &str, from: &str) -> Result<String, Status> {
    let refused = || Status::invalid_argument("address is not of the form `host:port`");
    if wanted.len() > ADDR_BYTES_MAX {
        return Err(refused());
    }
    let (host, port) = wanted.rsplit_once(':').ok_or_else(refused)?;
    let port: u16 = port.parse().map_err(|_| refused())?;
    let is_unspecified = match wanted.parse::<SocketAddr>() {
        Ok(addr) => addr.ip().is_unspecified(),
        Err(_) => host.is_empty(),
    };
    if port == 0 {
        return Err(refused());
    }
    if !is_unspecified {
        return Ok(wanted.to_owned());
    }
    let from: SocketAddr = from.parse().map_err(|_| refused())?;
    Ok(SocketAddr::new(from.ip(), port).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: &str, expect: Option<&str>) {
        let found = reachable_addr(wanted, "192.0.2.7:50000").ok();
        assert_eq!(found.as_deref(), expect, "{wanted}");
    }

    #[test]
    fn an_unspecified_host_is_the_one_the_manager_calls_from() {
        check("0.0.0.0:2377", Some("192.0.2.7:2377"));
        check("[::]:2377", Some("192.0.2.7:2377"));
        check(":2377", Some("192.0.2.7:2377"));
        check("192.0.2.8:2377", Some("192.0.2.8:2377"));
        check("manager-1:2377", Some("manager-1:2377"));
        check("192.0.2.8", None);
        check("192.0.2.8:0", None);
        check("192.0.2.8:99999", None);
        check("", None);
    }
}
