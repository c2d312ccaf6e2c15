//! Options of the drivers whose networks every node has for itself, with Docker's names. An unknown
//! one is refused; Docker takes it and ignores it.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use crate::spec::network::MTU_OPTION;

/// Driver of networks on a bridge of the node.
pub const BRIDGE_DRIVER: &str = "bridge";
/// Driver of networks on a link of the node.
pub const MACVLAN_DRIVER: &str = "macvlan";
/// Option with a bridge's name.
pub const BRIDGE_NAME_OPTION: &str = "com.docker.network.bridge.name";
const ICC_OPTION: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE_OPTION: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING_OPTION: &str = "com.docker.network.bridge.host_binding_ipv4";
const PARENT_OPTION: &str = "parent";
const MODE_OPTION: &str = "macvlan_mode";

/// Longest name of a link (`IFNAMSIZ` without the end mark).
const LINK_NAME_BYTES_MAX: usize = 15;
/// Least MTU that IPv4 knows (RFC 791).
const MTU_MIN: u32 = 68;
/// Largest MTU of a link.
const MTU_MAX: u32 = 65_535;

/// What a bridge network is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Name of the bridge; `None`: made of the network's id.
    pub name: Option<String>,
    /// Whether its containers may talk to one another.
    pub has_icc: bool,
    /// Whether packets that leave the node get the node's address.
    pub has_masquerade: bool,
    /// Address of the node on which its containers' ports are published; `None`: all.
    pub host_binding: Option<IpAddr>,
    /// Bytes; `None`: the kernel's.
    pub mtu: Option<u32>,
}

/// What a macvlan network is like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MacvlanOptions {
    /// Link of the node that it is on, or `<link>.<VLAN id>`; `None`: on none, so without a way out.
    pub parent: Option<String>,
    /// Who may talk to whom.
    pub mode: MacvlanMode,
    /// Bytes; `None`: the link's.
    pub mtu: Option<u32>,
}

/// Who may talk to whom on one link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MacvlanMode {
    /// All of them, directly.
    #[default]
    Bridge,
    /// None of them.
    Private,
    /// All of them, through the switch outside.
    Vepa,
    /// There is one, which has the link to itself.
    Passthru,
}

// === impl BridgeOptions ===

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            name: None,
            has_icc: true,
            has_masquerade: true,
            host_binding: None,
            mtu: None,
        }
    }
}

impl BridgeOptions {
    /// Reads driver options.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let (mut parsed, mut problems) = (Self::default(), Vec::new());
        for (key, text) in options {
            let read = match key.as_str() {
                BRIDGE_NAME_OPTION => link_name(key, text).map(|name| parsed.name = name),
                ICC_OPTION => switch(key, text).map(|is_on| parsed.has_icc = is_on),
                MASQUERADE_OPTION => switch(key, text).map(|is_on| parsed.has_masquerade = is_on),
                HOST_BINDING_OPTION => match text.parse::<IpAddr>() {
                    Ok(IpAddr::V4(ip)) => {
                        parsed.host_binding = (!ip.is_unspecified()).then_some(ip.into());
                        Ok(())
                    }
                    Ok(IpAddr::V6(_)) | Err(_) => Err(unreadable(key, text, "nil ip")),
                },
                MTU_OPTION => mtu(text).map(|mtu| parsed.mtu = mtu),
                _ => Err(unknown(key, BRIDGE_DRIVER)),
            };
            problems.extend(read.err());
        }
        if problems.is_empty() {
            Ok(parsed)
        } else {
            Err(problems)
        }
    }
}

// === impl MacvlanOptions ===

impl MacvlanOptions {
    /// Reads driver options.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let (mut parsed, mut problems) = (Self::default(), Vec::new());
        for (key, text) in options {
            let read = match key.as_str() {
                PARENT_OPTION if text == "lo" => {
                    Err("loopback interface is not a valid macvlan parent link".to_owned())
                }
                PARENT_OPTION => link_name(key, text).map(|name| parsed.parent = name),
                MODE_OPTION => MacvlanMode::parse(text).map(|mode| parsed.mode = mode),
                MTU_OPTION => mtu(text).map(|mtu| parsed.mtu = mtu),
                _ => Err(unknown(key, MACVLAN_DRIVER)),
            };
            problems.extend(read.err());
        }
        if problems.is_empty() {
            Ok(parsed)
        } else {
            Err(problems)
        }
    }
}

// === impl MacvlanMode ===

impl MacvlanMode {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "bridge" => Ok(Self::Bridge),
            "private" => Ok(Self::Private),
            "vepa" => Ok(Self::Vepa),
            "passthru" => Ok(Self::Passthru),
            _ => Err(format!(
                "requested macvlan mode '{text}' is not valid, 'bridge' mode is the macvlan driver default"
            )),
        }
    }
}

impl fmt::Display for MacvlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
        })
    }
}

fn link_name(key: &str, text: &str) -> Result<Option<String>, String> {
    let is_possible = |c: char| c.is_ascii_graphic() && !['/', ':'].contains(&c);
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > LINK_NAME_BYTES_MAX || !text.chars().all(is_possible) || text.starts_with('.') {
        return Err(format!(
            "invalid value for {key}: {text:?} cannot be the name of a link (1-{LINK_NAME_BYTES_MAX} \
             printable characters without blanks, slash and colon)"
        ));
    }
    Ok(Some(text.to_owned()))
}

/// As Go reads a truth value.
fn switch(key: &str, text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => {
            let reason = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
            Err(unreadable(key, text, &reason))
        }
    }
}

/// 0 is none, as in Docker.
fn mtu(text: &str) -> Result<Option<u32>, String> {
    match text.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(mtu) if (MTU_MIN..=MTU_MAX).contains(&mtu) => Ok(Some(mtu)),
        _ => Err(format!(
            "invalid value for {MTU_OPTION}: {text:?} (must be {MTU_MIN}-{MTU_MAX})"
        )),
    }
}

fn unreadable(key: &str, text: &str, reason: &str) -> String {
    format!("failed to parse {key} value: {text} ({reason})")
}

fn unknown(key: &str, driver: &str) -> String {
    format!("unknown option {key:?} of network driver {driver}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn options_of_a_bridge_are_read() {
        let parsed = BridgeOptions::parse(&options(&[
            (BRIDGE_NAME_OPTION, "br7"),
            (ICC_OPTION, "false"),
            (MASQUERADE_OPTION, "0"),
            (HOST_BINDING_OPTION, "192.0.2.1"),
            (MTU_OPTION, "1400"),
        ]));
        let expected = BridgeOptions {
            name: Some("br7".to_owned()),
            has_icc: false,
            has_masquerade: false,
            host_binding: Some([192, 0, 2, 1].into()),
            mtu: Some(1400),
        };
        assert_eq!(parsed, Ok(expected));
        assert_eq!(
            BridgeOptions::parse(&options(&[])),
            Ok(BridgeOptions::default())
        );
    }

    #[test]
    fn all_that_is_wrong_with_options_is_told() {
        let problems = BridgeOptions::parse(&options(&[
            (BRIDGE_NAME_OPTION, "a bridge"),
            (ICC_OPTION, "maybe"),
            (HOST_BINDING_OPTION, "here"),
            (MTU_OPTION, "67"),
            ("parent", "eth0"),
        ]));
        let expected = [
            "failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: \
             parsing \"maybe\": invalid syntax)",
            "failed to parse com.docker.network.bridge.host_binding_ipv4 value: here (nil ip)",
            "invalid value for com.docker.network.bridge.name: \"a bridge\" cannot be the name of a link \
             (1-15 printable characters without blanks, slash and colon)",
            "invalid value for com.docker.network.driver.mtu: \"67\" (must be 68-65535)",
            "unknown option \"parent\" of network driver bridge",
        ];
        assert_eq!(problems.unwrap_err(), expected);
    }

    #[test]
    fn options_of_a_macvlan_are_read() {
        let parse = |pairs: &[(&str, &str)]| MacvlanOptions::parse(&options(pairs));
        let parsed = parse(&[(PARENT_OPTION, "eth0.7"), (MODE_OPTION, "vepa")]).unwrap();
        assert_eq!(parsed.parent.as_deref(), Some("eth0.7"));
        assert_eq!(parsed.mode, MacvlanMode::Vepa);
        assert_eq!(
            parse(&[(PARENT_OPTION, "lo"), (MODE_OPTION, "odd")]).unwrap_err(),
            [
                "requested macvlan mode 'odd' is not valid, 'bridge' mode is the macvlan driver default",
                "loopback interface is not a valid macvlan parent link",
            ]
        );
    }
}
