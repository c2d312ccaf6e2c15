//! Which parts of a container's spec are templates, and their expansion.

use std::collections::BTreeMap;

use super::{Context, Error, FIELD_BYTES_MAX, FIELDS_MAX, Template, print::quoted};
use crate::spec::{ContainerSpec, Mount};

/// Bytes of a field that an error quotes.
const QUOTE_BYTES_MAX: usize = 256;

/// Why a container's templates cannot be expanded. The text is Swarm's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {error}")]
pub struct ExpandError {
    place: String,
    error: Box<Error>,
}

/// `spec` with the templates in its environment, mounts and host name expanded.
///
/// # Errors
/// The first template that fails.
pub fn container(context: &Context, spec: &ContainerSpec) -> Result<ContainerSpec, ExpandError> {
    if field_count(spec) > FIELDS_MAX {
        return Err(ExpandError {
            place: "expanding templates failed".to_owned(),
            error: Box::new(Error::Fields),
        });
    }
    let mut spec = spec.clone();
    for entry in &mut spec.env {
        if let Some((name, value)) = entry.split_once('=') {
            let place = || format!("expanding env failed: expanding env {}", quote(entry));
            *entry = format!("{name}={}", text(context, value, place)?);
        }
    }
    for target in &mut spec.mounts {
        mount(context, target)?;
    }
    let place = || "expanding hostname failed".to_owned();
    spec.hostname = text(context, &spec.hostname, place)?;
    Ok(spec)
}

/// Fields that have templates, or look like it.
fn field_count(spec: &ContainerSpec) -> usize {
    let volumes = spec.mounts.iter().filter_map(|mount| mount.volume.as_ref());
    let maps = volumes.flat_map(|volume| {
        let options = volume.driver.as_ref().map(|driver| &driver.options);
        options.into_iter().chain([&volume.labels])
    });
    let ends = spec
        .mounts
        .iter()
        .flat_map(|mount| [&mount.source, &mount.target]);
    let texts = spec
        .env
        .iter()
        .chain(ends)
        .chain(maps.flat_map(BTreeMap::values));
    texts.filter(|text| text.contains("{{")).count()
}

fn mount(context: &Context, mount: &mut Mount) -> Result<(), ExpandError> {
    const FAILED: &str = "expanding mounts failed: expanding";
    let place = || format!("{FAILED} mount source {}", quote(&mount.source));
    mount.source = text(context, &mount.source, place)?;
    let place = || format!("{FAILED} mount target {}", quote(&mount.target));
    mount.target = text(context, &mount.target, place)?;
    if let Some(options) = &mut mount.volume {
        let place = format!("{FAILED} volume labels");
        entries(context, &mut options.labels, &place)?;
        if let Some(driver) = &mut options.driver {
            let place = format!("{FAILED} volume driver config");
            entries(context, &mut driver.options, &place)?;
        }
    }
    Ok(())
}

fn entries(
    context: &Context,
    entries: &mut BTreeMap<String, String>,
    of: &str,
) -> Result<(), ExpandError> {
    for (key, value) in entries {
        let entry = || format!("{of}: expanding map entry {}={}", quote(key), quote(value));
        *value = text(context, value, entry)?;
    }
    Ok(())
}

fn text(
    context: &Context,
    text: &str,
    place: impl FnOnce() -> String,
) -> Result<String, ExpandError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let template = Template::parse(text.as_bytes());
    let expanded = template.and_then(|template| template.expand(context, FIELD_BYTES_MAX));
    match expanded {
        // A part of a character may have been cut out of a text.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(ExpandError {
            place: place(),
            error: Box::new(error),
        }),
    }
}

/// Quoted, and cut: an error goes through headers of limited size.
fn quote(text: &str) -> String {
    if text.len() <= QUOTE_BYTES_MAX {
        return quoted(text.as_bytes());
    }
    let shown = text.floor_char_boundary(QUOTE_BYTES_MAX);
    format!("{}...", quoted(&text.as_bytes()[..shown]))
}

// === impl ExpandError ===

impl ExpandError {
    /// Whether it may succeed once a manager has told this node its labels.
    pub fn is_temporary(&self) -> bool {
        *self.error == Error::NodeLabelsUntold
    }
}
