//! Membership of the node: joining, unlocking, leaving, and what each state answers.

use skep_docker_api::backend::{ClusterStatus, LocalNodeState, ManagerState};

use crate::server::{Answer, Served};

const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
const NOT_READY: &str = "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
const OUTSIDE: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
const EXPIRED: &str =
    "Swarm certificates have expired. To replace them, leave the swarm and join again.";
const JOIN: &str = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"192.0.2.2","JoinToken":"SWMTKN-1-w","RemoteAddrs":["192.0.2.1:2377"],"Availability":"drain"}"#;

#[track_caller]
fn check(answer: &Answer, status: u16, message: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.message().as_str()),
        (status, message)
    );
}

fn in_state(served: &Served, state: LocalNodeState, manager: ManagerState, error: &str) {
    served.fake.0.lock().unwrap().status = ClusterStatus {
        state,
        manager,
        error: error.to_owned(),
        ..ClusterStatus::default()
    };
}

#[tokio::test]
async fn a_node_without_manager_says_why_on_every_cluster_route() {
    use LocalNodeState::*;
    let served = Served::start();
    for (state, manager, error, text) in [
        (Inactive, ManagerState::Absent, "", OUTSIDE),
        (Active, ManagerState::Absent, "", WORKER),
        (Pending, ManagerState::Absent, "", WORKER),
        (Active, ManagerState::Starting, "", NOT_READY),
        (Pending, ManagerState::Starting, "", NOT_READY),
        (Locked, ManagerState::Absent, "", LOCKED),
        (Error, ManagerState::Absent, "some failure", OUTSIDE),
        (Error, ManagerState::Absent, EXPIRED, EXPIRED),
    ] {
        in_state(&served, state, manager, error);
        for path in [
            "/swarm",
            "/swarm/unlockkey",
            "/nodes",
            "/nodes/self",
            "/services",
            "/services/web",
            "/services/web/logs?stdout=1",
            "/tasks",
            "/tasks/x",
            "/secrets",
            "/configs",
            "/skep/v1/backup",
        ] {
            check(&served.get(path).await, 503, text);
        }
        let update = served.post("/swarm/update?version=1", "{}").await;
        check(&update, 503, text);
        let create = served.post("/services/create", "{}").await;
        check(&create, 503, text);
        check(&served.delete("/nodes/x").await, 503, text);
        check(&served.delete("/services/x").await, 503, text);
    }
}

#[tokio::test]
async fn a_node_joins_once_with_a_token_and_an_address() {
    let served = Served::start();
    let none = JOIN.replace("[\"192.0.2.1:2377\"]", "[]");
    let answer = served.post("/swarm/join", &none).await;
    check(&answer, 400, "at least 1 RemoteAddr is required to join");
    let wrong = served
        .post("/swarm/join", &JOIN.replace("drain", "lazy"))
        .await;
    check(&wrong, 400, "invalid Availability: \"lazy\"");
    let answer = served.post("/swarm/join", JOIN).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, ""));
    let again = served.post("/swarm/join", JOIN).await;
    assert_eq!(again.status, 503);
    assert!(
        again
            .message()
            .starts_with("This node is already part of a swarm."),
    );
    let swarm = served.get("/info").await.json()["Swarm"].clone();
    assert_eq!(swarm["LocalNodeState"], "active");
    assert_eq!(swarm["ControlAvailable"], false);
    assert_eq!(swarm["RemoteManagers"][0]["Addr"], "192.0.2.1:2377");
    assert!(swarm.get("Cluster").is_none() && swarm.get("Nodes").is_none());
    let ping = served.get("/_ping").await;
    assert_eq!(ping.headers["swarm"], "active/worker");
}

#[tokio::test]
async fn only_a_locked_node_is_unlocked_and_only_with_its_key() {
    let served = Served::start();
    let key = r#"{"UnlockKey":"SWMKEY-1-right"}"#;
    let unlock = async |key: &str| served.post("/swarm/unlock", key).await;
    check(&unlock(key).await, 503, OUTSIDE);
    in_state(&served, LocalNodeState::Active, ManagerState::Absent, "");
    check(&unlock(key).await, 503, WORKER);
    in_state(&served, LocalNodeState::Locked, ManagerState::Absent, "");
    assert_eq!(served.get("/_ping").await.headers["swarm"], "locked");
    let wrong = "swarm could not be unlocked: invalid key provided";
    check(&unlock("{}").await, 401, wrong);
    assert_eq!(unlock(key).await.status, 200);
    check(&unlock(key).await, 409, "swarm is not locked");
}

#[tokio::test]
async fn settings_are_merged_and_external_signers_refused() {
    let served = Served::with_swarm().await;
    let version = async || served.get("/swarm").await.json()["Version"]["Index"].to_string();
    let update = async |body: &str| {
        let path = format!("/swarm/update?version={}", version().await);
        served.post(&path, body).await
    };
    let all = r#"{"Name":"default","Labels":{"skep.node.ttl":"24h"},
        "Orchestration":{"TaskHistoryRetentionLimit":7},
        "Raft":{"SnapshotInterval":500,"KeepOldSnapshots":3,"LogEntriesForSlowFollowers":9},
        "Dispatcher":{"HeartbeatPeriod":2000000000},
        "CAConfig":{"NodeCertExpiry":7200000000000,"SigningCACert":"CERT","SigningCAKey":"KEY",
            "ForceRotate":2},
        "EncryptionConfig":{"AutoLockManagers":true}}"#;
    assert_eq!(update(all).await.status, 200);
    let spec = served.get("/swarm").await.json()["Spec"].clone();
    assert_eq!(spec["Labels"]["skep.node.ttl"], "24h");
    assert_eq!(spec["Orchestration"]["TaskHistoryRetentionLimit"], 7);
    assert_eq!(spec["Raft"]["SnapshotInterval"], 500);
    assert_eq!(spec["Raft"]["KeepOldSnapshots"], 3);
    assert_eq!(spec["Raft"]["LogEntriesForSlowFollowers"], 9);
    assert_eq!(spec["Dispatcher"]["HeartbeatPeriod"], 2_000_000_000_i64);
    assert_eq!(spec["CAConfig"]["NodeCertExpiry"], 7_200_000_000_000_i64);
    assert_eq!(spec["CAConfig"]["ForceRotate"], 2);
    assert_eq!(spec["EncryptionConfig"]["AutoLockManagers"], true);
    // The root asked for is neither shown nor asked for again by a client that sends back what it read.
    assert!(spec["CAConfig"].get("SigningCACert").is_none());
    assert_eq!(update(&spec.to_string()).await.status, 200);
    {
        let state = served.fake.0.lock().unwrap();
        let spec = &state.cluster.as_ref().unwrap().spec;
        assert!(spec.ca.signing_ca_cert.is_empty() && spec.ca.signing_ca_key.0.is_empty());
    }
    // Labels left out are gone.
    assert_eq!(update(r#"{"Name":"default"}"#).await.status, 200);
    let spec = served.get("/swarm").await.json()["Spec"].clone();
    assert_eq!(spec["Labels"], serde_json::json!({}));
    let external = r#"{"CAConfig":{"ExternalCAs":[{"Protocol":"cfssl","URL":"https://ca"}]}}"#;
    check(
        &update(external).await,
        501,
        "not supported yet: CAConfig.ExternalCAs",
    );
}

#[tokio::test]
async fn pools_follow_dockers_rules() {
    let served = Served::start();
    let init = async |body: &str| served.post("/swarm/init", body).await;
    let body = r#"{"DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":30}"#;
    check(&init(body).await, 400, "subnet size is out of range: 30");
    let body = r#"{"DefaultAddrPool":["10.0.0.0/24"],"SubnetSize":20}"#;
    check(
        &init(body).await,
        400,
        "invalid CIDR: \"10.0.0.0/24\". Subnet size is too small for pool: 20",
    );
    assert_eq!(
        init(r#"{"DefaultAddrPool":["10.0.0.0/16"],"SubnetSize":24}"#)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn warnings_count_managers() {
    let served = Served::with_swarm().await;
    let warnings = async || served.get("/info").await.json()["Swarm"]["Warnings"].clone();
    assert!(warnings().await.is_null());
    for count in 2..=4_u8 {
        {
            let state = &mut *served.fake.0.lock().unwrap();
            let mut node = skep_model::Node::clone(state.nodes.values().next().unwrap());
            node.id = skep_model::NodeId::random(&mut state.rng);
            state.nodes.insert(node.id, node.into());
        }
        let text = warnings().await[0].as_str().unwrap_or_default().to_owned();
        match count {
            2 => assert!(text.starts_with(
                "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
            )),
            3 => assert_eq!(text, ""),
            _ => assert!(text.contains("with 4 managers, an even number"), "{text}"),
        }
    }
}

#[tokio::test]
async fn a_backup_is_given_whole_and_restored_on_an_inactive_node() {
    let served = Served::with_swarm().await;
    let backup = served.get("/skep/v1/backup").await;
    assert_eq!(backup.headers["content-type"], "application/octet-stream");
    assert_eq!(backup.text(), "the whole cluster");
    let busy = served.post("/skep/v1/restore", backup.text()).await;
    assert_eq!(busy.status, 503);
    served.post("/swarm/leave?force=1", "").await;
    let wrong = served.post("/skep/v1/restore", "the whole").await;
    check(&wrong, 400, "this is no backup of a cluster");
    let restored = served.post("/skep/v1/restore", backup.text()).await;
    assert_eq!(restored.status, 200);
    assert_eq!(restored.json().as_str().unwrap().len(), 25);
}
