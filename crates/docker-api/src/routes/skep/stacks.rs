//! `/skep/v1/stacks`: applications deployed in one step, with the revisions they had.
//!
//! Requests and answers are told in `docs/design/stacks.md`; decisions are the leader's.

mod answer;
mod document;
mod state;

use std::{collections::BTreeMap, sync::Arc};

use hyper::Method;
use serde::Serialize;
use skep_model::stack::{StackOutcome, StackRevision};

use self::{answer::Changed, document::Document};
use crate::{
    backend::ClusterView,
    error::{ApiError, Result},
    http::{
        request::Request,
        response::{self, Response},
        server::Context,
        timestamp::{now, rfc3339_nano},
    },
    routes::{lookup, page_not_found},
};

/// A revision of a stack.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Revision {
    number: u64,
    created_at: String,
    is_current: bool,
    /// In force before the current one: a rollback leads there.
    is_previous: bool,
    /// Services that went back by themselves from this revision, the current one, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rolled_back: BTreeMap<String, String>,
    /// Services whose update to it, the current one, or back from it paused, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    paused: BTreeMap<String, String>,
    services: usize,
    /// Against the revision kept before it.
    changed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<serde_json::Value>,
}

/// Routes of stacks; `path` begins behind `/stacks`.
pub(super) async fn dispatch(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    let answer = answer_to(context, path, request).await;
    answer.map_err(ApiError::in_plain_words)
}

async fn answer_to(context: &Arc<Context>, path: &[&str], request: Request) -> Result<Response> {
    lookup::check_manager(context)?;
    let method = request.method().clone();
    match (method, path) {
        (Method::GET, []) => {
            let view = lookup::view(context).await?;
            response::json(&state::list(&*view))
        }
        (Method::GET, [name]) => {
            let view = lookup::view(context).await?;
            response::json(&state::detail(&*view, name)?)
        }
        (Method::PUT, [name]) => apply(context, name, request).await,
        (Method::DELETE, [name]) => remove(context, name).await,
        (Method::POST, [name, "plan"]) => plan(context, name, request).await,
        (Method::POST, [name, "rollback"]) => roll_back(context, name, &request).await,
        (Method::GET, [name, "revisions"]) => revisions(context, name).await,
        (Method::GET, [name, "revisions", number]) => revision(context, name, number).await,
        _ => Err(page_not_found()),
    }
}

async fn apply(context: &Context, name: &str, mut request: Request) -> Result<Response> {
    let document: Document = request.json().await?;
    let (spec, options) = document.read(context, name, &request)?;
    let before = lookup::view(context).await?;
    let outcome = context.backends.cluster.apply_stack(spec, options).await?;
    changed(context, name, &*before, &outcome).await
}

async fn roll_back(context: &Context, name: &str, request: &Request) -> Result<Response> {
    let to = match request.query.text("to") {
        "" => None,
        number => Some(number_of(number)?),
    };
    let before = lookup::view(context).await?;
    let outcome = context.backends.cluster.roll_back_stack(name, to).await?;
    changed(context, name, &*before, &outcome).await
}

async fn remove(context: &Context, name: &str) -> Result<Response> {
    let before = lookup::view(context).await?;
    let outcome = context.backends.cluster.remove_stack(name).await?;
    changed(context, name, &*before, &outcome).await
}

/// The answer to a command that was carried out.
async fn changed(
    context: &Context,
    name: &str,
    before: &dyn ClusterView,
    outcome: &StackOutcome,
) -> Result<Response> {
    // What is done is done: an answer without what it changed in each object is better than none.
    let after = lookup::view(context).await.ok();
    let after = after.as_deref().unwrap_or(before);
    response::json(&Changed::new(name, outcome, (before, after)))
}

async fn plan(context: &Context, name: &str, mut request: Request) -> Result<Response> {
    let document: Document = request.json().await?;
    let (spec, options) = document.read(context, name, &request)?;
    let before = lookup::view(context).await?;
    let name = name.to_owned();
    // Reconcilers and scheduler run.
    let planned = tokio::task::spawn_blocking(move || {
        let planned = before.plan_stack(spec, options, now())?;
        let mut changed = Changed::new(&name, &planned.outcome, (&*before, &*planned.after));
        changed.revision = state::revision_in_force(&*before, &name);
        changed.place(&*before, planned.placements);
        Ok(changed)
    });
    let planned = planned.await;
    let planned: Result<Changed> =
        planned.map_err(|error| ApiError::system("failed to plan a stack", error))?;
    response::json(&planned?)
}

async fn revisions(context: &Context, name: &str) -> Result<Response> {
    let view = lookup::view(context).await?;
    state::check_exists(&*view, name)?;
    let kept = view.revisions_of_stack(name);
    let shown = (0..kept.len()).map(|index| shown(&*view, (name, &kept), index));
    response::json(&shown.collect::<Vec<_>>())
}

async fn revision(context: &Context, name: &str, number: &str) -> Result<Response> {
    let number = number_of(number)?;
    let view = lookup::view(context).await?;
    state::check_exists(&*view, name)?;
    let kept = view.revisions_of_stack(name);
    let Some(index) = kept.iter().position(|kept| kept.number == number) else {
        let message = format!("stack {name} has no revision {number}");
        return Err(ApiError::not_found(message));
    };
    let mut shown = shown(&*view, (name, &kept), index);
    shown.source = Some(kept[index].spec.source.clone());
    shown.document = Some(document::shown(&kept[index].spec));
    response::json(&shown)
}

/// The revision at `index` of those kept.
fn shown(view: &dyn ClusterView, (name, kept): (&str, &[StackRevision]), index: usize) -> Revision {
    let revision = &kept[index];
    let before = index.checked_sub(1).map(|before| &kept[before]);
    let stack = state::stored(view, name).unwrap_or_default();
    let is_current = revision.number == stack.revision;
    let goal = stack.rolls_back_to(kept);
    let (rolled_back, paused) = match is_current {
        true => (state::rolled_back(view, name), state::paused(view, name)),
        false => Default::default(),
    };
    Revision {
        number: revision.number,
        created_at: rfc3339_nano(revision.created_at),
        is_current,
        is_previous: goal.is_some_and(|goal| goal.number == revision.number),
        rolled_back,
        paused,
        services: revision.spec.services.len(),
        changed: match before {
            Some(before) => answer::changed(before, revision),
            None if revision.is_found() => vec!["as it was found".to_owned()],
            None => Vec::new(),
        },
        source: None,
        document: None,
    }
}

fn number_of(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| ApiError::invalid(format!("`{text}` is not the number of a revision")))
}
