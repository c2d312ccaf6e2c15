//! Several managers: commands and reads anywhere, loss of the leader, removal.

use std::time::Duration;

use prost::Message as _;
use skep_agent::dispatcher::DispatcherClient as _;
use skep_manager::{
    Ended,
    command::{Answer, Code, Command},
};
use skep_model::{
    ClusterSpec, NodeDescription, Reachability, Role,
    dispatch::{AssignmentsKind, DispatchError, HeartbeatRequest, SessionRequest},
};
use skep_raft::{Message, MessageKind};
use skep_wire::proto::{
    self, raft_client::RaftClient, raft_membership_client::RaftMembershipClient,
};
use tokio::{sync::mpsc, time::timeout};

use super::rig::{Founder, Node, PATIENCE, client, connect, create, service};
use crate::{Cluster, RemoteDispatcher, service::REMOVED};

async fn three() -> (Founder, Node, Node) {
    let founder = Founder::start().await;
    let second = founder.manager().await;
    let third = founder.manager_through(&second.addr.to_string()).await;
    for node in [&founder.node, &second, &third] {
        node.until("three members and a leader", |view| {
            view.group.members.len() == 3 && view.group.leader().is_some()
        })
        .await;
    }
    (founder, second, third)
}

/// A read right after a write, at any manager, shows the write.
async fn check_reads(cluster: &Cluster, name: &str) {
    let view = cluster.view().await.unwrap();
    assert!(view.store.service_by_name(name).is_some(), "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_takes_commands_and_reads_show_them_everywhere() {
    let (founder, second, third) = three().await;
    let clusters = [founder.node.cluster(), second.cluster(), third.cluster()];
    for (number, cluster) in clusters.iter().enumerate() {
        let name = format!("web{number}");
        let answer = create(cluster, &name).await.unwrap();
        let Answer::Service(id) = answer else {
            panic!("unexpected answer {answer:?}");
        };
        for cluster in &clusters {
            check_reads(cluster, &name).await;
        }
        let version = cluster
            .view()
            .await
            .unwrap()
            .store
            .service(id)
            .unwrap()
            .meta
            .version;
        let spec = Box::new(skep_model::ServiceSpec {
            mode: skep_model::ServiceMode::Replicated { replicas: 1 },
            ..service(&name)
        });
        let change = skep_manager::command::ServiceChange::Spec(spec);
        let update = Command::UpdateService {
            id,
            version,
            change,
        };
        cluster.command(update.clone()).await.unwrap();
        let stale = cluster.command(update).await.unwrap_err();
        assert!(stale.message.contains("out of sequence"), "{stale}");
    }
    let taken = create(&clusters[2], "web0").await.unwrap_err();
    assert_eq!(taken.code, Code::AlreadyExists);
    let view = third.cluster().view().await.unwrap();
    for status in view.group.members.values() {
        assert_eq!(status.reachability, Reachability::Reachable, "{status:?}");
    }
    assert_eq!(view.group.leader, founder.node.handle().view().group.leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_nodes_are_changed_through_a_follower() {
    let founder = Founder::start().await;
    let follower = founder.manager().await;
    let worker = founder.worker().await;
    let cluster = follower.cluster();
    let view = cluster.view().await.unwrap();
    let stored = view.store.cluster().unwrap();
    let mut spec = stored.spec.clone();
    spec.task_history_limit = 2;
    let update = Command::UpdateCluster {
        version: stored.meta.version,
        spec: Box::new(spec),
        rotate: skep_manager::command::Rotate {
            worker_token: true,
            ..Default::default()
        },
    };
    cluster.command(update).await.unwrap();
    let view = cluster.view().await.unwrap();
    let stored = view.store.cluster().unwrap();
    assert_eq!(stored.spec.task_history_limit, 2);
    let token = &stored.root_ca.join_tokens.worker.0;
    assert_ne!(token, founder.worker_token.as_str());
    let node = view.store.node(worker.node_id()).unwrap();
    let mut spec = node.spec.clone();
    spec.availability = skep_model::Availability::Drain;
    let update = Command::UpdateNode {
        id: node.id,
        version: node.meta.version,
        spec: Box::new(spec),
    };
    cluster.command(update).await.unwrap();
    let remove = Command::RemoveNode {
        id: worker.node_id(),
        is_forced: true,
    };
    cluster.command(remove).await.unwrap();
    let view = cluster.view().await.unwrap();
    assert!(view.store.node(worker.node_id()).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_commands_wait_for_the_next_one() {
    let (mut founder, second, third) = three().await;
    let cluster = second.cluster();
    create(&cluster, "before").await.unwrap();
    let lost = std::time::Instant::now();
    founder.node.kill();
    // A deploy may be repeated: it meets the dying connection as well, and is carried out all the same.
    let spec = skep_model::stack::StackSpec {
        name: "app".to_owned(),
        ..Default::default()
    };
    let deploy = Command::ApplyStack {
        spec: Box::new(spec),
        options: skep_model::stack::ApplyOptions::default(),
    };
    let deployed = cluster.command(deploy).await;
    assert!(
        matches!(&deployed, Ok(Answer::Stack(outcome)) if outcome.revision == 1),
        "{deployed:?}"
    );
    // The first may meet the dying connection, and then says that it does not know.
    let mut number = 0;
    let name = loop {
        number += 1;
        let name = format!("after{number}");
        match create(&cluster, &name).await {
            Ok(_) => break name,
            Err(error) => assert!(
                matches!(error.code, Code::Aborted | Code::DeadlineExceeded),
                "{error}"
            ),
        }
    };
    assert!(
        lost.elapsed() < Duration::from_secs(10),
        "{:?}",
        lost.elapsed()
    );
    check_reads(&third.cluster(), &name).await;
    check_reads(&third.cluster(), "before").await;
    let view = third.cluster().view().await.unwrap();
    let own = founder.node.security.node_id();
    let is_gone = |view: &skep_manager::Published| {
        let status = view.group.by_node(own).unwrap();
        status.reachability != Reachability::Reachable
    };
    let poll = async {
        while !is_gone(&third.cluster().view().await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap();
    drop(view);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_manager_learns_it_and_stops() {
    let (founder, second, mut third) = three().await;
    let id = third.security.node_id();
    let raft_id = third.handle().view().group.own;
    let demote = |view: &skep_manager::Published| {
        let node = view.store.node(id).unwrap();
        let mut spec = node.spec.clone();
        spec.desired_role = Role::Worker;
        Command::UpdateNode {
            id,
            version: node.meta.version,
            spec: Box::new(spec),
        }
    };
    let cluster = second.cluster();
    let command = demote(&cluster.view().await.unwrap());
    cluster.command(command).await.unwrap();
    founder
        .node
        .until("it is no member and no manager", |view| {
            view.group.by_node(id).is_none()
                && view
                    .store
                    .node(id)
                    .is_some_and(|node| node.role == Role::Worker)
        })
        .await;
    assert_eq!(third.ended().await, Ended::Removed);

    // Its certificate still says manager, and its raft id was one of the group.
    let connection = connect(&third.security, &founder.addr()).await;
    let message = Message {
        kind: MessageKind::Heartbeat as i32,
        to: founder.node.handle().view().group.own,
        from: raft_id,
        term: 1000,
        ..Message::default()
    };
    let request = proto::ProcessRaftMessageRequest {
        message: message.encode_to_vec(),
    };
    let mut raft = RaftClient::new(connection.clone());
    let refused = raft.process_raft_message(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert_eq!(refused.message(), REMOVED);
    let addr = third.addr.to_string();
    let mut membership = RaftMembershipClient::new(connection);
    let refused = membership.join(proto::JoinRequest { addr }).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied);
    assert!(founder.node.handle().view().is_leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_leaves_for_itself() {
    let (founder, second, third) = three().await;
    let view = third.handle().view();
    let own = view.group.by_node(third.security.node_id()).unwrap();
    let through = client(&third.security, &second.addr.to_string());
    through.leave_group(&own.member).await.unwrap();
    founder
        .node
        .until("it is gone", |view| view.group.members.len() == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_manager_gets_a_snapshot_in_chunks() {
    let mut spec = ClusterSpec::default();
    spec.raft.snapshot_interval = 40;
    spec.raft.log_entries_for_slow_followers = 1;
    let founder = Founder::start_with(spec).await;
    let cluster = founder.node.cluster();
    // About 9 MiB: more than two chunks.
    for number in 0..60 {
        let mut spec = service(&format!("s{number}"));
        let label = ("pad".to_owned(), "x".repeat(150_000));
        let mut annotations = skep_model::Annotations::clone(&spec.annotations);
        annotations.labels.extend([label]);
        spec.annotations = annotations.into();
        let spec = Box::new(spec);
        cluster
            .command(Command::CreateService { spec })
            .await
            .unwrap();
    }
    let second = founder.manager().await;
    second
        .until("everything", |view| view.store.service_count() == 60)
        .await;
    assert_eq!(
        second.handle().view().store.services().count(),
        60,
        "the store is the leader's"
    );
    check_reads(&second.cluster(), "s59").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_has_its_session_through_a_follower() {
    let (founder, second, _third) = three().await;
    let worker = founder.worker().await;
    let dispatcher = RemoteDispatcher::new(client(&worker, &second.addr.to_string()));
    let request = SessionRequest {
        description: NodeDescription {
            hostname: "w1".to_owned(),
            ..NodeDescription::default()
        },
        session_id: None,
    };
    let mut session = dispatcher.session(request).await.unwrap();
    let first = session.recv().await.unwrap().unwrap();
    assert_eq!(first.managers.len(), 3);
    assert_eq!(first.node.as_ref().unwrap().id, worker.node_id());
    let session_id = first.session_id;
    let beat = HeartbeatRequest { session_id };
    let answer = dispatcher.heartbeat(beat).await.unwrap();
    assert!(answer.period > Duration::ZERO);
    let mut assignments = dispatcher.assignments(session_id).await.unwrap();
    let complete = assignments.recv().await.unwrap().unwrap();
    assert_eq!(complete.kind, AssignmentsKind::Complete);
    let node = founder
        .node
        .handle()
        .view()
        .store
        .node(worker.node_id())
        .cloned();
    assert_eq!(node.unwrap().status.addr, "127.0.0.1");
    dispatcher.managers_changed(first.managers).await;

    // Removed while connected: the session ends, and no new one opens.
    let remove = Command::RemoveNode {
        id: worker.node_id(),
        is_forced: true,
    };
    second.cluster().command(remove).await.unwrap();
    let end = timeout(PATIENCE, async {
        loop {
            if let Err(error) = session.recv().await.unwrap() {
                break error;
            }
        }
    });
    end.await.unwrap();
    let refused = dispatcher.heartbeat(beat).await.unwrap_err();
    assert!(
        matches!(refused, DispatchError::PermissionDenied(_)),
        "{refused:?}"
    );
}

/// The second member of two may have missed the answer to its join, and is needed for a leader: it is told what the log says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_asks_to_join_again_is_answered_without_a_leader() {
    let mut founder = Founder::start().await;
    let second = founder.manager().await;
    second
        .until("both members", |view| view.group.members.len() == 2)
        .await;
    let raft_id = founder.node.handle().view().group.own;
    founder.node.kill();
    second
        .until("no leader", |view| view.group.leader().is_none())
        .await;
    let asking = client(&founder.node.security, &second.addr.to_string());
    let joined = asking.join_group(&founder.addr()).await.unwrap();
    assert_eq!(joined.raft_id, raft_id);
    assert_eq!(joined.members.len(), 2);
}

/// A session at whichever manager gives one, with its first heartbeat; returns when it ends.
async fn register(dispatcher: &RemoteDispatcher, registered: &mpsc::Sender<()>) {
    let attempt = async || {
        let request = SessionRequest {
            description: NodeDescription::default(),
            session_id: None,
        };
        let mut session = dispatcher.session(request).await?;
        let first = session.recv().await.expect("a session begins")?;
        dispatcher.managers_changed(first.managers).await;
        let session_id = first.session_id;
        let beat = HeartbeatRequest { session_id };
        dispatcher.heartbeat(beat).await?;
        Ok::<_, DispatchError>(session)
    };
    loop {
        match attempt().await {
            Ok(mut session) => {
                registered.send(()).await.unwrap();
                while let Some(Ok(_)) = session.recv().await {}
                return;
            }
            Err(DispatchError::NoLeader(_) | DispatchError::Unavailable(_)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("refused: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_find_the_next_leader() {
    const AGENTS: usize = 20;
    let (mut founder, second, third) = three().await;
    let mut agents = tokio::task::JoinSet::new();
    let (tx, mut registered) = mpsc::channel(AGENTS);
    for number in 0..AGENTS {
        let worker = founder.worker().await;
        // Some at the leader, some at followers.
        let addr = match number % 3 {
            0 => founder.addr(),
            1 => second.addr.to_string(),
            _ => third.addr.to_string(),
        };
        let dispatcher = RemoteDispatcher::new(client(&worker, &addr));
        let tx = tx.clone();
        agents.spawn(async move {
            loop {
                register(&dispatcher, &tx).await;
            }
        });
    }
    let mut all_register = async || {
        for _ in 0..AGENTS {
            registered.recv().await.unwrap();
        }
    };
    timeout(PATIENCE, all_register()).await.unwrap();
    founder.node.kill();
    let limit = Duration::from_secs(10);
    timeout(limit, all_register()).await.unwrap();
    assert_eq!(agents.len(), AGENTS, "none gave up");
    agents.shutdown().await;
}
