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
    let known = match resolve {
        Resolve::Never => return Ok(()),
        Resolve::Always => BTreeMap::new(),
        Resolve::Changed => deployed(client, &document.name).await?,
    };
    let mut wanted = BTreeSet::new();
    for service in &document.services {
        let name = service["Name"].as_str().unwrap_or_default();
        let is_known = known
            .get(name)
            .is_some_and(|image| service["Labels"][IMAGE] == **image);
        let image = image(service);
        if !is_known && !image.is_empty() && !image.contains('@') {
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
    Ok(())
}

fn image(service: &Value) -> &str {
    service["TaskTemplate"]["ContainerSpec"]["Image"]
        .as_str()
        .unwrap_or_default()
}

fn auth(document: &StackDocument, logins: &Logins) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for service in &document.services {
        let name = service["Name"].as_str().unwrap_or_default();
        match (logins.of_image(image(service)), logins.helper()) {
            (Some(auth), _) => {
                found.insert(name.to_owned(), auth.to_owned());
            }
            (None, Some(helper)) => {
                let _ = writeln!(
                    std::io::stderr(),
                    "warning: service `{name}`: credentials kept by `docker-credential-{helper}` are not read"
                );
            }
            (None, None) => {}
        }
    }
    found
}

/// The images of the services there are, as their files named them.
async fn deployed(client: &Client, stack: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let services = client
        .get(&format!("/services?filters={}", filters(stack, false)))
        .await?;
    let services = services.as_array().into_iter().flatten();
    let pairs = services.filter_map(|service| {
        let spec = &service["Spec"];
        let image = spec["Labels"][IMAGE].as_str()?;
        Some((spec["Name"].as_str()?.to_owned(), image.to_owned()))
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

    #[tokio::test]
    async fn images_get_the_digest_their_registry_tells() {
        let found = r#"{"Descriptor":{"digest":"sha256:11"},"Platforms":[{"architecture":"amd64","os":"linux"}]}"#;
        let daemon = FakeDaemon::new(vec![
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
        let images: Vec<&str> = document.services.iter().map(image).collect();
        assert_eq!(images, ["reg.example/a:1@sha256:11", "b:2", "c@sha256:00"]);
        assert_eq!(
            document.services[0]["TaskTemplate"]["Placement"]["Platforms"],
            json!([{"Architecture": "amd64", "OS": "linux"}])
        );
    }

    #[tokio::test]
    async fn images_the_stack_has_are_not_asked_for() {
        let services = json!([{"Spec": {"Name": "app_b", "Labels": {IMAGE: "b:2"}}},
            {"Spec": {"Name": "app_a", "Labels": {IMAGE: "reg.example/a:1"}}}]);
        let turn = ("GET /services?filters=", 200, services.to_string());
        let daemon = FakeDaemon::new(vec![turn]);
        let mut document = document();
        resolve(&daemon.client(), &mut document, Resolve::Changed, None)
            .await
            .unwrap();
        daemon.requests().await;
        assert_eq!(document, self::document());
        let nobody = Client::unix("/nobody/listens/here");
        resolve(&nobody, &mut document, Resolve::Never, None)
            .await
            .unwrap();
    }
}
