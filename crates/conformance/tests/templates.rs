//! Templates in services, secrets and configs, as containers see them; and those that cannot be.

use std::fs;

use skep_conformance::{Cluster, Node};

/// Words of the docker command, and what is said of them.
const REFUSED: [(&str, &str); 6] = [
    (
        "--hostname '{{.Nothing.here}}'",
        "expanding hostname failed: template: expansion:1:10: executing \"expansion\" at <.Nothing.here>: \
         can't evaluate field Nothing in type *template.Context",
    ),
    (
        "--env 'A={{.Node.ID'",
        "expanding env failed: expanding env \"A={{.Node.ID\": template: expansion:1: unclosed action",
    ),
    (
        "--env 'A={{secret \"x\"}}'",
        "function \"secret\" not defined",
    ),
    (
        "--env 'A={{.Service.Labels.none}}'",
        "map has no entry for key \"none\"",
    ),
    (
        "--mount 'type=volume,src={{.Task}},dst=/a{{.Task.Number}}'",
        "expanding mounts failed: expanding mount target",
    ),
    (
        "--mount 'type=volume,src=a,dst=/{{.Task.Slot}}' --mount type=volume,src=b,dst=/1",
        "ContainerSpec: duplicate mount point: /1",
    ),
];

#[test]
fn containers_see_what_their_templates_stand_for() {
    let node = Node::start();
    let id = node.json("/nodes")[0]["ID"].as_str().unwrap().to_owned();
    node.docker_ok(&format!("node update --label-add zone=z1 {id}"));
    let service = node.create(
        "--name web --label tier=front --replicas 2 --hostname '{{.Service.Name}}-{{.Task.Slot}}' \
         --env 'SERVICE={{.Service.ID}} {{index .Service.Labels \"tier\"}}' --env '{{.Key}}=kept' \
         --env 'NODE={{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}' \
         --env 'LABELS={{.Node.Labels.zone}} [{{index .Node.Labels \"none\"}}]' \
         --env 'TASK={{.Task.ID}} {{.Task.Name}}' \
         --env 'SHARD={{if eq .Task.Slot \"1\"}}first{{else}}{{printf \"%03s\" .Task.Slot}}{{end}}' \
         --mount 'type=volume,src=data-{{.Task.Slot}},dst=/data/{{.Service.Name}},volume-label=of={{.Task.Name}}' \
         skep/busybox sleep 1000",
    );
    let service = service.lines().last().unwrap().to_owned();
    let host = node.inside_ok("uname -n");
    for task in node.running("web", 2) {
        let (slot, task_id) = (task["Slot"].to_string(), task["ID"].as_str().unwrap());
        let container = task["Status"]["ContainerStatus"]["ContainerID"]
            .as_str()
            .unwrap();
        let run = |script: &str| node.docker_ok(&format!("exec {container} sh -c '{script}'"));
        assert_eq!(run("hostname"), format!("web-{slot}"));
        // A shell would not pass on what is no name.
        let env = run("tr \"\\0\" \"\\n\" </proc/1/environ");
        let shard = if slot == "1" { "first" } else { "002" };
        for line in [
            format!("SERVICE={service} front"),
            "{{.Key}}=kept".to_owned(),
            format!("NODE={id} {host} linux/x86_64"),
            "LABELS=z1 []".to_owned(),
            format!("TASK={task_id} web.{slot}.{task_id}"),
            format!("SHARD={shard}"),
            format!("HOSTNAME=web-{slot}"),
        ] {
            assert!(env.lines().any(|found| found == line), "{line}: {env}");
        }
        run(&format!("echo {slot} >/data/web/own"));
        let label = node.docker_ok(&format!(
            "volume inspect -f '{{{{.Labels.of}}}}' data-{slot}"
        ));
        assert_eq!(label, format!("web.{slot}.{task_id}"));
    }
    // The spec stays as it was written.
    let shown = node
        .docker_ok("service inspect web --format '{{.Spec.TaskTemplate.ContainerSpec.Hostname}}'");
    assert_eq!(shown, "{{.Service.Name}}-{{.Task.Slot}}");
}

#[test]
fn secrets_and_configs_are_made_of_what_their_tasks_have() {
    let node = Node::start();
    let make = |kind: &str, name: &str, flags: &str, data: &str| {
        let file = node.dir().join(name);
        fs::write(&file, data).unwrap();
        node.docker_ok(&format!("{kind} create {flags} {name} {}", file.display()))
    };
    make("secret", "password", "", "hunter2");
    make("config", "plain", "", "{{not a template}}");
    let driver = "--template-driver golang";
    let text = "slot={{.Task.Slot}} mode={{env \"MODE\"}}\n{{- range $i := 2 }} db{{$i}}{{ end }}\n\
                url=db://app:{{ secret \"db_password\" }}@{{.Service.Name}}/{{ config \"/plain\" }}\n";
    make("config", "app", driver, text);
    make(
        "secret",
        "dsn",
        driver,
        "{{secret \"db_password\"}}@{{.Node.Hostname}}",
    );
    node.create(
        "--name web --env MODE=s{{.Task.Slot}} --secret source=password,target=db_password --secret dsn \
         --config source=plain,target=/plain --config source=app,target=/etc/app.conf,mode=0400 skep/busybox sleep 1000",
    );
    let host = node.inside_ok("uname -n");
    assert_eq!(
        node.exec("web", "cat /etc/app.conf"),
        "slot=1 mode=s1 db0 db1\nurl=db://app:hunter2@web/{{not a template}}"
    );
    assert_eq!(
        node.exec("web", "cat /run/secrets/dsn"),
        format!("hunter2@{host}")
    );
    let driver = node.docker_ok("config inspect app --format '{{.Spec.Templating.Name}}'");
    assert_eq!(driver, "golang");
    // What was made of a secret lies on no disk.
    let found = node.inside_ok("grep -rl hunter2 /var/lib/skep || true");
    assert_eq!(found, "");

    node.create(
        "--name lacks --restart-condition none --config source=app,target=/etc/app.conf skep/busybox sleep 1000",
    );
    let task = node.task_in("lacks", "rejected");
    let reason = task["Status"]["Err"].as_str().unwrap();
    assert!(
        reason.contains("failed to expand templated config app: template: expansion:3:")
            && reason.contains("error calling secret: secret target db_password not found"),
        "{reason}"
    );
    assert_eq!(node.running("web", 1).len(), 1);
}

#[test]
fn templates_that_cannot_be_are_refused() {
    let node = Node::start();
    for (flags, text) in REFUSED {
        let refused = node.docker_fails(&format!(
            "service create -d --no-resolve-image {flags} skep/busybox"
        ));
        assert!(refused.contains(text), "{flags}: {refused}");
    }
    node.create("--name web skep/busybox sleep 1000");
    let refused = node.docker_fails("service update -d --hostname '{{' web");
    assert!(refused.contains("unclosed action"), "{refused}");
    let file = node.dir().join("template");
    fs::write(&file, "{{if}}").unwrap();
    for (kind, driver, text) in [
        (
            "secret",
            "golang",
            "template: expansion:1: missing value for if",
        ),
        (
            "config",
            "golang",
            "template: expansion:1: missing value for if",
        ),
        ("config", "jinja", "unrecognized template type \"jinja\""),
    ] {
        let refused = node.docker_fails(&format!(
            "{kind} create --template-driver {driver} x {}",
            file.display()
        ));
        assert!(refused.contains(text), "{refused}");
    }
    // A label that the node turns out not to have.
    node.create(
        "--name lost --restart-condition none --env 'RACK={{.Node.Labels.rack}}' skep/busybox true",
    );
    let task = node.task_in("lost", "rejected");
    let reason = task["Status"]["Err"].as_str().unwrap();
    assert!(
        reason.contains("map has no entry for key \"rack\""),
        "{reason}"
    );
}

#[test]
fn each_node_expands_for_itself() {
    let cluster = Cluster::start(3, 1);
    for number in cluster.numbers() {
        cluster.load("busybox");
        let label = format!(
            "node update --label-add rack=r{number} {}",
            cluster.id(number)
        );
        cluster.node(1).docker_ok(&label);
    }
    cluster.node(1).create(
        "--name all --mode global --hostname 'on-{{.Node.Labels.rack}}' --env 'SLOT={{.Task.Slot}}' skep/busybox sleep 1000",
    );
    cluster.converged(1, "all", 3);
    for number in cluster.numbers() {
        let node = cluster.node(number);
        let own = node.docker_ok("ps -q --filter label=com.docker.swarm.service.name=all");
        let said = node.docker_ok(&format!("exec {own} sh -c 'hostname; echo $SLOT'"));
        assert_eq!(said, format!("on-r{number}\n{}", cluster.id(number)));
    }
}
