//! Messages of long operations.

use serde::Serialize;

use crate::{
    backend::{Progress, ProgressDetail},
    dto::is_default,
    error::ApiError,
};

/// One message; Docker's `jsonmessage`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Message {
    #[serde(skip_serializing_if = "is_default")]
    stream: String,
    #[serde(skip_serializing_if = "is_default")]
    status: String,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
    #[serde(skip_serializing_if = "is_default")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aux: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Detail {
    #[serde(skip_serializing_if = "is_default")]
    current: u64,
    #[serde(skip_serializing_if = "is_default")]
    total: u64,
}

impl From<Progress> for Message {
    fn from(progress: Progress) -> Self {
        let Progress {
            id,
            status,
            stream,
            detail,
            aux,
        } = progress;
        // Clients draw a message that has an id and no detail as a finished line; Docker writes an
        // empty object there.
        let detail = match detail {
            Some(ProgressDetail { current, total }) => Some(Detail { current, total }),
            None => (!id.is_empty()).then(Detail::default),
        };
        Self {
            stream,
            status,
            detail,
            id,
            aux,
        }
    }
}

/// The last message of an operation that failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Failure {
    #[serde(rename = "errorDetail")]
    detail: FailureDetail,
    error: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct FailureDetail {
    message: String,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            detail: FailureDetail {
                message: error.message.clone(),
            },
            error: error.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(progress: Progress, expect: &str) {
        let json = serde_json::to_string(&Message::from(progress)).expect("encodes");
        assert_eq!(json, expect);
    }

    #[test]
    fn messages_look_as_docker_writes_them() {
        let layer = || Progress {
            id: "a1b2".to_owned(),
            status: "Downloading".to_owned(),
            ..Progress::default()
        };
        check(
            layer(),
            r#"{"status":"Downloading","progressDetail":{},"id":"a1b2"}"#,
        );
        check(
            Progress {
                detail: Some(ProgressDetail {
                    current: 1,
                    total: 2,
                }),
                ..layer()
            },
            r#"{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"a1b2"}"#,
        );
        check(
            Progress {
                stream: "Loaded image: x\n".to_owned(),
                ..Progress::default()
            },
            r#"{"stream":"Loaded image: x\n"}"#,
        );
    }
}
