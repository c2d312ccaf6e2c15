//! What a container waits for, and for how long.

use std::sync::Arc;

use skep_model::{NodeId, Rng};
use skep_network::plane::{ActionError, DataPath, Failure};

use super::*;
use crate::dataplane::Place;

type Answer = oneshot::Receiver<Result<(), AttachError>>;

fn facts(number: u8) -> NetworkFacts {
    NetworkFacts {
        id: skep_model::NetworkId::random(&mut Rng::from_seed(number.into())).to_string(),
        name: format!("net{number}"),
        vni: 4096 + u32::from(number),
        mtu: None,
        subnets: vec![format!("10.0.{number}.0/24").parse().unwrap()],
        gateways: Vec::new(),
        is_internal: false,
        is_encrypted: false,
        is_ingress: false,
    }
}

fn container(number: u8) -> LocalContainer {
    let place = Place {
        network: facts(number),
        interface: "eth1".to_owned(),
        addresses: vec![format!("10.0.{number}.2/24").parse().unwrap()],
        aliases: Vec::new(),
    };
    LocalContainer {
        netns_path: "/run/x".into(),
        places: vec![place],
        upstreams: Vec::new(),
        local: Vec::new(),
    }
}

/// Told of nothing.
fn book() -> Book {
    let data_path = DataPath {
        address: [192, 0, 2, 1].into(),
        port: 4789,
    };
    let own = NodeId::random(&mut Rng::from_seed(1));
    Book::new(own, "skep0", data_path)
}

/// Containers `a` on network 1 and `b` on network 2 wait.
fn waiting() -> (Waiting, Answer, Answer) {
    let mut waiting = Waiting::default();
    let (reply, a) = oneshot::channel();
    waiting.insert("a", &container(1), reply);
    let (reply, b) = oneshot::channel();
    waiting.insert("b", &container(2), reply);
    (waiting, a, b)
}

fn report(scopes: &[Scope]) -> Report {
    let failures = scopes.iter().map(|scope| Failure {
        scope: scope.clone(),
        error: Arc::new(ActionError::NoNetns("/run/x".into())),
    });
    Report {
        failures: failures.collect(),
        ..Report::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_waits_for_the_directory_only_so_long() {
    let (mut waiting, mut a, _b) = waiting();
    let book = book();
    assert_eq!(waiting.on_report(&book, &report(&[])), [""; 0]);
    assert_eq!(waiting.settle(&book), [""; 0]);
    assert!(a.try_recv().is_err());
    let deadline = waiting.deadline().unwrap();
    assert_eq!(deadline - Instant::now(), KNOWN_WITHIN);
    tokio::time::advance(KNOWN_WITHIN).await;
    assert_eq!(waiting.settle(&book), [""; 0]);
    assert_eq!(a.try_recv().unwrap(), Ok(()));
    assert_eq!(waiting.deadline(), None);
}

#[tokio::test(start_paused = true)]
async fn without_a_word_of_any_manager_a_container_waits_in_vain() {
    let (mut waiting, mut a, mut b) = waiting();
    let book = book();
    tokio::time::advance(TOLD_WITHIN).await;
    assert_eq!(waiting.settle(&book), ["a", "b"]);
    for answer in [&mut a, &mut b] {
        assert_eq!(answer.try_recv().unwrap(), Err(AttachError::NoDirectory));
    }
    assert!(AttachError::NoDirectory.is_temporary());
}

#[tokio::test(start_paused = true)]
async fn a_container_fails_with_its_own_networks_and_with_no_others() {
    let book = book();
    for (scope, failed) in [
        (Scope::Container("a".to_owned()), &["a"][..]),
        (Scope::Network(facts(2).id), &["b"]),
        (Scope::Network(facts(3).id), &[]),
        (Scope::Container("c".to_owned()), &[]),
        (Scope::Mesh, &[]),
        (Scope::Encryption, &[]),
        (Scope::Node, &["a", "b"]),
    ] {
        let (mut waiting, mut a, mut b) = waiting();
        assert_eq!(
            waiting.on_report(&book, &report(std::slice::from_ref(&scope))),
            failed
        );
        for (id, answer) in [("a", &mut a), ("b", &mut b)] {
            let refused = matches!(answer.try_recv(), Ok(Err(AttachError::Refused(_))));
            assert_eq!(refused, failed.contains(&id), "{id} {scope}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_followed_fails_all() {
    let (mut waiting, mut a, _b) = waiting();
    assert_eq!(waiting.on_error("no way"), ["a", "b"]);
    let error = AttachError::Refused("no way".to_owned());
    assert!(!error.is_temporary());
    assert_eq!(a.try_recv().unwrap(), Err(error));
}
