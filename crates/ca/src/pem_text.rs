//! PEM as people hand it in: with blank lines, indentation, comments and headers around it. Normalised, it is what Go's
//! `pem.EncodeToMemory` writes, so that texts can be compared byte for byte.

use pem::{EncodeConfig, LineEnding, Pem};

use crate::certificate::PEM_BYTES_MAX;

const ENCODING: EncodeConfig = EncodeConfig::new().set_line_ending(LineEnding::LF);
const CERTIFICATE_LABEL: &str = "CERTIFICATE";
const PRIVATE_KEY_LABEL: &str = "PRIVATE KEY";

/// The certificates in `text`, written as Go does, without anything around them. `None` if there are none, if a block is
/// malformed, or if there is more text than is read.
#[must_use]
pub fn normalize_certificates(text: &[u8]) -> Option<String> {
    let blocks = read(text)?;
    let mut certificates = blocks
        .iter()
        .filter(|block| block.tag() == CERTIFICATE_LABEL)
        .map(|block| write(&Pem::new(CERTIFICATE_LABEL, block.contents())));
    let first = certificates.next()?;
    Some(certificates.fold(first, |all, next| all + &next))
}

/// The first private key in `text`, of whatever encoding, without what is around it (openssl writes `EC PARAMETERS` first).
pub(crate) fn normalize_key(text: &[u8]) -> Option<String> {
    let blocks = read(text)?;
    let key = blocks
        .into_iter()
        .find(|block| block.tag().ends_with(PRIVATE_KEY_LABEL))?;
    // Headers say how it is encrypted: what needs them is not usable here, and must not seem to be.
    key.headers().iter().next().is_none().then(|| write(&key))
}

/// `der` as a certificate in PEM.
pub(crate) fn certificate(der: &[u8]) -> String {
    write(&Pem::new(CERTIFICATE_LABEL, der))
}

pub(crate) fn read(text: &[u8]) -> Option<Vec<Pem>> {
    if text.len() > PEM_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let mut clean = String::with_capacity(text.len());
    let mut is_after_header = false;
    for line in text.lines().map(str::trim) {
        // The parser takes any blank line for the end of headers.
        if !line.is_empty() || is_after_header {
            clean.push_str(line);
            clean.push('\n');
        }
        is_after_header = line.contains(':');
    }
    pem::parse_many(clean).ok()
}

pub(crate) fn write(block: &Pem) -> String {
    pem::encode_config(block, ENCODING)
}
