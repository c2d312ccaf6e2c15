//! What is mounted into a container.

use serde_json::{Value, json};

use super::Stack;
use crate::{
    project::{BindOptions, Mount, MountKind, Recursive, Tmpfs, TmpfsOptions, Volume},
    word::Word,
};

/// The mounts of service `name`: its `volumes`, then its `tmpfs`, which Docker leaves out.
pub(super) fn convert(
    stack: &mut Stack<'_>,
    name: &str,
    mounts: &[Mount],
    tmpfs: &[Tmpfs],
) -> Vec<Value> {
    let mut found: Vec<Value> = mounts
        .iter()
        .map(|mount| self::mount(stack, name, mount))
        .collect();
    found.extend(tmpfs.iter().map(self::tmpfs));
    found
}

fn mount(stack: &mut Stack<'_>, service: &str, mount: &Mount) -> Value {
    let mut json = json!({
        "Type": mount.kind.as_str(),
        "Target": mount.target,
    });
    if let Some(source) = &mount.source {
        json["Source"] = json!(source);
    }
    if mount.is_read_only {
        json["ReadOnly"] = json!(true);
    }
    if let Some(consistency) = &mount.consistency {
        json["Consistency"] = json!(consistency);
    }
    match mount.kind {
        MountKind::Volume => volume(stack, service, mount, &mut json),
        MountKind::Bind | MountKind::Npipe => {
            if let Some(options) = &mount.bind {
                json["BindOptions"] = bind_options(options);
                if options.selinux.is_some() {
                    let target = &mount.target;
                    let text = format!("the bind at `{target}` gets no SELinux label");
                    stack.warn(service, "volumes", &text);
                }
            }
        }
        MountKind::Tmpfs => {
            if let Some(options) = &mount.tmpfs {
                json["TmpfsOptions"] = tmpfs_options(options, &[]);
            }
        }
        MountKind::Cluster => {
            json["ClusterOptions"] = json!({});
            let group = mount
                .source
                .as_deref()
                .filter(|name| name.starts_with("group:"));
            if let (Some(key), None) = (&mount.source, group) {
                json["Source"] = json!(volume_name(stack, key));
            }
        }
        MountKind::Image => {
            if let Some(path) = &mount.image_subpath {
                json["ImageOptions"] = json!({ "Subpath": path });
            }
        }
    }
    json
}

fn volume_name(stack: &Stack<'_>, key: &str) -> String {
    let volume = stack.project.volumes.get(key);
    let name = volume.and_then(|volume| volume.name.as_ref());
    stack.named(key, name, volume.is_some_and(|volume| volume.is_external))
}

fn volume(stack: &mut Stack<'_>, service: &str, mount: &Mount, json: &mut Value) {
    let mut options = json!({});
    let mut labels = None;
    if let Some(said) = &mount.volume {
        if said.is_nocopy {
            options["NoCopy"] = json!(true);
        }
        if let Some(path) = &said.subpath {
            options["Subpath"] = json!(path);
        }
        labels = Some(&said.labels).filter(|labels| !labels.is_empty());
    }
    let Some(key) = &mount.source else {
        // Docker drops the options of volumes without a name; here they mean what they say.
        if let Some(labels) = labels {
            options["Labels"] = json!(labels);
        }
        if options != json!({}) {
            json["VolumeOptions"] = options;
        }
        return;
    };
    json["Source"] = json!(volume_name(stack, key));
    match stack.project.volumes.get(key) {
        None => stack.problem(
            service,
            "volumes",
            &format!("volume `{key}` is not defined"),
        ),
        Some(volume) if volume.is_external => {}
        Some(volume) => owned(stack, volume, &mut options),
    }
    json["VolumeOptions"] = options;
}

/// What a node needs to make the volume.
fn owned(stack: &Stack<'_>, volume: &Volume, options: &mut Value) {
    options["Labels"] = json!(stack.labelled(&volume.labels));
    if volume.driver.is_some() || !volume.driver_opts.is_empty() {
        let mut driver = json!({ "Name": volume.driver.as_deref().unwrap_or_default() });
        if !volume.driver_opts.is_empty() {
            driver["Options"] = json!(volume.driver_opts);
        }
        options["DriverConfig"] = driver;
    }
}

fn bind_options(options: &BindOptions) -> Value {
    let mut json = json!({});
    if let Some(propagation) = options.propagation {
        json["Propagation"] = json!(propagation.as_str());
    }
    if options.is_created == Some(true) {
        json["CreateMountpoint"] = json!(true);
    }
    match options.recursive {
        None | Some(Recursive::Enabled) => {}
        Some(Recursive::Disabled) => json["NonRecursive"] = json!(true),
        Some(Recursive::Writable) => json["ReadOnlyNonRecursive"] = json!(true),
        Some(Recursive::Readonly) => json["ReadOnlyForceRecursive"] = json!(true),
    }
    json
}

fn tmpfs(tmpfs: &Tmpfs) -> Value {
    let mut json = json!({ "Type": "tmpfs", "Target": tmpfs.target });
    let options = tmpfs_options(&tmpfs.options, &tmpfs.flags);
    if options != json!({}) {
        json["TmpfsOptions"] = options;
    }
    json
}

fn tmpfs_options(options: &TmpfsOptions, flags: &[String]) -> Value {
    let mut json = json!({});
    if let Some(size) = options.size_bytes {
        json["SizeBytes"] = json!(size);
    }
    if let Some(mode) = options.mode {
        json["Mode"] = json!(mode);
    }
    if !flags.is_empty() {
        let pairs = flags.iter().map(|flag| match flag.split_once('=') {
            Some((name, value)) => vec![name, value],
            None => vec![flag.as_str()],
        });
        json["Options"] = json!(pairs.collect::<Vec<_>>());
    }
    json
}
