//! Secrets and configs.

use skep_model as model;
use skep_model::{ConfigId, SecretId};

use crate::arbitrary::Draw;

impl Draw {
    /// A secret.
    pub fn secret(&mut self) -> model::Secret {
        model::Secret {
            id: SecretId::random(&mut self.0),
            meta: self.meta(),
            spec: model::SecretSpec {
                annotations: self.annotations(),
                data: model::Redacted(self.text().into_bytes()),
                templating: self.option(Self::driver),
                driver: self.option(Self::driver),
            },
            is_internal: self.flag(),
        }
    }

    /// A config.
    pub fn config(&mut self) -> model::Config {
        model::Config {
            id: ConfigId::random(&mut self.0),
            meta: self.meta(),
            spec: model::ConfigSpec {
                annotations: self.annotations(),
                data: model::Redacted(self.text().into_bytes()),
                templating: self.option(Self::driver),
            },
        }
    }
}
