//! Grants: from a registry's challenge to what goes into `Authorization`.

use std::time::{Duration, Instant};

use reqwest::{
    Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;

use super::{Challenge, Error, Grant, Registry, RegistryAuth, read_body, read_errors};

/// Answers of token services, in bytes. Azure's tokens have 3 KiB.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// What the token specification says of tokens without a lifetime.
const TOKEN_LIFETIME_DEFAULT: u64 = 60;
/// Renew a little early.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
const CLIENT_ID: &str = "skep";

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

// === impl Registry ===

impl Registry {
    pub(super) async fn obtain(&self, challenge: &Challenge, url: &str) -> Result<Grant, Error> {
        match (challenge, &self.auth) {
            (Challenge::Basic, Some(auth)) if !auth.username.is_empty() => Ok(Grant {
                header: auth.basic_header(),
                expires: None,
            }),
            (Challenge::Basic, _) => Err(Error::NoCredentials {
                method: "Head",
                url: url.to_owned(),
            }),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                auth,
            ) => {
                self.fetch_token(realm, service, scope.as_deref(), auth.as_ref())
                    .await
            }
        }
    }

    async fn fetch_token(
        &self,
        realm: &str,
        service: &str,
        scope: Option<&str>,
        auth: Option<&RegistryAuth>,
    ) -> Result<Grant, Error> {
        let mut url = Url::parse(realm)
            .map_err(|_| Error::Protocol(format!("token realm `{realm}` is not a URL")))?;
        if auth.is_some() && url.scheme() != "https" && !self.is_insecure {
            return Err(Error::InsecureToken(realm.to_owned()));
        }
        let default_scope = format!("repository:{}:pull", self.reference.path());
        let scope = scope.unwrap_or(&default_scope);
        let request = match auth {
            Some(auth) if !auth.identity_token.is_empty() => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT_ID),
                    ("service", service),
                    ("scope", scope),
                    ("refresh_token", &auth.identity_token),
                ];
                self.client
                    .post(url.clone())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(encode_form(&form))
            }
            auth => {
                url.query_pairs_mut()
                    .append_pair("scope", scope)
                    .append_pair("service", service);
                let mut request = self.client.get(url.clone());
                if let Some(auth) = auth {
                    request = request.header(AUTHORIZATION, auth.basic_header());
                }
                request
            }
        };
        let response = request
            .send()
            .await
            .map_err(|error| self.connect_error(error))?;
        if !response.status().is_success() {
            return Err(self.token_error(response, realm).await);
        }
        let body = read_body(response, TOKEN_BYTES_MAX).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| Error::Protocol("token answer is not understood".to_owned()))?;
        let token = answer.token.or(answer.access_token);
        let token = token.ok_or_else(|| Error::Protocol("token answer has no token".to_owned()))?;
        let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(TOKEN_LIFETIME_DEFAULT));
        let expires = Instant::now().checked_add(lifetime.saturating_sub(TOKEN_MARGIN));
        Ok(Grant {
            header: format!("Bearer {token}"),
            expires,
        })
    }

    async fn token_error(&self, response: Response, realm: &str) -> Error {
        let status = response.status();
        let (_, message) = read_errors(response).await;
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let message = if message.is_empty() {
                "incorrect username or password".into()
            } else {
                message
            };
            return Error::Unauthorized {
                method: "Get",
                url: realm.to_owned(),
                message,
            };
        }
        Error::Status { status, message }
    }
}

fn encode_form(pairs: &[(&str, &str)]) -> String {
    // Any URL does: only its query is used, whose encoding is the form's.
    let Ok(mut url) = Url::parse("https://form.invalid/") else {
        return String::new();
    };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}
