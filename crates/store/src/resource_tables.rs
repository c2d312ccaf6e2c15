//! Extensions and resources, and resources by name.

use std::sync::Arc;

use imbl::OrdMap;
use skep_model::{
    id::{ExtensionId, ResourceId},
    object::{Extension, Resource},
};

/// There are few extensions, and as many resources as services have revisions.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ResourceTables {
    extensions: OrdMap<ExtensionId, Arc<Extension>>,
    resources: OrdMap<ResourceId, Arc<Resource>>,
    /// By lower-case name.
    by_name: OrdMap<String, ResourceId>,
}

// === impl ResourceTables ===

impl ResourceTables {
    pub(crate) fn extensions(&self) -> impl Iterator<Item = &Arc<Extension>> {
        self.extensions.values()
    }

    pub(crate) fn extension(&self, id: ExtensionId) -> Option<&Arc<Extension>> {
        self.extensions.get(&id)
    }

    pub(crate) fn extension_by_name(&self, name: &str) -> Option<&Arc<Extension>> {
        let mut all = self.extensions.values();
        all.find(|extension| extension.annotations.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn set_extension(&mut self, extension: &Arc<Extension>) {
        self.extensions.insert(extension.id, Arc::clone(extension));
    }

    pub(crate) fn remove_extension(&mut self, id: ExtensionId) {
        self.extensions.remove(&id);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    pub(crate) fn get(&self, id: ResourceId) -> Option<&Arc<Resource>> {
        self.resources.get(&id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Resource>> {
        let id = self.by_name.get(&name.to_lowercase())?;
        self.resources.get(id)
    }

    pub(crate) fn by_name_prefix(&self, prefix: String) -> impl Iterator<Item = &Arc<Resource>> {
        let prefix = prefix.to_lowercase();
        let named = self.by_name.range(prefix.clone()..);
        named
            .take_while(move |(name, _)| name.starts_with(&prefix))
            .map(|(_, id)| self.resources.get(id).expect("an indexed resource exists"))
    }

    pub(crate) fn set(&mut self, resource: &Arc<Resource>) {
        let name = resource.annotations.name.to_lowercase();
        self.by_name.insert(name, resource.id);
        self.resources.insert(resource.id, Arc::clone(resource));
    }

    pub(crate) fn remove(&mut self, resource: &Resource) {
        let name = resource.annotations.name.to_lowercase();
        self.by_name.remove(&name);
        self.resources.remove(&resource.id);
    }
}
