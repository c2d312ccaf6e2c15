//! Fields of a service or network that no node can honour yet. The list only shrinks.

use crate::{
    convert::SWARM_SCOPE,
    dto::{
        Map,
        container_spec::{ContainerSpec, Privileges},
        mount::Mount,
        network::{AttachmentConfig, CreateNetwork},
        service::ServiceSpec,
        task::TaskSpec,
    },
    error::{ApiError, Result},
};

/// Refuses `spec` when it asks for something not supported, naming every such field by its path.
pub(super) fn check(spec: &ServiceSpec) -> Result<()> {
    let mut found = Found::default();
    template(&spec.task_template, &mut found);
    networks(&spec.networks, "Networks", &mut found);
    found.refuse()
}

/// Refuses a network no node could have.
pub(crate) fn check_network(create: &CreateNetwork) -> Result<()> {
    let mut found = Found::default();
    found.when(create.driver_name() == "ipvlan", "Driver=ipvlan");
    let is_local = create.scope != SWARM_SCOPE;
    found.when(
        is_local && create.has_ipv4 == Some(false),
        "EnableIPv4=false",
    );
    found.refuse()
}

#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    /// The refusal, if there is anything to refuse.
    fn refuse(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(ApiError::not_implemented(format!(
            "not supported yet: {}",
            self.0.join(", ")
        )))
    }

    fn when(&mut self, is_set: bool, path: impl Into<String>) {
        if is_set {
            self.0.push(path.into());
        }
    }
}

fn template(spec: &TaskSpec, found: &mut Found) {
    found.when(spec.runtime == "plugin", "TaskTemplate.Runtime=plugin");
    found.when(
        spec.runtime == "attachment",
        "TaskTemplate.Runtime=attachment",
    );
    found.when(spec.plugin_spec.is_some(), "TaskTemplate.PluginSpec");
    found.when(
        spec.network_attachment_spec.is_some(),
        "TaskTemplate.NetworkAttachmentSpec",
    );
    if let Some(driver) = &spec.log_driver {
        let is_known = ["", "json-file", "none"].contains(&driver.name.as_str());
        found.when(
            !is_known,
            format!("TaskTemplate.LogDriver.Name={}", driver.name),
        );
        if is_known && driver.name != "none" {
            log_options(&driver.options, found);
        }
    }
    networks(&spec.networks, "TaskTemplate.Networks", found);
    if let Some(container) = &spec.container_spec {
        self::container(container, found);
    }
}

/// Options of json-file logs that nodes do not know, although Docker does.
fn log_options(options: &Map, found: &mut Found) {
    for (name, value) in options {
        let is_refused = match name.as_str() {
            "compress" => value != "false",
            "tag" => true,
            _ => false,
        };
        let path = format!("TaskTemplate.LogDriver.Options.{name}");
        found.when(is_refused, path);
    }
}

/// No driver here has options of single places. Docker takes any and ignores those it does not know.
fn networks(networks: &[AttachmentConfig], path: &str, found: &mut Found) {
    for (index, network) in networks.iter().enumerate() {
        for option in network
            .driver_opts
            .iter()
            .flat_map(|options| options.keys())
        {
            found.when(true, format!("{path}[{index}].DriverOpts[{option}]"));
        }
    }
}

fn container(spec: &ContainerSpec, found: &mut Found) {
    let path = |field: &str| format!("TaskTemplate.ContainerSpec.{field}");
    found.when(
        !["", "default"].contains(&spec.isolation.as_str()),
        path(&format!("Isolation={}", spec.isolation)),
    );
    if let Some(privileges) = &spec.privileges {
        self::privileges(privileges, found);
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        self::mount(mount, &path(&format!("Mounts[{index}]")), found);
    }
}

fn privileges(privileges: &Privileges, found: &mut Found) {
    let path = |field: &str| format!("TaskTemplate.ContainerSpec.Privileges.{field}");
    found.when(privileges.credential_spec.is_some(), path("CredentialSpec"));
    found.when(privileges.selinux_context.is_some(), path("SELinuxContext"));
}

fn mount(mount: &Mount, path: &str, found: &mut Found) {
    found.when(
        ["npipe", "cluster", "image"].contains(&mount.kind.as_str()),
        format!("{path}.Type={}", mount.kind),
    );
    found.when(
        mount.image_options.is_some(),
        format!("{path}.ImageOptions"),
    );
    found.when(
        mount.cluster_options.is_some(),
        format!("{path}.ClusterOptions"),
    );
}
