//! What clients ask about secrets and configs: a few that come and go, and services that use them.

use skep_manager::command::Command;
use skep_model::{
    ConfigReference, ConfigSpec, ConfigTarget, ContainerSpec, FileTarget, Redacted,
    SecretReference, SecretSpec,
};
use skep_store::Store;

use super::Clients;
use crate::profile::pick;

/// Names there are.
const NAMES: u64 = 4;

impl Clients {
    /// A secret or config more or less, or other labels.
    pub(super) fn supply_command(&mut self, store: &Store) -> Command {
        let name = format!("supply-{}", self.rng.below(NAMES));
        let is_label = self.rng.percent(20);
        if self.rng.percent(50) {
            let Some(secret) = store.secrets().by_name(&name) else {
                let mut spec = SecretSpec::default();
                spec.annotations.name = name;
                spec.data = Redacted(vec![1]);
                return Command::CreateSecret {
                    spec: Box::new(spec),
                };
            };
            let (id, version) = (secret.id, self.version(secret.meta.version));
            let spec = Box::new(secret.spec.clone());
            return match is_label {
                true => Command::UpdateSecret { id, version, spec },
                false => Command::RemoveSecret { id },
            };
        }
        let Some(config) = store.configs().by_name(&name) else {
            let mut spec = ConfigSpec::default();
            spec.annotations.name = name;
            spec.data = Redacted(vec![1]);
            return Command::CreateConfig {
                spec: Box::new(spec),
            };
        };
        let (id, version) = (config.id, self.version(config.meta.version));
        let spec = Box::new(config.spec.clone());
        match is_label {
            true => Command::UpdateConfig { id, version, spec },
            false => Command::RemoveConfig { id },
        }
    }

    /// Now and then a secret, a config, or both.
    pub(super) fn use_supplies(&mut self, store: &Store, container: &mut ContainerSpec) {
        let file = || FileTarget {
            name: "file".to_owned(),
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: 0o444,
        };
        let secrets: Vec<_> = store.secrets().all().collect();
        if !secrets.is_empty() && self.rng.percent(40) {
            let secret = secrets[pick(&mut self.rng, super::len(&secrets))];
            container.secrets = vec![SecretReference {
                secret_id: secret.id.to_string(),
                secret_name: secret.name().to_owned(),
                file: Some(file()),
            }];
        }
        let configs: Vec<_> = store.configs().all().collect();
        if !configs.is_empty() && self.rng.percent(40) {
            let config = configs[pick(&mut self.rng, super::len(&configs))];
            container.configs = vec![ConfigReference {
                config_id: config.id.to_string(),
                config_name: config.name().to_owned(),
                target: Some(ConfigTarget::File(file())),
            }];
        }
    }
}
