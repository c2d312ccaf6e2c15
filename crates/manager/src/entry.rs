//! Raft entries and snapshots as this manager writes and reads them.

use skep_store::{Action, ActionKind, Object, Store};
use skep_wire::{
    SpecCache, log,
    snapshot::{self, Membership, Snapshot},
};

/// Encoded bytes after which a batch becomes several entries. SwarmKit's transactions end at
/// 1.5 MiB; raft refuses longer proposals.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// The entries of one batch. Only the last carries `request_id`: the batch is done when it is
/// committed. Cutting is safe because each action is a whole object and reconcilers complete what
/// a crash between two entries leaves.
pub fn encode_batch(request_id: u64, actions: &[Action]) -> Vec<Vec<u8>> {
    let entry = log::encode_actions(request_id, actions);
    if entry.len() <= ENTRY_BYTES_MAX || actions.len() < 2 {
        return vec![entry];
    }
    let (first, second) = actions.split_at(actions.len() / 2);
    let mut entries = encode_batch(0, first);
    entries.extend(encode_batch(request_id, second));
    entries
}

/// The entries of a batch that must be stored whole: one, as far as anything depends on the rest.
/// Secrets and configs may come before, when nothing refers to them yet, and go after it; so may
/// revisions that are forgotten, and tasks follow their services.
pub fn encode_whole(request_id: u64, actions: &[Action]) -> Vec<Vec<u8>> {
    let entry = log::encode_actions(request_id, actions);
    if entry.len() <= ENTRY_BYTES_MAX {
        return vec![entry];
    }
    let [before, whole, after] = parts(actions);
    let mut entries = Vec::new();
    if !before.is_empty() {
        entries.extend(encode_batch(0, &before));
    }
    let id = if after.is_empty() { request_id } else { 0 };
    entries.push(log::encode_actions(id, &whole));
    if !after.is_empty() {
        entries.extend(encode_batch(request_id, &after));
    }
    entries
}

/// Bytes of what must be in one entry.
pub fn whole_bytes(actions: &[Action]) -> usize {
    let [_, whole, _] = parts(actions);
    log::encode_actions(0, &whole).len()
}

/// The parts of that, in words, with their bytes.
pub fn whole_parts(actions: &[Action]) -> Vec<(String, usize)> {
    let [_, whole, _] = parts(actions);
    let sized = whole.iter().map(|action| {
        let what = match &action.object {
            Object::Service(service) => format!("service {}", service.name()),
            Object::Network(network) => format!("network {}", network.name()),
            // A revision holds the document and the file it was made from.
            Object::Resource(resource) => resource.annotations.name.clone(),
            _ => "others".to_owned(),
        };
        (
            what,
            log::encode_actions(0, std::slice::from_ref(action)).len(),
        )
    });
    sized.collect()
}

/// What may come before, what belongs together, and what may follow.
fn parts(actions: &[Action]) -> [Vec<Action>; 3] {
    let mut parts = [const { Vec::new() }; 3];
    for action in actions {
        let is_removal = action.kind == ActionKind::Remove;
        let part = match action.object {
            Object::Secret(_) | Object::Config(_) if !is_removal => 0,
            Object::Secret(_) | Object::Config(_) | Object::Resource(_) if is_removal => 2,
            Object::Task(_) => 2,
            _ => 1,
        };
        parts[part].push(action.clone());
    }
    parts
}

/// The request id of an entry without decoding the rest: its first field, when not zero.
pub fn request_id(mut entry: &[u8]) -> u64 {
    let is_first = prost::encoding::decode_key(&mut entry).is_ok_and(|(number, _)| number == 1);
    if is_first {
        prost::encoding::decode_varint(&mut entry).unwrap_or(0)
    } else {
        0
    }
}

/// Store and group as SwarmKit's `Snapshot`.
pub fn encode_snapshot(store: &Store, membership: &Membership) -> Vec<u8> {
    let objects: Vec<Object> = store.objects().collect();
    snapshot::encode_snapshot(membership, &objects)
}

/// A snapshot's group, and its objects as a store.
///
/// # Errors
/// The bytes are no snapshot, or its objects are malformed or contradict each other.
pub fn decode_snapshot(bytes: &[u8]) -> Result<(Snapshot, Store), String> {
    let mut decoded = snapshot::decode_snapshot(bytes, &mut SpecCache::new())
        .map_err(|error| error.to_string())?;
    let objects = std::mem::take(&mut decoded.objects);
    let store = Store::from_objects(objects).map_err(|error| error.to_string())?;
    Ok((decoded, store))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_store::ActionKind;

    use super::*;

    fn action(labels_bytes: usize) -> Action {
        let mut rng = skep_model::Rng::from_seed(1);
        let mut node = crate::bootstrap::tests::node(&mut rng);
        let label = ("k".to_owned(), "v".repeat(labels_bytes));
        node.spec.annotations.labels.extend([label]);
        Action {
            kind: ActionKind::Create,
            object: Object::Node(Arc::new(node)),
        }
    }

    #[test]
    fn a_small_batch_is_one_entry_that_shows_its_request() {
        let entries = encode_batch(7 << 48 | 9, &[action(10), action(20)]);
        assert_eq!(entries.len(), 1);
        assert_eq!(request_id(&entries[0]), 7 << 48 | 9);
    }

    #[test]
    fn a_large_batch_is_cut_and_its_last_entry_shows_the_request() {
        let actions: Vec<Action> = (0..5).map(|_| action(400_000)).collect();
        let entries = encode_batch(3, &actions);
        assert!(entries.len() > 1);
        assert!(entries.iter().all(|entry| entry.len() <= ENTRY_BYTES_MAX));
        let (last, others) = entries.split_last().unwrap();
        assert_eq!(request_id(last), 3);
        assert!(others.iter().all(|entry| request_id(entry) == 0));
        let read: Vec<Action> = entries
            .iter()
            .flat_map(|entry| log::decode_actions(entry, &mut SpecCache::new()).unwrap().1)
            .collect();
        assert_eq!(read, actions);
    }

    #[test]
    fn an_empty_or_broken_entry_has_no_request() {
        for bytes in [&[][..], &[0xff], &[0x08], &[0x12, 0x00]] {
            assert_eq!(request_id(bytes), 0);
        }
    }
}
