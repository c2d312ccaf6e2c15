//! The cluster API between managers: a follower's API calls reach the leader here. Keys never leave by it.

use skep_manager::{
    Handle, Published,
    command::{Answer, Command, Rotate, ServiceChange},
};
use skep_model::{
    Cluster, ConfigId, NetworkId, Node, NodeId, Secret, SecretId, ServiceId, Version,
};
use skep_wire::proto::{self, control_server, update_service_request::Rollback};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    convert::{self, malformed, status_of_command},
    service::handle,
};

mod filter;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Control;

#[async_trait]
impl control_server::Control for Control {
    async fn get_node(
        &self,
        request: Request<proto::GetNodeRequest>,
    ) -> Result<Response<proto::GetNodeResponse>, Status> {
        let view = handle(&request)?.view();
        let node_id = id(&request.get_ref().node_id, "node")?;
        let node = Some(shown_node(&view, node_id)?);
        Ok(Response::new(proto::GetNodeResponse { node }))
    }

    async fn list_nodes(
        &self,
        request: Request<proto::ListNodesRequest>,
    ) -> Result<Response<proto::ListNodesResponse>, Status> {
        let view = handle(&request)?.view();
        let filters = request.into_inner().filters.unwrap_or_default();
        let nodes = view
            .store
            .nodes()
            .filter(|node| filter::node(&filters, node));
        let nodes = nodes.map(|node| node_of(&view, node)).collect();
        Ok(Response::new(proto::ListNodesResponse { nodes }))
    }

    async fn update_node(
        &self,
        request: Request<proto::UpdateNodeRequest>,
    ) -> Result<Response<proto::UpdateNodeResponse>, Status> {
        let handle = handle(&request)?;
        let request = request.into_inner();
        let node_id = id(&request.node_id, "node")?;
        let spec = present(request.spec)?.try_into().map_err(malformed)?;
        let command = Command::UpdateNode {
            id: node_id,
            version: version(request.node_version)?,
            spec: Box::new(spec),
        };
        handle.command(command).await.map_err(status_of_command)?;
        let node = Some(shown_node(&handle.view(), node_id)?);
        Ok(Response::new(proto::UpdateNodeResponse { node }))
    }

    async fn remove_node(
        &self,
        request: Request<proto::RemoveNodeRequest>,
    ) -> Result<Response<proto::RemoveNodeResponse>, Status> {
        let handle = handle(&request)?;
        let request = request.into_inner();
        let command = Command::RemoveNode {
            id: id(&request.node_id, "node")?,
            is_forced: request.force,
        };
        handle.command(command).await.map_err(status_of_command)?;
        Ok(Response::new(proto::RemoveNodeResponse {}))
    }

    async fn get_task(
        &self,
        request: Request<proto::GetTaskRequest>,
    ) -> Result<Response<proto::GetTaskResponse>, Status> {
        let view = handle(&request)?.view();
        let task_id = &request.get_ref().task_id;
        let task = view.store.task(id(task_id, "task")?);
        let task = task.ok_or_else(|| not_found("task", task_id))?;
        let task = Some(task.as_ref().into());
        Ok(Response::new(proto::GetTaskResponse { task }))
    }

    async fn list_tasks(
        &self,
        request: Request<proto::ListTasksRequest>,
    ) -> Result<Response<proto::ListTasksResponse>, Status> {
        let view = handle(&request)?.view();
        let filters = request.into_inner().filters.unwrap_or_default();
        let tasks = view.store.tasks();
        let tasks = tasks.filter(|task| filter::task(&filters, task, &view.store));
        let tasks = tasks.map(|task| task.as_ref().into()).collect();
        Ok(Response::new(proto::ListTasksResponse { tasks }))
    }

    async fn get_service(
        &self,
        request: Request<proto::GetServiceRequest>,
    ) -> Result<Response<proto::GetServiceResponse>, Status> {
        let view = handle(&request)?.view();
        let service_id = id(&request.get_ref().service_id, "service")?;
        let service = Some(shown_service(&view, service_id)?);
        Ok(Response::new(proto::GetServiceResponse { service }))
    }

    async fn list_services(
        &self,
        request: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        let view = handle(&request)?.view();
        let filters = request.into_inner().filters.unwrap_or_default();
        let services = view.store.services();
        let services = services.filter(|service| filter::service(&filters, service));
        let services = services.map(|service| service.as_ref().into()).collect();
        Ok(Response::new(proto::ListServicesResponse { services }))
    }

    async fn create_service(
        &self,
        request: Request<proto::CreateServiceRequest>,
    ) -> Result<Response<proto::CreateServiceResponse>, Status> {
        let handle = handle(&request)?;
        let spec = present(request.into_inner().spec)?;
        let spec = Box::new(spec.try_into().map_err(malformed)?);
        let answer = handle.command(Command::CreateService { spec }).await;
        let Answer::Service(service_id) = answer.map_err(status_of_command)? else {
            return Err(Status::internal("unexpected answer of the manager"));
        };
        let service = Some(shown_service(&handle.view(), service_id)?);
        Ok(Response::new(proto::CreateServiceResponse { service }))
    }

    async fn update_service(
        &self,
        request: Request<proto::UpdateServiceRequest>,
    ) -> Result<Response<proto::UpdateServiceResponse>, Status> {
        let handle = handle(&request)?;
        let request = request.into_inner();
        let service_id = id(&request.service_id, "service")?;
        let change = match request.rollback() {
            Rollback::Previous => match request.spec {
                None => ServiceChange::Rollback,
                Some(spec) => ServiceChange::RollbackTo(
                    convert::requested_revision(&spec)
                        .ok_or_else(|| Status::invalid_argument("no revision to roll back to"))?,
                ),
            },
            Rollback::None => {
                let spec = present(request.spec)?.try_into().map_err(malformed)?;
                ServiceChange::Spec(Box::new(spec))
            }
        };
        let command = Command::UpdateService {
            id: service_id,
            version: version(request.service_version)?,
            change,
        };
        handle.command(command).await.map_err(status_of_command)?;
        let service = Some(shown_service(&handle.view(), service_id)?);
        Ok(Response::new(proto::UpdateServiceResponse { service }))
    }

    async fn remove_service(
        &self,
        request: Request<proto::RemoveServiceRequest>,
    ) -> Result<Response<proto::RemoveServiceResponse>, Status> {
        let handle = handle(&request)?;
        let id = id(&request.get_ref().service_id, "service")?;
        let removed = handle.command(Command::RemoveService { id }).await;
        removed.map_err(status_of_command)?;
        Ok(Response::new(proto::RemoveServiceResponse {}))
    }

    async fn get_network(
        &self,
        request: Request<proto::GetNetworkRequest>,
    ) -> Result<Response<proto::GetNetworkResponse>, Status> {
        let view = handle(&request)?.view();
        let network_id = id(&request.get_ref().network_id, "network")?;
        let network = Some(shown_network(&view, network_id)?);
        Ok(Response::new(proto::GetNetworkResponse { network }))
    }

    async fn list_networks(
        &self,
        request: Request<proto::ListNetworksRequest>,
    ) -> Result<Response<proto::ListNetworksResponse>, Status> {
        let view = handle(&request)?.view();
        let filters = request.into_inner().filters.unwrap_or_default();
        let networks = view.store.networks().all();
        let networks = networks.filter(|network| filter::network(&filters, network));
        let networks = networks.map(|network| network.as_ref().into()).collect();
        Ok(Response::new(proto::ListNetworksResponse { networks }))
    }

    async fn create_network(
        &self,
        request: Request<proto::CreateNetworkRequest>,
    ) -> Result<Response<proto::CreateNetworkResponse>, Status> {
        let handle = handle(&request)?;
        let spec = present(request.into_inner().spec)?;
        let spec = Box::new(spec.try_into().map_err(malformed)?);
        let answer = handle.command(Command::CreateNetwork { spec }).await;
        let Answer::Network(network_id) = answer.map_err(status_of_command)? else {
            return Err(Status::internal("unexpected answer of the manager"));
        };
        let network = Some(shown_network(&handle.view(), network_id)?);
        Ok(Response::new(proto::CreateNetworkResponse { network }))
    }

    async fn remove_network(
        &self,
        request: Request<proto::RemoveNetworkRequest>,
    ) -> Result<Response<proto::RemoveNetworkResponse>, Status> {
        let handle = handle(&request)?;
        let id = id(&request.get_ref().network_id, "network")?;
        let removed = handle.command(Command::RemoveNetwork { id }).await;
        removed.map_err(status_of_command)?;
        Ok(Response::new(proto::RemoveNetworkResponse {}))
    }

    async fn get_secret(
        &self,
        request: Request<proto::GetSecretRequest>,
    ) -> Result<Response<proto::GetSecretResponse>, Status> {
        let view = handle(&request)?.view();
        let secret_id = id(&request.get_ref().secret_id, "secret")?;
        let secret = Some(shown_secret(&view, secret_id)?);
        Ok(Response::new(proto::GetSecretResponse { secret }))
    }

    async fn list_secrets(
        &self,
        request: Request<proto::ListSecretsRequest>,
    ) -> Result<Response<proto::ListSecretsResponse>, Status> {
        let view = handle(&request)?.view();
        let filters = request.into_inner().filters.unwrap_or_default();
        let secrets = view.store.secrets().all();
        let secrets = secrets.filter(|secret| filter::secret(&filters, secret));
        let secrets = secrets.map(|secret| without_data(secret)).collect();
        Ok(Response::new(proto::ListSecretsResponse { secrets }))
    }

    async fn create_secret(
        &self,
        request: Request<proto::CreateSecretRequest>,
    ) -> Result<Response<proto::CreateSecretResponse>, Status> {
        let handle = handle(&request)?;
        let spec = present(request.into_inner().spec)?;
        let spec = Box::new(spec.try_into().map_err(malformed)?);
        let answer = handle.command(Command::CreateSecret { spec }).await;
        let Answer::Secret(secret_id) = answer.map_err(status_of_command)? else {
            return Err(Status::internal("unexpected answer of the manager"));
        };
        let secret = Some(shown_secret(&handle.view(), secret_id)?);
        Ok(Response::new(proto::CreateSecretResponse { secret }))
    }

    async fn update_secret(
        &self,
        request: Request<proto::UpdateSecretRequest>,
    ) -> Result<Response<proto::UpdateSecretResponse>, Status> {
        let handle = handle(&request)?;
        let request = request.into_inner();
        let secret_id = id(&request.secret_id, "secret")?;
        let spec = present(request.spec)?.try_into().map_err(malformed)?;
        let command = Command::UpdateSecret {
            id: secret_id,
            version: version(request.secret_version)?,
            spec: Box::new(spec),
        };
        handle.command(command).await.map_err(status_of_command)?;
        let secret = Some(shown_secret(&handle.view(), secret_id)?);
        Ok(Response::new(proto::UpdateSecretResponse { secret }))
    }

    async fn remove_secret(
        &self,
        request: Request<proto::RemoveSecretRequest>,
    ) -> Result<Response<proto::RemoveSecretResponse>, Status> {
        let handle = handle(&request)?;
        let id = id(&request.get_ref().secret_id, "secret")?;
        let removed = handle.command(Command::RemoveSecret { id }).await;
        removed.map_err(status_of_command)?;
        Ok(Response::new(proto::RemoveSecretResponse {}))
    }

    async fn get_config(
        &self,
        request: Request<proto::GetConfigRequest>,
    ) -> Result<Response<proto::GetConfigResponse>, Status> {
        let view = handle(&request)?.view();
        let config_id = id(&request.get_ref().config_id, "config")?;
        let config = Some(shown_config(&view, config_id)?);
        Ok(Response::new(proto::GetConfigResponse { config }))
    }

    async fn list_configs(
        &self,
        request: Request<proto::ListConfigsRequest>,
    ) -> Result<Response<proto::ListConfigsResponse>, Status> {
        let view = handle(&request)?.view();
        let filters = request.into_inner().filters.unwrap_or_default();
        let configs = view.store.configs().all();
        let configs = configs.filter(|config| filter::config(&filters, config));
        let configs = configs.map(|config| config.as_ref().into()).collect();
        Ok(Response::new(proto::ListConfigsResponse { configs }))
    }

    async fn create_config(
        &self,
        request: Request<proto::CreateConfigRequest>,
    ) -> Result<Response<proto::CreateConfigResponse>, Status> {
        let handle = handle(&request)?;
        let spec = present(request.into_inner().spec)?;
        let spec = Box::new(spec.try_into().map_err(malformed)?);
        let answer = handle.command(Command::CreateConfig { spec }).await;
        let Answer::Config(config_id) = answer.map_err(status_of_command)? else {
            return Err(Status::internal("unexpected answer of the manager"));
        };
        let config = Some(shown_config(&handle.view(), config_id)?);
        Ok(Response::new(proto::CreateConfigResponse { config }))
    }

    async fn update_config(
        &self,
        request: Request<proto::UpdateConfigRequest>,
    ) -> Result<Response<proto::UpdateConfigResponse>, Status> {
        let handle = handle(&request)?;
        let request = request.into_inner();
        let config_id = id(&request.config_id, "config")?;
        let spec = present(request.spec)?.try_into().map_err(malformed)?;
        let command = Command::UpdateConfig {
            id: config_id,
            version: version(request.config_version)?,
            spec: Box::new(spec),
        };
        handle.command(command).await.map_err(status_of_command)?;
        let config = Some(shown_config(&handle.view(), config_id)?);
        Ok(Response::new(proto::UpdateConfigResponse { config }))
    }

    async fn remove_config(
        &self,
        request: Request<proto::RemoveConfigRequest>,
    ) -> Result<Response<proto::RemoveConfigResponse>, Status> {
        let handle = handle(&request)?;
        let id = id(&request.get_ref().config_id, "config")?;
        let removed = handle.command(Command::RemoveConfig { id }).await;
        removed.map_err(status_of_command)?;
        Ok(Response::new(proto::RemoveConfigResponse {}))
    }

    async fn get_cluster(
        &self,
        request: Request<proto::GetClusterRequest>,
    ) -> Result<Response<proto::GetClusterResponse>, Status> {
        let view = handle(&request)?.view();
        let cluster = cluster_of(&view, &request.get_ref().cluster_id)?;
        let cluster = Some(redacted(cluster));
        Ok(Response::new(proto::GetClusterResponse { cluster }))
    }

    async fn list_clusters(
        &self,
        request: Request<proto::ListClustersRequest>,
    ) -> Result<Response<proto::ListClustersResponse>, Status> {
        let view = handle(&request)?.view();
        let filters = request.into_inner().filters.unwrap_or_default();
        let clusters = view.store.cluster().into_iter();
        let clusters = clusters.filter(|cluster| filter::cluster(&filters, cluster));
        let clusters = clusters.map(|cluster| redacted(cluster)).collect();
        Ok(Response::new(proto::ListClustersResponse { clusters }))
    }

    async fn update_cluster(
        &self,
        request: Request<proto::UpdateClusterRequest>,
    ) -> Result<Response<proto::UpdateClusterResponse>, Status> {
        let handle: Handle = handle(&request)?;
        let request = request.into_inner();
        cluster_of(&handle.view(), &request.cluster_id)?;
        let rotation = request.rotation.unwrap_or_default();
        let command = Command::UpdateCluster {
            version: version(request.cluster_version)?,
            spec: Box::new(present(request.spec)?.try_into().map_err(malformed)?),
            rotate: Rotate {
                worker_token: rotation.worker_join_token,
                manager_token: rotation.manager_join_token,
                unlock_key: rotation.manager_unlock_key,
            },
        };
        handle.command(command).await.map_err(status_of_command)?;
        let view = handle.view();
        let cluster = Some(redacted(cluster_of(&view, &request.cluster_id)?));
        Ok(Response::new(proto::UpdateClusterResponse { cluster }))
    }
}

fn id<T: std::str::FromStr>(text: &str, kind: &str) -> Result<T, Status> {
    text.parse().map_err(|_| not_found(kind, text))
}

fn not_found(kind: &str, id: &str) -> Status {
    let id: String = id.chars().take(64).collect();
    Status::not_found(format!("{kind} {id} not found"))
}

fn present<T>(value: Option<T>) -> Result<T, Status> {
    value.ok_or_else(|| Status::invalid_argument("an argument is missing"))
}

fn version(version: Option<proto::Version>) -> Result<Version, Status> {
    present(version).map(|version| Version(version.index))
}

fn shown_node(view: &Published, node_id: NodeId) -> Result<proto::Node, Status> {
    let node = view.store.node(node_id);
    let node = node.ok_or_else(|| not_found("node", node_id.as_str()))?;
    Ok(node_of(view, node))
}

/// A node with what the leader knows of its manager, which is not stored.
fn node_of(view: &Published, node: &Node) -> proto::Node {
    let mut shown = proto::Node::from(node);
    let status = view.group.by_node(node.id);
    shown.manager_status = status.map(|status| {
        let status = skep_model::ManagerStatus {
            raft_id: status.member.raft_id,
            addr: status.member.addr.clone(),
            is_leader: view.group.leader == Some(status.member.raft_id),
            reachability: status.reachability,
        };
        (&status).into()
    });
    shown
}

fn shown_service(view: &Published, service_id: ServiceId) -> Result<proto::Service, Status> {
    let service = view.store.service(service_id);
    let service = service.ok_or_else(|| not_found("service", service_id.as_str()))?;
    Ok(service.as_ref().into())
}

fn shown_network(view: &Published, network_id: NetworkId) -> Result<proto::Network, Status> {
    let network = view.store.networks().get(network_id);
    let network = network.ok_or_else(|| not_found("network", network_id.as_str()))?;
    Ok(network.as_ref().into())
}

fn shown_secret(view: &Published, secret_id: SecretId) -> Result<proto::Secret, Status> {
    let secret = view.store.secrets().get(secret_id);
    let secret = secret.ok_or_else(|| not_found("secret", secret_id.as_str()))?;
    Ok(without_data(secret))
}

/// What a secret hides is never read back.
fn without_data(secret: &Secret) -> proto::Secret {
    let mut shown = proto::Secret::from(secret);
    if let Some(spec) = &mut shown.spec {
        spec.data.clear();
    }
    shown
}

fn shown_config(view: &Published, config_id: ConfigId) -> Result<proto::Config, Status> {
    let config = view.store.configs().get(config_id);
    let config = config.ok_or_else(|| not_found("config", config_id.as_str()))?;
    Ok(config.as_ref().into())
}

fn cluster_of<'v>(view: &'v Published, id: &str) -> Result<&'v Cluster, Status> {
    let cluster = view.store.cluster();
    let cluster = cluster.filter(|cluster| cluster.id.as_str() == id);
    cluster
        .map(AsRef::as_ref)
        .ok_or_else(|| not_found("cluster", id))
}

/// The cluster without keys, as SwarmKit shows it: tokens stay, they are for operators.
fn redacted(cluster: &Cluster) -> proto::Cluster {
    let mut shown = proto::Cluster::from(cluster);
    if let Some(root) = &mut shown.root_ca {
        root.ca_key.clear();
        if let Some(rotation) = &mut root.root_rotation {
            rotation.ca_key.clear();
        }
    }
    if let Some(spec) = &mut shown.spec
        && let Some(ca) = &mut spec.ca_config
    {
        ca.signing_ca_key.clear();
    }
    shown.network_bootstrap_keys.clear();
    shown.unlock_keys.clear();
    shown
}
