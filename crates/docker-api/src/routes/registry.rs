//! Registries: `/auth`, `/distribution`, and the credentials header.

use skep_model::Redacted;

use crate::{
    backend::RegistryAuth,
    dto::{
        engine::{AuthConfig, AuthResponse},
        image::Distribution,
    },
    error::Result,
    http::{
        base64,
        request::Request,
        response::{self, Response},
        server::Context,
    },
};

/// Name of the header with credentials.
pub(crate) const AUTH_HEADER: hyper::header::HeaderName =
    hyper::header::HeaderName::from_static("x-registry-auth");

/// Decodes `X-Registry-Auth`. What is not valid, or holds nothing, is no credentials: Docker
/// tolerates it, and clients without credentials send an encoded empty object.
pub(crate) fn decode_auth(header: &str) -> Option<RegistryAuth> {
    let json = base64::decode(header)?;
    let config: AuthConfig = serde_json::from_slice(&json).ok()?;
    let auth = RegistryAuth::from(config);
    let is_empty = auth.username.is_empty()
        && auth.identity_token.0.is_empty()
        && auth.registry_token.0.is_empty();
    (!is_empty).then_some(auth)
}

impl From<AuthConfig> for RegistryAuth {
    fn from(config: AuthConfig) -> Self {
        let pair = base64::decode(&config.auth).and_then(|bytes| String::from_utf8(bytes).ok());
        let (username, password) = match pair.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((user, password)) if config.username.is_empty() => {
                (user.to_owned(), password.to_owned())
            }
            _ => (config.username, config.password),
        };
        Self {
            username,
            password: Redacted(password),
            identity_token: Redacted(config.identity_token),
            registry_token: Redacted(config.registry_token),
            server_address: config.server_address,
        }
    }
}

/// The credentials of a request.
pub(crate) fn auth(request: &Request) -> Option<RegistryAuth> {
    decode_auth(request.header(&AUTH_HEADER))
}

/// `POST /auth`
pub(crate) async fn login(context: &Context, mut request: Request) -> Result<Response> {
    let config: AuthConfig = request.json().await?;
    let outcome = context.backends.images.login(config.into()).await?;
    response::json(&AuthResponse {
        identity_token: outcome.identity_token.0,
        status: outcome.status,
    })
}

/// `GET /distribution/{name}/json`
pub(crate) async fn distribution(
    context: &Context,
    name: &str,
    request: &Request,
) -> Result<Response> {
    let info = context
        .backends
        .images
        .distribution(name, auth(request))
        .await?;
    response::json(&Distribution::from(info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_decoded_in_both_forms() {
        let encoded =
            base64::encode(br#"{"username":"u","password":"p","serveraddress":"r:5000"}"#);
        let auth = decode_auth(&encoded).expect("credentials");
        assert_eq!(
            (auth.username.as_str(), auth.password.0.as_str()),
            ("u", "p")
        );
        let pair = base64::encode(b"user:pass:word");
        let encoded = base64::encode(format!(r#"{{"auth":"{pair}"}}"#).as_bytes());
        let auth = decode_auth(&encoded).expect("credentials");
        assert_eq!(
            (auth.username.as_str(), auth.password.0.as_str()),
            ("user", "pass:word")
        );
    }

    #[test]
    fn no_credentials_are_none() {
        for header in ["", "e30=", "not base64!", "bm90IGpzb24="] {
            assert_eq!(decode_auth(header), None, "{header}");
        }
    }
}
