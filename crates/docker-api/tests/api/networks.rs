//! Networks of the cluster: created, listed, shown, removed, used by services.

use crate::server::{Answer, Served};

const BACK: &str = r#"{"Name":"back","Driver":"overlay","Attachable":true,"Labels":{"tier":"b"},
    "IPAM":{"Driver":"default","Config":[{"Subnet":"10.0.1.0/24","IPRange":"10.0.1.0/25"}]}}"#;

async fn with_networks() -> Served {
    let served = Served::with_swarm().await;
    served.fake.0.lock().unwrap().has_networks = true;
    served
}

#[track_caller]
fn check(answer: &Answer, status: u16, message: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.message().as_str()),
        (status, message)
    );
}

fn names(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let names = list.as_array().unwrap().iter();
    names
        .map(|network| network["Name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_network_is_created_shown_and_removed() {
    let served = with_networks().await;
    let created = served.post("/networks/create", BACK).await;
    assert_eq!(created.status.as_u16(), 201, "{}", created.text());
    assert_eq!(created.json()["Warning"], "");
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    for term in ["back", &id, &id[..5]] {
        let shown = served.get(&format!("/networks/{term}")).await.json();
        assert_eq!(shown["Id"], id.as_str(), "{term}");
        assert_eq!(shown["Scope"], "swarm");
        assert_eq!(shown["Driver"], "overlay");
        assert_eq!(shown["Attachable"], true);
        assert_eq!(shown["Containers"], serde_json::Value::Null);
        assert_eq!(shown["IPAM"]["Options"], serde_json::Value::Null);
        assert_eq!(shown["IPAM"]["Config"][0]["Gateway"], "10.0.1.1");
        let vxlan_ids = &shown["Options"]["com.docker.network.driver.overlay.vxlanid_list"];
        assert_eq!(vxlan_ids, "4097");
    }
    let removed = served.delete("/networks/back").await;
    assert_eq!(removed.status.as_u16(), 204);
    check(
        &served.get("/networks/back").await,
        404,
        "network back not found",
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let served = with_networks().await;
    served.post("/networks/create", BACK).await;
    let list = |filters: &'static str| served.get(filters);
    assert_eq!(
        names(&list("/networks").await)[0],
        "back",
        "the cluster's networks come first"
    );
    for (filters, is_there) in [
        (r#"{"driver":["overlay"]}"#, true),
        (r#"{"driver":["bridge"]}"#, false),
        (r#"{"scope":["swarm"]}"#, true),
        (r#"{"scope":["local"]}"#, false),
        (r#"{"type":["custom"]}"#, true),
        (r#"{"type":["builtin"]}"#, false),
        (r#"{"label":["tier=b"]}"#, true),
        (r#"{"label":["tier=a"]}"#, false),
        (r#"{"name":["ac"]}"#, true),
        (r#"{"dangling":["true"]}"#, true),
        (r#"{"dangling":["false"]}"#, false),
    ] {
        let path = format!(
            "/networks?filters={}",
            filters.replace('[', "%5B").replace(']', "%5D")
        );
        let names = names(&served.get(&path).await);
        assert_eq!(names.contains(&"back".to_owned()), is_there, "{filters}");
    }
}

#[tokio::test]
async fn names_that_are_taken_or_reserved_are_refused() {
    let served = with_networks().await;
    served.post("/networks/create", BACK).await;
    check(
        &served.post("/networks/create", BACK).await,
        409,
        "network with name back already exists",
    );
    check(
        &served
            .post("/networks/create", r#"{"Name":"host","Driver":"overlay"}"#)
            .await,
        403,
        "operation is not permitted on predefined host network",
    );
    check(
        &served.delete("/networks/bridge").await,
        403,
        "bridge is a pre-defined network and cannot be removed",
    );
}

#[tokio::test]
async fn what_nodes_cannot_do_is_refused_by_name() {
    let served = with_networks().await;
    let create = |body: &'static str| served.post("/networks/create", body);
    check(
        &create(r#"{"Name":"a","Driver":"overlay","Options":{"encrypted":""},"EnableIPv4":false}"#)
            .await,
        501,
        "not supported yet: EnableIPv4=false, Options.encrypted",
    );
    check(
        &create(r#"{"Name":"a","Driver":"macvlan","Scope":"swarm","ConfigFrom":{"Network":"x"}}"#)
            .await,
        501,
        "not supported yet: Driver=macvlan, ConfigFrom",
    );
    check(
        &create(r#"{"Name":"a"}"#).await,
        501,
        "not supported yet: Driver=bridge",
    );
    check(
        &create(r#"{"Name":"a","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.0.0.0/99"}]}}"#)
            .await,
        400,
        "rpc error: code = InvalidArgument desc = ipam configuration: invalid subnet 10.0.0.0/99",
    );
}

#[tokio::test]
async fn while_nodes_have_no_networks_all_of_it_is_refused() {
    let served = Served::with_swarm().await;
    check(
        &served.post("/networks/create", BACK).await,
        501,
        "not supported yet: Driver=overlay",
    );
    let service = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"i"},
        "Networks":[{"Target":"back"}]},"EndpointSpec":{"Ports":[{"TargetPort":80}]}}"#;
    check(
        &served.post("/services/create", service).await,
        501,
        "not supported yet: TaskTemplate.Networks, EndpointSpec.Ports[0].PublishMode=ingress (use mode=host)",
    );
}

#[tokio::test]
async fn a_service_names_networks_and_is_shown_their_ids() {
    let served = with_networks().await;
    let created = served.post("/networks/create", BACK).await;
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    let service = |network: &str| {
        format!(
            r#"{{"Name":"web","TaskTemplate":{{"ContainerSpec":{{"Image":"i"}},
            "Networks":[{{"Target":"{network}","Aliases":["www"],"DriverOpts":{{"a":"b"}}}}]}},
            "EndpointSpec":{{"Ports":[{{"TargetPort":80}}]}}}}"#
        )
    };
    check(
        &served.post("/services/create", &service("nowhere")).await,
        404,
        "network nowhere not found",
    );
    let created = served.post("/services/create", &service("back")).await;
    assert_eq!(created.status.as_u16(), 201, "{}", created.text());
    let spec = served.get("/services/web").await.json();
    let networks = &spec["Spec"]["TaskTemplate"]["Networks"];
    let wanted = serde_json::json!([{"Target": id, "Aliases": ["www"], "DriverOpts": {"a": "b"}}]);
    assert_eq!(*networks, wanted);

    let refused = served.delete("/networks/back").await;
    assert_eq!(refused.status.as_u16(), 400);
    assert!(
        refused.message().contains("is in use by service"),
        "{}",
        refused.text()
    );
    let pruned = served.post("/networks/prune", "").await;
    assert_eq!(pruned.text().trim(), r#"{"NetworksDeleted":null}"#);
    served.delete("/services/web").await;
    let pruned = served.post("/networks/prune", "").await;
    assert_eq!(pruned.text().trim(), r#"{"NetworksDeleted":["back"]}"#);
}

#[tokio::test]
async fn a_node_outside_of_a_swarm_has_no_overlay_networks() {
    let served = Served::start();
    let refused = served.post("/networks/create", BACK).await;
    assert_eq!(refused.status.as_u16(), 503);
    let pruned = served.post("/networks/prune", "").await;
    assert_eq!(pruned.text().trim(), r#"{"NetworksDeleted":null}"#);
    assert!(!names(&served.get("/networks").await).is_empty());
}
