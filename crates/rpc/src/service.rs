//! The services of port 2377, one file each. Who may call was decided by the gate, which leaves its [`Context`] in the request.

use std::sync::Arc;

use hyper::{Request, Response};
use skep_manager::Handle;
use skep_model::NodeId;
use skep_wire::{
    peer::{
        directory_server::DirectoryServer, errands_server::ErrandsServer,
        log_reading_server::LogReadingServer, peer_server::PeerServer, stacks_server::StacksServer,
    },
    proto::{
        ca_server::CaServer, control_server::ControlServer, dispatcher_server::DispatcherServer,
        health_server::HealthServer, log_broker_server::LogBrokerServer, logs_server::LogsServer,
        node_ca_server::NodeCaServer, raft_membership_server::RaftMembershipServer,
        raft_server::RaftServer,
    },
};
use tonic::{Status, body::Body};
use tower::Service as _;

use crate::{
    channels::Channels,
    convert::not_executed,
    gate::{Context, table::Service},
    limits::REQUEST_BYTES_MAX,
};

mod ca;
mod control;
mod directory;
mod dispatcher;
mod errands;
mod health;
mod log_broker;
mod membership;
mod node_ca;
mod peer;
mod raft;
mod stacks;

pub(crate) use self::raft::{REMOVED, SENDER_ADDR};

/// All services, each cheap to clone.
#[derive(Debug)]
pub(crate) struct Services {
    ca: CaServer<ca::Ca>,
    node_ca: NodeCaServer<node_ca::NodeCa>,
    dispatcher: DispatcherServer<dispatcher::Dispatcher>,
    membership: RaftMembershipServer<membership::Membership>,
    raft: RaftServer<raft::Raft>,
    health: HealthServer<health::Health>,
    control: ControlServer<control::Control>,
    peer: PeerServer<peer::Peer>,
    directory: DirectoryServer<directory::Directory>,
    stacks: StacksServer<stacks::Stacks>,
    log_broker: LogBrokerServer<log_broker::LogBroker>,
    logs: LogsServer<log_broker::LogBroker>,
    log_reading: LogReadingServer<log_broker::LogBroker>,
    errands: ErrandsServer<errands::Errands>,
}

impl Services {
    pub(crate) fn new(channels: Arc<Channels>) -> Self {
        const MAX: usize = REQUEST_BYTES_MAX;
        let security = Arc::clone(channels.security());
        let broker = log_broker::LogBroker::default();
        Self {
            ca: CaServer::new(ca::Ca).max_decoding_message_size(MAX),
            node_ca: NodeCaServer::new(node_ca::NodeCa).max_decoding_message_size(MAX),
            dispatcher: DispatcherServer::new(dispatcher::Dispatcher::default())
                .max_decoding_message_size(MAX),
            membership: RaftMembershipServer::new(membership::Membership::new(channels))
                .max_decoding_message_size(MAX),
            raft: RaftServer::new(raft::Raft::default()).max_decoding_message_size(MAX),
            health: HealthServer::new(health::Health::new(security)).max_decoding_message_size(MAX),
            control: ControlServer::new(control::Control).max_decoding_message_size(MAX),
            peer: PeerServer::new(peer::Peer).max_decoding_message_size(MAX),
            directory: DirectoryServer::new(directory::Directory).max_decoding_message_size(MAX),
            stacks: StacksServer::new(stacks::Stacks).max_decoding_message_size(MAX),
            log_broker: LogBrokerServer::new(broker.clone()).max_decoding_message_size(MAX),
            logs: LogsServer::new(broker.clone()).max_decoding_message_size(MAX),
            log_reading: LogReadingServer::new(broker).max_decoding_message_size(MAX),
            errands: ErrandsServer::new(errands::Errands::default()).max_decoding_message_size(MAX),
        }
    }

    /// Answers a request the gate let through.
    pub(crate) async fn call(&self, service: Service, request: Request<Body>) -> Response<Body> {
        let answer = match service {
            Service::Ca => self.ca.clone().call(request).await,
            Service::NodeCa => self.node_ca.clone().call(request).await,
            Service::Dispatcher => self.dispatcher.clone().call(request).await,
            Service::RaftMembership => self.membership.clone().call(request).await,
            Service::Raft => self.raft.clone().call(request).await,
            Service::Health => self.health.clone().call(request).await,
            Service::Control => self.control.clone().call(request).await,
            Service::Peer => self.peer.clone().call(request).await,
            Service::Directory => self.directory.clone().call(request).await,
            Service::Stacks => self.stacks.clone().call(request).await,
            Service::LogBroker => self.log_broker.clone().call(request).await,
            Service::Logs => self.logs.clone().call(request).await,
            Service::Errands => self.errands.clone().call(request).await,
            Service::LogReading => self.log_reading.clone().call(request).await,
        };
        match answer {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What the gate knows of a request.
fn context<T>(request: &tonic::Request<T>) -> Result<&Context, Status> {
    let context = request.extensions().get::<Context>();
    context.ok_or_else(|| Status::internal("request did not pass the gate"))
}

/// The manager the gate decided with.
fn handle<T>(request: &tonic::Request<T>) -> Result<Handle, Status> {
    let handle = context(request)?.handle.clone();
    handle.ok_or_else(|| not_executed("no manager runs on this node"))
}

/// The node that calls.
fn caller<T>(request: &tonic::Request<T>) -> Result<NodeId, Status> {
    let subject = context(request)?.caller.subject;
    let subject = subject.ok_or_else(|| Status::permission_denied("no client certificate"))?;
    Ok(subject.node_id)
}
