//! Secrets, configs, and the references of services to them.

use skep_model::{
    Annotations, Config, ConfigReference, ConfigSpec, ConfigTarget, FileTarget, Redacted, Secret,
    SecretReference, SecretSpec,
};

use crate::{
    dto::secret as dto,
    error::{ApiError, Result},
    http::base64,
};

impl From<&Secret> for dto::Supply {
    /// Without the data: what a secret hides is never read back.
    fn from(secret: &Secret) -> Self {
        Self {
            id: secret.id.to_string(),
            meta: secret.meta.into(),
            spec: dto::SupplySpec {
                name: secret.spec.annotations.name.clone(),
                labels: secret.spec.annotations.labels.clone(),
                data: None,
                driver: secret.spec.driver.as_ref().map(Into::into),
                templating: secret.spec.templating.as_ref().map(Into::into),
            },
        }
    }
}

impl From<&Config> for dto::Supply {
    fn from(config: &Config) -> Self {
        Self {
            id: config.id.to_string(),
            meta: config.meta.into(),
            spec: dto::SupplySpec {
                name: config.spec.annotations.name.clone(),
                labels: config.spec.annotations.labels.clone(),
                data: Some(base64::encode(&config.spec.data.0)),
                driver: None,
                templating: config.spec.templating.as_ref().map(Into::into),
            },
        }
    }
}

/// A secret as asked for.
pub(crate) fn secret_spec(spec: dto::SupplySpec) -> Result<SecretSpec> {
    if let Some(driver) = &spec.driver {
        let name = &driver.name;
        return Err(ApiError::not_implemented(format!(
            "not supported yet: Driver.Name={name}"
        )));
    }
    let ConfigSpec {
        annotations,
        data,
        templating,
    } = config_spec(spec)?;
    Ok(SecretSpec {
        annotations,
        data,
        templating,
        driver: None,
    })
}

/// A config as asked for.
pub(crate) fn config_spec(spec: dto::SupplySpec) -> Result<ConfigSpec> {
    let data = spec.data.unwrap_or_default();
    let data = base64::decode(&data)
        .ok_or_else(|| ApiError::invalid("invalid JSON: Data is not base64"))?;
    Ok(ConfigSpec {
        annotations: Annotations {
            name: spec.name,
            labels: spec.labels,
        },
        data: Redacted(data),
        templating: spec.templating.map(Into::into),
    })
}

impl From<&FileTarget> for dto::FileTarget {
    fn from(file: &FileTarget) -> Self {
        Self {
            name: file.name.clone(),
            uid: file.uid.clone(),
            gid: file.gid.clone(),
            mode: file.mode,
        }
    }
}

impl From<dto::FileTarget> for FileTarget {
    fn from(file: dto::FileTarget) -> Self {
        Self {
            name: file.name,
            uid: file.uid,
            gid: file.gid,
            mode: file.mode,
        }
    }
}

impl From<&SecretReference> for dto::SecretReference {
    fn from(secret: &SecretReference) -> Self {
        Self {
            file: secret.file.as_ref().map(Into::into),
            secret_id: secret.secret_id.clone(),
            secret_name: secret.secret_name.clone(),
        }
    }
}

impl From<dto::SecretReference> for SecretReference {
    fn from(secret: dto::SecretReference) -> Self {
        Self {
            secret_id: secret.secret_id,
            secret_name: secret.secret_name,
            file: secret.file.map(Into::into),
        }
    }
}

impl From<&ConfigReference> for dto::ConfigReference {
    fn from(config: &ConfigReference) -> Self {
        let (file, runtime) = match &config.target {
            Some(ConfigTarget::File(file)) => (Some(file.into()), None),
            Some(ConfigTarget::Runtime) => (None, Some(dto::RuntimeTarget {})),
            None => (None, None),
        };
        Self {
            file,
            runtime,
            config_id: config.config_id.clone(),
            config_name: config.config_name.clone(),
        }
    }
}

impl TryFrom<dto::ConfigReference> for ConfigReference {
    type Error = ApiError;

    fn try_from(config: dto::ConfigReference) -> Result<Self> {
        let target = match (config.file, config.runtime) {
            (Some(_), Some(_)) => {
                let text = "invalid config: cannot specify both File and Runtime";
                return Err(ApiError::invalid(text));
            }
            (Some(file), None) => Some(ConfigTarget::File(file.into())),
            (None, Some(dto::RuntimeTarget {})) => Some(ConfigTarget::Runtime),
            (None, None) => None,
        };
        Ok(Self {
            config_id: config.config_id,
            config_name: config.config_name,
            target,
        })
    }
}
