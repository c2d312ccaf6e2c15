//! What it means for the managers that remain when one leaves, in Docker's words.

use skep_manager::group::Group;
use skep_model::{NodeId, Reachability};

const MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a \
     manager. ";
const LAST: &str = "Removing the last manager erases all current state of the swarm. Use `--force` \
     to ignore this message. ";
const UNKNOWN: &str = "Doing so may lose the consensus of your cluster. ";
const RESTORING: &str = "The only way to restore a swarm that has lost consensus is to reinitialize \
     it with `--force-new-cluster`. Use `--force` to suppress this message.";
/// Docker's refusal to leave a locked swarm.
pub(super) const LOCKED: &str = "Swarm is encrypted and locked. Please unlock it first or use \
     `--force` to ignore this message.";

/// The refusal a manager gives without `--force`. `group` is what the leader sees, if it can be
/// asked; `is_answering` whether this manager serves the cluster at all.
pub(super) fn refusal(group: Option<&Group>, is_answering: bool, own: NodeId) -> String {
    let mut text = MANAGER.to_owned();
    match group {
        Some(group) => {
            let count = |wanted| {
                let members = group.members.values();
                members
                    .filter(|status| status.reachability == wanted)
                    .count()
            };
            let reachable = count(Reachability::Reachable);
            let unreachable = count(Reachability::Unreachable);
            if group.by_node(own).is_some() && reachable < unreachable + 3 {
                if (reachable, unreachable) == (1, 0) {
                    return text + LAST;
                }
                text += &format!(
                    "Removing this node leaves {} managers out of {}. Without a Raft quorum your swarm will be inaccessible. ",
                    reachable.saturating_sub(1),
                    reachable + unreachable
                );
            }
        }
        None if !is_answering => text += UNKNOWN,
        None => {}
    }
    text + RESTORING
}

#[cfg(test)]
mod tests {
    use skep_model::Rng;
    use skep_wire::member::Member;

    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::random(&mut Rng::from_seed(number))
    }

    fn group(reachable: u64, unreachable: u64) -> Group {
        let members = (1..=reachable + unreachable).map(|raft_id| Member {
            raft_id,
            node_id: id(raft_id),
            addr: String::new(),
        });
        let mut group = Group::new(1, members.collect());
        for (raft_id, status) in &mut group.members {
            status.reachability = if *raft_id <= reachable {
                Reachability::Reachable
            } else {
                Reachability::Unreachable
            };
        }
        group
    }

    #[track_caller]
    fn check(reachable: u64, unreachable: u64, middle: &str) {
        let text = refusal(Some(&group(reachable, unreachable)), true, id(1));
        assert_eq!(text, format!("{MANAGER}{middle}{RESTORING}"));
    }

    #[test]
    fn the_refusal_says_what_is_left() {
        let text = refusal(Some(&group(1, 0)), true, id(1));
        assert_eq!(text, format!("{MANAGER}{LAST}"));
        let leaves = |left, all| {
            format!(
                "Removing this node leaves {left} managers out of {all}. Without a Raft quorum your \
                 swarm will be inaccessible. "
            )
        };
        check(2, 0, &leaves(1, 2));
        check(2, 1, &leaves(1, 3));
        check(3, 0, "");
        check(3, 1, &leaves(2, 4));
        check(3, 2, &leaves(2, 5));
        check(4, 1, "");
        check(1, 1, &leaves(0, 2));
    }

    #[test]
    fn without_an_answer_the_refusal_warns() {
        assert_eq!(
            refusal(None, false, id(1)),
            format!("{MANAGER}{UNKNOWN}{RESTORING}")
        );
        assert_eq!(refusal(None, true, id(1)), format!("{MANAGER}{RESTORING}"));
    }
}
