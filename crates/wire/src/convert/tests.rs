//! Every object survives the way to the wire and back; what the model cannot hold is refused.

use proptest::prelude::*;
use prost::Message;
use skep_model as model;

use crate::{
    arbitrary::Draw,
    error::{Error, Problem},
    peer, proto,
};

/// Asserts that `object` is the same after encoding and decoding.
#[track_caller]
fn check<M, P>(object: &M)
where
    M: TryFrom<P, Error = Error> + PartialEq + std::fmt::Debug,
    P: Message + Default + for<'a> From<&'a M>,
{
    let bytes = P::from(object).encode_to_vec();
    let decoded = P::decode(&*bytes).unwrap();
    assert_eq!(&M::try_from(decoded).unwrap(), object);
}

proptest! {
    #[test]
    fn nodes_survive(seed: u64) {
        check::<_, proto::Node>(&Draw::from_seed(seed).node());
    }

    #[test]
    fn services_survive(seed: u64) {
        check::<_, proto::Service>(&Draw::from_seed(seed).service());
    }

    #[test]
    fn tasks_survive(seed: u64) {
        check::<_, proto::Task>(&Draw::from_seed(seed).task());
    }

    #[test]
    fn task_statuses_survive(seed: u64) {
        check::<_, proto::TaskStatus>(&Draw::from_seed(seed).task_status());
    }

    #[test]
    fn networks_survive(seed: u64) {
        check::<_, proto::Network>(&Draw::from_seed(seed).network());
    }

    #[test]
    fn clusters_survive(seed: u64) {
        check::<_, proto::Cluster>(&Draw::from_seed(seed).cluster());
    }
}

proptest! {
    #[test]
    fn what_agents_and_dispatchers_say_survives(seed: u64) {
        let mut draw = Draw::from_seed(seed);
        check::<_, proto::SessionRequest>(&draw.session_request());
        check::<_, proto::SessionMessage>(&draw.session_message());
        check::<_, proto::AssignmentsMessage>(&draw.assignments_message());
        check::<_, peer::DirectoryMessage>(&draw.directory_message());
        check::<_, proto::UpdateTaskStatusRequest>(&draw.status_update());
    }
}

#[test]
fn heartbeats_survive() {
    let mut rng = model::Rng::from_seed(1);
    let request = model::dispatch::HeartbeatRequest {
        session_id: model::SessionId::random(&mut rng),
    };
    let sent = proto::HeartbeatRequest::from(request);
    assert_eq!(sent.try_into(), Ok(request));
    let response = model::dispatch::HeartbeatResponse {
        period: std::time::Duration::from_millis(4_700),
    };
    let sent = proto::HeartbeatResponse::from(response);
    assert_eq!(sent.try_into(), Ok(response));
}

#[test]
fn an_assignment_of_an_unknown_kind_is_refused_by_name() {
    use proto::assignment::Item;

    let change = proto::AssignmentChange {
        assignment: Some(proto::Assignment {
            item: Some(Item::Volume(proto::VolumeAssignment::default())),
        }),
        action: 0,
    };
    let error = model::dispatch::AssignmentChange::try_from(change).unwrap_err();
    assert_eq!(
        error.to_string(),
        "field `assignment.volume` is not supported"
    );
}

/// Asserts that a task is refused for `path` and `problem` once `spoil` has changed it.
#[track_caller]
fn check_refused(spoil: impl FnOnce(&mut proto::Task), path: &str, problem: &Problem) {
    let mut task = proto::Task::from(&Draw::from_seed(1).task());
    spoil(&mut task);
    let Err(Error::Field {
        path: found,
        problem: reason,
    }) = model::Task::try_from(task)
    else {
        panic!("the task was not refused for a field");
    };
    assert_eq!((found.to_string().as_str(), &reason), (path, problem));
}

fn container(task: &mut proto::Task) -> &mut proto::ContainerSpec {
    let spec = task.spec.as_mut().unwrap();
    let Some(proto::task_spec::Runtime::Container(container)) = &mut spec.runtime else {
        panic!("the task has no container");
    };
    container
}

#[test]
fn what_the_model_cannot_hold_is_refused_by_name() {
    use proto::task_spec::Runtime;

    let attachment = proto::NetworkAttachment::default();
    check_refused(
        |task| task.networks = vec![attachment],
        "networks.network",
        &Problem::Missing,
    );
    let attachment = proto::NetworkAttachment {
        network: Some((&Draw::from_seed(1).network()).into()),
        addresses: vec!["10.0.0.300/24".to_owned()],
        ..Default::default()
    };
    check_refused(
        |task| task.networks = vec![attachment],
        "networks.addresses",
        &Problem::InvalidNetwork("10.0.0.300/24".to_owned()),
    );
    let volume = proto::VolumeAttachment::default();
    check_refused(
        |task| task.volumes.push(volume),
        "volumes",
        &Problem::Unsupported,
    );
    let set_runtime =
        |runtime| move |task: &mut proto::Task| task.spec.as_mut().unwrap().runtime = runtime;
    let generic = Runtime::Generic(proto::GenericRuntimeSpec::default());
    check_refused(
        set_runtime(Some(generic)),
        "spec.generic",
        &Problem::Unsupported,
    );
    let attachment = Runtime::Attachment(proto::NetworkAttachmentSpec::default());
    check_refused(
        set_runtime(Some(attachment)),
        "spec.attachment",
        &Problem::Unsupported,
    );
    check_refused(set_runtime(None), "spec.container", &Problem::Missing);
    check_refused(|task| task.spec = None, "spec", &Problem::Missing);
}

#[test]
fn unknown_numbers_are_refused_by_name() {
    let unknown = Problem::UnknownValue(65);
    check_refused(|task| task.desired_state = 65, "desired_state", &unknown);
    check_refused(
        |task| task.status.as_mut().unwrap().state = 65,
        "status.state",
        &unknown,
    );
    let mount = proto::Mount {
        r#type: 65,
        ..Default::default()
    };
    check_refused(
        |task| container(task).mounts.push(mount),
        "spec.container.mounts.type",
        &unknown,
    );
    check_refused(
        |task| container(task).isolation = 65,
        "spec.container.isolation",
        &unknown,
    );
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    let port = proto::PortConfig {
        target_port: 65_536,
        ..Default::default()
    };
    let endpoint = proto::Endpoint {
        ports: vec![port],
        ..Default::default()
    };
    check_refused(
        |task| task.endpoint = Some(endpoint),
        "endpoint.ports.target_port",
        &Problem::OutOfRange(65_536),
    );
    let past = prost_types::Duration {
        seconds: -1,
        nanos: 0,
    };
    check_refused(
        |task| container(task).stop_grace_period = Some(past),
        "spec.container.stop_grace_period",
        &Problem::OutOfRange(-1),
    );
    let invalid = Problem::InvalidId(model::id::InvalidId("NODE".to_owned()));
    check_refused(|task| task.node_id = "NODE".to_owned(), "node_id", &invalid);
}

#[test]
fn absent_messages_mean_the_defaults_of_swarm() {
    let id = "0123456789abcdefghijklmno";
    let cluster = proto::Cluster {
        id: id.to_owned(),
        ..Default::default()
    };
    let cluster = model::Cluster::try_from(cluster).unwrap();
    assert_eq!(cluster.spec, model::ClusterSpec::default());
    let spec = model::ClusterSpec::try_from(proto::ClusterSpec::default()).unwrap();
    let no_name = model::Annotations::default();
    assert_eq!(
        spec,
        model::ClusterSpec {
            annotations: no_name,
            ..Default::default()
        }
    );

    let container = proto::task_spec::Runtime::Container(proto::ContainerSpec::default());
    let spec = proto::TaskSpec {
        runtime: Some(container),
        ..Default::default()
    };
    assert_eq!(
        model::TaskSpec::try_from(spec.clone()).unwrap(),
        model::TaskSpec::default()
    );

    let restart = Some(proto::RestartPolicy::default());
    let spec = model::TaskSpec::try_from(proto::TaskSpec { restart, ..spec }).unwrap();
    assert_eq!(spec.restart.condition, model::RestartCondition::None);
    assert_eq!(spec.restart.delay, model::DEFAULT_RESTART_DELAY);
}

#[test]
fn a_nodes_place_on_no_network_is_refused() {
    let mut node = proto::Node::from(&Draw::from_seed(1).node());
    node.attachments = vec![proto::NetworkAttachment::default()];
    let error = model::Node::try_from(node).unwrap_err();
    assert_eq!(error.to_string(), "field `attachments.network` is missing");
}
