//! An overlay on a store: checks Swarm's rules, stamps versions, collects actions.

use std::sync::Arc;

use skep_model::{
    Cluster, ClusterId, Config, ConfigId, Meta, Network, NetworkId, Node, NodeId, Redacted, Secret,
    SecretId, Service, ServiceId, Task, TaskId, Timestamp, Version,
    id::ResourceId,
    object::{Extension, Resource},
};

use crate::{
    action::{Action, ActionKind, Change, Object},
    store::{ApplyError, Store},
};

/// Changes against a snapshot, in order, not yet proposed.
///
/// Every object written gets the same version: the commit index the transaction started from,
/// as in SwarmKit. The overlay sees its own writes. A clone is a trial: what was written to it is
/// thrown away with it.
#[derive(Debug, Clone)]
pub struct Transaction {
    head: Store,
    version: Version,
    now: Timestamp,
    actions: Vec<Action>,
    changes: Vec<Change>,
}

/// Why a write was refused. The overlay is unchanged by a refused write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object was written since the caller read it.
    #[error("update out of sequence")]
    OutOfSequence,
    /// The tables cannot take it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Transaction {
    /// Starts on `base`; objects written get `version` and `now`.
    pub fn new(base: &Store, version: Version, now: Timestamp) -> Self {
        Self {
            head: base.clone(),
            version,
            now,
            actions: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// The state as it would be after this transaction.
    pub fn view(&self) -> &Store {
        &self.head
    }

    /// The leader's time this transaction is stamped with.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The version of what it writes. What is committed has an older one.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What was written so far.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// What was written so far, as the change feed will tell it.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// True when nothing was written.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Ends the transaction: the state after it, what to propose, and the change feed.
    pub fn finish(self) -> (Store, Vec<Action>, Vec<Change>) {
        (self.head, self.actions, self.changes)
    }

    /// Creates a node.
    pub fn create_node(&mut self, mut node: Node) -> Result<(), Error> {
        node.meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Node(Arc::new(node)))
    }

    /// Creates a service.
    pub fn create_service(&mut self, mut service: Service) -> Result<(), Error> {
        service.meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Service(Arc::new(service)))
    }

    /// Creates a task.
    pub fn create_task(&mut self, task: impl Into<Arc<Task>>) -> Result<(), Error> {
        let mut task = task.into();
        Arc::make_mut(&mut task).meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Task(task))
    }

    /// Creates a network.
    pub fn create_network(&mut self, mut network: Network) -> Result<(), Error> {
        network.meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Network(Arc::new(network)))
    }

    /// Creates the cluster object.
    pub fn create_cluster(&mut self, mut cluster: Cluster) -> Result<(), Error> {
        cluster.meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Cluster(Arc::new(cluster)))
    }

    /// Creates an extension.
    pub fn create_extension(&mut self, mut extension: Extension) -> Result<(), Error> {
        extension.meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Extension(Arc::new(extension)))
    }

    /// Creates a resource.
    pub fn create_resource(&mut self, mut resource: Resource) -> Result<(), Error> {
        resource.meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Resource(Arc::new(resource)))
    }

    /// Creates a secret.
    pub fn create_secret(&mut self, mut secret: Secret) -> Result<(), Error> {
        secret.meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Secret(Arc::new(secret)))
    }

    /// Creates a config.
    pub fn create_config(&mut self, mut config: Config) -> Result<(), Error> {
        config.meta = self.fresh_meta();
        self.write(ActionKind::Create, Object::Config(Arc::new(config)))
    }

    /// Replaces a node; `node.meta.version` must be the stored one.
    pub fn update_node(&mut self, mut node: Node) -> Result<(), Error> {
        let stored = self.head.node(node.id).map(|stored| stored.meta);
        node.meta = self.next_meta(stored, node.meta)?;
        self.write(ActionKind::Update, Object::Node(Arc::new(node)))
    }

    /// Replaces a node like [`Self::update_node`] when it is not the node that changed but who knows of
    /// it: the time of its last change stays.
    pub fn note_node(&mut self, mut node: Node) -> Result<(), Error> {
        let stored = self.head.node(node.id).map(|stored| stored.meta);
        node.meta = self.next_meta(stored, node.meta)?;
        node.meta.updated_at = stored.map_or(self.now, |stored| stored.updated_at);
        self.write(ActionKind::Update, Object::Node(Arc::new(node)))
    }

    /// Replaces a service; `service.meta.version` must be the stored one.
    pub fn update_service(&mut self, mut service: Service) -> Result<(), Error> {
        let stored = self.head.service(service.id).map(|stored| stored.meta);
        service.meta = self.next_meta(stored, service.meta)?;
        self.write(ActionKind::Update, Object::Service(Arc::new(service)))
    }

    /// Replaces a network; `network.meta.version` must be the stored one.
    pub fn update_network(&mut self, mut network: Network) -> Result<(), Error> {
        let stored = self
            .head
            .networks()
            .get(network.id)
            .map(|stored| stored.meta);
        network.meta = self.next_meta(stored, network.meta)?;
        self.write(ActionKind::Update, Object::Network(Arc::new(network)))
    }

    /// Replaces a task; `task.meta.version` must be the stored one.
    ///
    /// # Panics
    /// When the observed or desired state would go back: that is a bug of the caller.
    pub fn update_task(&mut self, task: impl Into<Arc<Task>>) -> Result<(), Error> {
        let mut task = task.into();
        let (version, now) = (self.version, self.now);
        let change = self.head.replace_task(task.id, |stored| {
            let meta = next_meta(stored.meta, task.meta, version, now)?;
            assert!(
                stored.status.state <= task.status.state,
                "a task's state only grows"
            );
            assert!(
                stored.desired_state <= task.desired_state,
                "a desired state only grows"
            );
            Arc::make_mut(&mut task).meta = meta;
            Ok::<_, Error>(Arc::clone(&task))
        })?;
        self.actions.push(Action {
            kind: ActionKind::Update,
            object: Object::Task(task),
        });
        self.changes.push(change);
        Ok(())
    }

    /// Replaces the cluster object; `cluster.meta.version` must be the stored one.
    pub fn update_cluster(&mut self, mut cluster: Cluster) -> Result<(), Error> {
        let stored = self.head.cluster().filter(|stored| stored.id == cluster.id);
        let stored = stored.map(|stored| stored.meta);
        cluster.meta = self.next_meta(stored, cluster.meta)?;
        self.write(ActionKind::Update, Object::Cluster(Arc::new(cluster)))
    }

    /// Replaces a secret; `secret.meta.version` must be the stored one.
    pub fn update_secret(&mut self, mut secret: Secret) -> Result<(), Error> {
        let stored = self.head.secrets().get(secret.id).map(|stored| stored.meta);
        secret.meta = self.next_meta(stored, secret.meta)?;
        self.write(ActionKind::Update, Object::Secret(Arc::new(secret)))
    }

    /// Replaces a config; `config.meta.version` must be the stored one.
    pub fn update_config(&mut self, mut config: Config) -> Result<(), Error> {
        let stored = self.head.configs().get(config.id).map(|stored| stored.meta);
        config.meta = self.next_meta(stored, config.meta)?;
        self.write(ActionKind::Update, Object::Config(Arc::new(config)))
    }

    /// Replaces a resource; `resource.meta.version` must be the stored one.
    pub fn update_resource(&mut self, mut resource: Resource) -> Result<(), Error> {
        let stored = self.head.resource(resource.id).map(|stored| stored.meta);
        resource.meta = self.next_meta(stored, resource.meta)?;
        self.write(ActionKind::Update, Object::Resource(Arc::new(resource)))
    }

    /// Removes a node; false when there is none.
    pub fn remove_node(&mut self, id: NodeId) -> bool {
        let object = self.head.node(id).cloned().map(Object::Node);
        self.remove(object)
    }

    /// Removes a service; false when there is none. Its tasks are the orchestrator's business.
    pub fn remove_service(&mut self, id: ServiceId) -> bool {
        let object = self.head.service(id).cloned().map(Object::Service);
        self.remove(object)
    }

    /// Removes a task; false when there is none.
    pub fn remove_task(&mut self, id: TaskId) -> bool {
        let object = self.head.task(id).cloned().map(Object::Task);
        self.remove(object)
    }

    /// Removes a network; false when there is none. That nobody uses it is the caller's business.
    pub fn remove_network(&mut self, id: NetworkId) -> bool {
        let object = self.head.networks().get(id).cloned().map(Object::Network);
        self.remove(object)
    }

    /// Removes a resource; false when there is none.
    pub fn remove_resource(&mut self, id: ResourceId) -> bool {
        let object = self.head.resource(id).cloned().map(Object::Resource);
        self.remove(object)
    }

    /// Removes a secret; false when there is none. That nobody uses it is the caller's business.
    pub fn remove_secret(&mut self, id: SecretId) -> bool {
        let stored = self.head.secrets().get(id).cloned();
        self.remove(stored.map(|mut secret| {
            // A removal goes by the id: the log has the data already.
            Arc::make_mut(&mut secret).spec.data = Redacted::default();
            Object::Secret(secret)
        }))
    }

    /// Removes a config; false when there is none. That nobody uses it is the caller's business.
    pub fn remove_config(&mut self, id: ConfigId) -> bool {
        let stored = self.head.configs().get(id).cloned();
        self.remove(stored.map(|mut config| {
            Arc::make_mut(&mut config).spec.data = Redacted::default();
            Object::Config(config)
        }))
    }

    /// Removes the cluster object; false when there is none.
    pub fn remove_cluster(&mut self, id: ClusterId) -> bool {
        let stored = self.head.cluster().filter(|stored| stored.id == id);
        let object = stored.cloned().map(Object::Cluster);
        self.remove(object)
    }

    fn remove(&mut self, object: Option<Object>) -> bool {
        let Some(object) = object else { return false };
        self.write(ActionKind::Remove, object)
            .expect("a stored object can be removed");
        true
    }

    fn fresh_meta(&self) -> Meta {
        Meta {
            version: self.version,
            created_at: self.now,
            updated_at: self.now,
        }
    }

    fn next_meta(&self, stored: Option<Meta>, given: Meta) -> Result<Meta, Error> {
        // A missing object is reported by `apply`; any meta will do until then.
        let Some(stored) = stored else {
            return Ok(given);
        };
        next_meta(stored, given, self.version, self.now)
    }

    fn write(&mut self, kind: ActionKind, object: Object) -> Result<(), Error> {
        let action = Action { kind, object };
        let change = self.head.apply(&action)?;
        self.actions.push(action);
        self.changes.push(change);
        Ok(())
    }
}

/// What an update makes of an object's bookkeeping, if it was computed from the stored object.
fn next_meta(stored: Meta, given: Meta, version: Version, now: Timestamp) -> Result<Meta, Error> {
    if stored.version != given.version {
        return Err(Error::OutOfSequence);
    }
    Ok(Meta {
        version,
        created_at: stored.created_at,
        updated_at: now,
    })
}
