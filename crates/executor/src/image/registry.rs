//! The requests of the distribution protocol a pull needs: manifests and blobs, with basic, bearer and refresh-token credentials.
//!
//! Why not `oci-client`: `docs/design/images.md`, "Registry". Every body is bounded; credentials go to the registry and to the token service it
//! names, over TLS unless the registry itself is allowed plain HTTP.

use std::{
    fmt, io,
    net::IpAddr,
    time::{Duration, Instant},
};

use reqwest::{
    Client, Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RANGE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    Digest, Reference, StoreConfig, config::MANIFEST_BYTES_MAX, manifest::ACCEPTED,
    reference::DEFAULT_DOMAIN,
};

mod challenge;
mod error;
mod token;

use challenge::{Challenge, parse_challenge};
pub use error::Error;

/// Docker Hub's registry is not where its name says.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// A registry that does not accept a connection in this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A body that stalls this long is given up, and resumed.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Error bodies are for people.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// Credentials for a registry, as in Docker's `X-Registry-Auth`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// Empty if there is only a token.
    pub username: String,
    /// Empty if there is only a token.
    pub password: String,
    /// An OAuth2 refresh token, instead of a password.
    pub identity_token: String,
    /// Which registry they are for; empty is the one of the image.
    pub server: String,
}

/// A connection to one repository.
pub(crate) struct Registry {
    client: Client,
    base: String,
    /// Plain HTTP and unverifiable certificates are allowed.
    is_insecure: bool,
    reference: Reference,
    auth: Option<RegistryAuth>,
    grant: Mutex<Option<Grant>>,
}

/// What goes into `Authorization`.
#[derive(Clone)]
struct Grant {
    header: String,
    expires: Option<Instant>,
}

/// A manifest as sent.
#[derive(Debug)]
pub(crate) struct RawManifest {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: Option<String>,
    pub(crate) digest: Digest,
}

/// The beginning of a blob's answer.
#[derive(Debug)]
pub(crate) struct BlobAnswer {
    pub(crate) response: Response,
    /// The registry continues where it was asked to; otherwise it starts from the beginning.
    pub(crate) is_partial: bool,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
    #[serde(default)]
    message: String,
}

// === impl Registry ===

impl Registry {
    /// Prepares the client. Only a registry that may be insecure is contacted now, to learn whether it speaks TLS.
    pub(crate) async fn connect(
        reference: &Reference,
        auth: Option<&RegistryAuth>,
        config: &StoreConfig,
    ) -> Result<Self, Error> {
        let host = match reference.domain() {
            DEFAULT_DOMAIN => DOCKER_HUB,
            domain => domain,
        };
        let is_insecure = is_loopback(host) || config.insecure_registries.iter().any(|r| r == host);
        let client = build_client(is_insecure)?;
        let auth = auth.filter(|auth| !auth.username.is_empty() || !auth.identity_token.is_empty());
        let mut registry = Self {
            client,
            base: format!("https://{host}"),
            is_insecure,
            reference: reference.clone(),
            auth: auth.cloned(),
            grant: Mutex::new(None),
        };
        if is_insecure && !registry.answers().await {
            registry.base = format!("http://{host}");
        }
        Ok(registry)
    }

    /// Whether anything at all speaks this scheme there.
    async fn answers(&self) -> bool {
        self.client
            .get(format!("{}/v2/", self.base))
            .send()
            .await
            .is_ok()
    }

    /// The manifest of a tag or digest. Its digest is checked if the reference names one.
    pub(crate) async fn manifest(&self, name: &str) -> Result<RawManifest, Error> {
        let url = format!(
            "{}/v2/{}/manifests/{name}",
            self.base,
            self.reference.path()
        );
        let response = self.get(&url, Some(&ACCEPTED.join(", ")), None).await?;
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| {
                value
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            });
        let bytes = read_body(response, MANIFEST_BYTES_MAX).await?;
        let digest = Digest::of(&bytes);
        if let Ok(expected) = name.parse::<Digest>()
            && expected != digest
        {
            return Err(Error::Protocol(format!(
                "manifest {expected} has digest {digest}"
            )));
        }
        Ok(RawManifest {
            bytes,
            media_type,
            digest,
        })
    }

    /// Starts to read a blob, from `offset` if the registry can.
    pub(crate) async fn blob(&self, digest: Digest, offset: u64) -> Result<BlobAnswer, Error> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.base, self.reference.path());
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.get(&url, None, range.as_deref()).await?;
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if is_partial && !continues_at(&response, offset) {
            return Err(Error::Protocol(
                "answer is another range than was asked for".to_owned(),
            ));
        }
        Ok(BlobAnswer {
            response,
            is_partial,
        })
    }

    /// A small blob, in memory.
    pub(crate) async fn blob_bytes(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, Error> {
        read_body(self.blob(digest, 0).await?.response, limit).await
    }

    async fn get(
        &self,
        url: &str,
        accept: Option<&str>,
        range: Option<&str>,
    ) -> Result<Response, Error> {
        let response = self.send(url, accept, range).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.check(response).await;
        }
        // No grant yet, or one that expired or was revoked: what the registry wants stands in its answer.
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = challenges
            .iter()
            .filter_map(|value| parse_challenge(value.to_str().ok()?))
            .max_by_key(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = challenge else {
            return self.check(response).await;
        };
        let grant = self.obtain(&challenge, url).await?;
        *self.grant.lock().await = Some(grant);
        let response = self.send(url, accept, range).await?;
        self.check(response).await
    }

    async fn send(
        &self,
        url: &str,
        accept: Option<&str>,
        range: Option<&str>,
    ) -> Result<Response, Error> {
        let mut request = self.client.request(Method::GET, url);
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let grant = self.grant.lock().await.clone();
        let is_fresh = |grant: &Grant| grant.expires.is_none_or(|at| Instant::now() < at);
        if let Some(grant) = grant.filter(is_fresh) {
            request = request.header(AUTHORIZATION, grant.header);
        }
        request
            .send()
            .await
            .map_err(|error| self.connect_error(error))
    }

    /// Success, or the registry's error in Docker's words.
    async fn check(&self, response: Response) -> Result<Response, Error> {
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
            return Ok(response);
        }
        let url = response.url().to_string();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let (code, message) = read_errors(response).await;
        let name = self.reference.familiar_name();
        let words = code.to_ascii_lowercase().replace('_', " ");
        Err(match (code.as_str(), status) {
            ("MANIFEST_UNKNOWN", _) => Error::ManifestUnknown {
                reference: self.reference.familiar(),
                code: words,
                message,
            },
            ("NAME_UNKNOWN", _) => Error::NameUnknown {
                name,
                code: words,
                message,
            },
            ("DENIED", _) => Error::Denied {
                name,
                code: words,
                message,
            },
            ("UNAUTHORIZED", _) if self.auth.is_none() => Error::Denied {
                name,
                code: "denied".to_owned(),
                message: "requested access to the resource is denied".to_owned(),
            },
            (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let message = if message.is_empty() {
                    "authentication required".into()
                } else {
                    message
                };
                Error::Unauthorized {
                    method: "Head",
                    url,
                    message,
                }
            }
            (_, StatusCode::TOO_MANY_REQUESTS) => Error::RateLimited {
                message,
                retry_after,
            },
            (_, StatusCode::NOT_FOUND) => Error::ManifestUnknown {
                reference: self.reference.familiar(),
                code: "manifest unknown".to_owned(),
                message: "manifest unknown".to_owned(),
            },
            _ => Error::Status { status, message },
        })
    }

    fn connect_error(&self, source: reqwest::Error) -> Error {
        let host = self.base.split("://").nth(1).unwrap_or_default();
        let port = if self.base.starts_with("https") {
            443
        } else {
            80
        };
        let address = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        let reason = match root_io_kind(&source) {
            Some(io::ErrorKind::ConnectionRefused) => {
                format!("dial tcp {address}: connect: connection refused")
            }
            _ if source.is_timeout() => {
                "net/http: request canceled while waiting for connection".to_owned()
            }
            _ if chain_contains(&source, "dns error") => {
                let name = address
                    .rsplit_once(':')
                    .map_or(address.as_str(), |(name, _)| name);
                format!("dial tcp: lookup {name}: no such host")
            }
            _ => root_cause(&source),
        };
        Error::Connect {
            url: format!("{}/v2/", self.base),
            reason,
            source: Box::new(source),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

// === impl RegistryAuth ===

impl RegistryAuth {
    fn basic_header(&self) -> String {
        format!(
            "Basic {}",
            challenge::base64(format!("{}:{}", self.username, self.password).as_bytes())
        )
    }
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("username", &self.username)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

fn build_client(is_insecure: bool) -> Result<Client, Error> {
    // The workspace has one provider. Another part of the process may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("skep/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT);
    let builder = if is_insecure {
        builder.tls_danger_accept_invalid_certs(true).no_proxy()
    } else {
        builder.https_only(true)
    };
    builder
        .build()
        .map_err(|error| Error::Setup(Box::new(error)))
}

/// Reads a body into memory, but not more than `limit`.
async fn read_body(mut response: Response, limit: u64) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let url = response.url().to_string();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 <= limit => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => return Err(Error::TooLarge(limit)),
            Ok(None) => return Ok(body),
            Err(source) => {
                return Err(Error::Transfer {
                    url,
                    source: Box::new(source),
                });
            }
        }
    }
}

/// Code and message of an error answer; empty if it has none.
async fn read_errors(response: Response) -> (String, String) {
    let body = read_body(response, ERROR_BYTES_MAX)
        .await
        .unwrap_or_default();
    match serde_json::from_slice::<Errors>(&body) {
        Ok(errors) => errors
            .errors
            .into_iter()
            .next()
            .map_or_else(Default::default, |e| (e.code, e.message)),
        Err(_) => Default::default(),
    }
}

fn continues_at(response: &Response, offset: u64) -> bool {
    let range = response
        .headers()
        .get("content-range")
        .and_then(|value| value.to_str().ok());
    range.is_none_or(|range| range.starts_with(&format!("bytes {offset}-")))
}

/// Whether the host is this machine, by name or address.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |e| {
        e.source()
    })
}

fn root_io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    chain(error)
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .last()
        .map(io::Error::kind)
}

fn chain_contains(error: &reqwest::Error, text: &str) -> bool {
    chain(error).any(|e| e.to_string().contains(text))
}

fn root_cause(error: &reqwest::Error) -> String {
    chain(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}
