//! Programs that keep credentials for docker: `docker-credential-NAME get`.
//!
//! The protocol of docker/docker-credential-helpers: the registry's address on standard input, an
//! object of JSON on standard output; a failure's text is on standard output, too. Somebody else's program: it has
//! a time limit, and its answer one of size.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use serde::Deserialize;
use skep_compose::Environment;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// A helper may ask somebody to unlock a keychain; longer, and a deploy hangs without a word.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Longest answer; tokens have a few thousand bytes.
const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// Characters of a helper's own words in an error.
const WORDS_MAX: usize = 200;
/// What all helpers say of a registry they know nothing of, after docker's library for them.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// User name of a secret that is an identity token.
const TOKEN_USER: &str = "<token>";

/// What a helper keeps of one registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Kept {
    username: String,
    secret: String,
}

// === impl Kept ===

impl Kept {
    /// User and password; `None` if the secret is an identity token.
    pub(super) fn login(&self) -> Option<(&str, &str)> {
        (self.username != TOKEN_USER).then_some((&self.username, &self.secret))
    }

    /// The identity token, if it is one.
    pub(super) fn token(&self) -> Option<&str> {
        (self.username == TOKEN_USER).then_some(&self.secret)
    }
}

/// Asks helper `name` for what it keeps of `server`; `None`: nothing.
pub(super) async fn get(
    name: &str,
    server: &str,
    environment: &Environment,
) -> anyhow::Result<Option<Kept>> {
    let program = format!("docker-credential-{name}");
    let asked = || format!("failed to ask `{program}` for the credentials of `{server}`");
    let path = find(&program, environment).with_context(asked)?;
    let asking = exchange(path, server, environment);
    let Ok(answer) = timeout(TIME_MAX, asking).await else {
        bail!("{}: no answer within {TIME_MAX:?}", asked());
    };
    let (has_succeeded, text) = answer.with_context(asked)?;
    if has_succeeded {
        let kept = serde_json::from_slice::<Kept>(&text);
        return kept.map(Some).with_context(|| {
            format!("`{program} get` did not answer with `Username` and `Secret` for `{server}`")
        });
    }
    let words = String::from_utf8_lossy(&text);
    // What it says is shown on a terminal.
    let words = words.trim().chars().take(WORDS_MAX);
    let words: String = words
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match words.as_str() {
        NOT_FOUND => Ok(None),
        "" => bail!("{}: it failed without a word", asked()),
        words => bail!("{}: {words}", asked()),
    }
}

/// Where a program is, by the `PATH` of the environment.
fn find(program: &str, environment: &Environment) -> anyhow::Result<PathBuf> {
    if program.contains('/') {
        bail!("`{program}` is no name of a program");
    }
    let path = environment.get("PATH").map_or("", String::as_str);
    let mut places = std::env::split_paths(path).map(|dir| dir.join(program));
    let found = places.find(|place| place.is_file());
    found.with_context(|| format!("`{program}` is not on PATH"))
}

/// Whether it succeeded, and what it wrote.
async fn exchange(
    path: PathBuf,
    server: &str,
    environment: &Environment,
) -> anyhow::Result<(bool, Vec<u8>)> {
    let mut child = Command::new(&path)
        .arg("get")
        .env_clear()
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to run `{}`", path.display()))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (mut stdin, stdout) = stdin.zip(stdout).context("it has no pipes")?;
    let mut text = Vec::new();
    let mut answer = stdout.take(ANSWER_BYTES_MAX + 1);
    let writing = async {
        // One that does not read says why it ended.
        let _ = stdin.write_all(server.as_bytes()).await;
        drop(stdin);
    };
    let (read, ()) = tokio::join!(answer.read_to_end(&mut text), writing);
    if read? as u64 > ANSWER_BYTES_MAX {
        bail!("its answer is longer than {ANSWER_BYTES_MAX} bytes");
    }
    let status = child.wait().await?;
    Ok((status.success(), text))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use super::*;

    const SCRIPT: &str = r#"#!/bin/sh
[ "$1" = get ] || exit 3
read -r server
case $server in
    reg.example) echo '{"ServerURL":"reg.example","Username":"me","Secret":"p:w"}' ;;
    token.example) echo '{"ServerURL":"token.example","Username":"<token>","Secret":"t"}' ;;
    odd.example) echo 'not json' ;;
    locked.example) echo 'the keychain is locked'; exit 1 ;;
    slow.example) exec sleep 1000 ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"#;

    fn environment(dir: &Path) -> Environment {
        let script = dir.join("docker-credential-fake");
        fs::write(&script, SCRIPT).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("/nowhere:{}:/usr/bin:/bin", dir.display());
        [("PATH".to_owned(), path)].into()
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_one_registry() {
        let dir = tempfile::tempdir().unwrap();
        let environment = environment(dir.path());
        let get = async |name: &str, server: &str| {
            let kept = get(name, server, &environment).await;
            kept.map_err(|error| format!("{error:#}"))
        };
        let kept = get("fake", "reg.example").await.unwrap().unwrap();
        assert_eq!((kept.login(), kept.token()), (Some(("me", "p:w")), None));
        let kept = get("fake", "token.example").await.unwrap().unwrap();
        assert_eq!((kept.login(), kept.token()), (None, Some("t")));
        assert_eq!(get("fake", "other.example").await, Ok(None));
        let asked = "failed to ask `docker-credential-fake` for the credentials of";
        assert_eq!(
            get("fake", "locked.example").await.unwrap_err(),
            format!("{asked} `locked.example`: the keychain is locked")
        );
        let odd = get("fake", "odd.example").await.unwrap_err();
        assert!(
            odd.contains("did not answer with `Username` and `Secret`"),
            "{odd}"
        );
        let none = get("none", "reg.example").await.unwrap_err();
        assert!(
            none.ends_with("`docker-credential-none` is not on PATH"),
            "{none}"
        );
        let other = get("../x", "reg.example").await.unwrap_err();
        assert!(other.contains("is no name of a program"), "{other}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let environment = environment(dir.path());
        let slow = get("fake", "slow.example", &environment).await;
        let error = slow.unwrap_err().to_string();
        assert!(error.ends_with("no answer within 30s"), "{error}");
    }
}
