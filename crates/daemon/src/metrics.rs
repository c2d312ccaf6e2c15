//! Metrics for Prometheus, on an address of their own (`metrics-addr`, off by default as Docker's).
//!
//! Names are Docker's where Docker has them (`swarm_manager_*`, `swarm_node_*`); Skep's own begin with
//! `skep_`. Everything is read when it is asked for: nothing is counted here.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
    },
    registry::Registry,
};
use skep_executor::dataplane::{Carried, NetworkSummary, Status};
use skep_manager::Published;
use skep_model::{NodeState, Reachability, TaskState, reserved::service::rollout};
use skep_network::plane::Traffic;
use skep_rpc::Counters;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::swarm::Swarm;

/// Scrapers at one time; there are one or two.
const CONNECTIONS_MAX: usize = 16;
/// Longest wait for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// What Prometheus asks for.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Label = [(&'static str, String); 1];
/// What is counted of a network.
type Count = fn(&NetworkSummary) -> usize;
/// The same of what it carried.
type Carry = fn(&Traffic) -> u64;

/// What is told.
struct Facts {
    networks: Arc<Status>,
    carried: Carried,
    node_id: Option<String>,
    cluster_id: Option<String>,
    manager: Option<ManagerFacts>,
}

struct ManagerFacts {
    view: Arc<Published>,
    port: Counters,
}

/// Listens where the operator wants, if anywhere.
///
/// # Errors
/// The address cannot be bound.
pub(crate) async fn bind(addr: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(addr) = addr else { return Ok(None) };
    let listener = TcpListener::bind(addr).await;
    let listener = listener.with_context(|| format!("failed to bind `{addr}` for metrics"))?;
    Ok(Some(listener))
}

/// Serves `GET /metrics` until told to stop.
pub(crate) async fn serve(listener: TcpListener, swarm: Arc<Swarm>, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (swarm, shutdown) = (Arc::clone(&swarm), shutdown.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let swarm = Arc::clone(&swarm);
                async move { Ok::<_, Infallible>(answer(&request, &swarm).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A scraper that goes away is its own business.
            let _ = shutdown.run_until_cancelled(connection).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn answer(request: &Request<Incoming>, swarm: &Swarm) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match render(&facts(swarm).await) {
            Ok(text) => (StatusCode::OK, CONTENT_TYPE, text),
            Err(error) => {
                warn!(error = %error, "Failed to write metrics");
                let text = "failed to write metrics\n".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", text)
            }
        },
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "only GET /metrics is here\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn facts(swarm: &Swarm) -> Facts {
    let carried = swarm.engine().dataplane().carried().await;
    let member = swarm.member();
    let identity = member.as_ref().map(|member| member.identity());
    let manager = member.and_then(|member| member.manager());
    let status = swarm.engine().dataplane().status();
    let networks = Arc::clone(&status.borrow());
    Facts {
        networks,
        carried,
        node_id: identity.as_ref().map(|of| of.node_id.to_string()),
        cluster_id: identity.as_ref().map(|of| of.cluster_id.to_string()),
        manager: manager.map(|active| ManagerFacts {
            view: active.handle.view(),
            port: active.port.counters(),
        }),
    }
}

/// The text of a scrape.
fn render(facts: &Facts) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    let is_manager = gauge(
        &mut registry,
        "swarm_node_manager",
        "Whether this node is a manager",
    );
    is_manager.set(i64::from(facts.manager.is_some()));
    if let (Some(node_id), Some(swarm_id)) = (&facts.node_id, &facts.cluster_id) {
        let info = Family::<Vec<(&str, String)>, Gauge>::default();
        registry.register(
            "swarm_node_info",
            "Ids of this node and its cluster",
            info.clone(),
        );
        let ids = vec![("swarm_id", swarm_id.clone()), ("node_id", node_id.clone())];
        info.get_or_create(&ids).set(1);
    }
    networks(&mut registry, &facts.networks);
    paths(&mut registry, &facts.networks);
    carried(&mut registry, &facts.carried);
    if let Some(manager) = &facts.manager {
        cluster(&mut registry, &manager.view);
        port(&mut registry, &manager.port);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// What the node's data plane is doing.
fn networks(registry: &mut Registry, status: &Status) {
    let index = gauge(
        registry,
        "skep_dataplane_directory_index",
        "Raft entry that the node's view of the cluster's networks is of",
    );
    index.set(i64::try_from(status.index.unwrap_or(0)).unwrap_or(i64::MAX));
    let problems = gauge(
        registry,
        "skep_dataplane_problems",
        "What of the node's networks could not be done or works less well than it should",
    );
    problems.set(saturated(status.problems.len()));
    let counts: [(&str, &str, Count); 3] = [
        (
            "skep_network_containers",
            "Containers of this node on a network",
            |network| network.container_count,
        ),
        (
            "skep_network_remotes",
            "Containers of other nodes on a network",
            |network| network.remote_count,
        ),
        (
            "skep_network_services",
            "Services with a virtual address on a network",
            |network| network.service_count,
        ),
    ];
    for (name, help, count) in counts {
        let family = Family::<Label, Gauge>::default();
        registry.register(name, help, family.clone());
        for (network, summary) in &status.networks {
            let label = [("network", network.clone())];
            family.get_or_create(&label).set(saturated(count(summary)));
        }
    }
}

/// What the paths to other nodes carry. A node that answers no echo request has no `found`.
fn paths(registry: &mut Registry, status: &Status) {
    let [needed, found] = [
        (
            "skep_path_mtu_needed_bytes",
            "Largest packets this node sends to another's data-path address",
        ),
        (
            "skep_path_mtu_found_bytes",
            "Largest packets that arrive there, as far as they are needed",
        ),
    ]
    .map(|(name, help)| {
        let family = Family::<Label, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    });
    for (node, path) in &status.paths {
        let label = [("node", node.to_string())];
        needed.get_or_create(&label).set(i64::from(path.needed));
        if let Some(bytes) = path.found {
            found.get_or_create(&label).set(i64::from(bytes));
        }
    }
}

/// What networks, services and published ports carried.
fn carried(registry: &mut Registry, carried: &Carried) {
    let counts: [(&str, &str, Carry); 4] = [
        (
            "skep_network_sent_packets",
            "Packets from this node's containers to a network",
            |traffic| traffic.sent_packets,
        ),
        (
            "skep_network_sent_bytes",
            "Bytes from this node's containers to a network",
            |traffic| traffic.sent_bytes,
        ),
        (
            "skep_network_received_packets",
            "Packets to this node's containers from a network",
            |traffic| traffic.received_packets,
        ),
        (
            "skep_network_received_bytes",
            "Bytes to this node's containers from a network",
            |traffic| traffic.received_bytes,
        ),
    ];
    for (name, help, count) in counts {
        let family = Family::<Label, Counter>::default();
        registry.register(name, help, family.clone());
        for (network, traffic) in &carried.networks {
            let label = [("network", network.clone())];
            family.get_or_create(&label).inc_by(count(traffic));
        }
    }
    let services = Family::<Vec<(&str, String)>, Counter>::default();
    registry.register(
        "skep_service_connections",
        "Connections of this node's containers to a service's virtual address",
        services.clone(),
    );
    for ((network, service), count) in &carried.services {
        let labels = vec![("network", network.clone()), ("service", service.clone())];
        services.get_or_create(&labels).inc_by(*count);
    }
    let ports = Family::<Vec<(&str, String)>, Counter>::default();
    registry.register(
        "skep_published_connections",
        "Connections to a published port that this node was asked for",
        ports.clone(),
    );
    for ((service, port), count) in &carried.ports {
        let mut labels = vec![("service", service.clone())];
        if let Some(port) = port {
            labels.push(("port", port.port.to_string()));
            labels.push(("protocol", port.protocol.to_string()));
            labels.extend(port.address.map(|ip| ("address", ip.to_string())));
        }
        ports.get_or_create(&labels).inc_by(*count);
    }
}

/// What the committed state says.
fn cluster(registry: &mut Registry, view: &Published) {
    let store = &view.store;
    let leads = gauge(
        registry,
        "swarm_manager_leader",
        "Whether this manager leads",
    );
    leads.set(i64::from(view.is_leader));
    let count = gauge(registry, "swarm_manager_services_total", "Services");
    count.set(saturated(store.service_count()));
    let nodes = store.nodes().map(|node| node.status.state);
    by_state(
        registry,
        ("swarm_manager_nodes", "Nodes by state"),
        &NODE_STATES,
        nodes,
    );
    let names = TaskState::ALL.map(|state| (state, state.name()));
    let tasks = store.tasks().map(|task| task.status.state);
    by_state(
        registry,
        ("swarm_manager_tasks_total", "Tasks by state"),
        &names,
        tasks,
    );
    let looping = store.tasks();
    let looping = looping
        .filter(|task| task.desired_state <= TaskState::Running && rollout::is_crash_looping(task));
    let count = gauge(
        registry,
        "skep_manager_crash_looping_tasks",
        "Tasks started late because those before them failed quickly",
    );
    count.set(saturated(looping.count()));
    let about = (
        "skep_raft_members",
        "Managers by reachability, as this one knows it",
    );
    let members = view.group.members.values();
    let members = members.map(|status| status.reachability);
    by_state(registry, about, &REACHABILITIES, members);
    let index = gauge(
        registry,
        "skep_raft_applied_index",
        "Last raft entry applied",
    );
    index.set(i64::try_from(view.index).unwrap_or(i64::MAX));
    let fault = gauge(
        registry,
        "skep_raft_fault",
        "Whether the raft log cannot be written",
    );
    fault.set(i64::from(view.fault.is_some()));
}

/// What happened at port 2377.
fn port(registry: &mut Registry, counters: &Counters) {
    let counts = [
        (
            "connections",
            "Connections past their handshake",
            counters.connections,
        ),
        (
            "handshakes_failed",
            "Handshakes that failed, took too long or were turned away",
            counters.handshakes_failed,
        ),
        (
            "requests",
            "Requests served or passed on",
            counters.requests,
        ),
        (
            "forwarded",
            "Requests passed on to the leader",
            counters.forwarded,
        ),
        (
            "refused",
            "Requests refused because of who called",
            counters.refused,
        ),
    ];
    for (name, help, count) in counts {
        registry.register(format!("skep_port_{name}"), help, ConstCounter::new(count));
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// A gauge for each named state, also for those that nothing is in.
fn by_state<S: PartialEq>(
    registry: &mut Registry,
    (name, help): (&str, &str),
    names: &[(S, &str)],
    states: impl Iterator<Item = S>,
) {
    let mut counts = vec![0; names.len()];
    for state in states {
        if let Some(index) = names.iter().position(|(named, _)| *named == state) {
            counts[index] += 1;
        }
    }
    let family = Family::<Label, Gauge>::default();
    registry.register(name, help, family.clone());
    for ((_, name), count) in names.iter().zip(counts) {
        let label = [("state", (*name).to_owned())];
        family.get_or_create(&label).set(saturated(count));
    }
}

fn saturated(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

const NODE_STATES: [(NodeState, &str); 4] = [
    (NodeState::Unknown, "unknown"),
    (NodeState::Down, "down"),
    (NodeState::Ready, "ready"),
    (NodeState::Disconnected, "disconnected"),
];

const REACHABILITIES: [(Reachability, &str); 3] = [
    (Reachability::Unknown, "unknown"),
    (Reachability::Unreachable, "unreachable"),
    (Reachability::Reachable, "reachable"),
];
