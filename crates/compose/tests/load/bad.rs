//! Bad files, and the exact words for each.

use skep_compose::{Options, Unsupported};

use crate::disk::{problems, try_load};

/// Checks what is said of one file.
#[track_caller]
fn check(text: &str, expect: &[&str]) {
    let got = problems(&[("compose.yaml", text)]);
    let expect: Vec<String> = expect
        .iter()
        .map(|line| format!("compose.yaml:{line}"))
        .collect();
    assert_eq!(got, expect.join("\n"), "{text}");
}

/// Checks what is said of a service with `image` and one more line, whose key is at 4:5.
#[track_caller]
fn check_web(line: &str, expect: &[&str]) {
    check(
        &format!("services:\n  web:\n    image: nginx\n    {line}\n"),
        expect,
    );
}

#[test]
fn text_that_is_no_yaml() {
    check(
        "a: [",
        &["2:1: not valid YAML: while parsing a node, did not find expected node content"],
    );
    check(
        "a:\n  - x\n   y: [}",
        &["3:5: not valid YAML: mapping values are not allowed in this context"],
    );
    check(
        "a: *nope",
        &["1:4: not valid YAML: while parsing node, found unknown anchor"],
    );
    check(
        "a: \"\\q\"",
        &["1:4: not valid YAML: while parsing a quoted scalar, found unknown escape character"],
    );
    check(
        "- a\n- b\n",
        &["1:1: a compose file is a mapping, and this is a list"],
    );
    check(
        "a: &x [*x]",
        &["1:8: an alias cannot stand in what it names"],
    );
    assert_eq!(
        problems(&[("compose.yaml", "# nothing\n---\n")]),
        "the compose files are empty"
    );
}

#[test]
fn keys_that_are_no_strings_or_stand_twice() {
    check(
        "services:\n  a: {image: x}\n  b:\n    image: x\n    image: y\n  a: {image: z}\n  1: {}\n  ? [x]\n  : y\n",
        &[
            "5:5: key `image` stands here already: 4:5",
            "6:3: key `a` stands here already: 2:3",
            "7:3: a key has to be a string: put `1` in quotes",
            "8:5: a key has to be a string, and is a list",
        ],
    );
    check(
        "services: {}\nx-a: !foo x\nx-b: !!binary eA==",
        &[
            "2:6: unknown tag `!foo`; known are `!reset` and `!override`",
            "3:6: unknown tag `!!binary`; known are `!reset` and `!override`",
        ],
    );
    check(
        "services: {a: {image: x, <<: 5}}",
        &["1:30: `<<` merges mappings, and this is a number"],
    );
}

#[test]
fn unknown_keys_have_a_nearest_one() {
    check(
        "service: {}",
        &[
            "1:1: there are no `services`",
            "1:1: unknown key `service` at the top level; did you mean `services`?",
        ],
    );
    check_web(
        "imgae: x",
        &["4:5: unknown key `imgae` in `services.web`; did you mean `image`?"],
    );
    check_web("zzz: x", &["4:5: unknown key `zzz` in `services.web`"]);
    check_web(
        "deploy: {update_config: {paralelism: 1}}",
        &[
            "4:30: unknown key `paralelism` in `services.web.deploy.update_config`; did you mean `parallelism`?",
        ],
    );
    check_web(
        "healthcheck: {tset: x}",
        &["4:19: unknown key `tset` in `services.web.healthcheck`; did you mean `test`?"],
    );
    check_web(
        "ports: [{target: 1, publish: 2}]",
        &["4:25: unknown key `publish` in `services.web.ports[0]`; did you mean `published`?"],
    );
    check_web(
        "env_file: [{path: a.env, requird: false}]",
        &[
            "4:16: cannot read `a.env`: no such file",
            "4:30: unknown key `requird` in `env_file`; did you mean `required`?",
        ],
    );
}

#[test]
fn values_of_wrong_types() {
    check_web(
        "user: 472",
        &["4:11: `services.web.user` must be a string (in quotes), not `472`"],
    );
    check_web(
        "hostname: [a]",
        &["4:15: `services.web.hostname` must be a string, not a list"],
    );
    check_web(
        "tty: 1",
        &["4:10: `services.web.tty` must be `true` or `false`, not `1`"],
    );
    check_web(
        "deploy: 5",
        &["4:13: `services.web.deploy` must be a mapping, not `5`"],
    );
    check_web(
        "deploy: {replicas: two}",
        &["4:24: `services.web.deploy.replicas` must be a whole number, not `two`"],
    );
    check_web(
        "deploy: {replicas: -1}",
        &["4:24: `services.web.deploy.replicas` must be a whole number, not `-1`"],
    );
    check_web(
        "deploy: {mode: globl}",
        &[
            "4:20: `services.web.deploy.mode` must be `replicated`, `global`, `replicated-job` or `global-job`, not `globl`",
        ],
    );
    check_web(
        "deploy: {update_config: {max_failure_ratio: 2, delay: 10}}",
        &[
            "4:49: `services.web.deploy.update_config.max_failure_ratio` must be a number from 0 to 1, not `2`",
            "4:59: `services.web.deploy.update_config.delay` must be a duration (`10s`, `1m30s`), not `10`",
        ],
    );
    check_web(
        "deploy: {resources: {limits: {cpus: a, memory: 1x}}}",
        &[
            "4:41: `services.web.deploy.resources.limits.cpus` must be a number of CPUs (`0.5`), not `a`",
            "4:52: `services.web.deploy.resources.limits.memory` must be a size (`64m`, `1.5G`), not `1x`",
        ],
    );
}

#[test]
fn lists_and_commands_of_wrong_types() {
    check_web(
        "command: 'a \"b'",
        &["4:14: `services.web.command` must be a command whose quotes have an end, not `a \"b`"],
    );
    check_web(
        "command: {a: b}",
        &["4:14: `services.web.command` must be a string or a list of strings, not a mapping"],
    );
    check_web(
        "restart: sometimes",
        &[
            "4:14: `services.web.restart` must be `no`, `always`, `unless-stopped` or `on-failure[:ATTEMPTS]`, not `sometimes`",
        ],
    );
    check_web(
        "environment: [[], A]",
        &["4:19: expected `NAME=value`, not a list"],
    );
    check_web(
        "environment: {A: [1]}",
        &["4:22: `services.web.environment.A` must be a string or a number, not a list"],
    );
    check_web(
        "cap_add: ALL",
        &["4:14: `services.web.cap_add` must be a list, not `ALL`"],
    );
    check_web(
        "healthcheck: {test: [curl, x], disable: yes}",
        &[
            "4:25: `services.web.healthcheck.test` must be a string, `[CMD, …]`, `[CMD-SHELL, line]` or `[NONE]`, not a list",
        ],
    );
    check_web(
        "ulimits: {nofile: {soft: 1}}",
        &["4:23: a limit needs `soft` and `hard`, or is one number"],
    );
    check_web(
        "oom_score_adj: 2000",
        &[
            "4:20: `services.web.oom_score_adj` must be a whole number from -1000 to 1000, not `2000`",
        ],
    );
}

#[test]
fn ports_mounts_and_hosts_that_cannot_be_read() {
    check_web(
        "ports: [x]",
        &["4:13: `x` in port `x` is no port or range of ports"],
    );
    check_web(
        "ports: [80-90:1-2]",
        &["4:13: the ranges of port `80-90:1-2` have different lengths"],
    );
    check_web(
        "ports: ['1:2:3:4']",
        &["4:13: `1:2` in port `1:2:3:4` is no address"],
    );
    check_web(
        "ports: [80/icmp]",
        &["4:13: protocol `icmp` of port `80/icmp` is not `tcp`, `udp` or `sctp`"],
    );
    check_web(
        "ports: ['0:80', '70000']",
        &[
            "4:13: `0` in port `0:80` is no port or range of ports",
            "4:21: `70000` in port `70000` is no port or range of ports",
        ],
    );
    check_web("ports: [{published: 5}]", &["4:13: a port needs `target`"]);
    check_web(
        "volumes: ['./x:/y:rx']",
        &["4:15: unknown option `rx` of mount `./x:/y:rx`; did you mean `ro`?"],
    );
    check_web(
        "volumes: ['a::b', 'a:b:ro:c']",
        &[
            "4:15: mount `a::b` has an empty part",
            "4:23: mount `a:b:ro:c` has too many colons",
        ],
    );
    check_web(
        "volumes: [{type: bind, target: /x}, {type: tmpfs, source: a, target: /y}]",
        &[
            "4:15: a mount of type `bind` needs `source`",
            "4:41: a mount of type `tmpfs` has no `source`",
        ],
    );
    check_web(
        "volumes: [{type: volume, target: /x, bind: {propagation: shared}}]",
        &["4:48: `bind` is of mounts of that type, not of type `volume`"],
    );
    check_web(
        "tmpfs: '/run:size=big'",
        &[
            "4:12: `services.web.tmpfs[0]` must be `PATH[:OPTION,…]` with a size like `64m`, not `/run:size=big`",
        ],
    );
    check_web(
        "extra_hosts: [somehost]",
        &["4:19: expected `HOST=ADDRESS`"],
    );
    check_web(
        "devices: ['a:b:c:d']",
        &["4:15: device `a:b:c:d` has too many colons"],
    );
}

#[test]
fn names_that_are_not_in_the_file() {
    check_web(
        "depends_on: [wbe]",
        &[
            "4:18: service `web` depends on service `wbe`, which is not in the file; did you mean `web`?",
        ],
    );
    check_web(
        "networks: [front]",
        &["4:16: service `web` is on network `front`, which is not in the file"],
    );
    check_web(
        "volumes: ['data:/d']",
        &["4:14: service `web` mounts volume `data`, which is not in the file"],
    );
    check_web(
        "secrets: [key]",
        &["4:14: service `web` has secret `key`, which is not in the file"],
    );
    check_web(
        "configs: [{source: conf}]",
        &["4:14: service `web` has config `conf`, which is not in the file"],
    );
    check(
        "services:\n  a b: {image: x}\n",
        &["2:8: `a b` is no name: letters, digits, `.`, `_` and `-` are"],
    );
    check(
        "name: My App\nservices:\n  a: {image: x}\n",
        &[
            "1:7: `My App` is no name of a project: lower-case letters, digits, `_` and `-` are, with a letter or digit first",
        ],
    );
}

#[test]
fn what_is_said_twice() {
    check_web(
        "scale: 2\n    deploy: {replicas: 3}",
        &["4:12: `scale` and `deploy.replicas` say different things"],
    );
    check_web(
        "deploy: {mode: global, replicas: 3}",
        &["4:38: `replicas` is for the modes `replicated` and `replicated-job`"],
    );
    check_web(
        "healthcheck: {test: x, disable: true}",
        &["4:18: `test` and `disable` of a health check exclude each other"],
    );
    check(
        "services: {}\nnetworks:\n  a: {external: true, driver: overlay}\nvolumes:\n  b: {external: {name: x}, name: y}\nconfigs:\n  c: {content: x, file: ./y}\n",
        &[
            "3:23: `a` is external: `driver` is not for this file to say",
            "5:18: `name` and `external.name` are both given; `external.name` is the old form",
            "7:16: `c` has its content twice: `content`, too",
            "7:25: cannot read `y`: no such file",
        ],
    );
}

#[test]
fn secrets_and_configs_without_content() {
    check(
        "services: {}\nsecrets:\n  a: {file: ./nope}\n  b:\n  c: {}\n  d: {environment: NOPE}\n  e: {content: x}\nconfigs:\n  f: {content: ''}\n",
        &[
            "3:13: cannot read `nope`: no such file",
            "4:3: `secrets.b` must be a mapping, not nothing",
            "5:6: `c` has no content: it needs `file`, `environment` or `external`",
            "6:20: variable `NOPE` is not set",
            "7:6: `e` has no content: it needs `file`, `environment` or `external`",
            "7:7: unknown key `content` in `secrets.e`",
            "9:6: `f` is empty",
        ],
    );
}

#[test]
fn secrets_over_the_limit() {
    let long = "x".repeat(500 * 1024);
    let text = "services: {}\nsecrets: {a: {file: long.txt}}\nconfigs: {b: {file: long.txt}}\n";
    let got = problems(&[("compose.yaml", text), ("long.txt", &long)]);
    assert_eq!(
        got,
        "compose.yaml:2:21: cannot read `long.txt`: has more than 511999 bytes"
    );
}

#[test]
fn dependencies_in_a_circle() {
    check(
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: {b: {condition: service_healthy}}}\n  d: {image: x, depends_on: [a]}\n",
        &["3:29: services depend on each other: `b` → `c` → `b`"],
    );
    check_web(
        "depends_on: [web]",
        &["4:17: services depend on each other: `web` → `web`"],
    );
    check_web(
        "depends_on: {web: {condition: ready}}",
        &[
            "4:17: services depend on each other: `web` → `web`",
            "4:35: `services.web.depends_on.web.condition` must be `service_started`, `service_healthy` or `service_completed_successfully`, not `ready`",
        ],
    );
}

#[test]
fn variables_that_are_required() {
    check(
        "services:\n  a:\n    image: x:${NOPE:?set the tag}\n    command: [\"${\", \"${A!}\"]\n",
        &[
            "3:12: required variable `NOPE` is not set: set the tag",
            "4:15: `${` has no closing brace; a `$` that is meant is written `$$`",
            "4:21: `${A!}` is no variable; a `$` that is meant is written `$$`",
        ],
    );
}

#[test]
fn keys_a_cluster_cannot_honour() {
    check_web(
        "container_name: x",
        &[
            "4:5: `services.web.container_name` is not supported by a cluster: a service has as many containers as replicas, and names of its own for them",
        ],
    );
    check_web(
        "network_mode: host",
        &[
            "4:5: `services.web.network_mode` is not supported by a cluster: use `networks`; the node's network is the external network `host`",
        ],
    );
    check(
        "services:\n  web:\n    build: .\n",
        &[
            "3:5: `services.web.build` is not supported by a cluster: it runs images; build and push one, and name it with `image`",
        ],
    );
    check(
        "services: {}\nmodels: {}",
        &["2:1: `models` is not supported by a cluster: it runs services only"],
    );
}

#[test]
fn keys_a_cluster_cannot_honour_can_be_left_out() {
    let text = "services:\n  web:\n    image: nginx\n    build: .\n    networks: {default: {priority: 5}}\n  api:\n    build: .\n";
    let options = Options {
        unsupported: Unsupported::Warn,
        ..Options::default()
    };
    let problems = try_load(&[("compose.yaml", text)], &options)
        .unwrap_err()
        .to_string();
    assert_eq!(
        problems,
        "compose.yaml:7:5: service `api` needs `image`: a cluster builds none"
    );
    let whole = text.split("  api").next().unwrap();
    let loaded = try_load(&[("compose.yaml", whole)], &options).unwrap();
    let warnings: Vec<String> = loaded
        .project
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warnings,
        [
            "compose.yaml:4:5: `services.web.build` is not supported by a cluster: it runs images; build and push one, and name it with `image`; it is left out",
            "compose.yaml:5:26: `services.web.networks.default.priority` is not supported by a cluster: networks are attached in the order of their names; it is left out",
        ]
    );
}

#[test]
fn problems_of_all_files_come_at_once() {
    let files = [
        (
            "compose.yaml",
            "services:\n  web: {image: nginx, tty: maybe}\n",
        ),
        (
            "over1.yaml",
            "services:\n  web: {ports: {a: b}, volumes: x}\n  api: {}\n",
        ),
        ("over2.yaml", "services:\n  web: {volumes: [a]}\n"),
    ];
    assert_eq!(
        problems(&files),
        "compose.yaml:2:28: `services.web.tty` must be `true` or `false`, not `maybe`\n\
         over1.yaml:2:16: `services.web.ports` must be a list, not a mapping\n\
         over1.yaml:2:33: `services.web.volumes` must be a list, not `x`\n\
         over1.yaml:3:8: service `api` needs `image`\n\
         over2.yaml:2:18: a list cannot be merged with a string (over1.yaml:2:33)"
    );
}

#[test]
fn mounts_at_one_place() {
    check_web(
        "volumes: ['/a:/x', '/b:/x/']",
        &["4:14: service `web` has two mounts at `/x/`"],
    );
    check_web(
        "volumes: [/x]\n    tmpfs: /x",
        &["5:12: service `web` has two mounts at `/x`"],
    );
}

#[test]
fn permission_bits_that_are_none() {
    let text = "services: {web: {image: x, secrets: [{source: s, mode: 010000}, {source: s, target: t, mode: rw}]}}\nsecrets: {s: {external: true}}";
    check(
        text,
        &[
            "1:56: `services.web.secrets[0].mode` must be permission bits (`0440`), not `10000`",
            "1:94: `services.web.secrets[1].mode` must be permission bits (`0440`), not `rw`",
        ],
    );
}
