//! The state file: what version 1 wrote is read for ever, and damage is refused.

use super::*;
use crate::ports::Protocol;

/// Written by version 1; never change it.
const GOLDEN: &str = include_str!("golden-1.json");

fn golden() -> State {
    let port = |host_ip: [u8; 4]| HostPort {
        protocol: Protocol::Tcp,
        host_ip: host_ip.into(),
        published: 8080,
        target: 80,
    };
    let attached = EndpointState {
        address: Some([10, 255, 0, 2].into()),
        ports: vec![port([0, 0, 0, 0]), port([127, 0, 0, 1])],
    };
    let none = EndpointState {
        address: None,
        ports: Vec::new(),
    };
    let endpoints = [("web".to_owned(), attached), ("batch".to_owned(), none)];
    State::new([10, 255, 0, 2].into(), endpoints.into())
}

fn loads(text: &str) -> Result<State, StateError> {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("state.json"), text).unwrap();
    StateDir::open(root.path()).unwrap().load()
}

#[test]
fn a_file_of_version_1_is_read() {
    assert_eq!(loads(GOLDEN).unwrap(), golden());
}

#[test]
fn what_is_saved_is_loaded_and_is_version_1() {
    let root = tempfile::tempdir().unwrap();
    let dir = StateDir::open(root.path()).unwrap();
    assert_eq!(dir.load().unwrap(), State::default());
    dir.save(&golden()).unwrap();
    assert_eq!(dir.load().unwrap(), golden());
    assert_eq!(fs::read_to_string(dir.path()).unwrap(), GOLDEN.trim_end());
}

#[test]
fn damaged_and_newer_files_are_refused() {
    assert!(matches!(loads("{"), Err(StateError::Damaged { .. })));
    assert!(matches!(loads(""), Err(StateError::Damaged { .. })));
    let newer = r#"{"version":2,"cursor":null,"endpoints":{}}"#;
    assert!(matches!(loads(newer), Err(StateError::Version(2))));
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
