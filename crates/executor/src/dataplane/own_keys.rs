//! The node's own keys for encrypted networks: there as long as a membership, turned by the clock, told to whoever describes the node.

use std::{path::PathBuf, time::SystemTime};

use skep_network::tunnel::{Keys, KeysError};
use tokio::sync::watch;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct OwnKeys {
    run_dir: PathBuf,
    keys: Option<Keys>,
    told: watch::Sender<Vec<[u8; 32]>>,
}

// === impl OwnKeys ===

impl OwnKeys {
    pub(super) fn new(run_dir: PathBuf, told: watch::Sender<Vec<[u8; 32]>>) -> Self {
        Self {
            run_dir,
            keys: None,
            told,
        }
    }

    /// Those of an earlier daemon, or new ones.
    pub(super) fn open(&mut self) -> Result<Keys, KeysError> {
        let keys = Keys::open(&self.run_dir, SystemTime::now())?;
        self.tell(Some(&keys));
        self.keys = Some(keys.clone());
        Ok(keys)
    }

    /// The membership is over; the plane removes the files.
    pub(super) fn close(&mut self) {
        self.keys = None;
        self.tell(None);
    }

    /// Changes keys if it is time. `known` is what others are told of this node: as long as it is not what was told last, they could
    /// not follow.
    pub(super) fn turn(&mut self, known: &[[u8; 32]]) -> Result<Option<Keys>, KeysError> {
        let Some(keys) = &mut self.keys else {
            return Ok(None);
        };
        if keys.public() != known || !keys.turn(SystemTime::now())? {
            return Ok(None);
        }
        let keys = keys.clone();
        self.tell(Some(&keys));
        Ok(Some(keys))
    }

    fn tell(&self, keys: Option<&Keys>) {
        let public = keys.map(Keys::public).unwrap_or_default();
        self.told.send_if_modified(|told| {
            let is_new = *told != public;
            *told = public;
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_and_do_not_turn_before_others_know() {
        let dir = tempfile::tempdir().unwrap();
        let (told, seen) = watch::channel(Vec::new());
        let mut own = OwnKeys::new(dir.path().to_owned(), told);
        assert_eq!(own.turn(&[]).unwrap(), None);
        let mut keys = own.open().unwrap();
        assert_eq!(*seen.borrow(), keys.public());
        // A day later.
        let since = SystemTime::now() - std::time::Duration::from_hours(24);
        keys.advance(since).unwrap();
        let keys = own.open().unwrap();
        assert_eq!(own.turn(&[[1; 32]]).unwrap(), None);
        assert_eq!(own.turn(&[]).unwrap(), None);
        let turned = own.turn(&keys.public()).unwrap().unwrap();
        assert_ne!(turned, keys);
        assert_eq!(*seen.borrow(), turned.public());
        own.close();
        assert!(seen.borrow().is_empty());
    }
}
