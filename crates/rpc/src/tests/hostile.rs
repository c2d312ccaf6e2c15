//! Callers that are not what they say, and connections that mean no good.

use std::{sync::Arc, time::Duration};

use hyper::http::HeaderValue;
use prost::Message as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use skep_ca::{RootCa, Subject};
use skep_manager::command::Command;
use skep_model::{NodeId, Role, Timestamp};
use skep_raft::{Message, MessageKind};
use skep_wire::{
    peer::{ReadIndexRequest, peer_client::PeerClient},
    proto::{
        self, control_client::ControlClient, dispatcher_client::DispatcherClient,
        node_ca_client::NodeCaClient, raft_client::RaftClient,
        raft_membership_client::RaftMembershipClient,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tonic::{Code, Request};

use super::rig::{Founder, PATIENCE, client, connect, credentials, rng};
use crate::{
    Security,
    connection::{Connection, DialError, Pings, Target},
    gate::{Caller, identity::speak_for},
    limits::{ANONYMOUS_IDLE, HANDSHAKE_TIMEOUT, HANDSHAKES_PER_ADDRESS_MAX, REQUEST_BYTES_MAX},
    security::{ca_name, known_roots, now},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_calls_no_managers_method() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let connection = connect(&worker, &founder.addr()).await;
    let mut control = ControlClient::new(connection.clone());
    let refused = control.list_nodes(proto::ListNodesRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let mut membership = RaftMembershipClient::new(connection.clone());
    let join = proto::JoinRequest {
        addr: "127.0.0.1:1".to_owned(),
    };
    let refused = membership.join(join).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let mut raft = RaftClient::new(connection.clone());
    let message = proto::ProcessRaftMessageRequest::default();
    let refused = raft.process_raft_message(message).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let refused = PeerClient::new(connection)
        .read_index(ReadIndexRequest {})
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(founder.node.server.counters().refused, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_certificate_can_only_join() {
    let founder = Founder::start().await;
    let addr = founder.addr();
    let target = Target {
        addr: &addr,
        tls: known_roots(founder.root.certificates_pem()).unwrap(),
        name: ca_name(),
        pings: Pings::Seldom,
    };
    let connection = Connection::dial(target).await.unwrap();
    let mut dispatcher = DispatcherClient::new(connection.clone());
    let refused = dispatcher.session(proto::SessionRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    // It reads certificates, which are no secret.
    let request = proto::NodeCertificateStatusRequest {
        node_id: founder.node.security.node_id().to_string(),
    };
    let answer = NodeCaClient::new(connection)
        .node_certificate_status(request)
        .await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_speaks_for_nobody() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let connection = connect(&worker, &founder.addr()).await;
    let mut request = Request::new(proto::ListNodesRequest::default());
    let manager = founder.node.security.node_id();
    let cluster = founder.cluster_id;
    let fields = [
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", manager.as_str()),
        ("forwarded_cert_org", cluster.as_str()),
        ("forwarded_cert_ou", "swarm-manager"),
        ("remote_addr", "192.0.2.1:1"),
    ];
    for (name, value) in fields {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let refused = ControlClient::new(connection.clone())
        .list_nodes(request)
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("speak for others"), "{refused}");
    let mut request = Request::new(proto::SessionRequest::default());
    let spoofed = "192.0.2.1:1".parse().unwrap();
    request.metadata_mut().insert("remote_addr", spoofed);
    let refused = DispatcherClient::new(connection).session(request).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_removed_and_demoted_nodes_are_worth_nothing() {
    let founder = Founder::start().await;
    let addr = founder.addr();
    let removed = founder.worker().await;
    let open = connect(&removed, &addr).await;
    let remove = Command::RemoveNode {
        id: removed.node_id(),
        is_forced: true,
    };
    founder.node.cluster().command(remove).await.unwrap();
    for connection in [open, connect(&removed, &addr).await] {
        let mut dispatcher = DispatcherClient::new(connection);
        let refused = dispatcher.session(proto::SessionRequest::default()).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    assert!(
        client(&removed, &addr)
            .renew_certificate(&skep_ca::KeyRequest::generate().unwrap().csr_pem)
            .await
            .is_err()
    );
    // A manager's certificate of the right root, for a node the store calls a worker, or does not know.
    let worker = founder.worker().await;
    for node_id in [worker.node_id(), NodeId::random(&mut rng())] {
        let subject = Subject {
            node_id,
            role: Role::Manager,
            cluster_id: founder.cluster_id,
        };
        let forged = Security::new(credentials(&founder.root, &subject, now())).unwrap();
        let mut control = ControlClient::new(connect(&forged, &addr).await);
        let refused = control.list_nodes(proto::ListNodesRequest::default()).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_sends_raft_messages_of_its_own_only() {
    let founder = Founder::start().await;
    let second = founder.manager().await;
    second
        .until("it knows itself and the leader", |view| {
            view.group.members.len() == 2 && view.group.leader().is_some()
        })
        .await;
    let group = second.handle().view().group.clone();
    let leader = group.leader().unwrap().member.raft_id;
    let message = Message {
        kind: MessageKind::Heartbeat as i32,
        to: group.own,
        from: leader,
        term: 1000,
        ..Message::default()
    };
    // The follower speaks as the leader, to itself.
    let connection = connect(&second.security, &second.addr.to_string()).await;
    let request = proto::ProcessRaftMessageRequest {
        message: message.encode_to_vec(),
    };
    let refused = RaftClient::new(connection)
        .process_raft_message(request)
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let resolved = RaftClient::new(connect(&second.security, &founder.addr()).await)
        .resolve_address(proto::ResolveAddressRequest { raft_id: leader })
        .await;
    assert_eq!(resolved.unwrap().into_inner().addr, founder.addr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_does_not_answer_is_not_let_in() {
    let founder = Founder::start().await;
    let addr = founder.addr();
    let security = founder.join_through(&addr, &founder.manager_token).await;
    let client = client(&security, &addr);
    let nobody = client.join_group("127.0.0.1:1").await.unwrap_err();
    assert!(nobody.to_string().contains("not reachable"), "{nobody}");
    let another = client.join_group(&addr).await.unwrap_err();
    assert!(another.to_string().contains("another node"), "{another}");
    assert_eq!(founder.node.handle().view().group.members.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_large_is_refused_and_others_are_served() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let connection = connect(&worker, &founder.addr()).await;
    let request = proto::IssueNodeCertificateRequest {
        csr: vec![b'x'; REQUEST_BYTES_MAX + 1],
        ..Default::default()
    };
    let mut client = NodeCaClient::new(connection.clone());
    let refused = client.issue_node_certificate(request).await;
    assert_eq!(refused.unwrap_err().code(), Code::OutOfRange);
    let request = proto::NodeCertificateStatusRequest {
        node_id: worker.node_id().to_string(),
    };
    client.node_certificate_status(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_too_large_do_not_reach_a_service() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let mut client = NodeCaClient::new(connect(&worker, &founder.addr()).await);
    let mut request = Request::new(proto::NodeCertificateStatusRequest {
        node_id: worker.node_id().to_string(),
    });
    let large = HeaderValue::from_str(&"x".repeat(20_000)).unwrap();
    let large = tonic::metadata::MetadataValue::try_from(large.as_bytes()).unwrap();
    request.metadata_mut().insert("large", large);
    assert!(client.node_certificate_status(request).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_handshakes_are_cut_off_and_do_not_keep_others_out() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let addr = founder.addr();
    let mut slow = Vec::new();
    for _ in 0..HANDSHAKES_PER_ADDRESS_MAX + 8 {
        let mut stream = TcpStream::connect(&addr).await.unwrap();
        // The beginning of a handshake, and nothing more.
        let _ = stream.write_all(&[0x16, 0x03, 0x01]).await;
        slow.push(stream);
    }
    let cut = async {
        for stream in &mut slow {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    };
    timeout(HANDSHAKE_TIMEOUT + PATIENCE, cut).await.unwrap();
    assert!(founder.node.server.counters().handshakes_failed >= 8);
    connect(&worker, &addr).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_and_half_requests_harm_nobody() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let addr = founder.addr();
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 300]] {
        let mut stream = TcpStream::connect(&addr).await.unwrap();
        let _ = stream.write_all(rubbish).await;
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
    }
    let connection = connect(&worker, &addr).await;
    let mut client = NodeCaClient::new(connection);
    for csr in [
        &b""[..],
        b"-----BEGIN CERTIFICATE REQUEST-----\n",
        &[0xff; 100],
    ] {
        let request = proto::IssueNodeCertificateRequest {
            csr: csr.to_vec(),
            ..Default::default()
        };
        let refused = client.issue_node_certificate(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_a_root_no_longer_trusted_loses_its_connection_too() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let addr = founder.addr();
    let connection = connect(&worker, &addr).await;
    let request = || proto::NodeCertificateStatusRequest {
        node_id: worker.node_id().to_string(),
    };
    let mut client = NodeCaClient::new(connection.clone());
    client.node_certificate_status(request()).await.unwrap();
    // The server's node moves to another root, as at the end of a rotation.
    let root = RootCa::generate(now()).unwrap();
    let subject = Subject {
        node_id: founder.node.security.node_id(),
        role: Role::Manager,
        cluster_id: founder.cluster_id,
    };
    let moved = credentials(&root, &subject, now());
    founder.node.security.replace(moved).unwrap();
    let refused = client.node_certificate_status(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = Connection::dial(worker.current().target(&addr).unwrap()).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, DialError::Untrusted { .. }),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_certificate_does_not_hold_its_place() {
    let founder = Founder::start().await;
    let addr = founder.addr();
    let target = Target {
        addr: &addr,
        tls: known_roots(founder.root.certificates_pem()).unwrap(),
        name: ca_name(),
        pings: Pings::Seldom,
    };
    let connection = Connection::dial(target).await.unwrap();
    let closed = timeout(ANONYMOUS_IDLE + PATIENCE, connection.closed()).await;
    closed.unwrap();
}

/// A certificate of 24 hours issued in 2020, with its key.
fn expired(
    founder: &Founder,
    subject: &Subject,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let long_ago = Timestamp::ZERO.saturating_add(Duration::from_secs(1_600_000_000));
    let old = credentials(&founder.root, subject, long_ago);
    let chain = CertificateDer::pem_slice_iter(old.chain_pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(old.key_pem.as_bytes()).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_with_an_expired_certificate_is_named_as_such() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let subject = founder.node.security.current().certificate.subject;
    let (chain, key) = expired(&founder, &subject);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let _ = acceptor.accept(stream).await;
    });
    let refused = Connection::dial(worker.current().target(&addr).unwrap()).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, DialError::Expired { .. }), "{refused:?}");
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_caller_does_not_get_in() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let (chain, key) = expired(&founder, &worker.current().certificate.subject);
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(founder.root.certificates_pem().as_bytes());
    roots.add(root.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let target = Target {
        addr: &founder.addr(),
        tls: Arc::new(config),
        name: crate::security::manager_name(),
        pings: Pings::Seldom,
    };
    // In TLS 1.3 the client learns it with its first answer.
    if let Ok(connection) = Connection::dial(target).await {
        let mut client = DispatcherClient::new(connection);
        let refused = client.session(proto::SessionRequest::default()).await;
        assert!(refused.is_err());
    }
    // The client hears of it before the server has counted.
    let counted = async {
        loop {
            let counters = founder.node.server.counters();
            if (counters.handshakes_failed, counters.refused) == (1, 1) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, counted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_managers_own_metadata_does_not_outlive_its_role() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    // A manager's certificate for what the store calls a worker: it may not speak for the leader either.
    let subject = Subject {
        node_id: worker.node_id(),
        role: Role::Manager,
        cluster_id: founder.cluster_id,
    };
    let forged = Security::new(credentials(&founder.root, &subject, now())).unwrap();
    let caller = Caller {
        subject: Some(founder.node.security.current().certificate.subject),
        addr: "192.0.2.1:1".to_owned(),
        is_forwarded: false,
    };
    let mut headers = hyper::HeaderMap::new();
    speak_for(&caller, &mut headers);
    let mut request = Request::new(proto::ListNodesRequest::default());
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers.clone());
    let mut client = ControlClient::new(connect(&forged, &founder.addr()).await);
    let refused = client.list_nodes(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // A manager that is one may.
    let second = founder.manager().await;
    let mut request = Request::new(proto::ListNodesRequest::default());
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    let mut client = ControlClient::new(connect(&second.security, &founder.addr()).await);
    client.list_nodes(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_named_as_such() {
    let founder = Founder::start().await;
    let subject = founder.node.security.current().certificate.subject;
    let long_ago = Timestamp::ZERO.saturating_add(Duration::from_secs(1_600_000_000));
    let refused = Security::new(credentials(&founder.root, &subject, long_ago)).unwrap_err();
    let text = crate::error::ErrorChain(&refused).to_string();
    assert!(text.contains("expired"), "{text}");
}
