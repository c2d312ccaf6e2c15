//! Networks of this node in files: one JSON file each, `<dir>/<id>.json`.

use std::{fs, io, path::Path};

use tracing::warn;

use super::Definition;

/// Longest file read back; a longer one is damaged (requests are limited by the API).
const FILE_BYTES_MAX: u64 = 8 << 20;
const SUFFIX: &str = "json";

/// All networks. Files that cannot be read are left alone, and said.
pub(super) fn read(dir: &Path) -> io::Result<Vec<Definition>> {
    fs::create_dir_all(dir)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|suffix| suffix != SUFFIX) {
            continue;
        }
        match read_one(&path) {
            Ok(definition) => found.push(definition),
            Err(error) => {
                warn!(path = %path.display(), error = %error, "Network of this node not read");
            }
        }
    }
    Ok(found)
}

fn read_one(path: &Path) -> io::Result<Definition> {
    let malformed = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(malformed("file is too long"));
    }
    let definition: Definition = serde_json::from_slice(&fs::read(path)?)?;
    if !definition.is_known_version() {
        return Err(malformed("file has an unknown version"));
    }
    Ok(definition)
}

/// Stores a network so that a crash, of the machine too, leaves all of it or nothing.
pub(super) fn write(dir: &Path, definition: &Definition) -> io::Result<()> {
    let path = dir.join(format!("{}.{SUFFIX}", definition.id));
    let temporary = path.with_extension("new");
    let bytes = serde_json::to_vec_pretty(definition)?;
    let mut file = fs::File::create(&temporary)?;
    io::Write::write_all(&mut file, &bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    fs::File::open(dir)?.sync_all()
}

/// Forgets a network. A missing one is fine.
pub(super) fn remove(dir: &Path, id: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(format!("{id}.{SUFFIX}"))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
