//! Keys of the data plane of dockerd nodes: gossip and IPsec, three of each, of which the oldest is
//! replaced twice a day. Agents get them with their session. Skep's own nodes do not use them.

use std::time::Duration;

use skep_model::{Cluster, EncryptionKey, Rng};
use skep_store::Transaction;

use crate::vault::Vault;

/// What the keys are for, by SwarmKit's names.
const SUBSYSTEMS: [&str; 2] = ["networking:gossip", "networking:ipsec"];
/// Keys of each: a dockerd sends with the second oldest, so that all have it before it is used.
const KEYS_PER_SUBSYSTEM: usize = 3;
/// The clock of a new cluster begins below this, as in SwarmKit.
const FIRST_CLOCK_BELOW: u64 = 1 << 16;
/// Time between two rotations. A new leader begins it anew, as in SwarmKit.
pub(super) const ROTATION_PERIOD: Duration = Duration::from_secs(12 * 3600);

/// Makes the keys of a cluster that has none.
pub(super) fn ensure(tx: &mut Transaction, rng: &mut Rng, vault: &mut dyn Vault) {
    let Some(stored) = tx.view().cluster() else {
        return;
    };
    if !stored.network_bootstrap_keys.is_empty() {
        return;
    }
    let mut cluster = Cluster::clone(stored);
    cluster.encryption_key_lamport_clock = rng.below(FIRST_CLOCK_BELOW);
    for subsystem in SUBSYSTEMS {
        for _ in 0..KEYS_PER_SUBSYSTEM {
            add(&mut cluster, subsystem, vault);
        }
    }
    write(tx, cluster);
}

/// Drops the oldest key of each kind and adds a new one: exactly one of each, or dockerds lose
/// track of which to use.
pub(super) fn rotate(tx: &mut Transaction, vault: &mut dyn Vault) {
    let Some(stored) = tx.view().cluster() else {
        return;
    };
    let mut cluster = Cluster::clone(stored);
    for subsystem in SUBSYSTEMS {
        let keys = &mut cluster.network_bootstrap_keys;
        let own = keys.iter().filter(|key| key.subsystem == subsystem);
        let is_full = own.clone().count() >= KEYS_PER_SUBSYSTEM;
        let oldest = own.map(|key| key.lamport_time).min();
        keys.retain(|key| {
            !is_full || key.subsystem != subsystem || Some(key.lamport_time) != oldest
        });
        add(&mut cluster, subsystem, vault);
    }
    write(tx, cluster);
}

fn add(cluster: &mut Cluster, subsystem: &str, vault: &mut dyn Vault) {
    cluster.encryption_key_lamport_clock += 1;
    cluster.network_bootstrap_keys.push(EncryptionKey {
        subsystem: subsystem.to_owned(),
        key: vault.network_key(),
        lamport_time: cluster.encryption_key_lamport_clock,
    });
}

fn write(tx: &mut Transaction, cluster: Cluster) {
    tx.update_cluster(cluster)
        .expect("the cluster just read can be written");
}
