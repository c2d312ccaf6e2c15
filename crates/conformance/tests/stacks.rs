//! Stacks of Compose files, which the docker command makes of networks and services.

use std::fs;

use serde_json::{Value, json};
use skep_conformance::Node;

const STACK: &str = r#"
version: "3.8"
services:
  web:
    image: skep/httpd
    ports: ["8080:80", {target: 81, published: 8081, protocol: udp, mode: host}]
    networks:
      front: {aliases: [www]}
      back:
    deploy: {replicas: 2, labels: {skep.drain: 5s}}
  db:
    image: skep/busybox
    command: sleep 1000
    networks: [back]
    deploy: {endpoint_mode: dnsrr}
networks:
  front:
    attachable: true
    driver_opts: {com.docker.network.driver.mtu: "1400"}
    ipam: {config: [{subnet: 10.44.0.0/24}]}
  back: {internal: true, labels: {a: b}}
"#;

#[test]
fn stack_has_its_networks_and_is_removed_with_them() {
    let node = Node::start();
    let file = node.dir().join("stack.yml");
    fs::write(&file, STACK).unwrap();
    let deploy = format!(
        "stack deploy -d --resolve-image never -c {} app",
        file.display()
    );
    node.docker_ok(&deploy);
    let network = |name: &str| node.json(&format!("/networks/app_{name}"));
    let (front, back) = (network("front"), network("back"));
    assert_eq!(
        (&front["Attachable"], &back["Internal"]),
        (&json!(true), &json!(true))
    );
    let subnet = json!([{"Subnet": "10.44.0.0/24", "Gateway": "10.44.0.1"}]);
    assert_eq!(front["IPAM"]["Config"], subnet);
    assert_eq!(front["Options"]["com.docker.network.driver.mtu"], "1400");
    assert_eq!(
        back["Labels"],
        json!({"a": "b", "com.docker.stack.namespace": "app"})
    );

    let web = node.json("/services/app_web");
    let mut aliases: Vec<(&Value, &Value)> = web["Spec"]["TaskTemplate"]["Networks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|network| (&network["Target"], &network["Aliases"]))
        .collect();
    aliases.sort_by_key(|(id, _)| **id != front["Id"]);
    let (www, short) = (json!(["www", "web"]), json!(["web"]));
    assert_eq!(aliases, [(&front["Id"], &www), (&back["Id"], &short)]);
    assert_eq!(
        node.json("/services/app_db")["Spec"]["EndpointSpec"]["Mode"],
        "dnsrr"
    );

    // A second time changes nothing.
    node.docker_ok(&deploy);
    assert_eq!(network("front")["Id"], front["Id"]);
    let listed = node.docker_ok("stack services app --format '{{.Name}} {{.Ports}}'");
    assert!(listed.contains("app_web *:8080->80/tcp"), "{listed}");
    node.docker_ok("stack rm app");
    assert_eq!(
        node.docker_ok("network ls -q -f label=com.docker.stack.namespace"),
        ""
    );
}
