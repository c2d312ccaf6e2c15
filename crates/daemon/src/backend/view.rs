//! The committed store as the API reads it.

use std::sync::Arc;

use skep_docker_api::backend::{ClusterView, Revision};
use skep_manager::Published;
use skep_model::{Cluster, Node, NodeId, NodeTlsInfo, Service, ServiceId, Task, TaskId};

/// One published state.
pub(crate) struct View {
    pub(crate) published: Arc<Published>,
    pub(crate) tls_info: NodeTlsInfo,
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
        self.tls_info.clone()
    }

    fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.published.store.node(id).cloned()
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.published.store.nodes().cloned().collect()
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

    fn task(&self, id: TaskId) -> Option<Arc<Task>> {
        self.published.store.task(id).cloned()
    }

    fn tasks(&self) -> Vec<Arc<Task>> {
        self.published.store.tasks().cloned().collect()
    }

    fn tasks_of_service(&self, id: ServiceId) -> Vec<Arc<Task>> {
        self.published.store.tasks_of_service(id).cloned().collect()
    }

    fn tasks_on_node(&self, id: NodeId) -> Vec<Arc<Task>> {
        self.published.store.tasks_on_node(id).cloned().collect()
    }
}
