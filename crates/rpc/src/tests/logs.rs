//! Logs: from several nodes to any manager, with nodes missing, and lines of others refused.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use skep_agent::dispatcher::DispatcherClient as _;
use skep_manager::command::Code;
use skep_model::{NodeDescription, NodeId, Rng, TaskId, Timestamp, dispatch::SessionRequest};
use skep_wire::proto::{PublishLogsMessage, log_broker_client::LogBrokerClient};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::rig::{Founder, PATIENCE, client, connect};
use crate::{
    RemoteDispatcher, Security,
    logs::{self, LogEvent, LogMessage, LogOptions, LogSelector, LogSource, LogStream},
};

/// A node whose only task has written so many lines, and writes more when told.
struct Writer {
    node_id: NodeId,
    task_id: TaskId,
    lines: watch::Sender<u64>,
}

impl Writer {
    fn new(security: &Security, count: u64) -> Arc<Self> {
        Arc::new(Self {
            node_id: security.node_id(),
            task_id: TaskId::random(&mut Rng::from_seed(5)),
            lines: watch::Sender::new(count),
        })
    }
}

impl LogSource for Writer {
    fn read(
        &self,
        _selector: LogSelector,
        options: LogOptions,
    ) -> Pin<Box<dyn Stream<Item = LogEvent> + Send>> {
        let (node_id, task_id) = (self.node_id, self.task_id);
        let first = options
            .since
            .map_or(0, |since| since.0.max(0).cast_unsigned());
        let line = move |number: u64| LogMessage {
            service_id: None,
            node_id,
            task_id,
            time: Timestamp(number.cast_signed()),
            is_stderr: number % 2 == 1,
            data: format!("line {number}\n").into(),
            attributes: Vec::new(),
        };
        let state = (first, !options.follow, self.lines.subscribe());
        Box::pin(futures_util::stream::unfold(
            state,
            move |(next, has_caught_up, mut count)| async move {
                if next >= *count.borrow() && !options.follow {
                    return None;
                }
                if next >= *count.borrow() && !has_caught_up {
                    return Some((LogEvent::CaughtUp, (next, true, count)));
                }
                count.wait_for(|count| next < *count).await.ok()?;
                let event = LogEvent::Lines(vec![line(next)]);
                Some((event, (next + 1, has_caught_up, count)))
            },
        ))
    }
}

/// A worker that listens.
fn serve(security: &Arc<Security>, addr: &str, writer: &Arc<Writer>) -> JoinHandle<()> {
    let source: Arc<dyn LogSource> = Arc::clone(writer) as _;
    tokio::spawn(logs::serve(
        client(security, addr),
        source,
        CancellationToken::new(),
    ))
}

fn options(follow: bool) -> LogOptions {
    LogOptions {
        stdout: true,
        stderr: true,
        follow,
        tail: None,
        since: None,
        until: None,
    }
}

fn of_nodes(nodes: &[&Arc<Security>]) -> LogSelector {
    LogSelector {
        nodes: nodes.iter().map(|node| node.node_id()).collect(),
        ..LogSelector::default()
    }
}

/// The next so many lines of a node.
async fn read(stream: &mut LogStream, count: usize) -> Vec<LogMessage> {
    let read = async {
        let mut lines = Vec::new();
        while lines.len() < count {
            lines.extend(stream.recv().await.unwrap().unwrap());
        }
        lines
    };
    timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_all_nodes_reach_a_reader_at_a_follower_and_end() {
    let founder = Founder::start().await;
    let follower = founder.manager().await;
    let (one, two) = (founder.worker().await, founder.worker().await);
    // More than fit into all queues on the way.
    let writers = [Writer::new(&one, 5000), Writer::new(&two, 3)];
    let addr = follower.addr.to_string();
    let _one = serve(&one, &addr, &writers[0]);
    let _two = serve(&two, &founder.addr(), &writers[1]);
    let cluster = follower.cluster();
    let selector = of_nodes(&[&one, &two]);
    let mut stream = cluster.logs(selector, options(false)).await.unwrap();
    let lines = read(&mut stream, 5003).await;
    let order = lines.iter().map(|line| (line.time, line.node_id));
    assert!(order.is_sorted(), "by time, over both nodes");
    for (node, count) in [(&one, 5000), (&two, 3)] {
        let of_node = lines.iter().filter(|line| line.node_id == node.node_id());
        let times: Vec<i64> = of_node.map(|line| line.time.0).collect();
        assert_eq!(
            times,
            (0..count).collect::<Vec<i64>>(),
            "in order, each once"
        );
    }
    let end = timeout(PATIENCE, stream.recv()).await.unwrap();
    assert_eq!(end, None, "a clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_logs_gets_new_lines_and_misses_none_when_a_node_returns() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let writer = Writer::new(&worker, 2);
    let addr = founder.addr();
    let cluster = founder.node.cluster();
    let serving = serve(&worker, &addr, &writer);
    let selector = of_nodes(&[&worker]);
    let mut stream = cluster.logs(selector, options(true)).await.unwrap();
    let mut times: Vec<i64> = Vec::new();
    let mut take = async |count| {
        times.extend(
            read(&mut stream, count)
                .await
                .iter()
                .map(|line| line.time.0),
        );
    };
    take(2).await;
    writer.lines.send_replace(4);
    take(2).await;
    serving.abort();
    writer.lines.send_replace(6);
    let serving = serve(&worker, &addr, &writer);
    take(2).await;
    assert_eq!(times, [0, 1, 2, 3, 4, 5]);
    drop(stream);
    // The node is told that nobody reads any more.
    let poll = async {
        while writer.lines.receiver_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_listen_is_named_at_the_end() {
    let founder = Founder::start().await;
    let (here, away) = (founder.worker().await, founder.worker().await);
    let writer = Writer::new(&here, 3);
    let _serving = serve(&here, &founder.addr(), &writer);
    let cluster = founder.node.cluster();
    let selector = of_nodes(&[&here, &away]);
    let mut stream = cluster.logs(selector, options(false)).await.unwrap();
    read(&mut stream, 3).await;
    let end = timeout(PATIENCE, stream.recv()).await.unwrap().unwrap();
    let error = end.unwrap_err();
    assert_eq!(error.code, Code::Unknown);
    let name = away.node_id().to_string();
    assert!(error.message.contains("incomplete log stream"), "{error}");
    assert!(error.message.contains(&name), "{error}");
    assert!(!error.message.contains(here.node_id().as_str()), "{error}");
}

/// A reader that stops reading must not hold up what else goes over the same connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_reads_nothing_stops_no_heartbeat() {
    let founder = Founder::start().await;
    let follower = founder.manager().await;
    let worker = founder.worker().await;
    // More than all windows on the way together.
    let writer = Writer::new(&worker, u64::MAX);
    let addr = follower.addr.to_string();
    let client = client(&worker, &addr);
    let source: Arc<dyn LogSource> = Arc::clone(&writer) as _;
    let serving = logs::serve(client.clone(), source, CancellationToken::new());
    let _serving = tokio::spawn(serving);
    let selector = of_nodes(&[&worker]);
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut reader = follower
            .cluster()
            .logs(selector.clone(), options(false))
            .await
            .unwrap();
        read(&mut reader, 1).await;
        readers.push(reader);
    }
    let dispatcher = RemoteDispatcher::new(client);
    let request = SessionRequest {
        description: NodeDescription::default(),
        session_id: None,
    };
    let mut session = dispatcher.session(request).await.unwrap();
    let session_id = session.recv().await.unwrap().unwrap().session_id;
    let beat = skep_model::dispatch::HeartbeatRequest { session_id };
    // Until the lines stand still on every connection, and then some.
    let mut before = usize::MAX;
    let poll = async {
        loop {
            dispatcher.heartbeat(beat).await.unwrap();
            let waiting = readers.iter().map(|reader| reader.len()).sum();
            if waiting == before && readers.iter().all(|reader| reader.capacity() == 0) {
                break;
            }
            before = waiting;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap();
    for _ in 0..20 {
        timeout(PATIENCE, dispatcher.heartbeat(beat))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_publishes_its_own_lines_only_and_only_where_it_was_asked() {
    let founder = Founder::start().await;
    let (asked, stranger) = (founder.worker().await, founder.worker().await);
    let cluster = founder.node.cluster();
    let mut broker = LogBrokerClient::new(connect(&asked, &founder.addr()).await);
    let mut subscriptions = broker
        .listen_subscriptions(skep_wire::proto::ListenSubscriptionsRequest {})
        .await
        .unwrap()
        .into_inner();
    let selector = of_nodes(&[&asked]);
    let mut stream = cluster.logs(selector, options(true)).await.unwrap();
    let subscription = subscriptions.message().await.unwrap().unwrap();
    let line = LogMessage {
        service_id: None,
        node_id: stranger.node_id(),
        task_id: TaskId::random(&mut Rng::from_seed(1)),
        time: Timestamp(1),
        is_stderr: false,
        data: "forged\n".into(),
        attributes: Vec::new(),
    };
    let batch = PublishLogsMessage {
        subscription_id: subscription.id,
        messages: vec![line.into()],
        close: false,
    };
    let forged = broker.publish_logs(tokio_stream::once(batch.clone())).await;
    assert_eq!(forged.unwrap_err().code(), tonic::Code::PermissionDenied);
    let mut broker = LogBrokerClient::new(connect(&stranger, &founder.addr()).await);
    let not_asked = broker.publish_logs(tokio_stream::once(batch)).await;
    assert_eq!(not_asked.unwrap_err().code(), tonic::Code::NotFound);
    assert!(stream.try_recv().is_err(), "nothing reached the reader");
    let nobody = cluster.logs(LogSelector::default(), options(false)).await;
    let mut nobody = nobody.map_err(|error| error.code);
    let code = match &mut nobody {
        Ok(stream) => stream.recv().await.unwrap().unwrap_err().code,
        Err(code) => *code,
    };
    assert_eq!(code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_one_node_is_nothing_to_another() {
    let founder = Founder::start().await;
    let (owner, thief) = (founder.worker().await, founder.worker().await);
    let request = || SessionRequest {
        description: NodeDescription::default(),
        session_id: None,
    };
    let dispatcher = RemoteDispatcher::new(client(&owner, &founder.addr()));
    let mut session = dispatcher.session(request()).await.unwrap();
    let session_id = session.recv().await.unwrap().unwrap().session_id;
    let other = RemoteDispatcher::new(client(&thief, &founder.addr()));
    let _own = other.session(request()).await.unwrap();
    assert!(other.assignments(session_id).await.is_err());
    let beat = skep_model::dispatch::HeartbeatRequest { session_id };
    assert!(other.heartbeat(beat).await.is_err());
    dispatcher.heartbeat(beat).await.unwrap();
}
