//! What a query gets. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Zone, fold};
use super::{TTL_SECONDS, View};

/// Largest answer by datagram to a client that says nothing about it (RFC 1035).
const PLAIN_BYTES_MAX: usize = 512;

/// What we say we take by datagram: what fits into any network's packets (DNS flag day 2020).
const EDNS_BYTES: u16 = 1232;

/// Largest answer by stream: its length has two bytes.
pub(crate) const STREAM_BYTES_MAX: usize = 65_535;

/// Bytes of a message's header.
const HEADER_BYTES: usize = 12;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Datagram,
    Stream,
}

/// What to do with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Send these bytes.
    Reply(Vec<u8>),
    /// Ask an upstream server; if none answers send these bytes.
    Forward(Vec<u8>),
    /// Nothing: it is no query.
    Silence,
}

/// What a name is to us.
enum Found {
    Records(Vec<Record>, Vec<Record>),
    /// Ours, but there is no such name.
    Nowhere,
    /// Not ours.
    Unknown,
}

/// Answers a query. `turn` says which of several addresses comes first.
pub(crate) fn answer(view: &View, query: &[u8], transport: Transport, turn: usize) -> Answer {
    let Ok(message) = Message::from_vec(query) else {
        return malformed(query);
    };
    if message.metadata.message_type != MessageType::Query {
        return Answer::Silence;
    }
    let reply = |code| Reply::new(&message, transport).finish(code);
    if message.metadata.op_code != OpCode::Query {
        return Answer::Reply(reply(ResponseCode::NotImp));
    }
    let [question] = message.queries.as_slice() else {
        return Answer::Reply(reply(ResponseCode::FormErr));
    };
    if question.query_class() != DNSClass::IN {
        return Answer::Reply(reply(ResponseCode::NotImp));
    }
    match find(view, question, turn) {
        Found::Records(answers, additionals) => {
            let mut reply = Reply::new(&message, transport);
            reply.message.add_answers(answers);
            reply.message.add_additionals(additionals);
            Answer::Reply(reply.finish(ResponseCode::NoError))
        }
        Found::Nowhere => Answer::Reply(reply(ResponseCode::NXDomain)),
        Found::Unknown if view.upstreams.is_empty() => Answer::Reply(reply(ResponseCode::NXDomain)),
        Found::Unknown => Answer::Forward(reply(ResponseCode::ServFail)),
    }
}

fn find(view: &View, question: &Query, turn: usize) -> Found {
    let name = fold(&question.name().to_ascii());
    match question.query_type() {
        RecordType::PTR => find_reverse(view, question),
        RecordType::SRV if view.zones.iter().any(|zone| zone.targets(&name).is_some()) => {
            let zone = view.zones.iter().find(|zone| zone.targets(&name).is_some());
            zone.map_or(Found::Unknown, |zone| {
                services(zone, question.name(), &name, turn)
            })
        }
        kind => {
            let mut zones = view.zones.iter();
            let Some(addresses) = zones.find_map(|zone| zone.addresses(&name)) else {
                return Found::Unknown;
            };
            let mut records: Vec<Record> = addresses
                .iter()
                .filter(|ip| record_type(**ip) == kind || kind == RecordType::ANY)
                .map(|&ip| address_record(question.name(), ip))
                .collect();
            rotate(&mut records, turn);
            Found::Records(records, Vec::new())
        }
    }
}

fn find_reverse(view: &View, question: &Query) -> Found {
    let Ok(net) = question.name().parse_arpa_name() else {
        return Found::Unknown;
    };
    let address = net.addr();
    if net.prefix_len() != net.max_prefix_len() {
        return Found::Unknown;
    }
    let mut zones = view.zones.iter();
    if let Some(name) = zones.find_map(|zone| zone.name_of(address)) {
        let Ok(target) = Name::from_ascii(format!("{name}.")) else {
            return Found::Nowhere;
        };
        let record = record(question.name(), RData::PTR(PTR(target)));
        return Found::Records(vec![record], Vec::new());
    }
    if view.zones.iter().any(|zone| zone.owns(address)) {
        return Found::Nowhere;
    }
    Found::Unknown
}

fn services(zone: &Zone, owner: &Name, name: &str, turn: usize) -> Found {
    let (mut answers, mut additionals) = (Vec::new(), Vec::new());
    for (task, port) in zone.targets(name).into_iter().flatten() {
        let Ok(target) = Name::from_ascii(format!("{task}.")) else {
            continue;
        };
        let addresses = zone.addresses(task).into_iter().flatten();
        additionals.extend(addresses.map(|&ip| address_record(&target, ip)));
        answers.push(record(owner, RData::SRV(SRV::new(0, 0, *port, target))));
    }
    rotate(&mut answers, turn);
    Found::Records(answers, additionals)
}

fn rotate(records: &mut [Record], turn: usize) {
    if !records.is_empty() {
        records.rotate_left(turn % records.len());
    }
}

fn record_type(address: IpAddr) -> RecordType {
    if address.is_ipv4() {
        RecordType::A
    } else {
        RecordType::AAAA
    }
}

fn address_record(owner: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    record(owner, data)
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TTL_SECONDS, data)
}

/// Says that a query cannot be read, if its sender can be told.
fn malformed(query: &[u8]) -> Answer {
    let is_response = query.get(2).is_none_or(|flags| flags & 0x80 != 0);
    let Some(&[high, low]) = query
        .first_chunk()
        .filter(|_| !is_response && query.len() >= HEADER_BYTES)
    else {
        return Answer::Silence;
    };
    let id = u16::from_be_bytes([high, low]);
    let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    message.to_vec().map_or(Answer::Silence, Answer::Reply)
}

/// A reply being made.
struct Reply {
    message: Message,
    bytes_max: usize,
}

// === impl Reply ===

impl Reply {
    fn new(query: &Message, transport: Transport) -> Reply {
        let mut message = Message::response(query.metadata.id, query.metadata.op_code);
        message.metadata.recursion_desired = query.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.authoritative = true;
        message.add_queries(query.queries.iter().cloned());
        let mut bytes_max = PLAIN_BYTES_MAX;
        if let Some(edns) = &query.edns {
            bytes_max =
                usize::from(edns.max_payload()).clamp(PLAIN_BYTES_MAX, usize::from(EDNS_BYTES));
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_BYTES);
            message.set_edns(edns);
        }
        if transport == Transport::Stream {
            bytes_max = STREAM_BYTES_MAX;
        }
        Reply { message, bytes_max }
    }

    /// The reply's bytes. What does not fit is left out and the client told to ask by stream: additional records first, then
    /// answers from the end, because some clients use what they get.
    fn finish(mut self, code: ResponseCode) -> Vec<u8> {
        self.message.metadata.response_code = code;
        loop {
            // What was read and looked up can be written; an empty answer is none.
            let bytes = self.message.to_vec().unwrap_or_default();
            if bytes.len() <= self.bytes_max {
                return bytes;
            }
            if self.message.additionals.is_empty() {
                self.message.metadata.truncation = true;
                let count = self.message.answers.len();
                let fitting = count * self.bytes_max / bytes.len();
                self.message
                    .answers
                    .truncate(fitting.min(count.saturating_sub(1)));
            } else {
                self.message.additionals.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
