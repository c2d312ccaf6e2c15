//! Images by digest: what a registry has under a tag when the stack is deployed is what all nodes run.
//!
//! As with the docker command this is the client's work, and a registry that cannot be reached is only a warning.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use clap::ValueEnum;
use serde_json::{Value, json};
use skep_compose::convert::{IMAGE, StackDocument};
use skep_docker_api::client::Client;

use super::{filters, registry::Logins};
use crate::url::escape;

/// When registries are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Resolve {
    /// Always
    Always,
    /// For images that the stack does not have yet
    Changed,
    /// Never
    Never,
}

/// Credentials for each service, and digests for those images that are asked for.
pub(super) async fn resolve(
    client: &Client,
    document: &mut StackDocument,
    resolve: Resolve,
    logins: Option<&Logins>,
) -> anyhow::Result<()> {
    if let Some(logins) = logins {
        document.registry_auth = auth(document, logins);
    }
    let stored = deployed(client, &document.name).await?;
    let mut wanted = BTreeSet::new();
    for service in &document.services {
        let is_known = known(service, &stored).is_some();
        let is_asked = match resolve {
            Resolve::Always => true,
            Resolve::Changed => !is_known,
            Resolve::Never => false,
        };
        let image = image(service);
        if is_asked && !image.is_empty() && !image.contains('@') {
            wanted.insert(image.to_owned());
        }
    }
    for image in wanted {
        let auth = logins.and_then(|logins| logins.of_image(&image));
        match digest(client, &image, auth).await {
            Ok(answer) => pin(document, &image, &answer),
            Err(error) => {
                let _ = writeln!(
                    std::io::stderr(),
                    "warning: image `{image}`: no registry says which one it is, so each node looks by itself ({error})"
                );
            }
        }
    }
    for service in &mut document.services {
        keep(service, &stored);
    }
    Ok(())
}

/// The service as it is stored, if its file still names the same image.
fn known<'a>(service: &Value, stored: &'a BTreeMap<String, Value>) -> Option<&'a Value> {
    let name = service["Name"].as_str().unwrap_or_default();
    let stored = stored.get(name)?;
    (stored["Labels"][IMAGE] == service["Labels"][IMAGE]).then_some(stored)
}

/// Gives a service what was found out about its image when it was deployed, unless something was found out now.
fn keep(service: &mut Value, stored: &BTreeMap<String, Value>) {
    let Some(stored) = known(service, stored) else {
        return;
    };
    let (template, known) = (&mut service["TaskTemplate"], &stored["TaskTemplate"]);
    let found = known["ContainerSpec"]["Image"].as_str().unwrap_or_default();
    let named = template["ContainerSpec"]["Image"]
        .as_str()
        .unwrap_or_default();
    let is_pinned = found
        .strip_prefix(named)
        .is_some_and(|rest| rest.starts_with('@'));
    if is_pinned {
        template["ContainerSpec"]["Image"] = json!(found);
        let platforms = &known["Placement"]["Platforms"];
        if template["Placement"]["Platforms"].is_null() && !platforms.is_null() {
            template["Placement"]["Platforms"] = platforms.clone();
        }
    }
}

/// The image of a service, as its file names it.
pub(super) fn image(service: &Value) -> &str {
    service["TaskTemplate"]["ContainerSpec"]["Image"]
        .as_str()
        .unwrap_or_default()
}

fn auth(document: &StackDocument, logins: &Logins) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for service in &document.services {
        let name = service["Name"].as_str().unwrap_or_default();
        if let Some(auth) = logins.of_image(image(service)) {
            found.insert(name.to_owned(), auth.to_owned());
        }
    }
    found
}

/// The specs of the services there are, by name.
async fn deployed(client: &Client, stack: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let services = client
        .get(&format!("/services?filters={}", filters(stack, false)))
        .await?;
    let services = services.as_array().into_iter().flatten();
    let pairs = services.filter_map(|service| {
        let spec = &service["Spec"];
        Some((spec["Name"].as_str()?.to_owned(), spec.clone()))
    });
    Ok(pairs.collect())
}

async fn digest(
    client: &Client,
    image: &str,
    auth: Option<&str>,
) -> Result<Value, skep_docker_api::client::Error> {
    let path = format!("/distribution/{}/json", escape(image).replace("%2F", "/"));
    match auth {
        Some(auth) => client.get_with_auth(&path, auth).await,
        None => client.get(&path).await,
    }
}

/// Writes the digest into all services of `image`, and on which platforms it runs.
fn pin(document: &mut StackDocument, image: &str, answer: &Value) {
    let Some(digest) = answer["Descriptor"]["digest"].as_str() else {
        return;
    };
    let platforms = answer["Platforms"].as_array().into_iter().flatten();
    let platforms = platforms
        .map(|platform| json!({ "Architecture": platform["architecture"], "OS": platform["os"] }));
    let platforms: Vec<Value> = platforms.collect();
    for service in &mut document.services {
        if self::image(service) != image {
            continue;
        }
        let template = &mut service["TaskTemplate"];
        template["ContainerSpec"]["Image"] = json!(format!("{image}@{digest}"));
        if template["Placement"]["Platforms"].is_null() && !platforms.is_empty() {
            template["Placement"]["Platforms"] = json!(platforms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    fn document() -> StackDocument {
        let service = |name: &str, image: &str| {
            json!({"Name": name, "Labels": {IMAGE: image},
                "TaskTemplate": {"ContainerSpec": {"Image": image}, "Placement": {}}})
        };
        StackDocument {
            name: "app".to_owned(),
            services: vec![
                service("app_a", "reg.example/a:1"),
                service("app_b", "b:2"),
                service("app_c", "c@sha256:00"),
            ],
            ..StackDocument::default()
        }
    }

    fn stored() -> Value {
        let pinned = json!({"ContainerSpec": {"Image": "b:2@sha256:22"},
            "Placement": {"Platforms": [{"OS": "linux"}]}});
        json!([{"Spec": {"Name": "app_b", "Labels": {IMAGE: "b:2"}, "TaskTemplate": pinned}},
            {"Spec": {"Name": "app_a", "Labels": {IMAGE: "reg.example/a:0"},
             "TaskTemplate": {"ContainerSpec": {"Image": "reg.example/a:0@sha256:00"}}}}])
    }

    fn images(document: &StackDocument) -> Vec<&str> {
        document.services.iter().map(image).collect()
    }

    #[tokio::test]
    async fn images_get_the_digest_their_registry_tells_or_keep_the_one_they_had() {
        let found = r#"{"Descriptor":{"digest":"sha256:11"},"Platforms":[{"architecture":"amd64","os":"linux"}]}"#;
        let daemon = FakeDaemon::new(vec![
            ("GET /services?filters=", 200, stored().to_string()),
            (
                "GET /distribution/b%3A2/json ",
                500,
                r#"{"message":"no route"}"#.to_owned(),
            ),
            (
                "GET /distribution/reg.example/a%3A1/json ",
                200,
                found.to_owned(),
            ),
        ]);
        let mut document = document();
        resolve(&daemon.client(), &mut document, Resolve::Always, None)
            .await
            .unwrap();
        daemon.requests().await;
        let expected = ["reg.example/a:1@sha256:11", "b:2@sha256:22", "c@sha256:00"];
        assert_eq!(images(&document), expected);
        let platforms =
            |index: usize| &document.services[index]["TaskTemplate"]["Placement"]["Platforms"];
        assert_eq!(
            *platforms(0),
            json!([{"Architecture": "amd64", "OS": "linux"}])
        );
        assert_eq!(*platforms(1), json!([{"OS": "linux"}]));
    }

    #[tokio::test]
    async fn registries_are_asked_for_no_more_than_wanted() {
        let turn = || ("GET /services?filters=", 200, stored().to_string());
        let missing = r#"{"message":"no route"}"#.to_owned();
        let daemon = FakeDaemon::new(vec![
            turn(),
            ("GET /distribution/reg.example/a%3A1/json ", 500, missing),
            turn(),
        ]);
        for resolve in [Resolve::Changed, Resolve::Never] {
            let mut document = document();
            super::resolve(&daemon.client(), &mut document, resolve, None)
                .await
                .unwrap();
            let expected = ["reg.example/a:1", "b:2@sha256:22", "c@sha256:00"];
            assert_eq!(images(&document), expected);
        }
        daemon.requests().await;
    }
}
