//! `/_ping`, `/version`, `/info`, `/system/df`.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use hyper::{
    Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, PRAGMA},
};
use serde::Serialize;

use crate::{
    backend::{ClusterView, LocalNodeState, ManagerState},
    convert,
    dto::{
        container,
        engine::{Info, Version},
        image,
        volume::Volume,
    },
    error::Result,
    http::{
        request::Request,
        response::{self, Response},
        server::Context,
        timestamp,
    },
    routes::lookup,
};

/// Time the cluster gets to answer for `/info`; longer and monitoring takes the node for dead.
const VIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Docker's text for a call that ran out of time.
const NO_ANSWER: &str = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";

/// `GET` and `HEAD /_ping`
pub(crate) fn ping(context: &Context, request: &Request) -> Response {
    let status = context.backends.cluster.status();
    let swarm = match (status.state, status.manager) {
        (LocalNodeState::Active, ManagerState::Active) => "active/manager",
        (LocalNodeState::Active, _) => "active/worker",
        (state, _) => state.name(),
    };
    let mut response = match *request.method() == Method::HEAD {
        true => response::empty(StatusCode::OK),
        false => response::full(StatusCode::OK, "text/plain", Bytes::from_static(b"OK")),
    };
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    let no_cache = HeaderValue::from_static("no-cache, no-store, must-revalidate");
    headers.insert(CACHE_CONTROL, no_cache);
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert("Swarm", HeaderValue::from_static(swarm));
    response
}

/// `GET /version`
pub(crate) fn version(context: &Context) -> Result<Response> {
    response::json(&Version::from(context.backends.system.facts()))
}

/// `GET /info`
pub(crate) async fn info(context: &Context, request: &Request) -> Result<Response> {
    let mut status = context.backends.cluster.status();
    let mut view = None;
    if lookup::no_manager(&status).is_none() {
        // A cluster without leader cannot answer; the node itself still can.
        let asked = context.backends.cluster.view();
        match tokio::time::timeout(VIEW_TIMEOUT, asked).await {
            Ok(Ok(found)) => view = Some(found),
            Ok(Err(error)) => status.error = error.message,
            Err(_) => status.error = NO_ANSWER.to_owned(),
        }
    }
    let view: Option<&dyn ClusterView> = view.as_deref();
    let swarm = convert::local_info(&status, view);
    let facts = context.backends.system.facts();
    let totals = context.backends.system.totals().await?;
    let now = timestamp::rfc3339_nano(timestamp::now());
    response::json(&Info::new(facts, totals, swarm, request.version, now))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DiskUsage {
    layers_size: u64,
    images: Option<Vec<image::Summary>>,
    containers: Option<Vec<container::Summary>>,
    volumes: Option<Vec<Volume>>,
    build_cache: Option<Vec<()>>,
}

/// `GET /system/df`
pub(crate) async fn disk_usage(context: &Context, request: &Request) -> Result<Response> {
    let types: Vec<_> = request.query.all("type").collect();
    let all = types.is_empty() || !request.version.at_least(42);
    let wants = |kind: &str| all || types.contains(&kind);
    let (mut layers_size, mut images) = (0, None);
    let backend = &context.backends.containers;
    let made = match wants("image") || wants("container") {
        true => backend.containers(true).await?,
        false => Vec::new(),
    };
    if wants("image") {
        layers_size = context.backends.images.layers_bytes().await?;
        let mut used = BTreeMap::<String, i64>::new();
        for container in &made {
            *used.entry(container.image_id.clone()).or_default() += 1;
        }
        let list = context.backends.images.images().await?.into_iter();
        let list = list.map(|it| image::Summary::new(it, request.version).with_uses(&used));
        images = Some(list.collect());
    }
    let mut containers = None;
    if wants("container") {
        let (list, now) = (made.into_iter(), timestamp::now());
        containers = Some(list.map(|it| container::Summary::new(it, now)).collect());
    }
    let mut volumes = None;
    if wants("volume") {
        let backend = &context.backends.volumes;
        let mut list = Vec::new();
        for volume in backend.volumes().await?.volumes {
            let size_bytes = backend.size_bytes(&volume.name).await.unwrap_or_default();
            list.push(Volume::with_usage(volume, size_bytes));
        }
        volumes = Some(list);
    }
    let build_cache = wants("build-cache").then(Vec::new);
    response::json(&DiskUsage {
        layers_size,
        images,
        containers,
        volumes,
        build_cache,
    })
}
