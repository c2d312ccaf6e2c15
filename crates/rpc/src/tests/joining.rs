//! Getting in: tokens, certificates, renewals.

use std::sync::Arc;

use skep_ca::{JoinToken, KeyRequest};
use skep_model::{Availability, Role};

use super::rig::{Founder, client};
use crate::{
    Credentials, Security,
    join::{self, JoinError},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_gives_the_role_it_stands_for() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    assert_eq!(worker.role(), Role::Worker);
    let addr = founder.addr();
    let manager = founder.join_through(&addr, &founder.manager_token).await;
    assert_eq!(manager.role(), Role::Manager);
    assert_eq!(manager.cluster_id(), founder.cluster_id);
    let view = founder.node.handle().view();
    assert_eq!(
        view.store.node(worker.node_id()).unwrap().role,
        Role::Worker
    );
    assert_eq!(
        view.store.node(manager.node_id()).unwrap().role,
        Role::Manager
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_cluster_is_found_out_before_anything_is_said() {
    let founder = Founder::start().await;
    let other = Founder::start().await;
    let refused = join::fetch_root(&founder.addr(), &other.worker_token).await;
    assert!(matches!(refused, Err(JoinError::WrongRoot)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_is_refused_and_leaves_no_node() {
    let founder = Founder::start().await;
    let forged = JoinToken::generate(founder.root.certificates_pem().as_bytes());
    let addr = founder.addr();
    let roots_pem = join::fetch_root(&addr, &forged).await.unwrap();
    let request = KeyRequest::generate().unwrap();
    let refused = join::request_certificate(
        &addr,
        &roots_pem,
        &request.csr_pem,
        &forged,
        Availability::Active,
    )
    .await;
    assert!(matches!(refused, Err(JoinError::Token(_))), "{refused:?}");
    assert_eq!(founder.node.handle().view().store.node_count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_and_the_new_one_is_used() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let client = client(&worker, &founder.addr());
    let request = KeyRequest::generate().unwrap();
    let chain_pem = client.renew_certificate(&request.csr_pem).await.unwrap();
    assert_ne!(chain_pem, worker.chain_pem());
    let node_id = worker.node_id();
    let credentials = Credentials {
        chain_pem,
        key_pem: request.key_pem,
        roots_pem: worker.roots_pem(),
    };
    worker.replace(credentials).unwrap();
    assert_eq!(worker.node_id(), node_id, "the same node");
    let again = KeyRequest::generate().unwrap();
    client.renew_certificate(&again.csr_pem).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_managers_learn_the_unlock_key() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let addr = founder.addr();
    assert!(client(&worker, &addr).unlock_key().await.is_err());
    let manager = founder.join_through(&addr, &founder.manager_token).await;
    let key = client(&manager, &addr).unlock_key().await.unwrap();
    assert_eq!(key, None, "managers are not locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_node_reaches_the_leader_through_a_follower() {
    let founder = Founder::start().await;
    let follower = founder.manager().await;
    follower
        .until("it knows the leader", |view| view.group.leader().is_some())
        .await;
    let addr = follower.addr.to_string();
    let worker = founder.join_through(&addr, &founder.worker_token).await;
    assert_eq!(worker.role(), Role::Worker);
    assert!(follower.server.counters().forwarded >= 2);
    // A renewal is the worker's own call when it arrives at the leader.
    let request = KeyRequest::generate().unwrap();
    let renewed = client(&worker, &addr)
        .renew_certificate(&request.csr_pem)
        .await;
    renewed.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_another_root_cannot_be_taken() {
    let founder = Founder::start().await;
    let other = Founder::start().await;
    let worker = founder.worker().await;
    let before = worker.chain_pem();
    assert!(worker.replace_roots(other.root.certificates_pem()).is_err());
    assert_eq!(worker.chain_pem(), before);
    let both = format!("{}{}", worker.roots_pem(), other.root.certificates_pem());
    worker.replace_roots(&both).unwrap();
    let _: Arc<Security> = worker;
}
