//! Whether this node's manager takes raft messages. A manager that is about to join counts: the leader asks before it lets it in.

use std::sync::Arc;

use skep_model::Role;
use skep_wire::proto::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{security::Security, service::context};

/// The service SwarmKit asks for.
const RAFT: &str = "Raft";

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Health {
    security: Arc<Security>,
}

impl Health {
    pub(super) fn new(security: Arc<Security>) -> Self {
        Self { security }
    }
}

#[async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let is_running = context(&request)?.handle.is_some();
        let service = request.into_inner().service;
        if service != RAFT && !service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        let status = if is_running || self.security.role() == Role::Manager {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        let status = status.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }
}
