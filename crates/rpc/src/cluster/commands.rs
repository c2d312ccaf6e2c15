//! Commands as the calls of SwarmKit's Control service that carry them to the leader.

use skep_manager::command::{Answer, Code, Command, CommandError, Rotate, ServiceChange};
use skep_model::{
    ClusterId, ClusterSpec, ConfigSpec, NetworkSpec, SecretSpec, ServiceId, ServiceSpec, Version,
};
use skep_wire::proto::{self, control_client::ControlClient, update_service_request::Rollback};
use tonic::{Response, Status};

use crate::{
    connection::Connection,
    convert::{command_error, revision_request},
};

/// A command as the call that carries it.
pub(super) async fn call(
    mut client: ControlClient<Connection>,
    command: &Command,
    cluster_id: ClusterId,
) -> Result<Answer, CommandError> {
    match command {
        Command::CreateService { spec } => create_service(client, spec).await,
        Command::UpdateService {
            id,
            version,
            change,
        } => update_service(client, *id, *version, change).await,
        Command::RemoveService { id } => {
            let service_id = id.to_string();
            done(Box::pin(
                client.remove_service(proto::RemoveServiceRequest { service_id }),
            ))
            .await
        }
        Command::CreateNetwork { spec } => create_network(client, spec).await,
        Command::RemoveNetwork { id } => {
            done(Box::pin(client.remove_network(
                proto::RemoveNetworkRequest {
                    name: String::new(),
                    network_id: id.to_string(),
                },
            )))
            .await
        }
        Command::UpdateNode { id, version, spec } => {
            done(Box::pin(client.update_node(proto::UpdateNodeRequest {
                node_id: id.to_string(),
                node_version: Some(proto::Version { index: version.0 }),
                spec: Some((&**spec).into()),
            })))
            .await
        }
        Command::RemoveNode { id, is_forced } => {
            done(Box::pin(client.remove_node(proto::RemoveNodeRequest {
                node_id: id.to_string(),
                force: *is_forced,
            })))
            .await
        }
        Command::UpdateCluster {
            version,
            spec,
            rotate,
        } => {
            let request = update_cluster(cluster_id, *version, spec, *rotate);
            done(Box::pin(client.update_cluster(request))).await
        }
        Command::CreateSecret { .. }
        | Command::UpdateSecret { .. }
        | Command::RemoveSecret { .. }
        | Command::CreateConfig { .. }
        | Command::UpdateConfig { .. }
        | Command::RemoveConfig { .. } => call_for_supplies(client, command).await,
        // Nodes ask for these by calls of their own; stacks have a service of theirs.
        Command::ApplyStack { .. }
        | Command::RollBackStack { .. }
        | Command::RemoveStack { .. }
        | Command::IssueCertificate { .. }
        | Command::LeaveGroup { .. } => Err(CommandError::new(
            Code::Unimplemented,
            "this command is not passed on",
        )),
    }
}

async fn update_service(
    mut client: ControlClient<Connection>,
    id: ServiceId,
    version: Version,
    change: &ServiceChange,
) -> Result<Answer, CommandError> {
    let (spec, rollback) = match change {
        ServiceChange::Spec(spec) => (Some((&**spec).into()), Rollback::None),
        ServiceChange::Rollback => (None, Rollback::Previous),
        ServiceChange::RollbackTo(number) => (revision_request(*number), Rollback::Previous),
    };
    done(Box::pin(client.update_service(
        proto::UpdateServiceRequest {
            service_id: id.to_string(),
            service_version: Some(proto::Version { index: version.0 }),
            spec,
            rollback: rollback.into(),
        },
    )))
    .await
}

/// A command on a secret or config as the call that carries it.
async fn call_for_supplies(
    mut client: ControlClient<Connection>,
    command: &Command,
) -> Result<Answer, CommandError> {
    match command {
        Command::CreateSecret { spec } => create_secret(client, spec).await,
        Command::UpdateSecret { id, version, spec } => {
            done(Box::pin(client.update_secret(proto::UpdateSecretRequest {
                secret_id: id.to_string(),
                secret_version: Some(proto::Version { index: version.0 }),
                spec: Some((&**spec).into()),
            })))
            .await
        }
        Command::RemoveSecret { id } => {
            let secret_id = id.to_string();
            done(Box::pin(
                client.remove_secret(proto::RemoveSecretRequest { secret_id }),
            ))
            .await
        }
        Command::CreateConfig { spec } => create_config(client, spec).await,
        Command::UpdateConfig { id, version, spec } => {
            done(Box::pin(client.update_config(proto::UpdateConfigRequest {
                config_id: id.to_string(),
                config_version: Some(proto::Version { index: version.0 }),
                spec: Some((&**spec).into()),
            })))
            .await
        }
        Command::RemoveConfig { id } => {
            let config_id = id.to_string();
            done(Box::pin(
                client.remove_config(proto::RemoveConfigRequest { config_id }),
            ))
            .await
        }
        _ => Err(CommandError::new(
            Code::Unimplemented,
            "this command is not passed on",
        )),
    }
}

async fn create_secret(
    mut client: ControlClient<Connection>,
    spec: &SecretSpec,
) -> Result<Answer, CommandError> {
    let spec = Some(spec.into());
    let created = Box::pin(client.create_secret(proto::CreateSecretRequest { spec }));
    let created = created.await.map_err(|status| command_error(&status))?;
    let id = created.into_inner().secret.unwrap_or_default().id;
    id.parse().map(Answer::Secret).map_err(|_| malformed())
}

async fn create_config(
    mut client: ControlClient<Connection>,
    spec: &ConfigSpec,
) -> Result<Answer, CommandError> {
    let spec = Some(spec.into());
    let created = Box::pin(client.create_config(proto::CreateConfigRequest { spec }));
    let created = created.await.map_err(|status| command_error(&status))?;
    let id = created.into_inner().config.unwrap_or_default().id;
    id.parse().map(Answer::Config).map_err(|_| malformed())
}

async fn create_service(
    mut client: ControlClient<Connection>,
    spec: &ServiceSpec,
) -> Result<Answer, CommandError> {
    let spec = Some(spec.into());
    let created = Box::pin(client.create_service(proto::CreateServiceRequest { spec }));
    let created = created.await.map_err(|status| command_error(&status))?;
    let id = created.into_inner().service.unwrap_or_default().id;
    id.parse().map(Answer::Service).map_err(|_| malformed())
}

async fn create_network(
    mut client: ControlClient<Connection>,
    spec: &NetworkSpec,
) -> Result<Answer, CommandError> {
    let spec = Some(spec.into());
    let created = Box::pin(client.create_network(proto::CreateNetworkRequest { spec }));
    let created = created.await.map_err(|status| command_error(&status))?;
    let id = created.into_inner().network.unwrap_or_default().id;
    id.parse().map(Answer::Network).map_err(|_| malformed())
}

fn malformed() -> CommandError {
    CommandError::new(Code::Unknown, "malformed answer of the leader")
}

async fn done<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Answer, CommandError> {
    match call.await {
        Ok(_) => Ok(Answer::Done),
        Err(status) => Err(command_error(&status)),
    }
}

fn update_cluster(
    cluster_id: ClusterId,
    version: Version,
    spec: &ClusterSpec,
    rotate: Rotate,
) -> proto::UpdateClusterRequest {
    proto::UpdateClusterRequest {
        cluster_id: cluster_id.to_string(),
        cluster_version: Some(proto::Version { index: version.0 }),
        spec: Some(spec.into()),
        rotation: Some(proto::KeyRotation {
            worker_join_token: rotate.worker_token,
            manager_join_token: rotate.manager_token,
            manager_unlock_key: rotate.unlock_key,
        }),
    }
}
