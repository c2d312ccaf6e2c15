//! Whatever a file holds: an answer, in bounded time and memory, and no panic.

use proptest::prelude::*;
use skep_compose::{Options, load, merge, render};

use crate::disk::{Disk, environment, loaded, problems, try_load};

#[test]
fn aliases_cannot_fill_the_memory() {
    let mut text = "x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for at in 1..10 {
        let aliases = vec![format!("*a{}", at - 1); 10].join(", ");
        text.push_str(&format!("x-a{at}: &a{at} [{aliases}]\n"));
    }
    assert_eq!(
        problems(&[("compose.yaml", &text)]),
        "compose.yaml:5:42: more than 100000 values, with the copies that aliases make"
    );
}

#[test]
fn values_cannot_be_arbitrarily_deep() {
    let text = format!("x: {}", "[".repeat(100));
    assert_eq!(
        problems(&[("compose.yaml", &text)]),
        "compose.yaml:1:67: more than 64 values within each other"
    );
    let text = format!("x: {}", "[".repeat(100_000));
    assert_eq!(
        problems(&[("compose.yaml", &text)]),
        "compose.yaml:1:259: not valid YAML: recursion limit exceeded"
    );
    let block: String = (0..200)
        .map(|at| format!("{}a:\n", " ".repeat(at)))
        .collect();
    assert_eq!(
        problems(&[("compose.yaml", &block)]),
        "compose.yaml:65:65: more than 64 values within each other"
    );
}

#[test]
fn files_cannot_be_arbitrarily_long() {
    let text = format!("x: {}", "y".repeat(1 << 20));
    assert_eq!(
        problems(&[("compose.yaml", &text)]),
        "cannot read `compose.yaml`: has more than 1048576 bytes"
    );
}

#[test]
fn lines_may_end_as_on_windows() {
    let unix = include_str!("../files/merge/compose.yaml");
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    let load = |text: &str| loaded(&[("compose.yaml", text)]).project;
    assert_eq!(load(unix), load(&windows));
}

#[test]
fn services_cannot_extend_each_other_without_end() {
    let mut text = "services:\n  s0: {image: x}\n".to_owned();
    for at in 1..1000 {
        text.push_str(&format!("  s{at}: {{extends: s{}}}\n", at - 1));
    }
    let told = problems(&[("compose.yaml", &text)]);
    assert!(
        told.lines()
            .next()
            .unwrap()
            .ends_with("more than 32 services extend each other"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 100, "problems are bounded, too");
}

#[test]
fn variables_cannot_fill_the_memory() {
    let mut text = "services:\n  web:\n    image: x\n    command:\n".to_owned();
    for _ in 0..40_000 {
        text.push_str("    - $LONG\n");
    }
    let mut environment = environment();
    environment.insert("LONG".to_owned(), "x".repeat(100_000));
    let sources = [skep_compose::Source::File("compose.yaml".into())];
    let problems = load(
        &sources,
        &environment,
        &Disk::new(&[("compose.yaml", &text)]),
        &Options::default(),
    )
    .unwrap_err();
    assert!(
        problems
            .to_string()
            .contains("all texts together become longer than 16777216 bytes"),
        "{problems}"
    );
}

/// Lines that mean something, so that random files reach the code behind the parser.
const LINES: [&str; 40] = [
    "services:",
    "  web:",
    "  db: {image: x}",
    "    image: nginx:${TAG:-1}",
    "    extends: db",
    "    extends: {file: compose.yaml, service: web}",
    "    ports: ['80:80', 90, {target: 5}]",
    "    volumes: ['a:/b:ro', {type: bind}]",
    "    environment: [A, B=1]",
    "    environment: {A: !reset x}",
    "    deploy: {replicas: 3, mode: global}",
    "    deploy: !override",
    "      resources: {limits: {cpus: '1'}}",
    "    depends_on: [web, db]",
    "    command: \"a 'b\"",
    "    healthcheck: {test: [NONE]}",
    "    secrets: [s]",
    "    env_file: [.env]",
    "    networks: {n: }",
    "    <<: *a",
    "x-a: &a {tty: true}",
    "networks: {n: {external: {name: y}}}",
    "volumes:",
    "secrets: {s: {environment: HOME}}",
    "configs: {c: {content: x}}",
    "include: [compose.yaml]",
    "include:",
    "- path: over1.yaml",
    "name: app",
    "---",
    "    ulimits: {nofile: 5}",
    "    tmpfs: /x:size=1m",
    "    extra_hosts: [a:b]",
    "    devices: [/dev/x:r]",
    "    profiles: [p]",
    "    - x",
    "    ? y",
    "    logging: {driver: ${X?}}",
    "    labels: 5",
    "    \tx: y",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let disk = Disk::default().with("compose.yaml", bytes);
        let sources = [skep_compose::Source::File("compose.yaml".into())];
        let _ = load(&sources, &environment(), &disk, &Options::default());
    }

    #[test]
    fn no_damaged_file_panics(damages in proptest::collection::vec((any::<proptest::sample::Index>(), 0_usize..4, any::<proptest::sample::Index>()), 1..6)) {
        const PIECES: [&str; 16] = ["\n", " ", "  ", "\t", ":", "- ", "? ", "&a ", "*a", "|", "\"", "'", "{", "]", "!x ", "#"];
        let mut text: Vec<char> = include_str!("../files/modern.yaml").chars().collect();
        for (place, removed, piece) in damages {
            let at = place.index(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece.get(&PIECES).chars());
        }
        let text: String = text.into_iter().collect();
        let _ = try_load(&[("compose.yaml", &text)], &Options::default());
    }

    #[test]
    fn no_text_panics(text in "[ -~\n]{0,200}", env in "[A-C='\"$\\\\{}:#\n -]{0,80}") {
        let _ = try_load(&[("compose.yaml", &text), (".env", &env)], &Options::default());
    }

    #[test]
    fn no_compose_file_panics(lines in proptest::collection::vec(proptest::sample::select(&LINES[..]), 0..25), over in proptest::collection::vec(proptest::sample::select(&LINES[..]), 0..8)) {
        let (text, over) = (lines.join("\n"), over.join("\n"));
        let files = [("compose.yaml", text.as_str()), ("over1.yaml", over.as_str()), (".env", "A=1")];
        if let Ok(loaded) = try_load(&files, &Options::default()) {
            // What is rendered says the same.
            let rendered = render(&loaded.document);
            let again = try_load(&[("compose.yaml", &rendered)], &Options::default()).unwrap();
            prop_assert_eq!(render(&again.document), rendered);
        }
        let sources = [skep_compose::Source::File("compose.yaml".into())];
        let _ = merge(&sources, &environment(), &Disk::new(&files), &Options::default());
    }

    #[test]
    fn any_text_survives_rendering(value in any::<String>(), key in "[a-z: #'\"\\[\\]{}&*!|>%@-]{1,8}") {
        let quoted = serde_json::to_string(&value.replace('$', "$$")).unwrap();
        let key = serde_json::to_string(&key).unwrap();
        let text = format!("services: {{web: {{image: x, labels: {{{key}: {quoted}}}}}}}");
        let Ok(loaded) = try_load(&[("compose.yaml", &text)], &Options::default()) else {
            // What YAML does not allow in a file at all.
            return Ok(());
        };
        let rendered = render(&loaded.document);
        let again = try_load(&[("compose.yaml", &rendered)], &Options::default());
        prop_assert_eq!(again.map(|loaded| loaded.project).map_err(|problems| problems.to_string()), Ok(loaded.project), "{}", rendered);
    }
}
