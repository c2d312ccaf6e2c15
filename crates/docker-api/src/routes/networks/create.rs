//! `POST /networks/create`: what Docker checks before the leader or the node makes it, in its order and words.

use hyper::StatusCode;
use skep_model::{NODE_NETWORK, NetworkSpec, OVERLAY_DRIVER};

use super::PREDEFINED;
use crate::{
    backend::LocalNodeState,
    convert::{self, SWARM_SCOPE},
    dto::network::{CreateNetwork, NetworkCreated},
    error::{ApiError, ErrorKind, Result},
    http::{
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::lookup,
};

/// Drivers there are in Docker; what is not yet here is refused by name.
const DRIVERS: [&str; 6] = [
    "bridge",
    "host",
    "ipvlan",
    "macvlan",
    "null",
    OVERLAY_DRIVER,
];
/// Docker's text for what settings of other networks cannot have.
const SETTINGS_ONLY: &str = "configuration network can only contain network specific fields. Network \
                             operator fields like [ ingress | internal | attachable | scope ] are not \
                             supported.";
/// Driver options that mean the same as a field of the request.
const IPV4_OPTION: &str = "com.docker.network.enable_ipv4";
const IPV6_OPTION: &str = "com.docker.network.enable_ipv6";

const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker \
                          swarm join\" to connect this node to swarm and try again.";
const WORKER: &str = "Cannot create a multi-host network from a worker node. Please create the \
                      network from a manager node.";

pub(super) async fn create(context: &Context, mut request: Request) -> Result<Response> {
    let mut body: CreateNetwork = request.json().await?;
    if !request.version.at_least(48) {
        body.has_ipv4 = None;
    }
    let is_manager = lookup::check_manager(context).is_ok();
    if is_manager {
        let view = lookup::view(context).await?;
        if view
            .network_by_name(&body.name)
            .is_some_and(|found| found.name() == body.name && !found.spec.is_node_network())
        {
            let message = format!("network with name {} already exists", body.name);
            return Err(ApiError::conflict(message));
        }
    }
    let own = context.backends.system.networks().await?;
    if own.iter().any(|found| found.name == body.name) && !PREDEFINED.contains(&&*body.name) {
        let message = format!("network with name {} already exists", body.name);
        return Err(ApiError::conflict(message));
    }
    take_family_options(&mut body)?;
    check(&body, is_manager)?;
    check_scope(context, &body, is_manager)?;
    convert::check_network(&body)?;
    let (is_own, is_config_only) = (is_own(&body), body.config_only);
    let spec = NetworkSpec::try_from(body)?;
    let id = match is_own {
        true => {
            let system = &context.backends.system;
            system.create_network(spec, is_config_only).await?
        }
        false => {
            let created = context.backends.cluster.create_network(spec).await?;
            created.to_string()
        }
    };
    let answer = NetworkCreated { id, warning: "" };
    response::json_with(StatusCode::CREATED, &answer)
}

/// A network of the cluster as part of something larger, where names are looked at later.
pub(crate) fn cluster_spec(context: &Context, mut body: CreateNetwork) -> Result<NetworkSpec> {
    if body.driver.is_empty() {
        OVERLAY_DRIVER.clone_into(&mut body.driver);
    }
    take_family_options(&mut body)?;
    check(&body, true)?;
    check_scope(context, &body, true)?;
    convert::check_network(&body)?;
    if is_own(&body) {
        let driver = body.driver_name();
        return Err(ApiError::invalid(format!(
            "networks of driver {driver} are of one node: only those of the cluster can be used"
        )));
    }
    NetworkSpec::try_from(body)
}

/// Whether it is a network of this node alone.
fn is_own(body: &CreateNetwork) -> bool {
    body.config_only || body.scope != SWARM_SCOPE && body.driver_name() != OVERLAY_DRIVER
}

/// What the request alone shows.
fn check(body: &CreateNetwork, is_manager: bool) -> Result<()> {
    let forbidden = |message: String| Err(ApiError::new(ErrorKind::Forbidden, message));
    let (name, driver) = (body.name.as_str(), body.driver_name());
    if PREDEFINED.contains(&name) || name == NODE_NETWORK {
        // The blank is Docker's.
        return forbidden(format!(
            "operation is not permitted on predefined {name} network "
        ));
    }
    if body.config_only && !body.scope.is_empty() {
        return forbidden(SETTINGS_ONLY.to_owned());
    }
    if driver == OVERLAY_DRIVER && !is_manager && !body.config_only {
        return forbidden(NO_MANAGER.to_owned());
    }
    if let Some(ipam) = &body.ipam {
        convert::check_ipam(ipam, body.has_ipv6.unwrap_or(false))?;
    }
    if !DRIVERS.contains(&driver) {
        return Err(ApiError::not_found(format!("plugin {driver:?} not found")));
    }
    if is_own(body) && ["host", "null"].contains(&driver) {
        return forbidden(format!(
            "only one instance of \"{driver}\" network is allowed"
        ));
    }
    if body.scope == "local" && driver == OVERLAY_DRIVER {
        return forbidden(format!(
            "cannot downgrade network scope for {driver} networks"
        ));
    }
    if body.ingress && driver != OVERLAY_DRIVER {
        return forbidden("Ingress network can only be global scope network".to_owned());
    }
    Ok(())
}

/// A network of the cluster needs a manager, and IPv4.
fn check_scope(context: &Context, body: &CreateNetwork, is_manager: bool) -> Result<()> {
    if is_own(body) {
        return Ok(());
    }
    let forbidden = |message: &str| Err(ApiError::new(ErrorKind::Forbidden, message));
    match context.backends.cluster.status().state {
        _ if is_manager => {}
        LocalNodeState::Active | LocalNodeState::Pending => return forbidden(WORKER),
        LocalNodeState::Inactive | LocalNodeState::Error | LocalNodeState::Locked => {
            return forbidden("cannot create a swarm scoped network when swarm is not active");
        }
    }
    if body.has_ipv4 == Some(false) {
        let message = "IPv4 cannot be disabled in a Swarm scoped network";
        return Err(ApiError::invalid(message));
    }
    Ok(())
}

/// Takes the options that switch families out of the driver's; a field of the request wins.
fn take_family_options(body: &mut CreateNetwork) -> Result<()> {
    let fields = [
        (IPV4_OPTION, &mut body.has_ipv4),
        (IPV6_OPTION, &mut body.has_ipv6),
    ];
    for (option, field) in fields {
        let Some(text) = body
            .options
            .as_mut()
            .and_then(|options| options.remove(option))
        else {
            continue;
        };
        let value = match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => {
                let message = format!("driver-opt {option:?} is not a valid bool");
                return Err(ApiError::invalid(message));
            }
        };
        field.get_or_insert(value);
    }
    Ok(())
}
