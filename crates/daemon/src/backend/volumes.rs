//! The volume side of the Engine API, over the engine's volumes.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use skep_docker_api::{
    backend::{CreateVolumeRequest, VolumeBackend, VolumeDetail, VolumeListing},
    error::{ApiError, ErrorKind, Result},
};
use skep_executor::engine::{Engine, LOCAL_DRIVER, PluginError, Volume, VolumeError, VolumeView};
use skep_model::Timestamp;

/// See the module's documentation.
pub(crate) struct NodeVolumes {
    pub(crate) engine: Arc<Engine>,
}

fn detail(view: VolumeView, users: &BTreeMap<String, Vec<String>>) -> VolumeDetail {
    let volume = view.volume;
    VolumeDetail {
        mountpoint: view.mountpoint,
        users: users.get(&volume.name).cloned().unwrap_or_default(),
        name: volume.name,
        driver: volume.driver,
        created_at: Timestamp(volume.created_at_ns),
        labels: volume.labels,
        options: volume.options,
        is_anonymous: volume.is_anonymous,
        status: view.status,
    }
}

#[async_trait]
impl VolumeBackend for NodeVolumes {
    async fn volumes(&self) -> Result<VolumeListing> {
        let listed = self.engine.volumes().list().await;
        let (views, warnings) =
            listed.map_err(|error| ApiError::system("failed to list volumes", error))?;
        let users = self.engine.volume_users();
        let volumes = views.into_iter().map(|view| detail(view, &users));
        Ok(VolumeListing {
            volumes: volumes.collect(),
            warnings,
        })
    }

    async fn size_bytes(&self, name: &str) -> Result<Option<i64>> {
        let (engine, name) = (Arc::clone(&self.engine), name.to_owned());
        let counting = tokio::task::spawn_blocking(move || engine.volumes().size_bytes(&name));
        let bytes = counting.await;
        let bytes = bytes.map_err(|error| ApiError::system("failed to measure a volume", error))?;
        Ok(bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
    }

    async fn volume(&self, name: &str) -> Result<VolumeDetail> {
        let view = self
            .engine
            .volumes()
            .view(name)
            .await
            .map_err(from_volume)?;
        Ok(detail(view, &self.engine.volume_users()))
    }

    async fn create(&self, request: CreateVolumeRequest) -> Result<VolumeDetail> {
        let is_anonymous = request.name.is_empty();
        let volume = Volume {
            name: if is_anonymous {
                self.engine.random_name()
            } else {
                request.name
            },
            driver: match request.driver.as_str() {
                "" => LOCAL_DRIVER.to_owned(),
                driver => driver.to_owned(),
            },
            labels: request.labels,
            options: request.options,
            created_at_ns: self.engine.now().0,
            is_anonymous,
        };
        let made = self.engine.volumes().create(&volume).await;
        if made.map_err(from_volume)? {
            self.engine.note_volume("create", &volume.name);
        }
        self.volume(&volume.name).await
    }

    async fn remove(&self, name: &str, force: bool) -> Result<()> {
        match self.engine.volumes().remove(name, force).await {
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
    let kind = match &error {
        VolumeError::Name(_) | VolumeError::Option(..) => ErrorKind::InvalidArgument,
        VolumeError::NotFound(_)
        | VolumeError::Plugin {
            error: PluginError::NotFound(_),
            ..
        } => ErrorKind::NotFound,
        VolumeError::InUse(..) | VolumeError::Conflict { .. } => ErrorKind::Conflict,
        VolumeError::Mount { .. } | VolumeError::Plugin { .. } | VolumeError::Io(..) => {
            ErrorKind::System
        }
    };
    ApiError::new(kind, error.to_string())
}
