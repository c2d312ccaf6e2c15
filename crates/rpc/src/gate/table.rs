//! What each method wants: who may call it, and whether only the leader can answer.

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Callers without certificate too; the service checks a token.
    Anyone,
    /// Nodes of the cluster.
    Node,
    /// Managers, in the leader's eyes too.
    Manager,
    /// Holders of a manager's certificate: between members of the raft group, which judges by itself, also where the store lags.
    Member,
}

/// A service as this node serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Ca,
    NodeCa,
    Dispatcher,
    LogBroker,
    Logs,
    RaftMembership,
    Raft,
    Health,
    Control,
    Peer,
    Directory,
    Stacks,
    LogReading,
    Errands,
}

/// What a method wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) service: Service,
    pub(crate) access: Access,
    /// Followers pass it on.
    pub(crate) is_leaders: bool,
    /// It lasts as long as the caller wants.
    pub(crate) is_stream: bool,
    pub(crate) works_without_manager: bool,
    /// While no leader is known it is served here.
    pub(crate) works_without_leader: bool,
}

/// The rule for a path, `/<service>/<method>`; `None` for what does not exist here.
pub(crate) fn rule(path: &str) -> Option<Rule> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (package, service) = service.rsplit_once('.')?;
    match package {
        "docker.swarmkit.v1" => swarmkit(service, method),
        "skep.v1" => match (service, method) {
            ("Peer", "Messages") => Some(stream(Service::Peer, Access::Member, false)),
            ("Directory", "Watch") => Some(stream(Service::Directory, Access::Node, false)),
            ("Stacks", "Apply" | "RollBack" | "Remove") => {
                Some(unary(Service::Stacks, Access::Manager, true))
            }
            ("Errands", "Listen" | "Carry") => Some(stream(Service::Errands, Access::Node, true)),
            ("Errands", "Request") => Some(stream(Service::Errands, Access::Manager, true)),
            ("LogReading", "Read") => Some(stream(Service::LogReading, Access::Manager, true)),
            ("Peer", "ReadIndex") => Some(unary(Service::Peer, Access::Manager, true)),
            _ => None,
        },
        _ => None,
    }
}

fn swarmkit(service: &str, method: &str) -> Option<Rule> {
    let rule = match (service, method) {
        ("CA", "GetRootCACertificate") => unary(Service::Ca, Access::Anyone, true),
        ("CA", "GetUnlockKey") => unary(Service::Ca, Access::Manager, true),
        ("NodeCA", "IssueNodeCertificate" | "NodeCertificateStatus") => {
            unary(Service::NodeCa, Access::Anyone, true)
        }
        ("Dispatcher", "Session" | "Assignments" | "Tasks") => {
            stream(Service::Dispatcher, Access::Node, true)
        }
        ("Dispatcher", "Heartbeat" | "UpdateTaskStatus" | "UpdateVolumeStatus") => {
            unary(Service::Dispatcher, Access::Node, true)
        }
        ("LogBroker", "ListenSubscriptions" | "PublishLogs") => {
            stream(Service::LogBroker, Access::Node, true)
        }
        ("Logs", "SubscribeLogs") => stream(Service::Logs, Access::Manager, true),
        // A group of two whose second member never heard that it was let in has no leader until somebody tells it.
        ("RaftMembership", "Join") => Rule {
            works_without_leader: true,
            ..unary(Service::RaftMembership, Access::Manager, true)
        },
        ("RaftMembership", "Leave") => unary(Service::RaftMembership, Access::Manager, true),
        ("Raft", "ProcessRaftMessage" | "ResolveAddress") => {
            unary(Service::Raft, Access::Member, false)
        }
        ("Raft", "StreamRaftMessage") => stream(Service::Raft, Access::Member, false),
        ("Health", "Check") => Rule {
            works_without_manager: true,
            ..unary(Service::Health, Access::Member, false)
        },
        ("Control", method) if is_control(method) => unary(Service::Control, Access::Manager, true),
        _ => return None,
    };
    Some(rule)
}

/// Methods of the cluster API between managers.
fn is_control(method: &str) -> bool {
    matches!(
        method,
        "GetNode"
            | "ListNodes"
            | "UpdateNode"
            | "RemoveNode"
            | "GetTask"
            | "ListTasks"
            | "GetService"
            | "ListServices"
            | "CreateService"
            | "UpdateService"
            | "RemoveService"
            | "GetNetwork"
            | "ListNetworks"
            | "CreateNetwork"
            | "RemoveNetwork"
            | "GetSecret"
            | "ListSecrets"
            | "CreateSecret"
            | "UpdateSecret"
            | "RemoveSecret"
            | "GetConfig"
            | "ListConfigs"
            | "CreateConfig"
            | "UpdateConfig"
            | "RemoveConfig"
            | "GetCluster"
            | "ListClusters"
            | "UpdateCluster"
    )
}

fn unary(service: Service, access: Access, is_leaders: bool) -> Rule {
    Rule {
        service,
        access,
        is_leaders,
        is_stream: false,
        works_without_manager: false,
        works_without_leader: false,
    }
}

fn stream(service: Service, access: Access, is_leaders: bool) -> Rule {
    Rule {
        is_stream: true,
        ..unary(service, access, is_leaders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_joining_is_open_to_callers_without_certificate() {
        let open = [
            "/docker.swarmkit.v1.CA/GetRootCACertificate",
            "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate",
            "/docker.swarmkit.v1.NodeCA/NodeCertificateStatus",
        ];
        for path in open {
            assert_eq!(rule(path).unwrap().access, Access::Anyone, "{path}");
        }
        let closed = [
            ("/docker.swarmkit.v1.CA/GetUnlockKey", Access::Manager),
            ("/docker.swarmkit.v1.Dispatcher/Session", Access::Node),
            ("/docker.swarmkit.v1.RaftMembership/Join", Access::Manager),
            ("/docker.swarmkit.v1.Raft/StreamRaftMessage", Access::Member),
            ("/docker.swarmkit.v1.Control/UpdateCluster", Access::Manager),
            ("/skep.v1.Peer/ReadIndex", Access::Manager),
            ("/skep.v1.Stacks/Apply", Access::Manager),
            ("/skep.v1.Stacks/Remove", Access::Manager),
            ("/skep.v1.Directory/Watch", Access::Node),
            ("/skep.v1.LogReading/Read", Access::Manager),
            ("/skep.v1.Errands/Carry", Access::Node),
            ("/skep.v1.Errands/Request", Access::Manager),
        ];
        for (path, access) in closed {
            assert_eq!(rule(path).unwrap().access, access, "{path}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_does_not_exist() {
        for path in [
            "",
            "/",
            "//",
            "/docker.swarmkit.v1.CA/",
            "/docker.swarmkit.v1.CA/GetUnlockKey/",
            "/docker.swarmkit.v2.CA/GetUnlockKey",
            "/CA/GetUnlockKey",
            "/docker.swarmkit.v1.Control/CreateExtension",
            "/docker.swarmkit.v1.Watch/Watch",
        ] {
            assert!(rule(path).is_none(), "{path}");
        }
    }
}
