//! Rotations against a store, with readable nonsense for keys; and once with real ones.

use proptest::prelude::*;
use skep_ca::{JoinToken, KeyRequest};
use skep_model::{NodeDescription, NodeTlsInfo, Redacted, Rng, Version};

use super::*;
use crate::{
    bootstrap::tests::{new_cluster, node},
    vault::{Order, SystemVault, tests::FakeVault},
};

const CROSS: &[u8] = b"cross";

/// A cluster with a leader that changes as often as it likes: nothing but the store is kept.
struct World {
    store: Store,
    vault: Box<dyn Vault>,
    now: Timestamp,
    index: u64,
}

impl World {
    fn new(node_count: usize) -> Self {
        let mut rng = Rng::from_seed(5);
        let mut bootstrap = new_cluster(&mut rng);
        bootstrap.cluster.root_ca.ca_cert = b"root-0".to_vec();
        let mut world = Self {
            store: Store::default(),
            vault: Box::<FakeVault>::default(),
            now: Timestamp::ZERO + Duration::from_secs(1_795_264_496),
            index: 1,
        };
        world.write(|tx| {
            tx.create_cluster(*bootstrap.cluster).unwrap();
            for _ in 0..node_count {
                let mut node = node(&mut rng);
                node.status.state = NodeState::Ready;
                node.certificate.state = CertificateState::Issued;
                report(&mut node, b"root-0");
                tx.create_node(node).unwrap();
            }
        });
        world
    }

    fn write<R>(&mut self, action: impl FnOnce(&mut Transaction) -> R) -> R {
        self.index += 1;
        let mut tx = Transaction::new(&self.store, Version(self.index), self.now);
        let result = action(&mut tx);
        self.store = tx.finish().0;
        result
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.store.nodes().map(|node| node.id).collect()
    }

    fn update_node(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        let mut node = Node::clone(self.store.node(id).unwrap());
        change(&mut node);
        self.write(|tx| tx.update_node(node)).unwrap();
    }

    fn update_spec(&mut self, change: impl FnOnce(&mut Cluster)) -> Result<(), CommandError> {
        let mut cluster = Cluster::clone(self.store.cluster().unwrap());
        change(&mut cluster);
        begin(&mut cluster, &mut *self.vault, self.now)?;
        self.write(|tx| tx.update_cluster(cluster)).unwrap();
        Ok(())
    }

    fn force(&mut self) {
        self.update_spec(|cluster| cluster.spec.ca.force_rotate += 1)
            .unwrap();
    }

    fn give(&mut self, certificate: &[u8]) {
        self.update_spec(|cluster| {
            cluster.spec.ca.signing_ca_cert = certificate.to_vec();
            cluster.spec.ca.signing_ca_key = Redacted(b"a key".to_vec());
        })
        .unwrap();
    }

    fn reconcile(&mut self) -> Option<Timestamp> {
        self.index += 1;
        let mut tx = Transaction::new(&self.store, Version(self.index), self.now);
        let next = reconcile(&mut tx, &mut *self.vault);
        self.store = tx.finish().0;
        next
    }

    fn root(&self) -> &RootCa {
        &self.store.cluster().unwrap().root_ca
    }

    fn goal(&self) -> Option<&[u8]> {
        let rotation = self.root().root_rotation.as_ref()?;
        Some(&rotation.ca_cert)
    }

    fn told(&self) -> Vec<NodeId> {
        let told = self
            .store
            .nodes()
            .filter(|node| node.certificate.state == CertificateState::Rotate);
        told.map(|node| node.id).collect()
    }

    /// The leader issues what the node asks for.
    fn renew(&mut self, id: NodeId) {
        let tail = self.goal().map_or(&b""[..], |_| CROSS).to_vec();
        self.update_node(id, |node| {
            node.certificate.state = CertificateState::Issued;
            node.certificate.certificate = [b"leaf ", &tail[..]].concat();
        });
    }

    /// The node uses it.
    fn arrive(&mut self, id: NodeId) {
        let root = self.root();
        let current = root
            .root_rotation
            .as_ref()
            .map_or(&root.ca_cert, |new| &new.ca_cert)
            .clone();
        self.update_node(id, |node| report(node, &current));
    }

    fn set_state(&mut self, id: NodeId, state: NodeState) {
        self.update_node(id, |node| node.status.state = state);
    }
}

fn report(node: &mut Node, ca_cert: &[u8]) {
    node.description = Some(NodeDescription {
        hostname: "host".to_owned(),
        tls_info: Some(NodeTlsInfo {
            trust_root: Vec::new(),
            cert_issuer_subject: b"swarm-ca".to_vec(),
            cert_issuer_public_key: ca_cert.to_vec(),
        }),
        ..NodeDescription::default()
    });
}

#[test]
fn only_a_changed_counter_forces_a_rotation() {
    let mut world = World::new(1);
    world
        .update_spec(|cluster| cluster.spec.task_history_limit = 1)
        .unwrap();
    assert_eq!(world.goal(), None);
    assert_eq!(world.reconcile(), None);
    world.force();
    assert_eq!(world.goal(), Some(&b"root-1"[..]));
    assert_eq!(world.root().last_forced_rotation, 1);
    world
        .update_spec(|cluster| cluster.spec.task_history_limit = 2)
        .unwrap();
    assert_eq!(world.goal(), Some(&b"root-1"[..]));
    assert_eq!(world.root().ca_cert, b"root-0");
}

#[test]
fn given_root_is_rotated_to_and_its_key_not_kept_twice() {
    let mut world = World::new(1);
    world.give(b"mine");
    assert_eq!(world.goal(), Some(&b"mine"[..]));
    let spec = &world.store.cluster().unwrap().spec.ca;
    assert!(spec.signing_ca_cert.is_empty() && spec.signing_ca_key.0.is_empty());
    // The next, unrelated update is not taken for another wish.
    world
        .update_spec(|cluster| cluster.spec.task_history_limit = 1)
        .unwrap();
    assert_eq!(world.goal(), Some(&b"mine"[..]));
}

#[test]
fn another_wish_replaces_a_rotation_and_the_current_root_ends_it() {
    let mut world = World::new(2);
    world.give(b"mine");
    let id = world.nodes()[0];
    world.reconcile();
    world.renew(id);
    world.arrive(id);
    world.give(b"other");
    assert_eq!(world.goal(), Some(&b"other"[..]));
    assert_eq!(waited_for(&world.store, &*world.vault), world.nodes());
    world.give(b"root-0");
    assert_eq!(world.goal(), None);
    assert_eq!(world.root().ca_cert, b"root-0");
    assert_eq!(world.reconcile(), None);
    assert_eq!(waited_for(&world.store, &*world.vault), []);
}

#[test]
fn the_same_wish_again_keeps_what_was_cross_signed() {
    let mut world = World::new(1);
    world.give(b"mine");
    world
        .write(|tx| {
            let mut cluster = Cluster::clone(tx.view().cluster().unwrap());
            let rotation = cluster.root_ca.root_rotation.as_mut().unwrap();
            rotation.cross_signed_ca_cert = b"the first".to_vec();
            tx.update_cluster(cluster)
        })
        .unwrap();
    world.give(b"mine");
    let rotation = world.root().root_rotation.clone().unwrap();
    assert_eq!(rotation.cross_signed_ca_cert, b"the first");
}

#[test]
fn unfit_root_changes_nothing_and_tells_why() {
    let mut world = World::new(1);
    world.vault = Box::new(SystemVault);
    let before = world.store.cluster().unwrap().clone();
    let refused = world.update_spec(|cluster| cluster.spec.ca.signing_ca_cert = b"x".to_vec());
    let error = refused.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(
        error.message,
        "there must be at least one valid, reachable external CA corresponding to the desired CA certificate"
    );
    assert_eq!(*world.store.cluster().unwrap(), before);
}

#[test]
fn thirty_nodes_renew_at_a_time() {
    let mut world = World::new(75);
    world.force();
    assert_eq!(world.reconcile(), Some(world.now + PERIOD));
    assert_eq!(world.told().len(), 30);
    world.reconcile();
    assert_eq!(world.told().len(), 30);
    // A certificate alone makes no room: the node must come back with it.
    let first = world.told()[0];
    world.renew(first);
    world.reconcile();
    assert_eq!(world.told().len(), 29);
    world.arrive(first);
    world.reconcile();
    assert_eq!(world.told().len(), 30);
    // Those that do not answer do not hold up the others for long.
    world.now = world.now + RENEWAL_PATIENCE;
    world.reconcile();
    assert_eq!(world.told().len(), 60);
    world.now = world.now + RENEWAL_PATIENCE;
    world.reconcile();
    assert_eq!(world.told().len(), 74);
}

#[test]
fn node_that_lost_its_new_certificate_is_told_again() {
    let mut world = World::new(1);
    world.force();
    world.reconcile();
    let id = world.nodes()[0];
    world.renew(id);
    world.reconcile();
    assert_eq!(world.told(), []);
    world.now = world.now + RENEWAL_PATIENCE;
    world.reconcile();
    assert_eq!(world.told(), [id]);
}

#[test]
fn node_that_is_away_holds_the_rotation_up_visibly() {
    let mut world = World::new(3);
    let ids = world.nodes();
    world.set_state(ids[1], NodeState::Down);
    world.force();
    world.reconcile();
    assert_eq!(world.told(), [ids[0], ids[2]]);
    for id in [ids[0], ids[2]] {
        world.renew(id);
        world.arrive(id);
    }
    assert_eq!(world.reconcile(), Some(world.now + PERIOD));
    assert_eq!(waited_for(&world.store, &*world.vault), [ids[1]]);
    let text = progress(&world.store, &*world.vault).unwrap().to_string();
    assert_eq!(
        text,
        format!(
            "root rotation: 2 of 3 nodes have moved; it cannot end before these return or are removed: {} (host)",
            ids[1]
        )
    );
    // Back it is told, removed it is forgotten.
    let mut without = World {
        store: world.store.clone(),
        ..World::new(0)
    };
    without.write(|tx| tx.remove_node(ids[1]));
    assert_eq!(without.reconcile(), None);
    assert_eq!(without.root().ca_cert, b"root-1");
    world.set_state(ids[1], NodeState::Ready);
    world.reconcile();
    assert_eq!(world.told(), [ids[1]]);
}

#[test]
fn many_waited_for_are_not_all_named() {
    let mut world = World::new(12);
    for id in world.nodes() {
        world.set_state(id, NodeState::Down);
    }
    world.force();
    let text = progress(&world.store, &*world.vault).unwrap().to_string();
    assert!(text.ends_with(" (host) and 2 more"), "{text}");
}

#[test]
fn finished_rotation_makes_new_tokens() {
    let mut world = World::new(1);
    world.force();
    world.reconcile();
    let id = world.nodes()[0];
    world.renew(id);
    world.arrive(id);
    assert_eq!(world.reconcile(), None);
    let root = world.root();
    assert_eq!(root.ca_cert, b"root-1");
    assert_eq!(root.ca_key.0, b"a key");
    assert_eq!(root.ca_cert_hash, "hash of root-1");
    assert!(root.join_tokens.worker.0.starts_with("token-root-1"));
    assert_ne!(root.join_tokens.worker, root.join_tokens.manager);
    assert_eq!(root.root_rotation, None);
    assert_eq!(root.last_forced_rotation, 1);
    // And is not begun again.
    world
        .update_spec(|cluster| cluster.spec.task_history_limit = 1)
        .unwrap();
    assert_eq!(world.goal(), None);
}

#[test]
fn nodes_move_with_real_certificates() {
    let mut world = World::new(2);
    world.vault = Box::new(SystemVault);
    let ca = skep_ca::RootCa::generate(world.now).unwrap();
    world
        .write(|tx| {
            let mut cluster = Cluster::clone(tx.view().cluster().unwrap());
            cluster.root_ca.ca_cert = ca.certificates_pem().as_bytes().to_vec();
            cluster.root_ca.ca_key = Redacted(ca.key_pem().as_bytes().to_vec());
            tx.update_cluster(cluster)
        })
        .unwrap();
    world.force();
    let old = world.root().ca_cert.clone();
    assert!(world.reconcile().is_some());
    for id in world.told() {
        let csr = KeyRequest::generate().unwrap().csr_pem.into_bytes();
        let order = Order {
            csr: &csr,
            node_id: id,
            cluster_id: world.store.cluster().unwrap().id,
            role: skep_model::Role::Worker,
            expiry: Duration::from_hours(2),
        };
        let root = world.store.cluster().unwrap().root_ca.clone();
        let chain = world.vault.issue(&root, &order, world.now).unwrap();
        let cross = &root.root_rotation.as_ref().unwrap().cross_signed_ca_cert;
        assert!(chain.ends_with(cross));
        let info = skep_ca::tls_info(&chain, &old).unwrap();
        world.update_node(id, |node| {
            node.certificate.state = CertificateState::Issued;
            node.certificate.certificate = chain;
            node.description.as_mut().unwrap().tls_info = Some(info);
        });
    }
    assert_eq!(world.reconcile(), None);
    let root = world.root();
    assert_ne!(root.ca_cert, old);
    let token: JoinToken = root.join_tokens.manager.0.parse().unwrap();
    assert!(token.matches_bundle(&root.ca_cert));
    assert_eq!(root.ca_cert_hash, skep_ca::bundle_hash(&root.ca_cert));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens on the way, and however often leaders change, a rotation ends once all nodes
    /// are back and answer; never before.
    #[test]
    fn rotation_ends_when_all_have_moved(
        events in prop::collection::vec((0..7_u8, any::<prop::sample::Index>()), 0..80),
    ) {
        let mut world = World::new(40);
        world.force();
        let ids = world.nodes();
        for (event, index) in events {
            let id = ids[index.index(ids.len())];
            match event {
                0 => world.renew(id),
                1 => world.arrive(id),
                2 => world.set_state(id, NodeState::Down),
                3 => world.set_state(id, NodeState::Ready),
                4 => world.now = world.now + Duration::from_secs(7),
                5 => world.force(),
                _ => { world.reconcile(); }
            }
            let moved = waited_for(&world.store, &*world.vault).is_empty();
            if world.goal().is_some() && !moved {
                let before = world.root().ca_cert.clone();
                prop_assert!(world.reconcile().is_some());
                prop_assert_eq!(&world.root().ca_cert, &before);
            }
        }
        for id in &ids {
            world.set_state(*id, NodeState::Ready);
        }
        for _ in 0..20 {
            world.reconcile();
            for id in world.told() {
                world.renew(id);
                world.arrive(id);
            }
            world.now = world.now + RENEWAL_PATIENCE;
        }
        prop_assert_eq!(world.goal(), None);
        prop_assert_eq!(world.reconcile(), None);
    }
}
