//! Ports: `[[IP:]PUBLISHED:]TARGET[/PROTOCOL]`, where PUBLISHED and TARGET may be ranges, becomes one mapping for each port.

use std::net::IpAddr;

use crate::{
    node::{Mapping, Node, Value, insert},
    project::{Port, Protocol, PublishMode},
    word::Word,
};

/// Ports of one entry: all there are. Each becomes a value of its own.
const RANGE_MAX: usize = 1 << 16;

/// The ports an entry stands for, in Docker's order.
pub(super) fn expand(item: &Node) -> Result<Vec<Node>, String> {
    match &item.value {
        Value::Text(text) => short(text, item),
        Value::Int(number) => short(&number.to_string(), item),
        Value::Map(map) => long(map, item),
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) => {
            Err(format!("expected a port, not {}", item.kind()))
        }
    }
}

fn short(text: &str, item: &Node) -> Result<Vec<Node>, String> {
    let (addresses, protocol) = match text.split_once('/') {
        Some((addresses, protocol)) => (addresses, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    let protocol = Protocol::parse(&protocol).ok_or_else(|| {
        format!(
            "protocol `{protocol}` of port `{text}` is not {}",
            Protocol::list()
        )
    })?;
    let (rest, target) = addresses.rsplit_once(':').unwrap_or(("", addresses));
    let (host_ip, published) = rest.rsplit_once(':').unwrap_or(("", rest));
    let host_ip = host_ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(host_ip);
    if !host_ip.is_empty() && host_ip.parse::<IpAddr>().is_err() {
        return Err(format!("`{host_ip}` in port `{text}` is no address"));
    }
    let targets = range(target)
        .ok_or_else(|| format!("`{target}` in port `{text}` is no port or range of ports"))?;
    let published = match published {
        "" => None,
        published => {
            let ports = range(published);
            Some(ports.ok_or_else(|| {
                format!("`{published}` in port `{text}` is no port or range of ports")
            })?)
        }
    };
    let pairs = pair(&targets, published.as_deref())
        .ok_or_else(|| format!("the ranges of port `{text}` have different lengths"))?;
    let port = Port {
        protocol,
        mode: PublishMode::Ingress,
        host_ip: (!host_ip.is_empty()).then(|| host_ip.to_owned()),
        ..Port::default()
    };
    let nodes = pairs.into_iter().map(|(target, published)| {
        let port = Port {
            target,
            published,
            ..port.clone()
        };
        mapping(&port, item)
    });
    Ok(nodes.collect())
}

/// A mapping whose `published` is a range stands for several; a text of digits becomes a number.
fn long(map: &Mapping, item: &Node) -> Result<Vec<Node>, String> {
    let mut node = item.clone();
    if let Some(Value::Text(text)) = map.get("target").map(|entry| &entry.node.value)
        && let Ok(target) = text.parse::<u16>()
        && let Some(node) = node.get_mut("target")
    {
        node.value = Value::Int(target.into());
    }
    let Some(Value::Text(text)) = map.get("published").map(|entry| &entry.node.value) else {
        return Ok(vec![node]);
    };
    let ports = range(text).ok_or_else(|| format!("`{text}` is no port or range of ports"))?;
    let nodes = ports.into_iter().map(|port| {
        let mut node = node.clone();
        if let Some(published) = node.get_mut("published") {
            published.value = Value::Int(port.into());
        }
        node
    });
    Ok(nodes.collect())
}

/// `N` or `N-M`.
fn range(text: &str) -> Option<Vec<u16>> {
    let port = |text: &str| {
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        is_digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let Some((first, last)) = text.split_once('-') else {
        return Some(vec![port(text).filter(|&port| port > 0)?]);
    };
    let (first, last) = (port(first).filter(|&port| port > 0)?, port(last)?);
    let ports: Vec<u16> = (first..=last).take(RANGE_MAX).collect();
    (!ports.is_empty()).then_some(ports)
}

/// Which target is published as which port. One target may have several; Docker sorts targets as texts.
fn pair(targets: &[u16], published: Option<&[u16]>) -> Option<Vec<(u16, Option<u16>)>> {
    let mut pairs: Vec<(u16, Option<u16>)> = match (targets, published) {
        (targets, None) => targets.iter().map(|&target| (target, None)).collect(),
        (&[target], Some(published)) => {
            let pairs = published.iter().map(|&port| (target, Some(port)));
            return Some(pairs.collect());
        }
        (targets, Some(published)) if targets.len() == published.len() => {
            let published = published.iter().copied().map(Some);
            targets.iter().copied().zip(published).collect()
        }
        _ => return None,
    };
    pairs.sort_by_key(|(target, _)| target.to_string());
    Some(pairs)
}

fn mapping(port: &Port, item: &Node) -> Node {
    let node = |value| Node::new(item.place.clone(), value);
    let mut map = Mapping::new();
    insert(
        &mut map,
        "mode",
        node(Value::Text(port.mode.as_str().to_owned())),
    );
    insert(
        &mut map,
        "protocol",
        node(Value::Text(port.protocol.as_str().to_owned())),
    );
    insert(&mut map, "target", node(Value::Int(port.target.into())));
    if let Some(published) = port.published {
        insert(&mut map, "published", node(Value::Int(published.into())));
    }
    if let Some(host_ip) = &port.host_ip {
        insert(&mut map, "host_ip", node(Value::Text(host_ip.clone())));
    }
    Node {
        edit: item.edit,
        ..node(Value::Map(map))
    }
}
