//! The committed store as the API reads it.

use std::sync::Arc;

use skep_docker_api::{
    backend::{ClusterView, PlannedMove, PlannedPlacement, PlannedStack, Revision},
    error::Result,
};
use skep_manager::{Published, group::Group};
use skep_model::{
    Cluster, Config, ManagerStatus, Network, NetworkId, Node, NodeId, NodeTlsInfo, Secret, Service,
    ServiceId, Task, TaskId, Timestamp,
    object::ServiceRevision,
    stack::{ApplyOptions, Stack, StackRevision, StackSpec},
};

use crate::backend::errors::from_command;

/// One published state, with the raft group at that time.
pub(crate) struct View {
    pub(crate) published: Arc<Published>,
}

impl View {
    /// A node with what the group knows of its manager; the store holds nothing of that.
    fn with_manager(&self, node: &Arc<Node>) -> Arc<Node> {
        let status = manager_status(&self.published.group, node.id);
        if node.manager_status == status {
            return Arc::clone(node);
        }
        let mut node = Node::clone(node);
        node.manager_status = status;
        Arc::new(node)
    }
}

/// The manager of a node as its group knows it.
pub(crate) fn manager_status(group: &Group, node_id: NodeId) -> Option<ManagerStatus> {
    let status = group.by_node(node_id)?;
    let raft_id = status.member.raft_id;
    Some(ManagerStatus {
        raft_id,
        addr: status.member.addr.clone(),
        is_leader: group.leader == Some(raft_id),
        reachability: status.reachability,
    })
}

impl ClusterView for View {
    fn revision(&self) -> Revision {
        let index = self.published.index;
        Revision {
            services: index,
            tasks: index,
            nodes: index,
        }
    }

    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.published.store.cluster().cloned()
    }

    fn tls_info(&self) -> NodeTlsInfo {
        let Some(cluster) = self.published.store.cluster() else {
            return NodeTlsInfo::default();
        };
        let trust_root = cluster.root_ca.ca_cert.clone();
        match skep_ca::issuer(&trust_root) {
            Ok(issuer) => NodeTlsInfo {
                trust_root,
                cert_issuer_subject: issuer.subject,
                cert_issuer_public_key: issuer.public_key,
            },
            Err(_) => NodeTlsInfo {
                trust_root,
                ..NodeTlsInfo::default()
            },
        }
    }

    fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        let node = self.published.store.node(id)?;
        Some(self.with_manager(node))
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        let nodes = self.published.store.nodes();
        nodes.map(|node| self.with_manager(node)).collect()
    }

    fn service(&self, id: ServiceId) -> Option<Arc<Service>> {
        self.published.store.service(id).cloned()
    }

    fn service_by_name(&self, name: &str) -> Option<Arc<Service>> {
        self.published.store.service_by_name(name).cloned()
    }

    fn services(&self) -> Vec<Arc<Service>> {
        self.published.store.services().cloned().collect()
    }

    fn revisions_of_service(&self, id: ServiceId) -> Vec<ServiceRevision> {
        skep_manager::revisions(&self.published.store, id)
    }

    fn stacks(&self) -> Vec<Stack> {
        let stacks = skep_manager::stacks(&self.published.store).into_iter();
        stacks.map(|standing| standing.stack).collect()
    }

    fn revisions_of_stack(&self, name: &str) -> Vec<StackRevision> {
        skep_manager::stack_revisions(&self.published.store, name)
    }

    fn services_astray(&self, stack: &str) -> Vec<String> {
        self.published.astray(stack)
    }

    fn plan_stack(
        &self,
        spec: StackSpec,
        options: ApplyOptions,
        now: Timestamp,
    ) -> Result<PlannedStack> {
        let planned = self.published.plan_stack(spec, options, now);
        let planned = planned.map_err(|error| from_command(&error))?;
        let placements = planned.services.into_iter().map(|one| PlannedPlacement {
            service: one.name,
            nodes: one.nodes,
            pending: one.pending,
            reason: one.reason,
        });
        let after = Published {
            store: planned.store,
            ..Published::clone(&self.published)
        };
        Ok(PlannedStack {
            outcome: planned.outcome,
            placements: placements.collect(),
            after: Arc::new(Self {
                published: Arc::new(after),
            }),
        })
    }

    fn network(&self, id: NetworkId) -> Option<Arc<Network>> {
        self.published.store.networks().get(id).cloned()
    }

    fn network_by_name(&self, name: &str) -> Option<Arc<Network>> {
        self.published.store.networks().by_name(name).cloned()
    }

    fn networks(&self) -> Vec<Arc<Network>> {
        self.published.store.networks().all().cloned().collect()
    }

    fn secrets(&self) -> Vec<Arc<Secret>> {
        self.published.store.secrets().all().cloned().collect()
    }

    fn configs(&self) -> Vec<Arc<Config>> {
        self.published.store.configs().all().cloned().collect()
    }

    fn task(&self, id: TaskId) -> Option<Arc<Task>> {
        self.published.store.task(id).cloned()
    }

    fn tasks(&self) -> Vec<Arc<Task>> {
        self.published.store.tasks().cloned().collect()
    }

    fn tasks_of_service(&self, id: ServiceId) -> Vec<Arc<Task>> {
        self.published.store.tasks_of_service(id).cloned().collect()
    }

    fn planned_moves(&self, now: Timestamp) -> Vec<PlannedMove> {
        let moves = self.published.planned_moves(now).into_iter();
        moves
            .map(|step| PlannedMove {
                task: step.task,
                from: step.from,
                to: step.to,
                reason: step.reason,
            })
            .collect()
    }

    fn tasks_on_node(&self, id: NodeId) -> Vec<Arc<Task>> {
        self.published.store.tasks_on_node(id).cloned().collect()
    }
}
