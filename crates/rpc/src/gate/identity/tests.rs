//! Forwarded identity: only managers may speak for others, and nothing ambiguous counts.

use skep_model::{ClusterId, NodeId, Rng};

use super::*;

fn subject(role: Role) -> Subject {
    let mut rng = Rng::from_seed(7);
    Subject {
        node_id: NodeId::random(&mut rng),
        role,
        cluster_id: ClusterId::random(&mut rng),
    }
}

fn spoken_for(subject: Option<Subject>) -> HeaderMap {
    let caller = Caller {
        subject,
        addr: "192.0.2.9:5000".to_owned(),
        is_forwarded: false,
    };
    let mut headers = HeaderMap::new();
    speak_for(&caller, &mut headers);
    headers
}

#[test]
fn what_one_manager_writes_another_reads() {
    let manager = subject(Role::Manager);
    for role in [Role::Worker, Role::Manager] {
        let caller = subject(role);
        let read = forwarded(&spoken_for(Some(caller)), Some(&manager));
        let read = read.unwrap().unwrap();
        assert_eq!(read.subject, Some(caller));
        assert_eq!(read.addr.as_deref(), Some("192.0.2.9:5000"));
    }
}

#[test]
fn a_caller_without_certificate_stays_one_when_passed_on() {
    let manager = subject(Role::Manager);
    let headers = spoken_for(None);
    assert_eq!(headers.get(COMMON_NAME).unwrap(), "");
    let read = forwarded(&headers, Some(&manager)).unwrap().unwrap();
    assert_eq!(read.subject, None);
}

#[test]
fn nobody_but_a_manager_speaks_for_others() {
    let headers = spoken_for(Some(subject(Role::Manager)));
    let worker = subject(Role::Worker);
    assert_eq!(
        forwarded(&headers, Some(&worker)).unwrap_err(),
        Reason::Spoofed
    );
    assert_eq!(forwarded(&headers, None).unwrap_err(), Reason::Spoofed);
    for name in ALL {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static("x"));
        let refused = forwarded(&headers, Some(&worker)).unwrap_err();
        assert_eq!(refused, Reason::Spoofed, "{name}");
    }
}

#[test]
fn ambiguous_metadata_is_refused_also_from_a_manager() {
    let manager = subject(Role::Manager);
    let spoil: [fn(&mut HeaderMap); 6] = [
        |headers| assert!(headers.append(FORWARDED, HeaderValue::from_static("true"))),
        |headers| drop(headers.insert(FORWARDED, HeaderValue::from_static("false"))),
        |headers| drop(headers.remove(FORWARDED)),
        |headers| assert!(headers.append(COMMON_NAME, HeaderValue::from_static("x"))),
        |headers| drop(headers.insert(UNIT, HeaderValue::from_static("swarm-boss"))),
        |headers| drop(headers.insert(COMMON_NAME, HeaderValue::from_static(""))),
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let mut headers = spoken_for(Some(subject(Role::Worker)));
        spoil(&mut headers);
        let refused = forwarded(&headers, Some(&manager)).unwrap_err();
        assert_eq!(refused, Reason::Malformed, "{number}");
    }
}

#[test]
fn a_call_without_metadata_is_the_callers_own() {
    assert!(forwarded(&HeaderMap::new(), None).unwrap().is_none());
}
