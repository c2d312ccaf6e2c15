//! Getting a task's image: local where that is right, from its registry where not.
//!
//! Swarm asks the registry for every task unless the reference is pinned by digest and present.
//! Skep does not ask for an image that never came from a registry (loaded, imported): nobody would
//! know it, and Docker loses up to 20 s per task finding out. One refresh serves all tasks of a
//! node that want the same reference within [`REFRESH_PERIOD`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::OnceCell, time::Instant};

use super::Engine;
use crate::image::{Error, ImageId, Reference, RegistryAuth};

/// How long a refreshed reference counts as fresh: long enough for all tasks of one deployment,
/// short enough that the next one sees a moved tag.
const REFRESH_PERIOD: Duration = Duration::from_secs(10);
/// How long a refresh may take when there is a local image to fall back to.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(15);
/// Events of a pull nobody listens to.
const IGNORED_EVENTS: usize = 1;

type Attempt = Arc<OnceCell<Result<ImageId, String>>>;

/// Pulls under way or fresh, by reference.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    recent: Mutex<BTreeMap<String, (Instant, Attempt)>>,
}

impl Pulls {
    /// The attempt all callers of this period share.
    fn attempt(&self, reference: &str) -> Attempt {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        recent.retain(|_, (begun, attempt)| {
            now.duration_since(*begun) < REFRESH_PERIOD || attempt.get().is_none()
        });
        let (_, attempt) = recent
            .entry(reference.to_owned())
            .or_insert_with(|| (now, Attempt::default()));
        Arc::clone(attempt)
    }
}

impl Engine {
    /// The image for `reference`, pulled when needed.
    ///
    /// # Errors
    /// There is none here and it cannot be pulled; the text is Docker's.
    pub(super) async fn ensure_image(
        self: &Arc<Self>,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<ImageId, String> {
        let local = self.images.resolve(reference).ok();
        let Ok(parsed) = reference.parse::<Reference>() else {
            // An id, or nothing a registry could know.
            return local.ok_or_else(|| Error::NoSuchImage(reference.to_owned()).to_string());
        };
        if let Some(id) = local
            && (parsed.digest().is_some() || !self.is_from_registry(id))
        {
            return Ok(id);
        }
        let name = parsed.clone().or_latest().familiar();
        let attempt = self.pulls.attempt(&parsed.familiar());
        let (engine, has_fallback) = (Arc::clone(self), local.is_some());
        let pull = move || async move { engine.pull(parsed, auth, has_fallback).await };
        let pulled = attempt.get_or_init(pull).await;
        match (pulled, local) {
            (Ok(id), _) => Ok(*id),
            (Err(error), Some(id)) => {
                tracing::debug!(image = reference, error = %error, "Image not refreshed");
                Ok(id)
            }
            (Err(error), None) => {
                // Swarm logs why the pull failed, then reports what creating a container says.
                tracing::warn!(image = reference, error = %error, "Failed to pull an image");
                Err(Error::NoSuchImage(name).to_string())
            }
        }
    }

    async fn pull(
        &self,
        reference: Reference,
        auth: Option<RegistryAuth>,
        has_fallback: bool,
    ) -> Result<ImageId, String> {
        let (events, _) = tokio::sync::mpsc::channel(IGNORED_EVENTS);
        let reference = reference.or_latest();
        let pull = self.images.pull(&reference, None, auth.as_ref(), events);
        let pulled = if has_fallback {
            match tokio::time::timeout(REFRESH_TIMEOUT, pull).await {
                Ok(pulled) => pulled,
                Err(_) => return Err("registry did not answer in time".to_owned()),
            }
        } else {
            pull.await
        };
        let pulled = pulled.map_err(|error| error.to_string())?;
        self.note_image("pull", &reference.familiar());
        Ok(pulled.id)
    }

    /// Whether the image was pulled: then it has a name with a digest.
    fn is_from_registry(&self, id: ImageId) -> bool {
        let details = self.images.inspect(&id.to_string());
        details.is_ok_and(|details| !details.repo_digests.is_empty())
    }
}
