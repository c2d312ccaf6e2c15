//! The tables and their indexes.
//!
//! Above 300 lines with its accessors because every index must be kept next to the one place
//! that writes it.

use std::{
    ops::{Bound, RangeBounds, RangeInclusive},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use skep_model::{
    Availability, Cluster, Config, Id, Node, NodeId, Secret, Service, ServiceId, Slot, Task,
    TaskId, TaskState, Version,
    id::ResourceId,
    object::{Extension, Resource},
};

use crate::{
    action::{Action, ActionKind, Change, Object, ObjectId},
    job_tables::{JobTables, Kind, PlaceRow, kind_of},
    load::{NodeLoad, NodeRoom},
    named::Named,
    network_tables::NetworkTables,
    resource_tables::ResourceTables,
};

/// Position of a task within its service: numbered slots first, then nodes, then neither.
type SlotKey = (u64, Option<NodeId>);

/// Order of tasks that wait for the scheduler: those bound to a node, then the others by service
/// and slot.
type PlaceKey = (bool, Option<ServiceId>, u64, TaskId);

/// The state machine replicated by raft. `clone` is O(1) and gives an immutable snapshot.
#[derive(Debug, Clone, Default)]
pub struct Store {
    nodes: OrdMap<NodeId, NodeRow>,
    /// Of all nodes few are drained, and each step of a drain asks for them.
    drained_nodes: OrdSet<NodeId>,
    services: OrdMap<ServiceId, Arc<Service>>,
    tasks: OrdMap<TaskId, Arc<Task>>,
    cluster: Option<Arc<Cluster>>,
    /// Lower-case name → service: names are unique without regard to case.
    services_by_name: OrdMap<String, ServiceId>,
    tasks_by_service: OrdSet<(ServiceId, SlotKey, TaskId)>,
    tasks_by_node: OrdSet<(NodeId, TaskId)>,
    /// With the tasks, because the scheduler reads each of them.
    tasks_to_place: OrdMap<PlaceKey, Arc<Task>>,
    /// Nodes without load are absent.
    loads: OrdMap<NodeId, NodeLoad>,
    /// Behind pointers, because a store is passed around.
    networks: Arc<NetworkTables>,
    jobs: Arc<JobTables>,
    resources: Arc<ResourceTables>,
    secrets: Arc<Named<Secret>>,
    configs: Arc<Named<Config>>,
}

/// A node, and beside it what the scheduler asks of every node: reading it from ten thousand objects
/// all over the memory takes longer than choosing among them.
#[derive(Debug, Clone, PartialEq)]
struct NodeRow {
    node: Arc<Node>,
    room: NodeRoom,
}

/// An action that the tables cannot take. On the leader it is a bug; a follower that sees one has
/// diverged and must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Create of an id that exists.
    #[error("{0:?} exists already")]
    Exists(ObjectId),
    /// Update or removal of an id that does not exist.
    #[error("{0:?} does not exist")]
    Missing(ObjectId),
    /// Another object has the name.
    #[error("name `{0}` is in use")]
    NameInUse(String),
}

impl Store {
    /// Applies one committed action.
    pub fn apply(&mut self, action: &Action) -> Result<Change, ApplyError> {
        if let (ActionKind::Update, Object::Task(task)) = (action.kind, &action.object) {
            return self.replace_task(task.id, |_| Ok(Arc::clone(task)));
        }
        let id = action.object.id();
        let old = self.object(id);
        match (action.kind, &old) {
            (ActionKind::Create, Some(_)) => return Err(ApplyError::Exists(id)),
            (ActionKind::Update | ActionKind::Remove, None) => {
                return Err(ApplyError::Missing(id));
            }
            (ActionKind::Create, None) | (ActionKind::Update | ActionKind::Remove, Some(_)) => {}
        }
        if action.kind == ActionKind::Remove {
            let old = old.expect("checked above");
            self.remove(&old);
            return Ok(Change {
                old: Some(old),
                new: None,
            });
        }
        self.check_name(&action.object)?;
        if let Some(old) = &old {
            self.unindex(old, Some(&action.object));
        }
        self.insert(&action.object);
        Ok(Change {
            old,
            new: Some(action.object.clone()),
        })
    }

    /// The object with `id`.
    pub fn object(&self, id: ObjectId) -> Option<Object> {
        match id {
            ObjectId::Node(id) => self.node(id).cloned().map(Object::Node),
            ObjectId::Service(id) => self.services.get(&id).cloned().map(Object::Service),
            ObjectId::Task(id) => self.tasks.get(&id).cloned().map(Object::Task),
            ObjectId::Network(id) => self.networks.get(id).cloned().map(Object::Network),
            ObjectId::Cluster(id) => self
                .cluster
                .clone()
                .filter(|cluster| cluster.id == id)
                .map(Object::Cluster),
            ObjectId::Extension(id) => self.resources.extension(id).cloned().map(Object::Extension),
            ObjectId::Resource(id) => self.resources.get(id).cloned().map(Object::Resource),
            ObjectId::Secret(id) => self.secrets.get(id).cloned().map(Object::Secret),
            ObjectId::Config(id) => self.configs.get(id).cloned().map(Object::Config),
        }
    }

    /// The cluster object; absent only before bootstrap.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// Networks, and the addresses, ports and numbers handed out.
    pub fn networks(&self) -> &NetworkTables {
        &self.networks
    }

    /// All extensions, by id.
    pub fn extensions(&self) -> impl Iterator<Item = &Arc<Extension>> {
        self.resources.extensions()
    }

    /// What the runs of jobs have come to.
    pub fn jobs(&self) -> &JobTables {
        &self.jobs
    }

    /// The resource with `id`.
    pub fn resource(&self, id: ResourceId) -> Option<&Arc<Resource>> {
        self.resources.get(id)
    }

    /// Resources whose names begin with `prefix`, without regard to case, by name.
    pub fn resources_by_name_prefix(&self, prefix: String) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.by_name_prefix(prefix)
    }

    /// Secrets.
    pub fn secrets(&self) -> &Named<Secret> {
        &self.secrets
    }

    /// Configs.
    pub fn configs(&self) -> &Named<Config> {
        &self.configs
    }

    /// The node with `id`.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id).map(|row| &row.node)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Arc<Node>> {
        self.nodes.values().map(|row| &row.node)
    }

    /// The nodes that shall give their tasks away, by id.
    pub fn drained_nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let ids = self.drained_nodes.iter();
        ids.map(|id| self.node(*id).expect("an indexed node exists"))
    }

    /// All nodes with what they offer to tasks, by id.
    pub fn nodes_with_room(&self) -> impl Iterator<Item = (NodeId, &Arc<Node>, NodeRoom)> {
        self.nodes
            .iter()
            .map(|(id, row)| (*id, &row.node, row.room))
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The service with `id`.
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// The service whose name is `name`, without regard to case.
    pub fn service_by_name(&self, name: &str) -> Option<&Arc<Service>> {
        self.services_by_name
            .get(&name.to_lowercase())
            .and_then(|id| self.services.get(id))
    }

    /// All services, by id.
    pub fn services(&self) -> impl DoubleEndedIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Number of services.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// The task with `id`.
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl DoubleEndedIterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// Number of tasks.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Tasks of a service, by slot, then by id.
    pub fn tasks_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        let range = (service, (0, None), LOWEST_TASK)..=(service, HIGHEST_SLOT, HIGHEST_TASK);
        self.range_of_service(range)
    }

    /// Those of [`Store::tasks_of_service`] for which the scheduler need not choose a node. The
    /// others are not even looked at.
    pub fn tasks_with_node_of_service(
        &self,
        service: ServiceId,
    ) -> impl Iterator<Item = &Arc<Task>> {
        // Waiting tasks have the same order in both indexes.
        let waiting =
            (true, Some(service), 0, LOWEST_TASK)..=(true, Some(service), u64::MAX, HIGHEST_TASK);
        let mut waiting = self
            .tasks_to_place
            .range(waiting)
            .map(|(key, _)| key)
            .peekable();
        let all = (service, (0, None), LOWEST_TASK)..=(service, HIGHEST_SLOT, HIGHEST_TASK);
        self.tasks_by_service
            .range(all)
            .filter(move |(_, (slot, _), task)| {
                let is_it = |key: &&PlaceKey| (key.2, key.3) == (*slot, *task);
                waiting.next_if(is_it).is_none()
            })
            .map(|(_, _, task)| self.tasks.get(task).expect("an indexed task exists"))
    }

    /// Tasks of one slot of a service, by id.
    pub fn tasks_in_slot(
        &self,
        service: ServiceId,
        slot: Slot,
    ) -> impl Iterator<Item = &Arc<Task>> {
        let key = match slot {
            Slot::Number(number) => (number, None),
            Slot::Node(node) => (0, Some(node)),
        };
        self.range_of_service((service, key, LOWEST_TASK)..=(service, key, HIGHEST_TASK))
    }

    /// Tasks of one run in a place of a job, by id. Slots of jobs count from 0.
    pub fn tasks_in_place(
        &self,
        service: ServiceId,
        run: Version,
        place: Slot,
    ) -> impl Iterator<Item = &Arc<Task>> {
        let (from, to) = match place {
            // Indexed by its node, as it is the one with the number 0.
            Slot::Number(0) => ((0, None), (0, HIGHEST_SLOT.1)),
            Slot::Number(number) => ((number, None), (number, None)),
            Slot::Node(node) => ((0, Some(node)), (0, Some(node))),
        };
        let range = (service, from, LOWEST_TASK)..=(service, to, HIGHEST_TASK);
        self.range_of_service(range)
            .filter(move |task| task.job_iteration == Some(run))
    }

    /// Tasks placed on a node, ended ones included, by id.
    pub fn tasks_on_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_node
            .range((node, LOWEST_TASK)..=(node, HIGHEST_TASK))
            .map(|(_, task)| self.tasks.get(task).expect("an indexed task exists"))
    }

    /// Tasks that wait for the scheduler to confirm the node they are bound to, by service.
    pub fn tasks_to_confirm(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.range_to_place((false, None, 0, LOWEST_TASK)..(true, None, 0, LOWEST_TASK))
    }

    /// Tasks that wait for the scheduler to choose a node, by service, then by slot.
    pub fn tasks_to_place(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.range_to_place((true, None, 0, LOWEST_TASK)..)
    }

    /// Those of [`Store::tasks_to_place`] that belong to one service, or to none.
    pub fn tasks_to_place_of(
        &self,
        service: Option<ServiceId>,
    ) -> impl Iterator<Item = &Arc<Task>> {
        let from = (true, service, 0, LOWEST_TASK);
        self.range_to_place(from..=(true, service, u64::MAX, HIGHEST_TASK))
    }

    /// The first service after `service` with tasks to place; `None` comes before every service.
    pub fn next_service_to_place(&self, service: Option<ServiceId>) -> Option<ServiceId> {
        let from = (true, service, u64::MAX, HIGHEST_TASK);
        let mut rest = self
            .tasks_to_place
            .range((Bound::Excluded(from), Bound::Unbounded));
        rest.next().and_then(|((_, service, _, _), _)| *service)
    }

    fn range_to_place(
        &self,
        range: impl RangeBounds<PlaceKey>,
    ) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_to_place.range(range).map(|(_, task)| task)
    }

    /// What the tasks placed on a node and not ended take of it.
    pub fn load_of_node(&self, node: NodeId) -> NodeLoad {
        self.loads.get(&node).copied().unwrap_or_default()
    }

    /// The loads of all nodes that have one, by node id. May name nodes that are gone.
    pub fn loads(&self) -> impl Iterator<Item = (NodeId, NodeLoad)> {
        self.loads.iter().map(|(id, load)| (*id, *load))
    }

    /// Every object, in an order in which they can be created one after the other.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        let nodes = self.nodes().cloned().map(Object::Node);
        let networks = self.networks.all().cloned().map(Object::Network);
        let services = self.services.values().cloned().map(Object::Service);
        cluster
            .chain(nodes)
            .chain(networks)
            .chain(self.secrets.all().cloned().map(Object::Secret))
            .chain(self.configs.all().cloned().map(Object::Config))
            .chain(services)
            .chain(self.tasks.values().cloned().map(Object::Task))
            .chain(self.resources.extensions().cloned().map(Object::Extension))
            .chain(self.resources.all().cloned().map(Object::Resource))
    }

    /// Rebuilds a store from a snapshot's objects.
    pub fn from_objects(objects: impl IntoIterator<Item = Object>) -> Result<Self, ApplyError> {
        let mut store = Self::default();
        for object in objects {
            store.apply(&Action {
                kind: ActionKind::Create,
                object,
            })?;
        }
        Ok(store)
    }

    fn range_of_service(
        &self,
        range: RangeInclusive<(ServiceId, SlotKey, TaskId)>,
    ) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_service
            .range(range)
            .map(|(_, _, task)| self.tasks.get(task).expect("an indexed task exists"))
    }

    fn network_tables(&mut self) -> &mut NetworkTables {
        Arc::make_mut(&mut self.networks)
    }

    fn resource_tables(&mut self) -> &mut ResourceTables {
        Arc::make_mut(&mut self.resources)
    }

    fn check_name(&self, object: &Object) -> Result<(), ApplyError> {
        let (holder, name) = match object {
            Object::Service(service) => {
                let holder = self.service_by_name(service.name());
                (holder.map(|s| ObjectId::Service(s.id)), service.name())
            }
            // All clusters have the same name, so there is one.
            Object::Cluster(cluster) => {
                let holder = self.cluster.as_ref();
                let name = cluster.spec.annotations.name.as_str();
                (holder.map(|c| ObjectId::Cluster(c.id)), name)
            }
            Object::Network(network) => {
                let holder = self.networks.by_name(network.name());
                (holder.map(|n| ObjectId::Network(n.id)), network.name())
            }
            Object::Extension(extension) => {
                let name = extension.annotations.name.as_str();
                let holder = self.resources.extension_by_name(name);
                (holder.map(|e| ObjectId::Extension(e.id)), name)
            }
            Object::Resource(resource) => {
                let name = resource.annotations.name.as_str();
                let holder = self.resources.by_name(name);
                (holder.map(|r| ObjectId::Resource(r.id)), name)
            }
            Object::Secret(secret) => {
                let holder = self.secrets.by_name(secret.name());
                (holder.map(|s| ObjectId::Secret(s.id)), secret.name())
            }
            Object::Config(config) => {
                let holder = self.configs.by_name(config.name());
                (holder.map(|c| ObjectId::Config(c.id)), config.name())
            }
            Object::Node(_) | Object::Task(_) => return Ok(()),
        };
        match holder {
            Some(holder) if holder != object.id() => Err(ApplyError::NameInUse(name.to_owned())),
            Some(_) | None => Ok(()),
        }
    }

    /// Replaces a task by what `make` makes of it, in one walk through the table. Nothing changes
    /// when `make` refuses.
    pub(crate) fn replace_task<E: From<ApplyError>>(
        &mut self,
        id: TaskId,
        make: impl FnOnce(&Task) -> Result<Arc<Task>, E>,
    ) -> Result<Change, E> {
        let missing = ApplyError::Missing(ObjectId::Task(id));
        let stored = self.tasks.get_mut(&id).ok_or(missing)?;
        let task = make(stored)?;
        let old = std::mem::replace(stored, Arc::clone(&task));
        self.index_task(Some(&old), Some(&task));
        self.follow_job(Some(&old), Some(&task));
        Ok(Change {
            old: Some(Object::Task(old)),
            new: Some(Object::Task(task)),
        })
    }

    /// Writes the object and its index entries.
    fn insert(&mut self, object: &Object) {
        match object {
            Object::Node(node) => {
                let old = self.nodes.get(&node.id).map(|row| Arc::clone(&row.node));
                self.network_tables().set_node(old.as_deref(), Some(node));
                let row = NodeRow {
                    node: Arc::clone(node),
                    room: NodeRoom::of(node),
                };
                self.nodes.insert(node.id, row);
                if node.spec.availability == Availability::Drain {
                    self.drained_nodes.insert(node.id);
                } else {
                    self.drained_nodes.remove(&node.id);
                }
            }
            Object::Network(network) => {
                let old = self.networks.get(network.id).cloned();
                self.network_tables()
                    .set_network(old.as_deref(), Some(network));
            }
            Object::Service(service) => {
                let old = self.services.get(&service.id).cloned();
                self.network_tables()
                    .set_service(old.as_deref(), Some(service));
                self.services_by_name
                    .insert(service.name().to_lowercase(), service.id);
                self.services.insert(service.id, Arc::clone(service));
                if kind_of(old.as_deref()) != kind_of(Some(service)) {
                    self.follow_jobs_of(service.id);
                }
            }
            Object::Task(task) => {
                self.index_task(None, Some(task));
                self.tasks.insert(task.id, Arc::clone(task));
                self.follow_job(None, Some(task));
            }
            Object::Cluster(cluster) => self.cluster = Some(Arc::clone(cluster)),
            Object::Extension(extension) => self.resource_tables().set_extension(extension),
            Object::Resource(resource) => self.resource_tables().set(resource),
            Object::Secret(secret) => Arc::make_mut(&mut self.secrets).insert(secret),
            Object::Config(config) => Arc::make_mut(&mut self.configs).insert(config),
        }
    }

    /// Drops the index entries of `old` that `new` does not have.
    fn unindex(&mut self, old: &Object, new: Option<&Object>) {
        match (old, new) {
            (Object::Service(old), Some(Object::Service(new))) if old.name() == new.name() => {}
            (Object::Service(old), _) => {
                self.services_by_name.remove(&old.name().to_lowercase());
            }
            (Object::Task(old), _) => self.index_task(Some(old), None),
            (Object::Resource(old), _) => self.resource_tables().remove(old),
            // These tables keep their own.
            (
                Object::Node(_)
                | Object::Network(_)
                | Object::Cluster(_)
                | Object::Extension(_)
                | Object::Secret(_)
                | Object::Config(_),
                _,
            ) => {}
        }
    }

    /// Turns the index entries of a task from those of `old` into those of `new`.
    fn index_task(&mut self, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>) {
        self.network_tables()
            .set_task(old.map(|task| &**task), new.map(|task| &**task));
        let old = old.map_or_else(Keys::default, |old| Keys::of(old));
        let keys = new.map_or_else(Keys::default, |new| Keys::of(new));
        if old.by_service != keys.by_service {
            if let Some(key) = &old.by_service {
                self.tasks_by_service.remove(key);
            }
            self.tasks_by_service.extend(keys.by_service);
        }
        if old.by_node != keys.by_node {
            if let Some(key) = &old.by_node {
                self.tasks_by_node.remove(key);
            }
            self.tasks_by_node.extend(keys.by_node);
        }
        if let Some(key) = old.to_place.filter(|_| old.to_place != keys.to_place) {
            self.tasks_to_place.remove(&key);
        }
        if let (Some(key), Some(task)) = (keys.to_place, new) {
            self.tasks_to_place.insert(key, Arc::clone(task));
        }
        if old.load != keys.load {
            self.move_load(old.load, keys.load);
        }
    }

    /// Counts a task anew that is of a run of a job. The tables hold `new` already.
    fn follow_job(&mut self, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>) {
        let Some(task) = new.or(old) else { return };
        // Most tasks are of no job, and need not be looked for.
        let (Some(id), Some(run)) = (task.service_id, task.job_iteration) else {
            return;
        };
        let Some(kind) = kind_of(self.services.get(&id).map(AsRef::as_ref)) else {
            return;
        };
        let place = match kind {
            Kind::Numbers => Some(Slot::Number(task.slot)),
            Kind::Nodes => task.node_id.map(Slot::Node),
        };
        let row = place.map(|place| {
            let tasks = self.tasks_in_place(id, run, place);
            (place, PlaceRow::of(tasks.map(AsRef::as_ref)))
        });
        let jobs = Arc::make_mut(&mut self.jobs);
        jobs.set_task(id, old.map(AsRef::as_ref), new.map(AsRef::as_ref));
        if let Some((place, row)) = row {
            jobs.set_place(id, run, place, row);
        }
    }

    /// Counts all tasks of a service that was made, has become a job, or is gone.
    fn follow_jobs_of(&mut self, id: ServiceId) {
        Arc::make_mut(&mut self.jobs).remove_service(id);
        let tasks: Vec<Arc<Task>> = self.tasks_of_service(id).cloned().collect();
        for task in &tasks {
            self.follow_job(None, Some(task));
        }
    }

    fn move_load(&mut self, old: Option<(NodeId, NodeLoad)>, new: Option<(NodeId, NodeLoad)>) {
        if let Some((node, load)) = old {
            let total = self.loads.get_mut(&node).expect("a load was counted");
            total.subtract(load);
            if total.is_none() {
                self.loads.remove(&node);
            }
        }
        if let Some((node, load)) = new {
            match self.loads.get_mut(&node) {
                Some(total) => total.add(load),
                None => {
                    self.loads.insert(node, load);
                }
            }
        }
    }

    fn remove(&mut self, old: &Object) {
        self.unindex(old, None);
        match old {
            Object::Node(node) => {
                self.network_tables().set_node(Some(node), None);
                self.nodes.remove(&node.id);
                self.drained_nodes.remove(&node.id);
            }
            Object::Network(network) => self.network_tables().set_network(Some(network), None),
            Object::Service(service) => {
                self.network_tables().set_service(Some(service), None);
                self.services.remove(&service.id);
                if kind_of(Some(service)).is_some() {
                    self.follow_jobs_of(service.id);
                }
            }
            Object::Task(task) => {
                self.tasks.remove(&task.id);
                self.follow_job(Some(task), None);
            }
            Object::Cluster(_) => self.cluster = None,
            Object::Extension(extension) => self.resource_tables().remove_extension(extension.id),
            // With its index entry.
            Object::Resource(_) => {}
            Object::Secret(secret) => Arc::make_mut(&mut self.secrets).remove(secret.id),
            Object::Config(config) => Arc::make_mut(&mut self.configs).remove(config.id),
        }
    }
}

impl PartialEq for Store {
    /// Equal when the objects are; indexes follow from them.
    fn eq(&self, other: &Self) -> bool {
        self.cluster == other.cluster
            && self.nodes == other.nodes
            && self.networks == other.networks
            && self.secrets == other.secrets
            && self.configs == other.configs
            && self.services == other.services
            && self.tasks == other.tasks
            && self.resources == other.resources
    }
}

const LOWEST_TASK: TaskId = TaskId(Id::LOWEST);
const HIGHEST_TASK: TaskId = TaskId(Id::HIGHEST);
const HIGHEST_SLOT: SlotKey = (u64::MAX, Some(NodeId(Id::HIGHEST)));

/// The index entries of one task.
#[derive(Default)]
struct Keys {
    by_service: Option<(ServiceId, SlotKey, TaskId)>,
    by_node: Option<(NodeId, TaskId)>,
    to_place: Option<PlaceKey>,
    load: Option<(NodeId, NodeLoad)>,
}

impl Keys {
    fn of(task: &Task) -> Self {
        // A global task is indexed by its node, a numbered one is not.
        let slot = if task.slot == 0 {
            (0, task.node_id)
        } else {
            (task.slot, None)
        };
        let is_to_place =
            task.status.state == TaskState::Pending && task.desired_state <= TaskState::Complete;
        Self {
            by_service: task.service_id.map(|service| (service, slot, task.id)),
            by_node: task.node_id.map(|node| (node, task.id)),
            to_place: is_to_place.then_some((
                task.node_id.is_none(),
                task.service_id,
                task.slot,
                task.id,
            )),
            load: NodeLoad::of(task),
        }
    }
}
