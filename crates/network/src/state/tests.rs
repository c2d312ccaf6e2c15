//! The state file: what old versions wrote is read for ever, and damage is refused.

use super::*;
use crate::ports::Protocol;

/// Written by versions 1 and 2; never change them.
const GOLDEN_1: &str = include_str!("golden-1.json");
const GOLDEN_2: &str = include_str!("golden-2.json");

fn golden() -> State {
    let port = |host_ip: [u8; 4]| HostPort {
        protocol: Protocol::Tcp,
        host_ip: host_ip.into(),
        published: 8080,
        target: 80,
    };
    let attached = EndpointState {
        address: Some([10, 255, 0, 2].into()),
        address6: None,
        ports: vec![port([0, 0, 0, 0]), port([127, 0, 0, 1])],
    };
    let none = EndpointState {
        address: None,
        address6: None,
        ports: Vec::new(),
    };
    let endpoints = [("web".to_owned(), attached), ("batch".to_owned(), none)];
    let read = State::new([10, 255, 0, 2].into(), None, endpoints.into());
    State { version: 1, ..read }
}

/// What came with version 2.
fn golden_2() -> State {
    let mut state = golden();
    state.version = 2;
    state.layout = Some(Layout {
        v4: "10.255.0.0/24".parse().unwrap(),
        v6: Some("fd00:7::/64".parse().unwrap()),
        is_shared: true,
        mtu: 1450,
    });
    let web = state.endpoints.get_mut("web").unwrap();
    web.address6 = Some("fd00:7::2".parse().unwrap());
    state
}

fn loads(text: &str) -> Result<State, StateError> {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("state.json"), text).unwrap();
    StateDir::open(root.path()).unwrap().load()
}

#[test]
fn a_file_of_version_1_is_read() {
    assert_eq!(loads(GOLDEN_1).unwrap(), golden());
}

#[test]
fn what_is_saved_is_loaded_and_is_version_2() {
    let root = tempfile::tempdir().unwrap();
    let dir = StateDir::open(root.path()).unwrap();
    assert_eq!(dir.load().unwrap(), State::default());
    dir.save(&golden_2()).unwrap();
    assert_eq!(dir.load().unwrap(), golden_2());
    assert_eq!(fs::read_to_string(dir.path()).unwrap(), GOLDEN_2.trim_end());
}

#[test]
fn damaged_and_newer_files_are_refused() {
    assert!(matches!(loads("{"), Err(StateError::Damaged { .. })));
    assert!(matches!(loads(""), Err(StateError::Damaged { .. })));
    let newer = r#"{"version":3,"cursor":null,"endpoints":{}}"#;
    assert!(matches!(loads(newer), Err(StateError::Version(3))));
}

#[test]
fn a_directory_has_one_owner() {
    let root = tempfile::tempdir().unwrap();
    let first = StateDir::open(root.path()).unwrap();
    assert!(matches!(
        StateDir::open(root.path()),
        Err(StateError::Locked(_))
    ));
    drop(first);
    StateDir::open(root.path()).unwrap();
}
