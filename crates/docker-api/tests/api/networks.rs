//! Networks of the cluster: created, listed, shown, removed, used by services.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{
    Driver, IpamConfig, IpamOptions, NODE_NETWORK, NODE_NETWORK_DRIVER, Network, NetworkAttachment,
    NetworkId, NetworkSpec, NodeId, PREDEFINED_LABEL, ServiceId, TaskId,
    directory::{Entry, NodeEntry, ServiceEntry, ServicePlace, Standing, TaskEntry, TaskPlace},
};

use crate::server::{Answer, Served};

const BACK: &str = r#"{"Name":"back","Driver":"overlay","Attachable":true,"Labels":{"tier":"b"},
    "IPAM":{"Driver":"default","Config":[{"Subnet":"10.0.1.0/24","IPRange":"10.0.1.0/25"}]}}"#;

impl Served {
    fn add_network(&self, spec: NetworkSpec, subnet: Option<&str>) -> Arc<Network> {
        let state = &mut *self.fake.0.lock().unwrap();
        let config = subnet.map(|subnet| IpamConfig {
            subnet: Some(subnet.parse().unwrap()),
            ..IpamConfig::default()
        });
        let network = Arc::new(Network {
            id: NetworkId::random(&mut state.rng),
            meta: skep_model::Meta::default(),
            driver_state: spec.driver.clone(),
            ipam: Some(IpamOptions {
                driver: None,
                configs: config.into_iter().collect(),
            }),
            spec,
            is_pending_delete: false,
        });
        state.networks.insert(network.id, network.clone());
        network
    }

    /// Adds a predefined network as every cluster has it; returns its id.
    fn predefined(&self, name: &str) -> String {
        let mut spec = spec(name, name);
        let label = (PREDEFINED_LABEL.to_owned(), "true".to_owned());
        spec.annotations.labels.extend([label]);
        self.add_network(spec, None).id.to_string()
    }

    /// Adds the node network, of which the one node has a slice.
    fn node_network(&self) {
        let spec = spec(NODE_NETWORK, NODE_NETWORK_DRIVER);
        let network = self.add_network(spec, Some("10.252.0.0/14"));
        let state = &mut *self.fake.0.lock().unwrap();
        let node = Arc::make_mut(state.nodes.values_mut().next().unwrap());
        node.attachments = vec![NetworkAttachment {
            network,
            addresses: vec!["10.252.4.1/22".parse().unwrap()],
            aliases: Vec::new(),
            driver_options: BTreeMap::new(),
        }];
    }

    /// Tells this node's data plane of a network of `manager`, with one task of a service `web`.
    fn told(&self, manager: &Self, name: &str) {
        let networks = manager.fake.0.lock().unwrap().networks.clone();
        let network = networks
            .values()
            .find(|network| network.name() == name)
            .unwrap();
        let state = &mut *self.fake.0.lock().unwrap();
        state.status.state = skep_docker_api::backend::LocalNodeState::Active;
        let service_id = ServiceId::random(&mut state.rng);
        let node_id: NodeId = "nodeoftask0000000000000000"
            .get(..25)
            .unwrap()
            .parse()
            .unwrap();
        let service = ServiceEntry {
            id: service_id,
            name: "web".to_owned(),
            networks: vec![ServicePlace {
                network: network.id,
                vips: Vec::new(),
                aliases: Vec::new(),
            }],
            ports: Vec::new(),
            is_local_first: false,
            publish_address: None,
        };
        let task = TaskEntry {
            id: TaskId::random(&mut state.rng),
            service_id: Some(service_id),
            slot: 1,
            name: "web.1.x".to_owned(),
            container_id: String::new(),
            node_id,
            places: vec![TaskPlace {
                network: network.id,
                addresses: vec!["10.0.1.7".parse().unwrap()],
            }],
            node_addresses: Vec::new(),
            standing: Standing::Ready,
        };
        let node = NodeEntry {
            id: node_id,
            data_path: Some("192.0.2.9".parse().unwrap()),
            addresses: Vec::new(),
            slice: None,
            is_down: false,
            tunnel_keys: Vec::new(),
        };
        state.directory = vec![
            Entry::Network(network.clone()),
            Entry::Service(service.into()),
            Entry::Task(task.into()),
            Entry::Node(node.into()),
        ];
    }
}

fn spec(name: &str, driver: &str) -> NetworkSpec {
    let mut spec = NetworkSpec::default();
    spec.annotations.name = name.to_owned();
    spec.driver = Some(Driver {
        name: driver.to_owned(),
        ..Driver::default()
    });
    spec
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
    let served = Served::with_swarm().await;
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
    let served = Served::with_swarm().await;
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
    let served = Served::with_swarm().await;
    served.post("/networks/create", BACK).await;
    check(
        &served.post("/networks/create", BACK).await,
        409,
        "network with name back already exists",
    );
    check(
        &served
            .post("/networks/create", r#"{"Name":"none","Driver":"overlay"}"#)
            .await,
        403,
        "operation is not permitted on predefined none network ",
    );
    check(
        &served.delete("/networks/bridge").await,
        403,
        "bridge is a pre-defined network and cannot be removed",
    );
}

#[tokio::test]
async fn what_nodes_cannot_do_is_refused_by_name() {
    let served = Served::with_swarm().await;
    for (body, status, message) in [
        (
            r#"{"Name":"a","Driver":"ipvlan"}"#,
            501,
            "not supported yet: Driver=ipvlan",
        ),
        (
            r#"{"Name":"a","EnableIPv4":false}"#,
            501,
            "not supported yet: EnableIPv4=false",
        ),
        (
            r#"{"Name":"a","ConfigOnly":true,"Scope":"swarm"}"#,
            403,
            "configuration network can only contain network specific fields. Network operator fields like \
             [ ingress | internal | attachable | scope ] are not supported.",
        ),
        (
            r#"{"Name":"skep_gwbridge"}"#,
            403,
            "operation is not permitted on predefined skep_gwbridge network ",
        ),
        (
            r#"{"Name":"a","Driver":"host"}"#,
            403,
            r#"only one instance of "host" network is allowed"#,
        ),
    ] {
        check(
            &served.post("/networks/create", body).await,
            status,
            message,
        );
    }
}

#[tokio::test]
async fn what_docker_refuses_is_refused_in_its_words() {
    let served = Served::with_swarm().await;
    for (body, status, message) in [
        (
            r#"{"Name":"a","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.0.0.0/99"}]}}"#,
            400,
            "invalid network config:\ninvalid subnet 10.0.0.0/99: invalid CIDR block notation",
        ),
        (
            r#"{"Name":"a","Driver":"overlay","EnableIPv4":false}"#,
            400,
            "IPv4 cannot be disabled in a Swarm scoped network",
        ),
        (
            r#"{"Name":"a","Driver":"overlay","Options":{"com.docker.network.enable_ipv4":"no"}}"#,
            400,
            r#"driver-opt "com.docker.network.enable_ipv4" is not a valid bool"#,
        ),
        (
            r#"{"Name":"a","Driver":"weave"}"#,
            404,
            r#"plugin "weave" not found"#,
        ),
        (
            r#"{"Name":"a","Driver":"overlay","Scope":"local"}"#,
            403,
            "cannot downgrade network scope for overlay networks",
        ),
        (
            r#"{"Name":"a","Driver":"bridge","Ingress":true}"#,
            403,
            "Ingress network can only be global scope network",
        ),
    ] {
        check(
            &served.post("/networks/create", body).await,
            status,
            message,
        );
    }
    let refused = served
        .get("/networks?filters={\"type\":{\"odd\":true}}")
        .await;
    check(&refused, 400, "invalid filter: 'type'='odd'");
}

#[tokio::test]
async fn options_of_the_driver_switch_families() {
    let served = Served::with_swarm().await;
    let body = r#"{"Name":"six","Driver":"overlay",
        "Options":{"com.docker.network.enable_ipv6":"true"}}"#;
    let created = served.post("/networks/create", body).await;
    assert_eq!(created.status.as_u16(), 201, "{}", created.text());
    assert_eq!(served.get("/networks/six").await.json()["EnableIPv6"], true);
}

#[tokio::test]
async fn predefined_networks_of_the_cluster_are_found_only_when_asked_for() {
    let served = Served::with_swarm().await;
    let id = served.predefined("host");
    let listed = served
        .get("/networks?filters={\"name\":{\"host\":true}}")
        .await
        .json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["Scope"], "local");
    assert_eq!(served.get("/networks/host").await.json()["Scope"], "local");
    assert_eq!(
        served.get("/networks/host?scope=swarm").await.json()["Id"],
        id
    );
    assert_eq!(
        served.get(&format!("/networks/{id}")).await.json()["Scope"],
        "swarm"
    );
    check(
        &served.get("/networks/none?scope=swarm").await,
        404,
        "network none not found",
    );

    let service = |network: &str| {
        format!(
            r#"{{"Name":"{network}","TaskTemplate":{{"ContainerSpec":{{"Image":"i"}},
            "Networks":[{{"Target":"{network}"}}]}}}}"#
        )
    };
    let local = served.get("/networks/host").await.json()["Id"]
        .as_str()
        .unwrap()
        .to_owned();
    for name in ["host", &local[..9]] {
        let created = served.post("/services/create", &service(name)).await;
        assert_eq!(created.status.as_u16(), 201, "{}", created.text());
        let spec = served.get(&format!("/services/{name}")).await.json();
        assert_eq!(spec["Spec"]["TaskTemplate"]["Networks"][0]["Target"], id);
    }
    check(
        &served.post("/services/create", &service("none")).await,
        403,
        "The network none cannot be used with services. Only networks scoped to the swarm can be \
         used, such as those created with the overlay driver.",
    );
}

#[tokio::test]
async fn the_node_network_is_shown_as_a_bridge_of_this_node() {
    let served = Served::with_swarm().await;
    served.node_network();
    let listed = served
        .get("/networks?filters={\"name\":{\"^skep_gwbridge$\":true}}")
        .await
        .json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let shown = served.get("/networks/skep_gwbridge").await.json();
    assert_eq!(
        (&shown["Scope"], &shown["Driver"]),
        (&"local".into(), &"bridge".into())
    );
    let config = serde_json::json!([{"Subnet": "10.252.4.0/22", "Gateway": "10.252.4.1"}]);
    assert_eq!(shown["IPAM"]["Config"], config);
    assert_eq!(shown["Options"]["skep.pool"], "10.252.0.0/14");
    check(
        &served.get("/networks/skep_gwbridge?scope=swarm").await,
        404,
        "network skep_gwbridge not found",
    );
    check(
        &served.delete("/networks/skep_gwbridge").await,
        403,
        "skep_gwbridge is a pre-defined network and cannot be removed",
    );
    let service = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"i"},
        "Networks":[{"Target":"skep_gwbridge"}]}}"#;
    let refused = served.post("/services/create", service).await;
    assert_eq!(refused.status.as_u16(), 403, "{}", refused.text());
    let pruned = served.post("/networks/prune", "").await;
    assert_eq!(pruned.text().trim(), r#"{"NetworksDeleted":null}"#);
}

#[tokio::test]
async fn a_service_names_networks_and_is_shown_their_ids() {
    let served = Served::with_swarm().await;
    let created = served.post("/networks/create", BACK).await;
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    let service = |network: &str| {
        format!(
            r#"{{"Name":"web","TaskTemplate":{{"ContainerSpec":{{"Image":"i"}},
            "Networks":[{{"Target":"{network}","Aliases":["www"]}}]}},
            "EndpointSpec":{{"Ports":[{{"TargetPort":80}}]}}}}"#
        )
    };
    let optional = service("back").replace(r#""Aliases""#, r#""DriverOpts":{"a":"b"},"Aliases""#);
    check(
        &served.post("/services/create", &optional).await,
        501,
        "not supported yet: TaskTemplate.Networks[0].DriverOpts[a]",
    );
    check(
        &served.post("/services/create", &service("nowhere")).await,
        404,
        "network nowhere not found",
    );
    let created = served.post("/services/create", &service("back")).await;
    assert_eq!(created.status.as_u16(), 201, "{}", created.text());
    let spec = served.get("/services/web").await.json();
    let networks = &spec["Spec"]["TaskTemplate"]["Networks"];
    let wanted = serde_json::json!([{"Target": id, "Aliases": ["www"]}]);
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
    assert_eq!(refused.status.as_u16(), 403);
    assert!(
        refused
            .message()
            .starts_with("This node is not a swarm manager."),
        "{}",
        refused.text()
    );
    let pruned = served.post("/networks/prune", "").await;
    assert_eq!(pruned.text().trim(), r#"{"NetworksDeleted":null}"#);
    assert!(!names(&served.get("/networks").await).is_empty());
}

#[tokio::test]
async fn a_network_shows_who_is_on_it() {
    let served = Served::with_swarm().await;
    let created = served.post("/networks/create", BACK).await;
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    let service = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"i"},
        "Networks":[{"Target":"back"}]},"EndpointSpec":{"Ports":[{"TargetPort":80}]}}"#;
    served.post("/services/create", service).await;
    let shown = served.get("/networks/back").await.json();
    let node = served.get("/nodes/self").await.json()["ID"]
        .as_str()
        .unwrap()
        .to_owned();
    let peers = serde_json::json!([{"Name": node[..12], "IP": "192.0.2.1"}]);
    assert_eq!(shown["Peers"], peers);
    assert_eq!(shown.get("Services"), None);

    let task = served.get("/tasks").await.json()[0].clone();
    let shown = served.get("/networks/back?verbose=true").await.json();
    let expected = serde_json::json!({"web": {
        "VIP": "10.0.1.2", "Ports": [], "LocalLBIndex": 0,
        "Tasks": [{
            "Name": format!("web.1.{}", task["ID"].as_str().unwrap()),
            "EndpointID": task["Status"]["ContainerStatus"]["ContainerID"],
            "EndpointIP": "10.0.1.3",
            "Info": {"Host IP": "192.0.2.1"},
        }],
    }});
    assert_eq!(shown["Services"], expected);
    let attachments = &task["NetworksAttachments"];
    assert_eq!(attachments.as_array().unwrap().len(), 1, "{attachments}");
    assert_eq!(attachments[0]["Network"]["ID"], id.as_str());
    assert_eq!(
        attachments[0]["Addresses"],
        serde_json::json!(["10.0.1.3/24"])
    );
}

#[tokio::test]
async fn a_worker_shows_the_networks_its_tasks_are_on() {
    let manager = Served::with_swarm().await;
    let created = manager.post("/networks/create", BACK).await;
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    let worker = Served::start();
    worker.told(&manager, "back");
    let listed = names(
        &worker
            .get("/networks?filters={\"scope\":{\"swarm\":true}}")
            .await,
    );
    assert_eq!(listed, ["back"]);
    let shown = worker
        .get(&format!("/networks/{}?verbose=1", &id[..6]))
        .await
        .json();
    assert_eq!(shown["Name"], "back");
    assert_eq!(
        shown["Peers"],
        serde_json::json!([{"Name": "nodeoftask00", "IP": "192.0.2.9"}])
    );
    let service = &shown["Services"]["web"];
    assert_eq!(service["VIP"], "<nil>", "{shown}");
    assert_eq!(service["Tasks"][0]["EndpointIP"], "10.0.1.7");
    let refused = worker.delete("/networks/back").await;
    assert_eq!(refused.status.as_u16(), 503, "{}", refused.text());
}

/// The docker command would take it for one that is there, and not make the network of a stack that is deployed again.
#[tokio::test]
async fn a_manager_lists_no_removed_network_that_its_containers_still_have() {
    let served = Served::with_swarm().await;
    served.post("/networks/create", BACK).await;
    served.told(&served, "back");
    let listed = || async {
        names(
            &served
                .get("/networks?filters={\"scope\":{\"swarm\":true}}")
                .await,
        )
    };
    assert_eq!(listed().await, ["back"]);
    served.delete("/networks/back").await;
    assert!(listed().await.is_empty());
}

#[tokio::test]
async fn containers_are_not_connected_by_hand() {
    let served = Served::with_swarm().await;
    served
        .post("/networks/create", &BACK.replace("true", "false"))
        .await;
    let body = r#"{"Container":"web.1.abc"}"#;
    check(
        &served.post("/networks/back/connect", body).await,
        403,
        "Could not attach to network back: rpc error: code = PermissionDenied desc = network back \
         not manually attachable",
    );
    let refused = served.post("/networks/back/disconnect", body).await;
    assert_eq!(refused.status.as_u16(), 403, "{}", refused.text());
    assert!(
        refused
            .message()
            .ends_with("is not connected to network back")
    );
    check(
        &served.post("/networks/nowhere/connect", body).await,
        404,
        "network nowhere not found",
    );
    let refused = served
        .post("/networks/back/connect", r#"{"Container":"x"}"#)
        .await;
    check(&refused, 404, "No such container: x");
}
