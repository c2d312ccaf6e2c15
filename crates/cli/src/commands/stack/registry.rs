//! Credentials of registries, as `docker login` keeps them: in docker's own file, or with the programs it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};
use serde_json::{Value, json};
use skep_compose::Environment;

use super::keychain::{self, Kept};

/// The key of Docker's own registry in the file.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a user is known by to registries.
pub(super) struct Logins {
    /// Entries by registry host, each the value of `X-Registry-Auth`.
    known: BTreeMap<String, String>,
    /// The program that keeps those of most registries.
    store: Option<String>,
    /// The programs for certain registries, by their hosts.
    helpers: BTreeMap<String, String>,
}

// === impl Logins ===

impl Logins {
    /// Those of the docker command's configuration; none without it.
    pub(super) fn read(environment: &Environment) -> anyhow::Result<Self> {
        let dir = match environment
            .get("DOCKER_CONFIG")
            .filter(|dir| !dir.is_empty())
        {
            Some(dir) => PathBuf::from(dir),
            None => Path::new(environment.get("HOME").map_or("", String::as_str)).join(".docker"),
        };
        let file = dir.join("config.json");
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read `{}`", file.display()));
            }
        };
        let config: Value = serde_json::from_slice(&text)
            .with_context(|| format!("`{}` is not JSON", file.display()))?;
        Ok(Self::of(&config))
    }

    fn of(config: &Value) -> Self {
        let entries = config["auths"].as_object().into_iter().flatten();
        let known =
            entries.filter_map(|(server, entry)| Some((host(server), header(server, entry)?)));
        let name = |value: &Value| {
            let name = value.as_str().filter(|name| !name.is_empty());
            name.map(str::to_owned)
        };
        let helpers = config["credHelpers"].as_object().into_iter().flatten();
        let helpers = helpers.filter_map(|(server, helper)| Some((host(server), name(helper)?)));
        Self {
            known: known.collect(),
            store: name(&config["credsStore"]),
            helpers: helpers.collect(),
        }
    }

    /// Asks the programs that keep the credentials of the registries of `images`, each registry once. What they
    /// have counts more than what the file has.
    pub(super) async fn ask(
        &mut self,
        images: impl Iterator<Item = &str>,
        environment: &Environment,
    ) -> anyhow::Result<()> {
        let registries: BTreeSet<&str> = images.map(registry).collect();
        for registry in registries {
            let Some(helper) = self.helpers.get(registry).or(self.store.as_ref()) else {
                continue;
            };
            let server = match registry {
                "docker.io" => DOCKER_HUB,
                other => other,
            };
            if let Some(kept) = keychain::get(helper, server, environment).await? {
                self.known
                    .insert(registry.to_owned(), kept_header(server, &kept));
            }
        }
        Ok(())
    }

    /// The value of `X-Registry-Auth` for the registry of `image`.
    pub(super) fn of_image(&self, image: &str) -> Option<&str> {
        self.known.get(registry(image)).map(String::as_str)
    }
}

/// What the daemon is told of what a program keeps.
fn kept_header(server: &str, kept: &Kept) -> String {
    let (user, password) = kept.login().unwrap_or_default();
    let config = json!({
        "username": user,
        "password": password,
        "identitytoken": kept.token().unwrap_or_default(),
        "serveraddress": server,
    });
    BASE64_URL_SAFE.encode(config.to_string())
}

/// What the daemon is told of one entry; `None` when it has nothing.
fn header(server: &str, entry: &Value) -> Option<String> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let (mut user, mut password) = (text("username"), text("password"));
    if let Ok(pair) = BASE64_STANDARD.decode(text("auth")) {
        let pair = String::from_utf8(pair).unwrap_or_default();
        if let Some((name, word)) = pair.split_once(':') {
            user = name.to_owned();
            // Docker itself once wrote a zero byte behind the password.
            word.trim_end_matches('\0').clone_into(&mut password);
        }
    }
    let tokens = (text("identitytoken"), text("registrytoken"));
    if user.is_empty() && tokens.0.is_empty() && tokens.1.is_empty() {
        return None;
    }
    let config = json!({
        "username": user,
        "password": password,
        "identitytoken": tokens.0,
        "registrytoken": tokens.1,
        "serveraddress": server,
    });
    Some(BASE64_URL_SAFE.encode(config.to_string()))
}

/// The host of an entry, which may be written as an address.
fn host(server: &str) -> String {
    if server == DOCKER_HUB {
        return "docker.io".to_owned();
    }
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

/// The registry of an image: what stands before the first slash, if it can be a host.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some(("index.docker.io", _)) => "docker.io",
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        Some(_) | None => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn decoded(header: &str) -> Value {
        let json = BASE64_URL_SAFE.decode(header).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn images_get_the_credentials_of_their_registry() {
        let logins = Logins::of(&json!({
            "auths": {
                DOCKER_HUB: {"auth": BASE64_STANDARD.encode("me:pass:word")},
                "http://reg.example:5000/v2/": {"identitytoken": "t"},
                "empty.example": {},
            },
        }));
        let hub = decoded(logins.of_image("me/app:1").unwrap());
        assert_eq!(
            (&hub["username"], &hub["password"]),
            (&json!("me"), &json!("pass:word"))
        );
        assert_eq!(
            logins.of_image("nginx"),
            logins.of_image("docker.io/library/nginx")
        );
        let other = decoded(logins.of_image("reg.example:5000/a/b@sha256:00").unwrap());
        assert_eq!(other["identitytoken"], "t");
        assert_eq!(logins.of_image("empty.example/a"), None);
        assert_eq!(logins.of_image("localhost/a"), None);
    }

    #[tokio::test]
    async fn programs_are_asked_for_the_registries_they_keep() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, answer: &str| {
            let path = dir.path().join(format!("docker-credential-{name}"));
            let text = format!("#!/bin/sh\n{answer}\n");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        script(
            "all",
            r#"echo "{\"Username\":\"me\",\"Secret\":\"$(cat)\"}""#,
        );
        script("one", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        script(
            "none",
            "echo 'credentials not found in native keychain'; exit 1",
        );
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let environment: Environment = [("PATH".to_owned(), path)].into();
        let mut logins = Logins::of(&json!({
            "auths": {
                "none.example": {"username": "file", "password": "p"},
                "reg.example": {},
            },
            "credsStore": "all",
            "credHelpers": {"reg.example:5000": "one", "none.example": "none"},
        }));
        let images = ["me/app:1", "reg.example:5000/a", "none.example/a", "nginx"];
        logins.ask(images.into_iter(), &environment).await.unwrap();
        let of = |image| decoded(logins.of_image(image).unwrap());
        assert_eq!(of("nginx")["password"], DOCKER_HUB);
        assert_eq!(of("reg.example:5000/a")["identitytoken"], "t");
        assert_eq!(of("none.example/a")["username"], "file");
        let mut missing = Logins::of(&json!({ "credsStore": "missing" }));
        let error = missing.ask(["nginx"].into_iter(), &environment).await;
        let error = format!("{:#}", error.unwrap_err());
        assert!(
            error.ends_with("`docker-credential-missing` is not on PATH"),
            "{error}"
        );
    }

    #[test]
    fn configuration_is_where_docker_has_it_and_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let home: Environment = [("HOME".to_owned(), path.clone())].into();
        assert!(Logins::read(&home).unwrap().known.is_empty());
        fs::create_dir(dir.path().join(".docker")).unwrap();
        let entry = json!({"auths": {"reg.example": {"username": "me", "password": "p"}}});
        fs::write(dir.path().join(".docker/config.json"), entry.to_string()).unwrap();
        assert!(
            Logins::read(&home)
                .unwrap()
                .of_image("reg.example/a")
                .is_some()
        );
        let other: Environment = [("DOCKER_CONFIG".to_owned(), path)].into();
        assert!(Logins::read(&other).unwrap().known.is_empty());
        fs::write(dir.path().join("config.json"), "{").unwrap();
        let refused = Logins::read(&other).map(drop).unwrap_err().to_string();
        assert!(refused.ends_with("config.json` is not JSON"), "{refused}");
    }
}
