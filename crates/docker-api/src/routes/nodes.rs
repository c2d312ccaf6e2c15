//! `/nodes`.

use hyper::StatusCode;
use skep_model::{Membership, Node, Role};

use crate::{
    convert,
    dto::node as dto,
    error::{ApiError, Result},
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::lookup,
};

const FILTERS: [&str; 6] = ["id", "label", "membership", "name", "node.label", "role"];

/// `GET /nodes`
pub(crate) async fn list(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &FILTERS)?;
    for (key, known) in [
        ("role", ["worker", "manager"]),
        ("membership", ["pending", "accepted"]),
    ] {
        if let Some(value) = filters.values(key).find(|value| !known.contains(value)) {
            return Err(ApiError::invalid(format!(
                "Invalid {key} filter: '{value}'"
            )));
        }
    }
    let view = lookup::view(context).await?;
    let nodes = view.nodes();
    let wanted = nodes.iter().filter(|node| matches(&filters, node));
    response::json(
        &wanted
            .map(|node| dto::Node::from(&**node))
            .collect::<Vec<_>>(),
    )
}

fn matches(filters: &Filters, node: &Node) -> bool {
    let role = match node.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    let membership = match node.spec.membership {
        Membership::Pending => "pending",
        Membership::Accepted => "accepted",
    };
    let engine_labels = node.description.as_ref().map(|it| &it.engine.labels);
    filters.starts("id", node.id.as_str())
        && filters.starts("name", node.hostname())
        && filters.equals("role", role)
        && filters.equals("membership", membership)
        && filters.labels("node.label", &node.spec.annotations.labels)
        && filters.labels("label", engine_labels.unwrap_or(&Default::default()))
}

/// `GET /nodes/{id}`
pub(crate) async fn inspect(context: &Context, id: &str) -> Result<Response> {
    let view = lookup::view(context).await?;
    response::json(&dto::Node::from(&*lookup::node(context, &*view, id)?))
}

/// `POST /nodes/{id}/update`
pub(crate) async fn update(context: &Context, id: &str, mut request: Request) -> Result<Response> {
    let body: dto::NodeSpec = request.json().await?;
    let version = request.query.version("node")?;
    let view = lookup::view(context).await?;
    let node = lookup::node(context, &*view, id)?;
    let spec = convert::merge_node_spec(body, &node.spec)?;
    context
        .backends
        .cluster
        .update_node(node.id, version, spec)
        .await?;
    Ok(response::empty(StatusCode::OK))
}

/// `DELETE /nodes/{id}`
pub(crate) async fn remove(context: &Context, id: &str, request: &Request) -> Result<Response> {
    let view = lookup::view(context).await?;
    let node = lookup::node(context, &*view, id)?;
    context
        .backends
        .cluster
        .remove_node(node.id, request.query.flag("force"))
        .await?;
    Ok(response::empty(StatusCode::OK))
}
