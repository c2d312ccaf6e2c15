//! Plain HTTP: statuses, headers, texts, streams.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use skep_docker_api::{Event, EventScope};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::{
    fake::TIME,
    server::{Served, request},
};

const WEB: &str = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}"#;

#[tokio::test]
async fn ping_tells_version_and_swarm_state() {
    let served = Served::start();
    for method in [Method::GET, Method::HEAD] {
        let answer = served.send(request(method.clone(), "/_ping", "")).await;
        assert_eq!(answer.status, StatusCode::OK);
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("api-version"), "1.51");
        assert_eq!(header("docker-experimental"), "false");
        assert_eq!(header("ostype"), "linux");
        assert_eq!(header("swarm"), "inactive");
        assert_eq!(
            header("cache-control"),
            "no-cache, no-store, must-revalidate"
        );
        assert_eq!(answer.text(), if method == Method::GET { "OK" } else { "" });
    }
    served.post("/swarm/init", "{}").await;
    assert_eq!(
        served.get("/v1.30/_ping").await.headers["swarm"],
        "active/manager"
    );
}

#[track_caller]
fn check(answer: &crate::server::Answer, status: u16, message: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.message().as_str()),
        (status, message)
    );
}

#[tokio::test]
async fn unknown_and_unsupported_are_told_apart() {
    let served = Served::start();
    check(&served.get("/nonsense").await, 404, "page not found");
    check(&served.post("/info", "").await, 404, "page not found");
    check(
        &served.get("/v1.41/services/a/b/c").await,
        404,
        "page not found",
    );
    check(
        &served.post("/build", "").await,
        501,
        "not supported yet: building images; build elsewhere, then `docker load` or a registry",
    );
    let answer = served.post("/build/prune", "").await;
    assert_eq!(answer.status, 200);
    check(
        &served.post("/images/a/b/push", "").await,
        501,
        "not supported yet: pushing images",
    );
    let answer = served.post("/containers/create", "{}").await;
    check(
        &answer,
        501,
        "not supported yet: creating containers outside of services; use `docker service create`",
    );
}

#[tokio::test]
async fn versions_out_of_range_are_refused() {
    let served = Served::start();
    let message = "client version 1.99 is too new. Maximum supported API version is 1.51";
    check(&served.get("/v1.99/info").await, 400, message);
    let answer = served.get("/v1.20/info").await;
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .text()
            .starts_with("client version 1.20 is too old. Minimum supported API")
    );
}

#[tokio::test]
async fn without_a_swarm_cluster_routes_say_how_to_get_one() {
    let served = Served::start();
    let message = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm \
                   join\" to connect this node to swarm and try again.";
    for path in [
        "/services",
        "/nodes",
        "/tasks",
        "/swarm",
        "/swarm/unlockkey",
        "/secrets",
    ] {
        check(&served.get(path).await, 503, message);
    }
    check(&served.post("/services/create", WEB).await, 503, message);
    check(
        &served.post("/swarm/leave", "").await,
        503,
        "This node is not part of a swarm",
    );
    served.post("/swarm/init", "{}").await;
    let again = served.post("/swarm/init", "{}").await;
    assert!(
        again
            .message()
            .starts_with("This node is already part of a swarm.")
    );
    assert_eq!(again.status, 503);
}

#[tokio::test]
async fn objects_are_found_by_id_name_or_start_of_the_id() {
    let served = Served::with_swarm().await;
    let created = served.post("/services/create", WEB).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let id = created.json()["ID"].as_str().unwrap().to_owned();
    for wanted in [&id[..], "web", "WEB", &id[..6]] {
        let found = served.get(&format!("/services/{wanted}")).await;
        assert_eq!(found.json()["ID"], id, "{wanted}");
    }
    check(
        &served.get("/services/nope").await,
        404,
        "service nope not found",
    );
    check(&served.get("/tasks/nope").await, 404, "task nope not found");
    check(&served.get("/nodes/nope").await, 404, "node nope not found");
    assert_eq!(
        served.get("/nodes/self").await.json()["Description"]["Hostname"],
        "host1"
    );
    served
        .post("/services/create", &WEB.replace("web", "db"))
        .await;
    // Every id starts with nothing.
    for (path, noun) in [
        ("/services/", "service"),
        ("/tasks/", "task"),
        ("/nodes/", "node"),
        ("/secrets/", "secret"),
        ("/configs/", "config"),
        ("/networks/", "network"),
        ("/tasks?filters={\"service\":{\"\":true}}", "service"),
    ] {
        let text = format!("no {noun} was named: a name or an id is needed");
        check(&served.get(path).await, 400, &text);
    }
}

#[tokio::test]
async fn bad_input_is_explained() {
    let served = Served::with_swarm().await;
    check(
        &served.post("/services/create", "{\"Name\":").await,
        400,
        "invalid JSON: unexpected EOF",
    );
    let unknown = served.get("/services?filters={\"nam\":{\"x\":true}}").await;
    check(&unknown, 400, "invalid filter 'nam'");
    served.post("/services/create", WEB).await;
    let conflict = served.post("/services/create", WEB).await;
    check(
        &conflict,
        409,
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service \
         web already exists",
    );
    let stale = served.post("/services/web/update?version=1", WEB).await;
    check(
        &stale,
        500,
        "rpc error: code = Unknown desc = update out of sequence",
    );
    let missing = served.post("/services/web/update", WEB).await;
    assert_eq!(missing.status, 400);
    assert!(missing.message().starts_with("invalid service version ''"));
    let large = format!("{{\"Name\":\"{}\"}}", "x".repeat(5 << 20));
    assert_eq!(served.post("/services/create", &large).await.status, 413);
}

#[tokio::test]
async fn every_unsupported_field_is_named() {
    let served = Served::with_swarm().await;
    let spec = r#"{"Name":"x","Mode":{"GlobalJob":{}},
        "TaskTemplate":{"LogDriver":{"Name":"gelf"},
            "ContainerSpec":{"Image":"i","Isolation":"hyperv"}}}"#;
    let answer = served.post("/services/create", spec).await;
    check(
        &answer,
        501,
        "not supported yet: TaskTemplate.LogDriver.Name=gelf, \
         TaskTemplate.ContainerSpec.Isolation=hyperv",
    );
}

#[tokio::test]
async fn what_the_cli_always_sends_passes() {
    let served = Served::with_swarm().await;
    let spec = r#"{"Name":"x","Labels":null,"Mode":{"Replicated":{"Replicas":2}},
        "TaskTemplate":{"ContainerSpec":{"Image":"i","Init":false,"StopGracePeriod":10000000000,
            "DNSConfig":{},"Isolation":"default",
            "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000,"Retries":2},
            "Privileges":{"CredentialSpec":null,"SELinuxContext":null,"NoNewPrivileges":false}},
            "Resources":{"Limits":{},"Reservations":{}},"Placement":{},"ForceUpdate":0,
            "Runtime":"container"},"EndpointSpec":{"Mode":"vip"}}"#;
    let answer = served.post("/services/create", spec).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
}

#[tokio::test]
async fn secrets_never_appear() {
    let served = Served::with_swarm().await;
    let auth = "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InNlc2FtZSJ9";
    let mut create = request(Method::POST, "/services/create", WEB);
    create
        .headers_mut()
        .insert("x-registry-auth", auth.parse().unwrap());
    assert_eq!(served.send(create).await.status, StatusCode::CREATED);
    let stored = served
        .fake
        .0
        .lock()
        .unwrap()
        .services
        .values()
        .next()
        .unwrap()
        .clone();
    assert_eq!(stored.spec.task.container.registry_auth.0, auth);
    for path in ["/services", "/services/web", "/tasks", "/swarm", "/info"] {
        let answer = served.get(path).await;
        assert!(
            !answer.text().contains("sesame") && !answer.text().contains(auth),
            "{path}"
        );
        assert!(!answer.text().contains("TOP SECRET"), "{path}");
    }
}

#[tokio::test]
async fn an_update_keeps_the_stored_credentials() {
    let served = Served::with_swarm().await;
    let auth = "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==";
    let mut create = request(Method::POST, "/services/create", WEB);
    create
        .headers_mut()
        .insert("x-registry-auth", auth.parse().unwrap());
    served.send(create).await;
    let version = served.get("/services/web").await.json()["Version"]["Index"].clone();
    let answer = served
        .post(&format!("/services/web/update?version={version}"), WEB)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let stored = served
        .fake
        .0
        .lock()
        .unwrap()
        .services
        .values()
        .next()
        .unwrap()
        .clone();
    assert_eq!(stored.spec.task.container.registry_auth.0, auth);
}

#[tokio::test]
async fn lists_show_changes_at_once() {
    let served = Served::with_swarm().await;
    let names = |answer: crate::server::Answer| -> Vec<String> {
        let list = answer.json();
        let list = list.as_array().unwrap().iter();
        list.map(|it| it["Spec"]["Name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(served.get("/services").await.text(), "[]\n");
    served.post("/services/create", WEB).await;
    assert_eq!(names(served.get("/services").await), ["web"]);
    assert_eq!(names(served.get("/services").await), ["web"]);
    let filtered = served.get("/services?filters={\"name\":[\"d\"]}").await;
    assert_eq!(filtered.text(), "[]\n");
    let status = served.get("/services?status=true").await.json()[0]["ServiceStatus"].clone();
    assert_eq!(status["RunningTasks"], 1);
    assert_eq!(served.delete("/services/web").await.status, StatusCode::OK);
    assert_eq!(served.get("/services").await.text(), "[]\n");
}

#[tokio::test]
async fn events_send_headers_before_the_first_event() {
    let served = Served::start();
    let mut stream = BufReader::new(served.connect().await);
    let filters = "filters=%7B%22type%22%3A%5B%22service%22%5D%7D";
    let head = format!("GET /events?{filters} HTTP/1.1\r\nhost: d\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
    let event = |kind, id: &str| Event {
        kind,
        action: "create".to_owned(),
        actor_id: id.to_owned(),
        attributes: BTreeMap::from([("name".to_owned(), "web".to_owned())]),
        scope: EventScope::Swarm,
        time: TIME,
    };
    served.events.publish(event("node", "n"));
    served.events.publish(event("service", "s"));
    let mut size = String::new();
    stream.read_line(&mut size).await.unwrap();
    let mut text = String::new();
    stream.read_line(&mut text).await.unwrap();
    assert_eq!(
        text,
        "{\"Type\":\"service\",\"Action\":\"create\",\"Actor\":{\"ID\":\"s\",\"Attributes\":{\
         \"name\":\"web\"}},\"scope\":\"swarm\",\"time\":1700000000,\
         \"timeNano\":1700000000123456789}\n"
    );
}

#[tokio::test]
async fn hijacked_streams_carry_bytes_both_ways() {
    let served = Served::start();
    let mut stream = BufReader::new(served.connect().await);
    let head = "POST /exec/exec-raw/start HTTP/1.1\r\nhost: d\r\nConnection: Upgrade\r\nUpgrade: \
                tcp\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("HTTP/1.1 101"), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
    stream.write_all(b"hello").await.unwrap();
    let mut framed = [0; 13];
    stream.read_exact(&mut framed).await.unwrap();
    assert_eq!(&framed, b"\x01\0\0\0\0\0\0\x05hello");
    // The end of the input closes the process's stdin; its end closes the connection.
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn shutdown_ends_open_streams() {
    let served = Served::start();
    let mut events = served.connect().await;
    events
        .write_all(b"GET /events HTTP/1.1\r\nhost: d\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    events.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    served.stop.cancel();
    served.ended.await.unwrap();
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn container_lists_are_filtered() {
    let served = Served::start();
    let count = |answer: crate::server::Answer| answer.json().as_array().unwrap().len();
    assert_eq!(count(served.get("/containers/json").await), 1);
    assert_eq!(count(served.get("/containers/json?all=1").await), 2);
    assert_eq!(
        count(
            served
                .get("/containers/json?filters={\"exited\":[\"3\"]}")
                .await
        ),
        1
    );
    assert_eq!(
        count(
            served
                .get("/containers/json?filters={\"publish\":[\"8080\"]}")
                .await
        ),
        1
    );
    assert_eq!(
        count(
            served
                .get("/containers/json?filters={\"name\":[\"nope\"]}")
                .await
        ),
        0
    );
    assert_eq!(count(served.get("/containers/json?all=1&limit=1").await), 1);
}

#[tokio::test]
async fn log_streams_are_framed() {
    let served = Served::start();
    let answer = served
        .get("/containers/web.1.abc/logs?stdout=1&stderr=1&timestamps=1")
        .await;
    assert_eq!(
        answer.headers["content-type"],
        "application/vnd.docker.multiplexed-stream"
    );
    assert_eq!(
        &answer.body[..],
        b"\x01\0\0\0\0\0\0\x232023-11-14T22:13:20.123456789Z out\n\
          \x02\0\0\0\0\0\0\x232023-11-14T22:13:20.123456789Z err\n"
    );
    let neither = served.get("/containers/web.1.abc/logs").await;
    assert_eq!(neither.status, 400);
}

#[tokio::test]
async fn a_refusal_reaches_who_still_sends_the_body() {
    let served = Served::start();
    let body = "x".repeat(3 << 20);
    for path in [
        "/containers/create",
        "/v9.99/containers/create",
        "/nothing",
        "/swarm/update",
    ] {
        let answer = served.post(path, &body).await;
        assert!(
            answer.status.is_client_error() || answer.status.is_server_error(),
            "{path}"
        );
        assert!(!answer.message().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_command_beside_no_running_task_is_told_what_there_is() {
    let served = Served::with_swarm().await;
    served.post("/services/create", WEB).await;
    let exec = async |task: &str| {
        let path = format!("/skep/v1/exec?task={task}&detach=1");
        served.post(&path, r#"{"Cmd":["true"]}"#).await
    };
    let text = "no task was named: a name or an id is needed";
    check(&exec("").await, 400, text);
    let text = "service web has no task 7: it has web.1 (running)";
    check(&exec("web.7").await, 404, text);
    {
        let mut state = served.fake.0.lock().unwrap();
        for task in state.tasks.values_mut() {
            let task = std::sync::Arc::make_mut(task);
            task.status.state = skep_model::TaskState::Failed;
            task.status.err = "task: non-zero exit (3)".to_owned();
        }
    }
    let text =
        "task web.1 is not running: it is failed (exit 3); no task of the service is running";
    check(&exec("web.1").await, 409, text);
    check(&exec("web").await, 409, text);
}
