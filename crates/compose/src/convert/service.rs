//! A service: how a cluster runs its containers.

use serde_json::{Value, json};

use super::{DEFAULT_NETWORK, IMAGE, Stack, container, container::Fields, extras};
use crate::{
    project::{Deploy, DeployMode, Resources, Restart, RestartCondition, Service, UpdateConfig},
    word::Word,
};

/// The spec of service `name`.
pub(super) fn convert(stack: &mut Stack<'_>, name: &str, service: &Service) -> Value {
    let mut labels = stack.labelled(&service.deploy.labels);
    labels.insert(IMAGE.to_owned(), service.image.clone());
    extras::add(stack, name, service, &mut labels);
    let is_awaited = stack.awaited.contains(name);
    let mut spec = Fields::default();
    spec.set("Name", json!(stack.scoped(name)));
    spec.set("Labels", json!(labels));
    spec.set("TaskTemplate", template(stack, name, service));
    spec.set("Mode", mode(stack, name, &service.deploy, is_awaited));
    let rollouts = [
        ("UpdateConfig", &service.deploy.update_config),
        ("RollbackConfig", &service.deploy.rollback_config),
    ];
    for (key, config) in rollouts {
        spec.set(key, config.as_ref().map_or(Value::Null, update_config));
    }
    let mut json = Value::Object(spec.0);
    json["EndpointSpec"] = endpoint(stack, name, service);
    json
}

fn template(stack: &mut Stack<'_>, name: &str, service: &Service) -> Value {
    let deploy = &service.deploy;
    let container = container::convert(stack, name, service);
    let mut json = json!({
        "ContainerSpec": container,
        "Resources": resources(deploy),
        "Placement": placement(service),
        "Networks": networks(stack, name, service),
        "ForceUpdate": 0,
    });
    if let Some(policy) = restart_policy(stack, name, service) {
        json["RestartPolicy"] = policy;
    }
    if let Some(logging) = &service.logging {
        let mut driver = Fields::default();
        driver.text("Name", logging.driver.as_ref());
        driver.set("Options", json!(logging.options));
        json["LogDriver"] = Value::Object(driver.0);
    }
    json
}

fn mode(stack: &mut Stack<'_>, name: &str, deploy: &Deploy, is_awaited: bool) -> Value {
    let is_counted = match deploy.mode {
        DeployMode::Replicated | DeployMode::ReplicatedJob => true,
        DeployMode::Global | DeployMode::GlobalJob => false,
    };
    if deploy.replicas.is_some() && !is_counted {
        let mode = deploy.mode.as_str();
        stack.problem(name, "deploy", &format!("mode `{mode}` has no `replicas`"));
    }
    let replicas = deploy.replicas.map_or(Value::Null, |count| json!(count));
    let job = json!({
        "ReplicatedJob": { "MaxConcurrent": replicas, "TotalCompletions": replicas }
    });
    match deploy.mode {
        // Tasks that are replaced for ever never complete; who waits for that means a job.
        DeployMode::Replicated if is_awaited => {
            let text =
                "it is a job (`deploy.mode: replicated-job`), as others wait for it to complete";
            stack.warn(name, "deploy", text);
            job
        }
        DeployMode::Replicated if replicas.is_null() => json!({ "Replicated": {} }),
        DeployMode::Replicated => json!({ "Replicated": { "Replicas": replicas } }),
        DeployMode::ReplicatedJob => job,
        DeployMode::Global => json!({ "Global": {} }),
        DeployMode::GlobalJob => json!({ "GlobalJob": {} }),
    }
}

fn update_config(config: &UpdateConfig) -> Value {
    let mut fields = Fields::default();
    fields.set("Parallelism", json!(config.parallelism.unwrap_or(1)));
    for (key, time) in [("Delay", config.delay), ("Monitor", config.monitor)] {
        fields.set(
            key,
            time.map_or(Value::Null, |time| json!(container::nanos(time))),
        );
    }
    let action = config.failure_action.map(Word::as_str);
    fields.set("FailureAction", json!(action));
    fields.set(
        "MaxFailureRatio",
        json!(config.max_failure_ratio.unwrap_or(0.0)),
    );
    fields.set("Order", json!(config.order.map(Word::as_str)));
    Value::Object(fields.0)
}

fn endpoint(stack: &mut Stack<'_>, name: &str, service: &Service) -> Value {
    let mut ports = Vec::new();
    for port in &service.ports {
        if let Some(address) = &port.host_ip {
            let target = port.target;
            let text = format!(
                "port {target} is published on all addresses of the nodes, not only {address}; see the label `skep.publish.address`"
            );
            stack.warn(name, "ports", &text);
        }
        let order = (
            port.published.unwrap_or(0),
            port.target,
            port.protocol.as_str(),
            port.mode.as_str(),
        );
        let mut fields = Fields::default();
        fields.text("Name", port.name.as_ref());
        fields.set("Protocol", json!(port.protocol.as_str()));
        fields.set("TargetPort", json!(port.target));
        fields.set("PublishedPort", json!(port.published));
        fields.set("PublishMode", json!(port.mode.as_str()));
        ports.push((order, Value::Object(fields.0)));
    }
    ports.sort_by_key(|(order, _)| *order);
    let mut endpoint = Fields::default();
    endpoint.set(
        "Mode",
        json!(service.deploy.endpoint_mode.map(Word::as_str)),
    );
    endpoint.list("Ports", ports.into_iter().map(|(_, port)| port).collect());
    Value::Object(endpoint.0)
}

fn networks(stack: &mut Stack<'_>, name: &str, service: &Service) -> Vec<Value> {
    let absent = [(
        DEFAULT_NETWORK.to_owned(),
        crate::project::ServiceNetwork::default(),
    )]
    .into();
    let attached = match service.networks.is_empty() {
        true => &absent,
        false => &service.networks,
    };
    let mut found = Vec::new();
    for (key, network) in attached {
        if key != DEFAULT_NETWORK && !stack.project.networks.contains_key(key) {
            stack.problem(name, "networks", &format!("network `{key}` is not defined"));
        }
        let target = stack.network_name(key);
        let mut aliases = network.aliases.clone();
        if has_names(&target) {
            aliases.push(name.to_owned());
        }
        let mut fields = Fields::default();
        fields.set("Target", json!(target));
        fields.list("Aliases", aliases);
        fields.set("DriverOpts", json!(network.driver_opts));
        found.push((target, Value::Object(fields.0)));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().map(|(_, network)| network).collect()
}

/// The networks every node has by itself know no names.
fn has_names(network: &str) -> bool {
    let is_own = ["default", "bridge", "host", "none"].contains(&network);
    !is_own && !network.starts_with("container:")
}

fn resources(deploy: &Deploy) -> Value {
    let mut fields = Fields::default();
    let sides = [
        ("Limits", &deploy.limits),
        ("Reservations", &deploy.reservations),
    ];
    for (key, said) in sides {
        if let Some(said) = said {
            fields.0.insert(key.to_owned(), amounts(said));
        }
    }
    Value::Object(fields.0)
}

fn amounts(resources: &Resources) -> Value {
    let mut fields = Fields::default();
    fields.set("NanoCPUs", json!(resources.nano_cpus));
    fields.set("MemoryBytes", json!(resources.memory_bytes));
    fields.set("Pids", json!(resources.pids));
    let generic = resources.generic.iter().map(|resource| {
        json!({ "DiscreteResourceSpec": { "Kind": resource.kind, "Value": resource.value } })
    });
    fields.list("GenericResources", generic.collect());
    Value::Object(fields.0)
}

/// The policy of `deploy`, else what `restart` means for tasks.
fn restart_policy(stack: &mut Stack<'_>, name: &str, service: &Service) -> Option<Value> {
    let mut fields = Fields::default();
    if let Some(policy) = &service.deploy.restart_policy {
        fields.set("Condition", json!(policy.condition.map(Word::as_str)));
        fields.set("Delay", json!(policy.delay.map(container::nanos)));
        fields.set("MaxAttempts", json!(policy.max_attempts));
        fields.set("Window", json!(policy.window.map(container::nanos)));
        return Some(Value::Object(fields.0));
    }
    let condition = match service.restart? {
        Restart::Always | Restart::UnlessStopped => RestartCondition::Any,
        Restart::OnFailure { attempts_max } => {
            fields.set("MaxAttempts", json!(attempts_max));
            RestartCondition::OnFailure
        }
        Restart::No if stack.awaited.contains(name) => RestartCondition::None,
        Restart::No => {
            let is_job = match service.deploy.mode {
                DeployMode::ReplicatedJob | DeployMode::GlobalJob => true,
                DeployMode::Replicated | DeployMode::Global => false,
            };
            if !is_job {
                let text = "`restart: no` does not keep a cluster from replacing tasks; `deploy.restart_policy.condition: none` does";
                stack.warn(name, "restart", text);
            }
            return None;
        }
    };
    fields.set("Condition", json!(condition.as_str()));
    Some(Value::Object(fields.0))
}

fn placement(service: &Service) -> Value {
    let placement = &service.deploy.placement;
    let mut fields = Fields::default();
    fields.list("Constraints", placement.constraints.clone());
    let spread = placement.spread.iter();
    let spread = spread.map(|descriptor| json!({ "Spread": { "SpreadDescriptor": descriptor } }));
    fields.list("Preferences", spread.collect());
    fields.set("MaxReplicas", json!(placement.max_replicas_per_node));
    if let Some(platform) = &service.platform {
        let mut words = Fields::default();
        words.text("Architecture", platform.architecture.as_ref());
        words.text("OS", Some(&platform.os));
        fields.list("Platforms", vec![Value::Object(words.0)]);
    }
    Value::Object(fields.0)
}
