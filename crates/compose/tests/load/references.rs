//! Files that name files: `include` and `extends`; and services that are there only with their profile.

use skep_compose::Options;

use crate::disk::{loaded, problems, try_load};

#[test]
fn services_extend_others_of_their_file() {
    let text = "
services:
  base: {image: x, environment: {A: 1, B: 1}, ports: ['80:80'], command: a}
  mid: {extends: base, environment: {B: 2}}
  web: {extends: {service: mid}, environment: [C=3], ports: ['81:81'], command: b}
";
    let project = loaded(&[("compose.yaml", text)]).project;
    let web = &project.services["web"];
    let got: Vec<(&str, Option<&str>)> = web
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    assert_eq!(got, [("A", Some("1")), ("B", Some("2")), ("C", Some("3"))]);
    assert_eq!(
        (web.image.as_str(), web.ports.len(), web.command.as_deref()),
        ("x", 2, Some(&["b".to_owned()][..]))
    );
    assert_eq!(project.services["base"].environment.len(), 2);
}

#[test]
fn services_extend_others_of_other_files() {
    let files = [
        (
            "compose.yaml",
            "services: {web: {extends: {file: sub/base.yaml, service: app}, volumes: ['./own:/own']}}\nvolumes: {data: }",
        ),
        (
            "sub/base.yaml",
            "services: {app: {image: 'x:${TAG}', volumes: ['./rel:/rel', 'data:/d'], env_file: e.env, extends: {file: ../root.yaml, service: root}}, other: {extends: nope}}",
        ),
        ("sub/e.env", "A=1"),
        (
            "root.yaml",
            "services: {root: {image: y, tty: true, volumes: ['./r:/r']}}",
        ),
    ];
    let project = loaded(&files).project;
    assert_eq!(project.services.keys().collect::<Vec<_>>(), ["web"]);
    let web = &project.services["web"];
    assert_eq!(
        (
            web.image.as_str(),
            web.has_tty,
            web.environment["A"].as_deref()
        ),
        ("x:1.2", true, Some("1"))
    );
    let mounts: Vec<&str> = web
        .mounts
        .iter()
        .filter_map(|mount| mount.source.as_deref())
        .collect();
    assert_eq!(mounts, ["/w/r", "/w/sub/rel", "data", "/w/own"]);
}

#[test]
fn extending_services_can_reset_what_they_extend() {
    let text = "services: {base: {image: x, ports: ['80:80'], user: '1'}, web: {extends: base, ports: !reset [], user: !override '2'}}";
    let web = &loaded(&[("compose.yaml", text)]).project.services["web"];
    assert_eq!((web.ports.len(), web.user.as_deref()), (0, Some("2")));
}

#[test]
fn extensions_that_lead_nowhere_are_told() {
    let text = "
services:
  a: {extends: b}
  b: {extends: {service: a}}
  c: {extends: {file: nope.yaml, service: q}}
  dd: {extends: de}
  e: {extends: {service: f, file: other.yaml}}
  f: {extends: {servce: a}}
  g: {extends: {service: x, file: other.yaml}, image: x}
";
    let other = "services: {f: {extends: {service: e, file: compose.yaml}}}";
    assert_eq!(
        problems(&[("compose.yaml", text), ("other.yaml", other)]),
        "compose.yaml:4:16: services extend each other: `a` (compose.yaml) → `b` (compose.yaml) → `a` (compose.yaml)\n\
         compose.yaml:5:16: cannot read `nope.yaml`: no such file\n\
         compose.yaml:6:17: service `de` is not in compose.yaml; did you mean `dd`?\n\
         compose.yaml:8:16: `extends` needs `service`, the name of a service\n\
         compose.yaml:8:17: unknown key `servce` in `extends`; did you mean `service`?\n\
         compose.yaml:9:16: service `x` is not in other.yaml\n\
         other.yaml:1:25: services extend each other: `e` (compose.yaml) → `f` (other.yaml) → `e` (compose.yaml)"
    );
}

#[test]
fn included_files_have_their_own_directory_and_variables() {
    let files = [
        (
            "compose.yaml",
            "include: [db/compose.yaml]\nname: app\nservices: {web: {image: x, depends_on: [db]}}",
        ),
        (".env", "COLOR=root"),
        (
            "db/compose.yaml",
            "name: ignored\nservices: {db: {image: 'pg:${VERSION}-${TAG}-${COLOR}', volumes: ['./init:/init', 'data:/d'], env_file: e.env, environment: [VERSION]}}\nvolumes: {data: }\nsecrets: {s: {file: ./s.txt}}",
        ),
        ("db/.env", "VERSION=16\nTAG=no\nCOLOR=no"),
        ("db/e.env", "A=1"),
        ("db/s.txt", "x"),
    ];
    let project = loaded(&files).project;
    let db = &project.services["db"];
    assert_eq!(db.image, "pg:16-1.2-root");
    assert_eq!(db.mounts[0].source.as_deref(), Some("/w/db/init"));
    assert_eq!(db.environment["VERSION"].as_deref(), Some("16"));
    assert_eq!(db.environment["A"].as_deref(), Some("1"));
    assert_eq!(project.name.as_deref(), Some("app"));
    assert!(project.volumes.contains_key("data") && project.secrets.contains_key("s"));
}

#[test]
fn includes_have_a_long_form_and_can_be_overridden() {
    let files = [
        (
            "compose.yaml",
            "include: [{path: [a/one.yaml, a/two.yaml], project_directory: p, env_file: v.env}]\nservices: {one: {environment: {X: own}, ports: !reset []}}",
        ),
        (
            "a/one.yaml",
            "services: {one: {image: 'x:${V}', volumes: ['./v:/v'], environment: {X: 1, Y: 1}, ports: ['80']}}",
        ),
        ("a/two.yaml", "services: {one: {user: '5'}}"),
        ("v.env", "V=7"),
    ];
    let one = &loaded(&files).project.services["one"];
    assert_eq!(
        (one.image.as_str(), one.user.as_deref(), one.ports.len()),
        ("x:7", Some("5"), 0)
    );
    assert_eq!(one.mounts[0].source.as_deref(), Some("/w/p/v"));
    assert_eq!(
        (
            one.environment["X"].as_deref(),
            one.environment["Y"].as_deref()
        ),
        (Some("own"), Some("1"))
    );
}

#[test]
fn files_of_other_machines_are_not_fetched() {
    let text = "include: ['https://example.org/a.yaml']\nservices: {a: {extends: {file: git@example.org:a.git, service: b}}}";
    assert_eq!(
        problems(&[("compose.yaml", text)]),
        "compose.yaml:1:11: cannot read `https://example.org/a.yaml`: files of other machines are not fetched\n\
         compose.yaml:2:25: cannot read `git@example.org:a.git`: files of other machines are not fetched"
    );
}

#[test]
fn services_extend_included_ones() {
    let files = [
        (
            "compose.yaml",
            "include: [a.yaml]\nservices: {web: {extends: base, tty: true}}",
        ),
        ("a.yaml", "services: {base: {image: x}}"),
    ];
    assert_eq!(loaded(&files).project.services["web"].image, "x");
}

#[test]
fn includes_that_lead_nowhere_are_told() {
    let files = [
        (
            "compose.yaml",
            "include:\n- nope.yaml\n- a.yaml\n- {pth: x}\n- 5\nservices: {}",
        ),
        (
            "a.yaml",
            "include: [b.yaml]\nservices: {a: {image: x, tty: q}}",
        ),
        ("b.yaml", "include: [./a.yaml, compose.yaml]"),
    ];
    assert_eq!(
        problems(&files),
        "b.yaml:1:11: files include each other: compose.yaml → a.yaml → b.yaml → a.yaml\n\
         b.yaml:1:21: files include each other: compose.yaml → a.yaml → b.yaml → compose.yaml\n\
         a.yaml:2:31: `services.a.tty` must be `true` or `false`, not `q`\n\
         compose.yaml:2:3: cannot read `nope.yaml`: no such file\n\
         compose.yaml:4:3: `include` needs `path`, a path or a list of paths\n\
         compose.yaml:4:4: unknown key `pth` in `include`; did you mean `path`?\n\
         compose.yaml:5:3: an entry of `include` is a path or a mapping, not a number"
            .lines()
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join("\n")
    );
}

const PROFILES: &str = "
services:
  web: {image: x, depends_on: {debug: {condition: service_started, required: false}}}
  debug: {image: x, profiles: [dev, test]}
  tool: {image: x, profiles: [tools], depends_on: [debug]}
";

#[track_caller]
fn active(profiles: &[&str], env: &str) -> Result<Vec<String>, String> {
    let options = Options {
        profiles: profiles.iter().map(|&name| name.to_owned()).collect(),
        ..Options::default()
    };
    let loaded = try_load(&[("compose.yaml", PROFILES), (".env", env)], &options);
    loaded
        .map(|loaded| loaded.project.services.into_keys().collect())
        .map_err(|problems| problems.to_string())
}

#[test]
fn services_with_profiles_are_there_when_one_is_active() {
    assert_eq!(active(&[], "").unwrap(), ["web"]);
    assert_eq!(active(&["dev"], "").unwrap(), ["debug", "web"]);
    assert_eq!(active(&["*"], "").unwrap(), ["debug", "tool", "web"]);
    assert_eq!(
        active(&[], "COMPOSE_PROFILES=a, test").unwrap(),
        ["debug", "web"]
    );
    assert_eq!(
        active(&["tools"], "").unwrap_err(),
        "compose.yaml:5:52: service `tool` depends on `debug`, whose profile `dev`, `test` is not active"
    );
}
