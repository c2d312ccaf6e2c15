//! Every key of what services share: networks, volumes, secrets and configs.

use std::collections::BTreeMap;

use skep_compose::project::{Content, FileObject, FileReference, Ipam, IpamPool, Network, Volume};
use skep_model::redact::Redacted;

use crate::disk::loaded;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn files_have_modes_in_octal() {
    let text = "services: {web: {image: x, secrets: [a, {source: b, target: /b, uid: '103', gid: '', mode: 0440}], configs: [{source: c, mode: '0400'}, {source: c, target: d, mode: 256}]}}
secrets: {a: {external: true}, b: {external: {name: real}}}
configs: {c: {content: \"x=${TAG}\\n\", name: conf, labels: [l=1], template_driver: golang}}";
    let project = loaded(&[("compose.yaml", text)]).project;
    let service = &project.services["web"];
    let reference = |source: &str, target: Option<&str>, mode| FileReference {
        source: source.to_owned(),
        target: target.map(str::to_owned),
        mode,
        ..FileReference::default()
    };
    assert_eq!(service.secrets[0], reference("a", None, None));
    assert_eq!(
        service.secrets[1],
        FileReference {
            uid: Some("103".to_owned()),
            ..reference("b", Some("/b"), Some(0o440))
        }
    );
    assert_eq!(
        service.configs,
        [
            reference("c", None, Some(0o400)),
            reference("c", Some("d"), Some(0o400))
        ]
    );
    assert_eq!(
        project.secrets["b"],
        FileObject {
            name: Some("real".to_owned()),
            ..FileObject::default()
        }
    );
    let content = Content::Data(Redacted(b"x=1.2\n".to_vec()));
    let config = FileObject {
        name: Some("conf".to_owned()),
        content,
        labels: map(&[("l", "1")]),
        template_driver: Some("golang".to_owned()),
    };
    assert_eq!(project.configs["c"], config);
}

#[test]
fn contents_come_from_files_variables_and_drivers() {
    let text = "services: {}\nsecrets: {a: {file: ./a.txt}, b: {environment: TAG}, c: {driver: vault, driver_opts: {path: 5}}}";
    let project = loaded(&[("compose.yaml", text), ("a.txt", "hush")]).project;
    assert_eq!(
        project.secrets["a"].content,
        Content::Data(Redacted(b"hush".to_vec()))
    );
    assert_eq!(
        project.secrets["b"].content,
        Content::Data(Redacted(b"1.2".to_vec()))
    );
    assert_eq!(
        project.secrets["c"].content,
        Content::Driver {
            name: "vault".to_owned(),
            options: map(&[("path", "5")])
        }
    );
    assert!(!format!("{project:?}").contains("hush"));
}

#[test]
fn networks_and_volumes_say_all() {
    let text = "services: {}
networks:
  a: {name: real, driver: overlay, driver_opts: {encrypted: 1}, attachable: true, internal: 'yes', enable_ipv6: true, labels: [x], ipam: {driver: default, config: [{subnet: 10.1.0.0/16, gateway: 10.1.0.1, ip_range: 10.1.1.0/24, aux_addresses: {h: 10.1.0.9}}], options: {o: p}}}
  b: {external: true}
  c:
volumes:
  v: {driver: local, driver_opts: {type: none, o: bind, device: ./d}, labels: {x: y}}
  w: {external: true, name: real}";
    let project = loaded(&[("compose.yaml", text)]).project;
    let pool = IpamPool {
        subnet: Some("10.1.0.0/16".to_owned()),
        gateway: Some("10.1.0.1".to_owned()),
        ip_range: Some("10.1.1.0/24".to_owned()),
        aux_addresses: map(&[("h", "10.1.0.9")]),
    };
    let expect = Network {
        name: Some("real".to_owned()),
        is_external: false,
        driver: Some("overlay".to_owned()),
        driver_opts: map(&[("encrypted", "1")]),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            pools: vec![pool],
            options: map(&[("o", "p")]),
        }),
        is_internal: true,
        is_attachable: true,
        is_ipv4: None,
        is_ipv6: Some(true),
        labels: map(&[("x", "")]),
    };
    assert_eq!(project.networks["a"], expect);
    assert_eq!(
        project.networks["b"],
        Network {
            is_external: true,
            ..Network::default()
        }
    );
    assert_eq!(project.networks["c"], Network::default());
    assert_eq!(
        project.volumes["v"].driver_opts,
        map(&[("type", "none"), ("o", "bind"), ("device", "/w/d")])
    );
    assert_eq!(
        project.volumes["w"],
        Volume {
            name: Some("real".to_owned()),
            is_external: true,
            ..Volume::default()
        }
    );
}
