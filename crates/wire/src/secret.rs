//! `Debug` of messages that hold secrets: the name and nothing else, so that no log can leak one.
//! `build.rs` keeps the derived form away from these types.

use std::fmt;

use crate::{peer, proto};

/// Writes one impl per message; a macro because the impls differ in the type only.
macro_rules! redact {
    ($($message:ty),+ $(,)?) => {
        $(impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), " { <redacted> }"))
            }
        })+
    };
}

redact!(
    peer::StackSpec,
    proto::CaConfig,
    proto::EncryptionKey,
    proto::GetUnlockKeyResponse,
    proto::IssueNodeCertificateRequest,
    proto::JoinTokens,
    proto::RootCa,
    proto::RootRotation,
    proto::SecretSpec,
    proto::VolumeSecret,
    proto::acceptance_policy::role_admission_policy::Secret,
    proto::container_spec::PullOptions,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_object_shows_no_key() {
        let cluster = proto::Cluster {
            root_ca: Some(proto::RootCa {
                ca_key: b"PRIVATE".to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = format!("{cluster:?}");
        assert!(text.contains("<redacted>"), "{text}");
        assert!(!text.contains("80, 82, 73"), "{text}");
    }
}
