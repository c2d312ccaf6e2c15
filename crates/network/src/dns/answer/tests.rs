//! Queries against a zone, without sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::dns::zone::{PortName, ServiceNames, TaskNames};
use crate::dns::{From, Upstream};
use crate::ports::Protocol;

fn task(name: &str, slot: u64, addresses: &[&str]) -> TaskNames {
    TaskNames {
        names: vec![name.to_owned(), format!("{name}-alias")],
        slot: Some(slot),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

fn view() -> View {
    let mut zone = Zone::new(
        "Shop",
        vec![
            "10.0.1.0/24".parse().unwrap(),
            "fd00:1::/64".parse().unwrap(),
        ],
    );
    zone.add(&ServiceNames {
        name: "Web".to_owned(),
        aliases: vec!["www".to_owned()],
        vips: vec![[10, 0, 1, 100].into(), "fd00:1::100".parse().unwrap()],
        tasks: vec![
            task("web.1.abc", 1, &["10.0.1.2"]),
            task("web.2.def", 2, &["10.0.1.3"]),
        ],
        ports: vec![PortName {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
    });
    zone.add(&ServiceNames {
        name: "db".to_owned(),
        tasks: vec![
            task("db.1.ghi", 1, &["10.0.1.4", "fd00:1::4"]),
            task("db.2.jkl", 2, &["10.0.1.5"]),
        ],
        ..ServiceNames::default()
    });
    zone.add(&ServiceNames {
        name: "empty".to_owned(),
        ..ServiceNames::default()
    });
    let mut other = Zone::new("back", vec!["10.0.2.0/24".parse().unwrap()]);
    other.add(&ServiceNames {
        name: "web".to_owned(),
        vips: vec![[10, 0, 2, 100].into()],
        ..ServiceNames::default()
    });
    View {
        zones: vec![Arc::new(zone), Arc::new(other)],
        upstreams: Vec::new(),
    }
}

fn with_upstream() -> View {
    let upstreams = vec![Upstream {
        server: SocketAddr::from(([192, 0, 2, 53], 53)),
        from: From::Node,
    }];
    View {
        upstreams,
        ..view()
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn reply(view: &View, query: &Message, transport: Transport, turn: usize) -> Message {
    match answer(view, &query.to_vec().unwrap(), transport, turn) {
        Answer::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The answer in words: its code and data, one after the other.
fn words(message: &Message) -> String {
    let data = message.answers.iter().map(|record| record.data.to_string());
    let words = std::iter::once(message.metadata.response_code.to_string()).chain(data);
    words.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(name: &str, kind: RecordType, expect: &str) {
    let reply = reply(&view(), &query(name, kind), Transport::Datagram, 0);
    assert_eq!(reply.metadata.id, 7);
    assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
    assert_eq!(words(&reply), expect, "{name} {kind}");
}

#[test]
fn names_lead_to_addresses() {
    check("web.", RecordType::A, "No Error 10.0.1.100");
    check("WEB.", RecordType::A, "No Error 10.0.1.100");
    check("web.", RecordType::AAAA, "No Error fd00:1::100");
    check("www.", RecordType::A, "No Error 10.0.1.100");
    check("web.shop.", RecordType::A, "No Error 10.0.1.100");
    check("web.back.", RecordType::A, "No Error 10.0.2.100");
    check("tasks.web.", RecordType::A, "No Error 10.0.1.2 10.0.1.3");
    check(
        "tasks.web.shop.",
        RecordType::A,
        "No Error 10.0.1.2 10.0.1.3",
    );
    check("2.web.", RecordType::A, "No Error 10.0.1.3");
    check("web.1.abc.", RecordType::A, "No Error 10.0.1.2");
    check("web.1.abc-alias.", RecordType::A, "No Error 10.0.1.2");
    check("db.", RecordType::A, "No Error 10.0.1.4 10.0.1.5");
    check("db.", RecordType::AAAA, "No Error fd00:1::4");
}

#[test]
fn a_name_without_such_records_exists_all_the_same() {
    check("2.db.", RecordType::AAAA, "No Error");
    check("web.", RecordType::MX, "No Error");
    check("empty.", RecordType::A, "No Error");
    check("tasks.empty.", RecordType::A, "No Error");
}

#[test]
fn what_nobody_knows_does_not_exist() {
    check("nobody.", RecordType::A, "Non-Existent Domain");
    check("3.web.", RecordType::A, "Non-Existent Domain");
    check("example.org.", RecordType::AAAA, "Non-Existent Domain");
}

#[test]
fn addresses_lead_to_names() {
    check(
        "2.1.0.10.in-addr.arpa.",
        RecordType::PTR,
        "No Error web.1.abc.shop.",
    );
    check(
        "100.1.0.10.in-addr.arpa.",
        RecordType::PTR,
        "No Error web.shop.",
    );
    check(
        "100.2.0.10.in-addr.arpa.",
        RecordType::PTR,
        "No Error web.back.",
    );
    // fd00:1::4 in nibbles, last first.
    let nibbles = format!("4{}{}{}{}", "0".repeat(23), "1000", "00df", "");
    assert_eq!(nibbles.len(), 32);
    let labels: Vec<String> = nibbles.chars().map(String::from).collect();
    let name = format!("{}.ip6.arpa.", labels.join("."));
    check(&name, RecordType::PTR, "No Error db.1.ghi.shop.");
    check(
        "99.1.0.10.in-addr.arpa.",
        RecordType::PTR,
        "Non-Existent Domain",
    );
}

#[test]
fn named_ports_lead_to_tasks_with_their_addresses() {
    let reply = reply(
        &view(),
        &query("_http._tcp.web.", RecordType::SRV),
        Transport::Datagram,
        0,
    );
    assert_eq!(
        words(&reply),
        "No Error 0 0 8080 web.1.abc. 0 0 8080 web.2.def."
    );
    let glue: Vec<String> = reply
        .additionals
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    assert_eq!(glue, ["10.0.1.2", "10.0.1.3"]);
    check("_ftp._tcp.web.", RecordType::SRV, "Non-Existent Domain");
}

#[test]
fn with_upstream_servers_only_foreign_names_are_forwarded() {
    let view = with_upstream();
    let is_forwarded = |name: &str, kind| {
        let query = query(name, kind).to_vec().unwrap();
        matches!(
            answer(&view, &query, Transport::Datagram, 0),
            Answer::Forward(_)
        )
    };
    assert!(is_forwarded("example.org.", RecordType::A));
    assert!(is_forwarded("nobody.", RecordType::A));
    assert!(is_forwarded("1.2.0.192.in-addr.arpa.", RecordType::PTR));
    assert!(is_forwarded("_ldap._tcp.example.org.", RecordType::SRV));
    assert!(!is_forwarded("web.", RecordType::AAAA));
    assert!(!is_forwarded("empty.", RecordType::A));
    assert!(!is_forwarded("99.1.0.10.in-addr.arpa.", RecordType::PTR));
}

#[test]
fn several_addresses_take_turns() {
    let firsts: Vec<String> = (0..4)
        .map(|turn| {
            let reply = reply(
                &view(),
                &query("tasks.web.", RecordType::A),
                Transport::Datagram,
                turn,
            );
            reply.answers[0].data.to_string()
        })
        .collect();
    assert_eq!(firsts, ["10.0.1.2", "10.0.1.3", "10.0.1.2", "10.0.1.3"]);
}

#[test]
fn what_does_not_fit_is_cut_and_asked_for_by_stream() {
    let mut zone = Zone::new("big", Vec::new());
    zone.add(&ServiceNames {
        name: "many".to_owned(),
        tasks: (1..=250)
            .map(|n| task(&format!("many.{n}"), n, &[&format!("10.0.9.{n}")]))
            .collect(),
        ..ServiceNames::default()
    });
    let view = View {
        zones: vec![Arc::new(zone)],
        upstreams: Vec::new(),
    };
    let mut query = query("many.", RecordType::A);
    let plain = reply(&view, &query, Transport::Datagram, 0);
    assert!(
        plain.metadata.truncation && plain.answers.len() >= 25,
        "{}",
        plain.answers.len()
    );
    assert!(plain.to_vec().unwrap().len() <= 512);
    let whole = reply(&view, &query, Transport::Stream, 0);
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 250);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    query.set_edns(edns);
    let large = reply(&view, &query, Transport::Datagram, 0);
    assert!(large.metadata.truncation && large.answers.len() > 60);
    assert!(large.to_vec().unwrap().len() <= 1232);
    assert_eq!(large.max_payload(), 1232);
}

#[test]
fn what_is_no_proper_query_is_told_so() {
    let mut update = query("web.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    // An update's sections are read otherwise, so it may not even be readable.
    let outcome = answer(&view(), &update.to_vec().unwrap(), Transport::Datagram, 0);
    assert!(matches!(outcome, Answer::Reply(_)));
    let mut two = query("web.", RecordType::A);
    two.add_query(Query::query(Name::root(), RecordType::A));
    assert_eq!(
        words(&reply(&view(), &two, Transport::Datagram, 0)),
        "Form Error"
    );
    let mut chaos = query("web.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(
        words(&reply(&view(), &chaos, Transport::Datagram, 0)),
        "Not Implemented"
    );
    let mut response = query("web.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let bytes = response.to_vec().unwrap();
    assert_eq!(
        answer(&view(), &bytes, Transport::Datagram, 0),
        Answer::Silence
    );
    assert_eq!(
        answer(&view(), &[1, 2, 3], Transport::Datagram, 0),
        Answer::Silence
    );
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), flip in any::<prop::sample::Index>()) {
        let _ = answer(&view(), &bytes, Transport::Datagram, 3);
        let mut query = query("tasks.web.shop.", RecordType::A).to_vec().unwrap();
        let at = flip.index(query.len());
        query[at] ^= bytes.first().copied().unwrap_or(0x55);
        if let Answer::Reply(reply) = answer(&view(), &query, Transport::Datagram, 3) {
            prop_assert_eq!(&reply[..2], &query[..2]);
            prop_assert!(reply.len() <= 1232);
        }
    }
}
