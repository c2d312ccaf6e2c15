//! `/images`.

use std::sync::Arc;

use hyper::{Method, StatusCode};

use crate::{
    backend::{ImagePruneRequest, ImageSummary, ImportRequest, LoadRequest, PullRequest},
    dto::image::{History, ImagesPruned, Inspect, Removed, Summary},
    error::{ApiError, Result},
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
        timestamp,
    },
    routes::{page_not_found, registry},
};

/// Routes below `/images`. The name in the middle may hold slashes.
pub(crate) async fn dispatch(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    let method = request.method().clone();
    match (method, path) {
        (Method::GET, ["json"]) => list(context, &request).await,
        (Method::GET, ["search"]) => Err(ApiError::not_implemented(
            "not supported yet: searching images",
        )),
        (Method::GET, ["get"]) => {
            let names: Vec<_> = request
                .query
                .all("names")
                .flat_map(|it| it.split(','))
                .collect();
            save(context, names.into_iter().map(str::to_owned).collect()).await
        }
        (Method::POST, ["create"]) => create(context, request).await,
        (Method::POST, ["load"]) => load(context, request).await,
        (Method::POST, ["prune"]) => prune(context, &request).await,
        (Method::GET, [name @ .., "get"]) => save(context, vec![name.join("/")]).await,
        (Method::GET, [name @ .., "json"]) => inspect(context, &name.join("/"), &request).await,
        (Method::GET, [name @ .., "history"]) => history(context, &name.join("/")).await,
        (Method::POST, [name @ .., "tag"]) => tag(context, &name.join("/"), &request).await,
        (Method::POST, [_, .., "push"]) => Err(ApiError::not_implemented(
            "not supported yet: pushing images",
        )),
        (Method::DELETE, name) if !name.is_empty() => {
            remove(context, &name.join("/"), &request).await
        }
        _ => Err(page_not_found()),
    }
}

const LIST_FILTERS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];

async fn list(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &LIST_FILTERS)?;
    let dangling = match filters.has("dangling") {
        true => Some(filters.flag("dangling", false)?),
        false => None,
    };
    let images = context.backends.images.images().await?;
    let created = |key| {
        let name: Option<&str> = filters.values(key).next();
        let backend = &context.backends.images;
        async move {
            match name {
                Some(name) => backend
                    .image(name)
                    .await
                    .map(|it| Some(it.summary.created_at)),
                None => Ok(None),
            }
        }
    };
    let (before, since) = (created("before").await?, created("since").await?);
    let until = match filters.values("until").next() {
        Some(text) => timestamp::parse(text, timestamp::now())
            .map_err(|error| ApiError::invalid(error.to_string()))?,
        None => None,
    };
    let wanted = images.into_iter().filter(|image| {
        dangling.is_none_or(|dangling| dangling == image.repo_tags.is_empty())
            && filters.labels("label", &image.labels)
            && before.is_none_or(|limit| image.created_at < limit)
            && since.is_none_or(|limit| image.created_at > limit)
            && until.is_none_or(|limit| image.created_at < limit)
    });
    let summaries = wanted.filter_map(|image| {
        let image = keep_references(&filters, image)?;
        Some(Summary::new(image, request.version))
    });
    response::json(&summaries.collect::<Vec<_>>())
}

/// Leaves only the names that a `reference` filter matches; `None` when none does.
fn keep_references(filters: &Filters, mut image: ImageSummary) -> Option<ImageSummary> {
    if !filters.has("reference") {
        return Some(image);
    }
    let matches = |name: &String| filters.values("reference").any(|it| matches_name(it, name));
    image.repo_tags.retain(matches);
    image.repo_digests.retain(matches);
    (!image.repo_tags.is_empty() || !image.repo_digests.is_empty()).then_some(image)
}

/// Whether `name` is meant by `pattern`: with `*` and `?`, with or without tag, and with or without
/// the leading parts of the repository.
fn matches_name(pattern: &str, name: &str) -> bool {
    let slash = name.rfind('/').map_or(0, |index| index + 1);
    let tag = name[slash..]
        .find([':', '@'])
        .map_or(name.len(), |index| slash + index);
    [name, &name[..tag], &name[slash..], &name[slash..tag]]
        .into_iter()
        .any(|candidate| glob(pattern.as_bytes(), candidate.as_bytes()))
}

/// Shell matching of `*` (not over slashes) and `?`, in time linear in both for one star.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position, mut star) = (0, 0, None);
    while position < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, position));
                at += 1;
            }
            Some(&byte) if byte == text[position] || (byte == b'?' && text[position] != b'/') => {
                at += 1;
                position += 1;
            }
            _ => match star {
                Some((after, from)) if text[from] != b'/' => {
                    star = Some((after, from + 1));
                    at = after;
                    position = from + 1;
                }
                _ => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

async fn inspect(context: &Context, name: &str, request: &Request) -> Result<Response> {
    let image = context.backends.images.image(name).await?;
    response::json(&Inspect::new(image, request.version))
}

async fn history(context: &Context, name: &str) -> Result<Response> {
    let history = context.backends.images.history(name).await?;
    response::json(&history.into_iter().map(History::from).collect::<Vec<_>>())
}

async fn create(context: &Context, request: Request) -> Result<Response> {
    let query = &request.query;
    let platform = match request.version.at_least(32) {
        true => query.text("platform").to_owned(),
        false => String::new(),
    };
    let messages = if query.has("fromImage") {
        let pull = PullRequest {
            auth: registry::auth(&request),
            platform,
            ..pull_reference(query.text("fromImage"), query.text("tag"))
        };
        context.backends.images.pull(pull).await?
    } else {
        if query.text("fromSrc") != "-" {
            let message = "not supported yet: importing from a URL; send the archive instead";
            return Err(ApiError::not_implemented(message));
        }
        let comment = match query.text("message") {
            "" => "Imported from -".to_owned(),
            message => message.to_owned(),
        };
        let import = ImportRequest {
            name: with_tag(query.text("repo"), query.text("tag")),
            changes: query.all("changes").map(str::to_owned).collect(),
            message: comment,
            platform,
        };
        let images = context.backends.images.clone();
        images.import(request.into_stream(), import).await?
    };
    Ok(response::progress(messages, &context.shutdown))
}

/// What `fromImage` and `tag` ask for: a tag may be a digest, and without one all tags are meant.
fn pull_reference(name: &str, tag: &str) -> PullRequest {
    let name = name.strip_suffix(':').unwrap_or(name);
    let after_slash = name.rsplit('/').next().unwrap_or(name);
    let has_tag = after_slash.contains(':') || name.contains('@');
    let reference = match tag {
        "" => name.to_owned(),
        tag if tag.contains(':') => format!("{}@{tag}", name.split('@').next().unwrap_or(name)),
        tag => format!("{name}:{tag}"),
    };
    PullRequest {
        all_tags: tag.is_empty() && !has_tag,
        reference,
        ..PullRequest::default()
    }
}

fn with_tag(repo: &str, tag: &str) -> String {
    let has_tag = repo
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'));
    match (repo, tag) {
        ("", _) => String::new(),
        (repo, "") if has_tag => repo.to_owned(),
        (repo, "") => format!("{repo}:latest"),
        (repo, tag) => format!("{repo}:{tag}"),
    }
}

async fn load(context: &Context, request: Request) -> Result<Response> {
    let load = LoadRequest {
        quiet: request.query.flag_or("quiet", true),
        platform: request.query.text("platform").to_owned(),
    };
    let images = context.backends.images.clone();
    let messages = images.load(request.into_stream(), load).await?;
    Ok(response::progress(messages, &context.shutdown))
}

async fn save(context: &Context, names: Vec<String>) -> Result<Response> {
    if names.iter().all(String::is_empty) {
        return Err(ApiError::invalid("no images specified"));
    }
    let bytes = context.backends.images.save(names).await?;
    Ok(response::file(bytes, &context.shutdown))
}

async fn tag(context: &Context, name: &str, request: &Request) -> Result<Response> {
    let target = with_tag(request.query.text("repo"), request.query.text("tag"));
    if target.is_empty() {
        return Err(ApiError::invalid(
            "repository name must have at least one component",
        ));
    }
    context.backends.images.tag(name, &target).await?;
    Ok(response::empty(StatusCode::CREATED))
}

async fn remove(context: &Context, name: &str, request: &Request) -> Result<Response> {
    let removed = context
        .backends
        .images
        .remove(name, request.query.flag("force"))
        .await?;
    response::json(&removed.into_iter().map(Removed::from).collect::<Vec<_>>())
}

async fn prune(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &["dangling", "label", "label!", "until"])?;
    let until = match filters.values("until").next() {
        Some(text) => timestamp::parse(text, timestamp::now())
            .map_err(|error| ApiError::invalid(error.to_string()))?,
        None => None,
    };
    let prune = ImagePruneRequest {
        dangling_only: filters.flag("dangling", true)?,
        until,
        labels: filters.values("label").map(str::to_owned).collect(),
        labels_absent: filters.values("label!").map(str::to_owned).collect(),
    };
    let (removed, space_reclaimed) = context.backends.images.prune(prune).await?;
    let removed: Vec<_> = removed.into_iter().map(Removed::from).collect();
    let images_deleted = (!removed.is_empty()).then_some(removed);
    response::json(&ImagesPruned {
        images_deleted,
        space_reclaimed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_put_together() {
        let check = |name, tag, expect: &str, all_tags| {
            let pull = pull_reference(name, tag);
            assert_eq!((pull.reference.as_str(), pull.all_tags), (expect, all_tags));
        };
        check("busybox", "latest", "busybox:latest", false);
        check("r:5000/busybox", "", "r:5000/busybox", true);
        check("r:5000/busybox:1", "", "r:5000/busybox:1", false);
        check("busybox", "sha256:ab", "busybox@sha256:ab", false);
        assert_eq!(with_tag("r:5000/a", ""), "r:5000/a:latest");
        assert_eq!(with_tag("a:1", ""), "a:1");
    }

    #[test]
    fn names_match_patterns() {
        let check = |pattern, name, expect| assert_eq!(matches_name(pattern, name), expect);
        check("busybox", "busybox:latest", true);
        check("busybox:latest", "busybox:latest", true);
        check("busy*", "busybox:latest", true);
        check("busybox:1*", "busybox:latest", false);
        check("localhost:5000/app", "localhost:5000/app:1", true);
        check("app:?", "localhost:5000/app:1", true);
        check("*", "a/b:1", true);
    }
}
