//! The actor without a kernel: what it answers before it was told anything.

use std::time::Duration;

use skep_model::{NetworkId, Rng};
use tokio_util::sync::CancellationToken;

use super::*;

/// A data plane in a membership whose managers are silent, and its actor.
async fn silent() -> (Dataplane, mpsc::Sender<Message>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (dataplane, actor) = Dataplane::new(Config {
        run_dir: dir.path().to_owned(),
        bridge: "skep0".to_owned(),
        codec: Codec {
            encode: |_| Vec::new(),
            decode: |_| Err("nothing is kept".into()),
        },
        launch: Launch::default(),
    });
    tokio::spawn(actor.run(CancellationToken::new()));
    let (tell, messages) = mpsc::channel(1);
    let membership = Membership {
        node_id: NodeId::random(&mut Rng::from_seed(1)),
        data_path: [192, 0, 2, 1].into(),
        messages,
    };
    assert_eq!(dataplane.join(membership).await, None);
    (dataplane, tell, dir)
}

fn container(number: u8, vni: u32) -> LocalContainer {
    let network = NetworkFacts {
        id: NetworkId::random(&mut Rng::from_seed(number.into())).to_string(),
        name: format!("net{number}"),
        vni,
        mtu: None,
        subnets: vec![format!("10.0.{number}.0/24").parse().unwrap()],
        gateways: Vec::new(),
        is_internal: false,
        is_encrypted: false,
        is_ingress: false,
    };
    LocalContainer {
        netns_path: "/run/x".into(),
        places: vec![Place {
            network,
            interface: "eth1".to_owned(),
            addresses: vec![format!("10.0.{number}.2/24").parse().unwrap()],
            aliases: Vec::new(),
        }],
        upstreams: Vec::new(),
        local: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_vxlan_id_is_waited_for_until_the_last_container_that_uses_it_has_ended() {
    let (dataplane, _tell, _dir) = silent().await;
    dataplane.adopt("old", container(1, 4097)).await;
    let error = dataplane.attach("new", container(2, 4097)).await;
    let expected = AttachError::VxlanId {
        network: "net2".to_owned(),
        other: "net1".to_owned(),
    };
    assert!(expected.is_temporary());
    assert_eq!(error, Err(expected));
    // Another on the old network is none of its business.
    let wait = Duration::from_secs(1);
    let same = tokio::time::timeout(wait, dataplane.attach("same", container(1, 4097)));
    assert!(same.await.is_err());
    dataplane.detach("same").await;
    dataplane.detach("old").await;
    // It now waits for the managers, as any other.
    let error = dataplane.attach("new", container(2, 4097)).await;
    assert_eq!(error, Err(AttachError::NoDirectory));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_answered_at_once() {
    let (dataplane, _tell, _dir) = silent().await;
    let mut homeless = container(1, 4097);
    homeless.places[0].addresses.clear();
    let error = dataplane.attach("a", homeless).await;
    assert_eq!(error, Err(AttachError::NoAddress("net1".to_owned())));
    // Nobody is led to a container no task of which is known.
    dataplane.parted("a").await;
    dataplane.leave().await;
    let error = dataplane.attach("a", container(1, 4097)).await;
    assert_eq!(error, Err(AttachError::Stopped));
}
