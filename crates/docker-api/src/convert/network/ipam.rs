//! Wishes for addresses of a network: read, and checked with the texts of Docker, all problems at once.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use skep_model::{AddressFamily, DEFAULT_IPAM_DRIVER, Driver, IpamConfig, IpamOptions};

use crate::{
    dto::network as dto,
    error::{ApiError, Result},
};

/// Refuses subnets, ranges and addresses that do not fit each other. IPv6 subnets of a network
/// without IPv6 are not looked at, as in Docker.
pub(crate) fn check_ipam(ipam: &dto::Ipam, has_ipv6: bool) -> Result<()> {
    let mut problems = Vec::new();
    for config in ipam.config.iter().flatten() {
        let Ok(subnet) = config.subnet.parse::<IpNet>() else {
            let text = &config.subnet;
            problems.push(format!(
                "invalid subnet {text}: invalid CIDR block notation"
            ));
            continue;
        };
        if has_ipv6 || subnet.addr().is_ipv4() {
            check_config(config, subnet, &mut problems);
        }
    }
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(ApiError::invalid(format!("invalid network config:\n{one}"))),
        many => {
            let list = many.join("\n* ");
            Err(ApiError::invalid(format!(
                "invalid network config:\n* {list}"
            )))
        }
    }
}

fn check_config(config: &dto::IpamConfig, subnet: IpNet, problems: &mut Vec<String>) {
    if subnet != subnet.trunc() {
        let right = subnet.trunc();
        problems.push(format!("invalid subnet {subnet}: it should be {right}"));
    }
    check_range(&config.ip_range, subnet, problems);
    if let Err(problem) = check_address(&config.gateway, subnet) {
        problems.push(format!("invalid gateway {}: {problem}", config.gateway));
    }
    for (name, address) in &config.auxiliary_addresses {
        if let Err(problem) = check_address(address, subnet) {
            problems.push(format!("invalid auxiliary address {name}: {problem}"));
        }
    }
}

fn check_range(text: &str, subnet: IpNet, problems: &mut Vec<String>) {
    if text.is_empty() {
        return;
    }
    let mut push = |problem: String| problems.push(format!("invalid ip-range {text}: {problem}"));
    let Ok(range) = text.parse::<IpNet>() else {
        return push("invalid CIDR block notation".to_owned());
    };
    if range.addr().is_ipv4() != subnet.addr().is_ipv4() {
        return push(format!("parent subnet is an {} block", family(subnet)));
    }
    if range.prefix_len() < subnet.prefix_len() {
        push(format!(
            "CIDR block is bigger than its parent subnet {subnet}"
        ));
    }
    if range != range.trunc() {
        push(format!("it should be {}", range.trunc()));
    }
    if !subnet.contains(&range.addr()) && !range.contains(&subnet.addr()) {
        push(format!("parent subnet {subnet} doesn't contain ip-range"));
    }
}

fn check_address(text: &str, subnet: IpNet) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err("invalid address".to_owned());
    };
    if address.is_ipv4() != subnet.addr().is_ipv4() {
        return Err(format!("parent subnet is an {} block", family(subnet)));
    }
    if !subnet.contains(&address) {
        return Err(format!(
            "parent subnet {subnet} doesn't contain this address"
        ));
    }
    Ok(())
}

fn family(subnet: IpNet) -> &'static str {
    if subnet.addr().is_ipv4() {
        "IPv4"
    } else {
        "IPv6"
    }
}

impl TryFrom<dto::Ipam> for IpamOptions {
    type Error = ApiError;

    fn try_from(ipam: dto::Ipam) -> Result<Self> {
        let name = match ipam.driver.as_str() {
            "" => DEFAULT_IPAM_DRIVER.to_owned(),
            _ => ipam.driver,
        };
        let configs = ipam.config.unwrap_or_default().into_iter();
        Ok(Self {
            driver: Some(Driver {
                name,
                options: ipam.options.unwrap_or_default(),
            }),
            configs: configs.map(TryInto::try_into).collect::<Result<_>>()?,
        })
    }
}

impl TryFrom<dto::IpamConfig> for IpamConfig {
    type Error = ApiError;

    fn try_from(config: dto::IpamConfig) -> Result<Self> {
        let reserved = config.auxiliary_addresses.iter().map(|(name, text)| {
            let ip = text
                .parse()
                .map_err(|_| malformed("auxiliary address", text))?;
            Ok((name.clone(), ip))
        });
        Ok(Self {
            family: AddressFamily::Unknown,
            subnet: parse("subnet", &config.subnet)?,
            range: parse("range", &config.ip_range)?,
            gateway: parse("gateway", &config.gateway)?,
            reserved: reserved.collect::<Result<BTreeMap<_, _>>>()?,
        })
    }
}

/// A value that may be absent; empty text is none.
fn parse<T: FromStr>(what: &str, text: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| malformed(what, text))
}

/// As the leader would say it.
fn malformed(what: &str, text: &str) -> ApiError {
    ApiError::invalid(format!(
        "rpc error: code = InvalidArgument desc = ipam configuration: invalid {what} {text}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        let ipam: dto::Ipam = serde_json::from_str(json).unwrap();
        let message =
            check_ipam(&ipam, true).map_or_else(|error| error.message, |()| String::new());
        assert_eq!(message, expected);
    }

    #[test]
    fn what_fits_is_accepted() {
        check("{}", "");
        check(
            r#"{"Config":[{"Subnet":"10.1.0.0/16","IPRange":"10.1.2.0/24","Gateway":"10.1.0.1",
                "AuxiliaryAddresses":{"host":"10.1.2.3"}},{"Subnet":"fd00::/64"}]}"#,
            "",
        );
    }

    #[test]
    fn one_problem_is_told_in_dockers_words() {
        for (config, expected) in [
            (
                r#""Subnet":"10.1.0.0""#,
                "invalid subnet 10.1.0.0: invalid CIDR block notation",
            ),
            (
                r#""Subnet":"10.1.0.9/24""#,
                "invalid subnet 10.1.0.9/24: it should be 10.1.0.0/24",
            ),
            (
                r#""Subnet":"10.1.0.0/24","Gateway":"10.2.0.1""#,
                "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address",
            ),
            (
                r#""Subnet":"10.1.0.0/24","Gateway":"fd00::1""#,
                "invalid gateway fd00::1: parent subnet is an IPv4 block",
            ),
            (
                r#""Subnet":"10.1.0.0/24","IPRange":"10.0.0.0/8""#,
                "invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.1.0.0/24",
            ),
            (
                r#""Subnet":"10.1.0.0/24","AuxiliaryAddresses":{"a":"x"}"#,
                "invalid auxiliary address a: invalid address",
            ),
        ] {
            let expected = format!("invalid network config:\n{expected}");
            check(&format!("{{\"Config\":[{{{config}}}]}}"), &expected);
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        check(
            r#"{"Config":[{"Subnet":"10.1.0.0/24","IPRange":"10.2.0.1/25","Gateway":"10.3.0.1"}]}"#,
            "invalid network config:\n* invalid ip-range 10.2.0.1/25: it should be 10.2.0.0/25\n\
             * invalid ip-range 10.2.0.1/25: parent subnet 10.1.0.0/24 doesn't contain ip-range\n\
             * invalid gateway 10.3.0.1: parent subnet 10.1.0.0/24 doesn't contain this address",
        );
    }
}
