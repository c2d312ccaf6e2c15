//! The volume side of the Engine API, over the engine's volumes.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use skep_docker_api::{
    backend::{CreateVolumeRequest, VolumeBackend, VolumeDetail},
    error::{ApiError, ErrorKind, Result},
};
use skep_executor::engine::{Engine, Volume, VolumeError};
use skep_model::Timestamp;

/// See the module's documentation.
pub(crate) struct NodeVolumes {
    pub(crate) engine: Arc<Engine>,
}

impl NodeVolumes {
    fn detail(&self, volume: Volume, users: &BTreeMap<String, String>) -> VolumeDetail {
        VolumeDetail {
            mountpoint: self
                .engine
                .volumes()
                .path(&volume.name)
                .display()
                .to_string(),
            users: users.get(&volume.name).cloned().into_iter().collect(),
            name: volume.name,
            driver: "local".to_owned(),
            created_at: Timestamp(volume.created_at_ns),
            labels: volume.labels,
            options: BTreeMap::new(),
            is_anonymous: volume.is_anonymous,
            size_bytes: None,
        }
    }
}

#[async_trait]
impl VolumeBackend for NodeVolumes {
    async fn volumes(&self) -> Result<Vec<VolumeDetail>> {
        let volumes = self.engine.volumes().list();
        let volumes = volumes.map_err(|error| ApiError::system("failed to list volumes", error))?;
        let users = self.engine.volume_users();
        Ok(volumes
            .into_iter()
            .map(|volume| self.detail(volume, &users))
            .collect())
    }

    async fn volume(&self, name: &str) -> Result<VolumeDetail> {
        let volume = self.engine.volumes().get(name).map_err(from_volume)?;
        Ok(self.detail(volume, &self.engine.volume_users()))
    }

    async fn create(&self, request: CreateVolumeRequest) -> Result<VolumeDetail> {
        if !matches!(request.driver.as_str(), "" | "local") {
            let message = format!(
                "error looking up volume plugin {0}: plugin \"{0}\" not found",
                request.driver
            );
            return Err(ApiError::not_found(message));
        }
        if !request.options.is_empty() {
            let message = "options of the local volume driver are not supported yet";
            return Err(ApiError::not_implemented(message));
        }
        let is_anonymous = request.name.is_empty();
        let volume = Volume {
            name: if is_anonymous {
                self.engine.random_name()
            } else {
                request.name
            },
            labels: request.labels,
            created_at_ns: self.engine.now().0,
            is_anonymous,
        };
        let is_new = self
            .engine
            .volumes()
            .ensure(&volume, |_| Ok(()))
            .map_err(from_volume)?;
        if is_new {
            self.engine.note_volume("create", &volume.name);
        }
        self.volume(&volume.name).await
    }

    async fn remove(&self, name: &str, force: bool) -> Result<()> {
        match self
            .engine
            .volumes()
            .remove(name, &self.engine.volume_users())
        {
            Ok(()) => {
                self.engine.note_volume("destroy", name);
                Ok(())
            }
            Err(VolumeError::NotFound(_)) if force => Ok(()),
            Err(error) => Err(from_volume(error)),
        }
    }
}

fn from_volume(error: VolumeError) -> ApiError {
    let kind = match error {
        VolumeError::Name(_) => ErrorKind::InvalidArgument,
        VolumeError::NotFound(_) => ErrorKind::NotFound,
        VolumeError::InUse(..) => ErrorKind::Conflict,
        VolumeError::Io(..) => ErrorKind::System,
    };
    ApiError::new(kind, error.to_string())
}
