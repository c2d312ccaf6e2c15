//! Runs `nft`: transactions on standard input, listings as JSON. The text is made in `rules`.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::plan::ObservedRules;
use crate::ports::Protocol;
pub(crate) use crate::rules::DIGEST_PREFIX;
use crate::rules::{MAP_ADDR, MAP_ANY, PortRule, Ruleset, TABLE, TABLE6};

/// The program, found on `PATH`.
const NFT: &str = "nft";

/// Why a transaction or a listing failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// `nft` cannot be run.
    #[error("failed to run `{NFT}`")]
    Run(#[source] io::Error),
    /// `nft` refused.
    #[error("nft refused: {0}")]
    Refused(String),
    /// `nft` printed something unexpected.
    #[error("nft printed no JSON")]
    Json(#[source] serde_json::Error),
}

/// Runs a transaction. It happens whole or not at all.
pub(crate) fn run(script: &str) -> Result<(), NftError> {
    let mut child = Command::new(NFT)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftError::Run)?;
    // When `nft` stops reading early its message on standard error says why, not our broken pipe.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(NftError::Run)?;
    refused(&output)?;
    written.map_err(NftError::Run)
}

/// Our table of a family, none if it is missing. One that lacks something, or that nobody expects, has no digest.
pub(crate) fn observe(
    table: &str,
    expected: Option<&Ruleset>,
) -> Result<Option<ObservedRules>, NftError> {
    let arguments: Vec<&str> = ["list", "table"]
        .into_iter()
        .chain(table.split(' '))
        .collect();
    match list(&arguments) {
        Ok(listing) => {
            let rules = expected.and_then(|expected| parse(&listing, expected));
            Ok(Some(rules.unwrap_or_default()))
        }
        Err(NftError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a table has a digest and as many rules as the digest stands for.
pub(crate) fn is_whole(table: &str, digest: &str, rule_count: usize) -> Result<bool, NftError> {
    let arguments: Vec<&str> = ["list", "table"]
        .into_iter()
        .chain(table.split(' '))
        .collect();
    let listing = match list(&arguments) {
        Ok(listing) => listing,
        Err(NftError::Refused(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let wanted = format!("{DIGEST_PREFIX}{digest}");
    let has_digest = objects(&listing, "chain").any(|chain| chain["name"] == wanted.as_str());
    Ok(has_digest && objects(&listing, "rule").count() == rule_count)
}

/// Base chains of others on the forward hook that drop by policy, as `family table chain`.
pub(crate) fn obstacles() -> Result<Vec<String>, NftError> {
    Ok(parse_obstacles(&list(&["list", "chains"])?))
}

fn list(arguments: &[&str]) -> Result<Value, NftError> {
    let output = Command::new(NFT)
        .arg("-j")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(NftError::Run)?;
    refused(&output)?;
    serde_json::from_slice(&output.stdout).map_err(NftError::Json)
}

fn refused(output: &Output) -> Result<(), NftError> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(NftError::Refused(
        text.lines().next().unwrap_or("no message").to_owned(),
    ))
}

fn objects<'a>(listing: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    listing["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(move |object| object.get(kind))
}

/// None unless the table has a digest and all rules the digest stands for.
fn parse(listing: &Value, expected: &Ruleset) -> Option<ObservedRules> {
    let digest = objects(listing, "chain")
        .filter_map(|chain| chain["name"].as_str())
        .find_map(|name| name.strip_prefix(DIGEST_PREFIX))?;
    if digest == expected.digest() && objects(listing, "rule").count() != expected.rule_count() {
        return None;
    }
    let mut ports = BTreeSet::new();
    let mut maps = 0;
    for map in objects(listing, "map") {
        let name = map["name"].as_str()?;
        if name != MAP_ANY && name != MAP_ADDR {
            continue;
        }
        maps += 1;
        for element in map["elem"].as_array().into_iter().flatten() {
            ports.insert(parse_element(element)?);
        }
    }
    (maps == 2).then(|| ObservedRules {
        digest: digest.to_owned(),
        ports,
    })
}

/// `[{"concat": [address?, protocol, port]}, {"concat": [address, port]}]`.
fn parse_element(element: &Value) -> Option<PortRule> {
    let key = element[0]["concat"].as_array()?;
    let data = element[1]["concat"].as_array()?;
    let (host_ip, rest) = match key.as_slice() {
        [host_ip, rest @ ..] if key.len() == 3 => (Some(parse_ip(host_ip)?), rest),
        rest => (None, rest),
    };
    let ([protocol, published], [address, target]) = (rest, data.as_slice()) else {
        return None;
    };
    let protocol = match protocol.as_str()? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some(PortRule {
        host_ip,
        protocol,
        published: parse_port(published)?,
        address: parse_ip(address)?,
        target: parse_port(target)?,
    })
}

fn parse_ip(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn parse_port(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok()
}

fn parse_obstacles(listing: &Value) -> Vec<String> {
    objects(listing, "chain")
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .map(|chain| {
            let part = |key: &str| chain[key].as_str().unwrap_or("?").to_owned();
            format!("{} {} {}", part("family"), part("table"), part("name"))
        })
        .filter(|name| {
            let is_in = |table| name.starts_with(&format!("{table} "));
            !is_in(TABLE) && !is_in(TABLE6)
        })
        .collect()
}

#[cfg(test)]
mod tests;
