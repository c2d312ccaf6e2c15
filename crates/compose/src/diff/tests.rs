//! Differences of specs, and how they read.

use super::*;

fn service(image: &str) -> Value {
    json!({
        "Name": "app_web",
        "Labels": {"com.docker.stack.image": image},
        "TaskTemplate": {"ContainerSpec": {"Image": image, "Env": ["A=1", "B=2"]}},
        "Mode": {"Replicated": {"Replicas": 2}},
    })
}

#[track_caller]
fn check(old: &Value, new: &Value, expected: &[&str]) {
    let fields = fields(Kind::Service, old, new);
    let change = Change {
        kind: Kind::Service,
        name: "s".to_owned(),
        action: Action::Update,
        fields,
    };
    let text = render(&[change]);
    let lines: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
    assert_eq!(lines, expected);
}

#[test]
fn sets_are_compared_object_by_object() {
    let (one, two, net) = (service("a:1"), service("a:2"), json!({"Driver": "overlay"}));
    let object = |kind, name, spec| Object { kind, name, spec };
    let old = [
        object(Kind::Service, "app_web", &one),
        object(Kind::Service, "app_old", &one),
        object(Kind::Network, "app_net", &net),
    ];
    let new = [
        object(Kind::Service, "app_new", &one),
        object(Kind::Service, "app_web", &two),
        object(Kind::Network, "app_net", &net),
        object(Kind::Config, "app_net", &net),
    ];
    let changes = objects(&old, &new);
    assert_eq!(
        render(&changes),
        "+ config app_net\n\
         + service app_new\n\
         - service app_old\n\
         ~ service app_web\n    \
             ~ Labels[com.docker.stack.image]: \"a:1\" -> \"a:2\"\n    \
             ~ TaskTemplate.ContainerSpec.Image: \"a:1\" -> \"a:2\"\n"
    );
    assert_eq!(
        (changes[0].kind, changes[0].action),
        (Kind::Network, Action::Unchanged)
    );
    for change in changes {
        assert_eq!(Change::from_json(&change.to_json()), Some(change));
    }
    assert_eq!(Change::from_json(&json!({"Kind": "node"})), None);
}

#[test]
fn what_is_empty_is_nothing_but_zero_is_a_value() {
    let empty =
        json!({"Labels": {}, "TaskTemplate": {"Networks": null, "Runtime": ""}, "Networks": []});
    check(&empty, &json!({}), &[]);
    let replicas = |count: u64| json!({"Mode": {"Replicated": {"Replicas": count}}});
    check(
        &replicas(1),
        &replicas(0),
        &["~ Mode.Replicated.Replicas: 1 -> 0"],
    );
    check(
        &json!({"Mode": {"Replicated": {}}}),
        &replicas(0),
        &["+ Mode.Replicated.Replicas: 0"],
    );
    check(
        &json!({"Mode": {"Global": {}}}),
        &replicas(3),
        &["+ Mode.Replicated.Replicas: 3"],
    );
}

#[test]
fn elements_of_lists_are_told_by_what_they_are() {
    let container = |spec: Value| json!({"ContainerSpec": spec});
    check(
        &container(json!({"Env": ["A=1", "B=2", "C"]})),
        &container(json!({"Env": ["B=3", "A=1", "D=a\nb"]})),
        &[
            "~ ContainerSpec.Env[B]: \"B=2\" -> \"B=3\"",
            "- ContainerSpec.Env[C]: \"C\"",
            "+ ContainerSpec.Env[D]: \"D=a\\nb\"",
        ],
    );
    check(
        &container(json!({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/a.b"}]})),
        &container(
            json!({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/a.b", "ReadOnly": true}]}),
        ),
        &["+ ContainerSpec.Mounts[/a.b].ReadOnly: true"],
    );
    check(
        &json!({"Ports": [{"TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp"}]}),
        &json!({"Ports": [{"TargetPort": 80, "PublishedPort": 8081, "Protocol": "tcp"}]}),
        &[
            r#"- Ports[8080:80/tcp]: {"TargetPort":80,"PublishedPort":8080,"Protocol":"tcp"}"#,
            r#"+ Ports[8081:80/tcp]: {"TargetPort":80,"PublishedPort":8081,"Protocol":"tcp"}"#,
        ],
    );
    // The order of arguments matters, and so does one given twice.
    check(
        &json!({"Args": ["a", "b"]}),
        &json!({"Args": ["b", "a"]}),
        &[r#"~ Args: ["a","b"] -> ["b","a"]"#],
    );
    check(
        &json!({"Env": ["A=1"]}),
        &json!({"Env": ["A=1", "A=2"]}),
        &[r#"~ Env: ["A=1"] -> ["A=1","A=2"]"#],
    );
    check(
        &json!({"Hosts": ["1.2.3.4 a", "1.2.3.4 b"]}),
        &json!({"Hosts": ["1.2.3.4 b"]}),
        &["- Hosts[1.2.3.4 a]: \"1.2.3.4 a\""],
    );
}

#[test]
fn data_of_secrets_is_never_shown() {
    let spec = |data: &str| json!({"Name": "app_key", "Data": data});
    let (old, new) = (spec("aHVudGVyMg=="), spec("aHVudGVyMw=="));
    let hidden = fields(Kind::Secret, &old, &new);
    let change = Change {
        kind: Kind::Secret,
        name: "app_key".to_owned(),
        action: Action::Update,
        fields: hidden,
    };
    assert_eq!(
        render(std::slice::from_ref(&change)),
        "~ secret app_key\n    ~ content changes\n"
    );
    assert!(!change.to_json().to_string().contains("aHVudGVy"));
    let shown = fields(Kind::Config, &old, &spec("aHVudGVyMzMz"));
    assert_eq!(shown[0].old, Some(json!("7 bytes")));
    assert_eq!(shown[0].new, Some(json!("9 bytes")));
}

#[test]
fn long_values_are_cut_and_deep_ones_are_whole() {
    let long = "ü".repeat(VALUE_CHARS);
    let text = json!({"Name": long});
    let change = Change {
        kind: Kind::Config,
        name: "c".to_owned(),
        action: Action::Update,
        fields: fields(Kind::Config, &json!({}), &text),
    };
    assert!(render(&[change]).ends_with("ü…\n"));
    let mut deep = [json!(1), json!(2)];
    for value in &mut deep {
        for _ in 0..100 {
            *value = json!({"a": value.take()});
        }
    }
    let fields = fields(Kind::Service, &deep[0], &deep[1]);
    assert_eq!(fields.len(), 1);
    assert_eq!(fields[0].path.split('.').count(), DEPTH_MAX);
}

const VALUE_CHARS: usize = 1000;
