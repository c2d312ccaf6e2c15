//! `/secrets` and `/configs`: alike but for the noun, and for the filter `names` of secrets.

use hyper::{Method, StatusCode};
use skep_model::Annotations;

use crate::{
    convert::secret as convert,
    dto::secret as dto,
    error::Result,
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::{lookup, page_not_found},
};

const SECRET_FILTERS: [&str; 4] = ["id", "label", "name", "names"];
const CONFIG_FILTERS: [&str; 3] = ["id", "label", "name"];

/// Routes of secrets; `path` begins behind `/secrets`.
pub(crate) async fn secrets(
    context: &Context,
    path: &[&str],
    mut request: Request,
) -> Result<Response> {
    lookup::check_manager(context)?;
    let cluster = &context.backends.cluster;
    match (request.method().clone(), path) {
        (Method::GET, []) => {
            let filters = Filters::from_query(&request.query, &SECRET_FILTERS)?;
            let view = lookup::view(context).await?;
            let secrets = view.secrets();
            let wanted = secrets.iter().filter(|secret| {
                let annotations = &secret.spec.annotations;
                !secret.is_internal
                    && filters.equals("names", &annotations.name)
                    && matches(&filters, secret.id.as_str(), annotations)
            });
            let wanted = wanted.map(|secret| dto::Supply::from(&**secret));
            response::json(&wanted.collect::<Vec<_>>())
        }
        (Method::POST, ["create"]) => {
            let spec = convert::secret_spec(request.json().await?)?;
            let id = cluster.create_secret(spec).await?.to_string();
            response::json_with(StatusCode::CREATED, &dto::Created { id })
        }
        (Method::GET, [wanted]) => {
            let view = lookup::view(context).await?;
            let secret = lookup::secret(&*view, wanted)?;
            response::json(&dto::Supply::from(&*secret))
        }
        (Method::DELETE, [wanted]) => {
            let view = lookup::view(context).await?;
            let id = lookup::secret(&*view, wanted)?.id;
            cluster.remove_secret(id).await?;
            Ok(response::empty(StatusCode::NO_CONTENT))
        }
        (Method::POST, [wanted, "update"]) => {
            let spec = convert::secret_spec(request.json().await?)?;
            let version = request.query.version("secret")?;
            let view = lookup::view(context).await?;
            let id = lookup::secret(&*view, wanted)?.id;
            cluster.update_secret(id, version, spec).await?;
            Ok(response::empty(StatusCode::OK))
        }
        _ => Err(page_not_found()),
    }
}

/// Routes of configs; `path` begins behind `/configs`.
pub(crate) async fn configs(
    context: &Context,
    path: &[&str],
    mut request: Request,
) -> Result<Response> {
    lookup::check_manager(context)?;
    let cluster = &context.backends.cluster;
    match (request.method().clone(), path) {
        (Method::GET, []) => {
            let filters = Filters::from_query(&request.query, &CONFIG_FILTERS)?;
            let view = lookup::view(context).await?;
            let configs = view.configs();
            let wanted = configs
                .iter()
                .filter(|config| matches(&filters, config.id.as_str(), &config.spec.annotations));
            let wanted = wanted.map(|config| dto::Supply::from(&**config));
            response::json(&wanted.collect::<Vec<_>>())
        }
        (Method::POST, ["create"]) => {
            let spec = convert::config_spec(request.json().await?)?;
            let id = cluster.create_config(spec).await?.to_string();
            response::json_with(StatusCode::CREATED, &dto::Created { id })
        }
        (Method::GET, [wanted]) => {
            let view = lookup::view(context).await?;
            let config = lookup::config(&*view, wanted)?;
            response::json(&dto::Supply::from(&*config))
        }
        (Method::DELETE, [wanted]) => {
            let view = lookup::view(context).await?;
            let id = lookup::config(&*view, wanted)?.id;
            cluster.remove_config(id).await?;
            Ok(response::empty(StatusCode::NO_CONTENT))
        }
        (Method::POST, [wanted, "update"]) => {
            let spec = convert::config_spec(request.json().await?)?;
            let version = request.query.version("config")?;
            let view = lookup::view(context).await?;
            let id = lookup::config(&*view, wanted)?.id;
            cluster.update_config(id, version, spec).await?;
            Ok(response::empty(StatusCode::OK))
        }
        _ => Err(page_not_found()),
    }
}

fn matches(filters: &Filters, id: &str, annotations: &Annotations) -> bool {
    filters.starts("id", id)
        && filters.starts("name", &annotations.name)
        && filters.labels("label", &annotations.labels)
}
