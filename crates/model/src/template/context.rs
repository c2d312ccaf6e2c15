//! What a template may speak of: service, node and task.

use std::collections::BTreeMap;

use super::{
    print::push_value,
    value::{Labels, Value},
};
use crate::{Platform, Task};

/// Labels of the node that a template is expanded on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodeLabels {
    /// No manager has told this node yet: a template that asks for them fails, and may succeed later.
    #[default]
    Untold,
    /// The node is not chosen yet: every label there may be counts as there, and empty.
    Any,
    /// These.
    Known(BTreeMap<String, String>),
}

/// The values of a template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// `.Service.ID`
    pub service_id: String,
    /// `.Service.Name`
    pub service_name: String,
    /// `.Service.Labels`
    pub service_labels: BTreeMap<String, String>,
    /// `.Node.ID`
    pub node_id: String,
    /// `.Node.Hostname`
    pub node_hostname: String,
    /// `.Node.Platform.OS`
    pub os: String,
    /// `.Node.Platform.Architecture`
    pub architecture: String,
    /// `.Node.Labels`, which Swarm does not have.
    pub node_labels: NodeLabels,
    /// `.Task.ID`
    pub task_id: String,
    /// `.Task.Name`
    pub task_name: String,
    /// `.Task.Slot`: the slot, or the node's id for tasks without.
    pub task_slot: String,
}

/// Things with fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    Root { is_payload: bool },
    Service,
    Node,
    Platform,
    Task,
}

/// Why a field has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoField {
    Unknown,
    Untold,
}

// === impl Context ===

impl Context {
    /// What is known where `task` is to run.
    pub fn new(task: &Task, hostname: &str, platform: &Platform, labels: NodeLabels) -> Self {
        let id = |id: Option<String>| id.unwrap_or_default();
        let node_id = id(task.node_id.map(|id| id.to_string()));
        Self {
            service_id: id(task.service_id.map(|id| id.to_string())),
            service_name: task.service_annotations.name.clone(),
            service_labels: task.service_annotations.labels.clone(),
            node_hostname: hostname.to_owned(),
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            node_labels: labels,
            task_id: task.id.to_string(),
            task_name: task.name(),
            task_slot: match task.slot {
                0 => node_id.clone(),
                slot => slot.to_string(),
            },
            node_id,
        }
    }

    /// What a service's tasks will know, as far as it can be told before there are any; for finding
    /// mistakes. Swarm's values, but that it has no labels there.
    pub fn imagined(service_labels: &BTreeMap<String, String>) -> Self {
        Self {
            service_id: "serviceid".to_owned(),
            service_name: "servicename".to_owned(),
            service_labels: service_labels.clone(),
            node_id: "nodeid".to_owned(),
            node_hostname: "nodeHostname".to_owned(),
            os: "os".to_owned(),
            architecture: "architecture".to_owned(),
            node_labels: NodeLabels::Any,
            task_id: "taskid".to_owned(),
            task_name: "taskname".to_owned(),
            task_slot: "1".to_owned(),
        }
    }

    fn labels_of_node(&self) -> Result<Value<'_>, NoField> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let (entries, has_any) = match &self.node_labels {
            NodeLabels::Untold => return Err(NoField::Untold),
            NodeLabels::Any => (&NONE, true),
            NodeLabels::Known(labels) => (labels, false),
        };
        Ok(Value::Map(Labels { entries, has_any }))
    }
}

// === impl Object ===

impl Object {
    pub(super) fn field<'a>(self, name: &str, context: &'a Context) -> Result<Value<'a>, NoField> {
        let text = |text: &str| Ok(Value::text(text));
        match (self, name) {
            (Self::Root { .. }, "Service") => Ok(Value::Object(Self::Service)),
            (Self::Root { .. }, "Node") => Ok(Value::Object(Self::Node)),
            (Self::Root { .. }, "Task") => Ok(Value::Object(Self::Task)),
            (Self::Service, "ID") => text(&context.service_id),
            (Self::Service, "Name") => text(&context.service_name),
            (Self::Service, "Labels") => Ok(Value::Map(Labels {
                entries: &context.service_labels,
                has_any: false,
            })),
            (Self::Node, "ID") => text(&context.node_id),
            (Self::Node, "Hostname") => text(&context.node_hostname),
            (Self::Node, "Platform") => Ok(Value::Object(Self::Platform)),
            (Self::Node, "Labels") => context.labels_of_node(),
            (Self::Platform, "Architecture") => text(&context.architecture),
            (Self::Platform, "OS") => text(&context.os),
            (Self::Task, "ID") => text(&context.task_id),
            (Self::Task, "Name") => text(&context.task_name),
            (Self::Task, "Slot") => text(&context.task_slot),
            (Self::Root { .. } | Self::Service | Self::Node | Self::Platform | Self::Task, _) => {
                Err(NoField::Unknown)
            }
        }
    }

    /// Its type in Swarm, which errors name.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Root { is_payload: false } => "*template.Context",
            Self::Root { is_payload: true } => "*template.PayloadContext",
            Self::Service => "struct { ID string; Name string; Labels map[string]string }",
            Self::Node => {
                "struct { ID string; Hostname string; Platform template.Platform; \
                 Labels map[string]string }"
            }
            Self::Platform => "template.Platform",
            Self::Task => "struct { ID string; Name string; Slot string }",
        }
    }

    /// As Go prints a struct: values in braces.
    pub(super) fn push_to(self, context: &Context, out: &mut Vec<u8>) {
        let names: &[&str] = match self {
            Self::Root { .. } => &["Service", "Node", "Task"],
            Self::Service => &["ID", "Name", "Labels"],
            Self::Node => &["ID", "Hostname", "Platform"],
            Self::Platform => &["Architecture", "OS"],
            Self::Task => &["ID", "Name", "Slot"],
        };
        if matches!(self, Self::Root { .. }) {
            out.push(b'&');
        }
        out.push(b'{');
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            if let Ok(value) = self.field(name, context) {
                push_value(&value, context, out);
            }
        }
        out.push(b'}');
    }
}
