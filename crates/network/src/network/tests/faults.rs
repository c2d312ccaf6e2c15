//! The owner dies between any two steps; the next `open` must come to a consistent end.

use super::*;
use crate::endpoint::EndpointInfo;

/// Makes the owner die, without a word, after `steps` more steps.
fn doom(network: &Network, steps: u32) {
    network.tx.send(Command::Doom { steps }).unwrap();
}

/// Whether a healthy owner adopts what it finds, and nothing is left once it is told to remove everything.
async fn check_healthy(bed: &Testbed, before: &str) {
    let network = Network::open(config(bed)).await.unwrap();
    assert!(network.reconcile().await.unwrap().steps.is_empty());
    for (id, info) in network.endpoints().await.unwrap() {
        let EndpointInfo::Attached(a) = info else {
            panic!("{id} has no network")
        };
        let _server = Server::tcp(Some(&a.netns_path), "0.0.0.0:80");
        let to = format!("192.0.2.1:{}", a.ports[0].published);
        assert_eq!(
            ask(Protocol::Tcp, Some(bed.world()), &to).unwrap(),
            "192.0.2.2",
            "{id}"
        );
    }
    network.remove().await.unwrap();
    assert_eq!(bed.inventory(), before);
}

#[test]
fn a_kill_between_any_two_steps_of_open_heals() {
    on_node(async |bed| {
        let before = bed.inventory();
        for steps in 0..12 {
            Owner::open_doomed(&config(bed), steps);
            check_healthy(bed, &before).await;
        }
    });
}

#[test]
fn a_kill_between_any_two_steps_of_attach_heals() {
    on_node(async |bed| {
        let before = bed.inventory();
        for steps in 0.. {
            let network = Network::open(config(bed)).await.unwrap();
            doom(&network, steps);
            let outcome = network.attach("a", &[tcp(8080, 80)], None).await;
            network.close().await;
            check_healthy(bed, &before).await;
            if outcome.is_ok() {
                assert!(steps >= 5, "attach has at least five steps, not {steps}");
                return;
            }
            assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
        }
    });
}

#[test]
fn a_kill_between_any_two_steps_of_detach_heals() {
    on_node(async |bed| {
        let before = bed.inventory();
        for steps in 0..6 {
            let network = Network::open(config(bed)).await.unwrap();
            network.attach("a", &[tcp(8080, 80)], None).await.unwrap();
            network.attach("b", &[tcp(8081, 80)], None).await.unwrap();
            doom(&network, steps);
            let outcome = network.detach("a").await;
            assert_eq!(
                outcome.is_ok(),
                steps >= 2,
                "{outcome:?} after {steps} steps"
            );
            network.close().await;
            check_healthy(bed, &before).await;
        }
    });
}

#[test]
fn a_kill_between_any_two_steps_of_a_batch_heals() {
    on_node(async |bed| {
        let before = bed.inventory();
        for steps in 0..24 {
            let network = Network::open(config(bed)).await.unwrap();
            doom(&network, steps);
            let attach = |index: u16| {
                let network = network.clone();
                async move {
                    network
                        .attach(&format!("c{index}"), &[tcp(9000 + index, 80)], None)
                        .await
                }
            };
            futures_util::future::join_all((0..4).map(attach)).await;
            network.close().await;
            check_healthy(bed, &before).await;
        }
    });
}
