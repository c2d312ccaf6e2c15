//! The directory: from any manager, complete and then followed, and never from one that was left alone.

use std::sync::Arc;

use skep_manager::command::Command;
use skep_model::{
    EndpointSpec, PortConfig,
    directory::{Change, Entry, Message},
};
use skep_wire::peer::{WatchRequest, directory_client::DirectoryClient};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::rig::{Founder, PATIENCE, client, connect, service};
use crate::{Cluster, Security, directory};

/// What a node hears.
fn listen(security: &Arc<Security>, addr: &str) -> (mpsc::Receiver<Message>, CancellationToken) {
    let (sink, messages) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let client = client(security, addr);
    tokio::spawn(directory::follow(client, 0, sink, stop.clone()));
    (messages, stop)
}

async fn next(messages: &mut mpsc::Receiver<Message>) -> Message {
    let message = timeout(PATIENCE, messages.recv()).await;
    message.expect("a message in time").expect("a message")
}

/// Makes a service with a published port, of which every node is told.
async fn publish(cluster: &Cluster, name: &str, port: u16) {
    let mut spec = service(name);
    let port = PortConfig {
        target_port: 80,
        published_port: port,
        ..PortConfig::default()
    };
    spec.endpoint = Some(EndpointSpec {
        ports: vec![port],
        ..EndpointSpec::default()
    });
    let spec = Box::new(spec);
    cluster
        .command(Command::CreateService { spec })
        .await
        .unwrap();
}

fn services(message: &Message) -> Vec<&str> {
    let services = message.changes.iter().filter_map(|change| match change {
        Change::Set(Entry::Service(service)) => Some(service.name.as_str()),
        Change::Set(Entry::Network(_) | Entry::Task(_) | Entry::Node(_)) | Change::Remove(_) => {
            None
        }
    });
    services.collect()
}

/// Reads until a service is told of.
async fn until_told(messages: &mut mpsc::Receiver<Message>, name: &str) -> Message {
    loop {
        let message = next(messages).await;
        if services(&message).contains(&name) {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_told_by_any_manager_and_go_on_with_another() {
    let mut founder = Founder::start().await;
    let second = founder.manager().await;
    let third = founder.manager_through(&second.addr.to_string()).await;
    let worker = founder.worker().await;
    publish(&founder.node.cluster(), "before", 8001).await;
    let (mut messages, _stop) = listen(&worker, &second.addr.to_string());
    let first = until_told(&mut messages, "before").await;
    assert!(first.index > 0);
    publish(&founder.node.cluster(), "after", 8002).await;
    let news = until_told(&mut messages, "after").await;
    assert!(!news.is_complete && news.is_last, "{news:?}");
    assert!(news.index > first.index);
    // Followers go on telling when the leader is gone.
    founder.node.kill();
    third
        .until("another leader", |view| {
            view.group
                .leader()
                .is_some_and(|leader| leader.member.raft_id != 1)
        })
        .await;
    publish(&third.cluster(), "later", 8003).await;
    let later = until_told(&mut messages, "later").await;
    assert!(!later.is_complete, "the stream did not break");
    // Another node, another manager: the same.
    let (mut others, _stop) = listen(&worker, &third.addr.to_string());
    let all = next(&mut others).await;
    assert!(all.is_complete && all.is_last);
    let mut names = services(&all);
    names.sort_unstable();
    assert_eq!(names, ["after", "before", "later"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_left_alone_stops_telling() {
    let mut founder = Founder::start().await;
    let second = founder.manager().await;
    let worker = founder.worker().await;
    let connection = connect(&worker, &second.addr.to_string()).await;
    let mut client = DirectoryClient::new(connection);
    let request = WatchRequest { index: 0 };
    let mut stream = client.watch(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().is_complete);
    founder.node.kill();
    let end = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let status = timeout(PATIENCE, end).await.expect("it ends");
    assert_eq!(status.code(), Code::Unavailable);
    // And one that lags is not believed.
    let request = WatchRequest { index: 1 << 40 };
    let refused = client.watch(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}
