//! What a service's containers are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::{Stack, image, mounts};
use crate::project::{FileObject, FileReference, Healthcheck, Service, Test};

/// Owner of files whose reference names none.
const ROOT: &str = "0";
/// Mode of files whose reference names none.
const MODE: u32 = 0o444;
/// All capabilities, which makes the others needless.
const ALL: &str = "ALL";

/// Nanoseconds, as the API has durations; centuries are as good as for ever.
pub(super) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The container part of a task template.
pub(super) fn convert(stack: &mut Stack<'_>, name: &str, service: &Service) -> Value {
    let mut spec = Fields::default();
    spec.set("Image", json!(image::normal(&service.image)));
    spec.set("Labels", json!(stack.labelled(&service.labels)));
    spec.list("Command", service.entrypoint.clone().unwrap_or_default());
    spec.list("Args", service.command.clone().unwrap_or_default());
    for (key, value) in [
        ("entrypoint", &service.entrypoint),
        ("command", &service.command),
    ] {
        if value.as_ref().is_some_and(Vec::is_empty) {
            let text = format!("an empty `{key}` does not take the image's away in a cluster");
            stack.warn(name, key, &text);
        }
    }
    spec.text("Hostname", service.hostname.as_ref());
    spec.list("Env", environment(&service.environment));
    spec.text("Dir", service.working_dir.as_ref());
    spec.text("User", service.user.as_ref());
    spec.list("Groups", service.groups.clone());
    spec.set("Privileges", privileges(stack, service));
    if let Some(has_init) = service.has_init {
        spec.set("Init", json!(has_init));
    }
    spec.text("StopSignal", service.stop_signal.as_ref());
    spec.flag("TTY", service.has_tty);
    spec.flag("OpenStdin", service.is_stdin_open);
    spec.flag("ReadOnly", service.is_read_only);
    spec.list(
        "Mounts",
        mounts::convert(stack, name, &service.mounts, &service.tmpfs),
    );
    if let Some(grace) = service.stop_grace_period {
        spec.set("StopGracePeriod", json!(nanos(grace)));
    }
    if let Some(check) = &service.healthcheck {
        spec.set("Healthcheck", healthcheck(check));
    }
    let hosts = service.extra_hosts.iter();
    spec.list(
        "Hosts",
        hosts
            .map(|host| format!("{} {}", host.address, host.host))
            .collect(),
    );
    spec.set("DNSConfig", dns(service));
    spec.list("Secrets", secrets(stack, name, service));
    spec.list("Configs", configs(stack, name, service));
    spec.text("Isolation", service.isolation.as_ref());
    spec.set("Sysctls", json!(service.sysctls));
    let (add, drop) = capabilities(&service.cap_add, &service.cap_drop);
    spec.list("CapabilityAdd", add);
    spec.list("CapabilityDrop", drop);
    let ulimits = service.ulimits.iter();
    let ulimits = ulimits
        .map(|(name, limit)| json!({ "Name": name, "Soft": limit.soft, "Hard": limit.hard }));
    spec.list("Ulimits", ulimits.collect());
    if let Some(adjustment) = service.oom_score_adj {
        spec.set("OomScoreAdj", json!(adjustment));
    }
    Value::Object(spec.0)
}

/// Fields of an object; what is empty is left out.
#[derive(Default)]
pub(super) struct Fields(pub(super) Map<String, Value>);

// === impl Fields ===

impl Fields {
    pub(super) fn set(&mut self, name: &str, value: Value) {
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        if !is_empty {
            self.0.insert(name.to_owned(), value);
        }
    }

    pub(super) fn text(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.set(name, json!(value));
        }
    }

    pub(super) fn list<T: Into<Value>>(&mut self, name: &str, items: Vec<T>) {
        if !items.is_empty() {
            self.set(name, items.into());
        }
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.set(name, json!(true));
        }
    }
}

/// Sorted, so that the order of a file is no difference. A name without a value takes the image's away.
fn environment(variables: &BTreeMap<String, Option<String>>) -> Vec<String> {
    let entry = |(name, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    };
    let mut entries: Vec<String> = variables.iter().map(entry).collect();
    entries.sort();
    entries
}

fn privileges(stack: &Stack<'_>, service: &Service) -> Value {
    let credentials = service.credential_spec.as_ref().map(|spec| {
        let config = spec.config.as_ref().map(|key| stack.config_name(key));
        json!({
            "Config": config.unwrap_or_default(),
            "File": spec.file.as_deref().unwrap_or_default(),
            "Registry": spec.registry.as_deref().unwrap_or_default(),
        })
    });
    json!({ "CredentialSpec": credentials, "SELinuxContext": null, "NoNewPrivileges": false })
}

fn healthcheck(check: &Healthcheck) -> Value {
    let mut fields = Fields::default();
    match &check.test {
        Some(Test::None) => return json!({ "Test": ["NONE"] }),
        Some(Test::Command(command)) => {
            let words = std::iter::once("CMD").chain(command.iter().map(String::as_str));
            fields.list("Test", words.collect());
        }
        Some(Test::Shell(line)) => fields.list("Test", vec!["CMD-SHELL", line]),
        None => {}
    }
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, time) in times {
        fields.set(name, time.map_or(Value::Null, |time| json!(nanos(time))));
    }
    fields.set(
        "Retries",
        check.retries.map_or(Value::Null, |count| json!(count)),
    );
    // An empty one still says that there is one.
    Value::Object(fields.0)
}

fn dns(service: &Service) -> Value {
    let mut fields = Fields::default();
    fields.list("Nameservers", service.dns.clone());
    fields.list("Search", service.dns_search.clone());
    fields.list("Options", service.dns_options.clone());
    Value::Object(fields.0)
}

/// What is added wins over what is dropped; names are in capitals, with their prefix, sorted, once.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |name: &String| {
        let name = name.trim().to_uppercase();
        match name.starts_with("CAP_") || name == ALL {
            true => name,
            false => format!("CAP_{name}"),
        }
    };
    let set = |names: &[String]| {
        let set: BTreeSet<String> = names.iter().map(normal).collect();
        match set.contains(ALL) {
            true => BTreeSet::from([ALL.to_owned()]),
            false => set,
        }
    };
    let (add, mut drop) = (set(add), set(drop));
    drop.retain(|name| !add.contains(name));
    (add.into_iter().collect(), drop.into_iter().collect())
}

fn secrets(stack: &mut Stack<'_>, name: &str, service: &Service) -> Vec<Value> {
    let objects = &stack.project.secrets;
    let mut found = files(stack, name, "secrets", &service.secrets, objects);
    found.iter_mut().for_each(|(source, file)| {
        let name = stack.secret_name(source);
        *source = name.clone();
        *file = json!({ "File": file.take(), "SecretID": "", "SecretName": name });
    });
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().map(|(_, reference)| reference).collect()
}

fn configs(stack: &mut Stack<'_>, name: &str, service: &Service) -> Vec<Value> {
    let objects = &stack.project.configs;
    let mut found = files(stack, name, "configs", &service.configs, objects);
    found.iter_mut().for_each(|(source, file)| {
        let name = stack.config_name(source);
        *source = name.clone();
        *file = json!({ "File": file.take(), "ConfigID": "", "ConfigName": name });
    });
    let spec = service.credential_spec.as_ref();
    if let Some(key) = spec.and_then(|spec| spec.config.as_ref()) {
        let name = stack.config_name(key);
        let reference = json!({ "Runtime": {}, "ConfigID": "", "ConfigName": name });
        found.push((name, reference));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().map(|(_, reference)| reference).collect()
}

/// The files of references, with their sources. No two may have the same name.
fn files(
    stack: &mut Stack<'_>,
    name: &str,
    key: &str,
    references: &[FileReference],
    objects: &BTreeMap<String, FileObject>,
) -> Vec<(String, Value)> {
    let kind = key.trim_end_matches('s');
    let mut targets = BTreeSet::new();
    let mut found = Vec::new();
    for reference in references {
        let source = &reference.source;
        if !objects.contains_key(source) {
            stack.problem(name, key, &format!("{kind} `{source}` is not defined"));
        }
        let target = reference.target.as_ref().unwrap_or(source);
        if !targets.insert(target) {
            stack.problem(name, key, &format!("two {key} have the target `{target}`"));
        }
        let file = json!({
            "Name": target,
            "UID": reference.uid.as_deref().unwrap_or(ROOT),
            "GID": reference.gid.as_deref().unwrap_or(ROOT),
            "Mode": reference.mode.unwrap_or(MODE),
        });
        found.push((source.clone(), file));
    }
    found
}
