//! Golden JSON of the objects clients parse.

use crate::server::Served;

async fn golden(name: &str, served: &Served, path: &str) {
    let answer = served.get(path).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    let pretty = serde_json::to_string_pretty(&answer.json()).unwrap();
    // Times that tell "now" are the only thing that changes.
    let now = answer.json()["SystemTime"].as_str().map(str::to_owned);
    insta::assert_snapshot!(
        name,
        pretty.replace(now.as_deref().unwrap_or("\0"), "[now]")
    );
}

#[tokio::test]
async fn cluster_objects_look_as_docker_writes_them() {
    let served = Served::with_swarm().await;
    let spec = r#"{"Name":"web","Labels":{"a":"b"},"Mode":{"Replicated":{"Replicas":1}},
        "TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest","Args":["sleep","1000"],
            "Env":["A=b"],"Mounts":[{"Type":"volume","Source":"data","Target":"/data"}],
            "Ulimits":[{"Name":"nofile","Hard":10,"Soft":5}]},
            "Resources":{"Limits":{"NanoCPUs":500000000,"Pids":10}},
            "Placement":{"Constraints":["node.role==manager"],
                "Preferences":[{"Spread":{"SpreadDescriptor":"node.labels.rack"}}]}},
        "UpdateConfig":{"Parallelism":2,"MaxFailureRatio":0.25},
        "EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":8080,"PublishMode":"host"}]}}"#;
    served.post("/services/create", spec).await;
    golden("service", &served, "/services/web").await;
    golden(
        "service_with_defaults",
        &served,
        "/services/web?insertDefaults=true",
    )
    .await;
    golden("service_list", &served, "/services?status=true").await;
    golden("tasks", &served, "/tasks").await;
    golden("node", &served, "/nodes/self").await;
    golden("swarm", &served, "/swarm").await;
    golden("info", &served, "/info").await;
}

#[tokio::test]
async fn engine_objects_look_as_docker_writes_them() {
    let served = Served::start();
    golden("version", &served, "/version").await;
    golden("image", &served, "/images/registry:5000/a/busybox/json").await;
    golden("container", &served, "/containers/web.1.abc/json").await;
    golden("stats", &served, "/containers/web.1.abc/stats?stream=0").await;
    golden("networks", &served, "/networks").await;
    golden("volumes", &served, "/volumes").await;
}
