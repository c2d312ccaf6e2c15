//! What the API shows of a container beyond its record: paths and sizes.

use std::path::PathBuf;

use super::{Container, Engine, volumes::directory_bytes};

impl Engine {
    /// Directory of the container's generated files and writable layer.
    pub fn files_of(&self, container: &Container) -> PathBuf {
        self.container_dir(&container.record().id)
    }

    /// Where the container's log is; `None` without one.
    pub fn log_path(&self, container: &Container) -> Option<PathBuf> {
        container.handle().log_path()
    }

    /// Bytes of the container's writable layer. Reads the whole tree.
    pub fn writable_bytes(&self, container: &Container) -> i64 {
        let upper = self.files_of(container).join("upper");
        i64::try_from(directory_bytes(&upper)).unwrap_or(i64::MAX)
    }

    /// Bytes of the container's image and writable layer.
    pub fn image_bytes(&self, container: &Container) -> i64 {
        let details = self.images().inspect(&container.record().image_id);
        let bytes = details.map_or(0, |details| details.size_bytes);
        i64::try_from(bytes)
            .unwrap_or(i64::MAX)
            .saturating_add(self.writable_bytes(container))
    }
}
