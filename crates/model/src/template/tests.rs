//! What Go's `text/template` gives for the same, as `docker context inspect --format` (28.2) showed it;
//! and that bad templates end.

use std::{collections::BTreeMap, thread};

use super::*;
use crate::spec::{ContainerSpec, Driver, Mount, VolumeOptions};

fn context() -> Context {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Context {
        service_id: "sid".to_owned(),
        service_name: "web".to_owned(),
        service_labels: BTreeMap::from([label("a", "1"), label("com.example/b", "2")]),
        node_id: "nid".to_owned(),
        node_hostname: "host".to_owned(),
        os: "linux".to_owned(),
        architecture: "x86_64".to_owned(),
        node_labels: NodeLabels::Known(BTreeMap::from([label("zone", "z1")])),
        task_id: "tid".to_owned(),
        task_name: "web.3.tid".to_owned(),
        task_slot: "3".to_owned(),
    }
}

fn expand(text: &str) -> Result<String, String> {
    let template = Template::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    let expanded = template.expand(&context(), FIELD_BYTES_MAX);
    let expanded = expanded.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&expanded).into_owned())
}

#[track_caller]
fn check(text: &str, expect: &str) {
    assert_eq!(expand(text).as_deref(), Ok(expect), "{text}");
}

#[track_caller]
fn check_error(text: &str, expect: &str) {
    let expect = format!("template: expansion:{expect}");
    assert_eq!(expand(text), Err(expect), "{text}");
}

/// An error in the first line while it runs.
#[track_caller]
fn check_failure(text: &str, column: usize, at: &str, message: &str) {
    check_error(
        text,
        &format!("1:{column}: executing \"expansion\" at <{at}>: {message}"),
    );
}

#[test]
fn service_node_and_task_are_known() {
    check("{{.Service.ID}} {{.Service.Name}}", "sid web");
    check(
        "{{.Service.Labels.a}} {{index .Service.Labels \"com.example/b\"}}",
        "1 2",
    );
    check("{{.Service.Labels}}", "map[a:1 com.example/b:2]");
    check(
        "{{range $k, $v := .Service.Labels}}{{$k}}={{$v}},{{end}}",
        "a=1,com.example/b=2,",
    );
    check("{{.Node.ID}}-{{.Node.Hostname}}", "nid-host");
    check(
        "{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}",
        "linux/x86_64",
    );
    check("{{.Node.Labels.zone}}", "z1");
    check(
        "{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}",
        "tid web.3.tid 3",
    );
    check("{{.Node}}", "{nid host {x86_64 linux}}");
    check("{{join \"-\" .Service.Name .Task.Slot}}", "web-3");
    check("plain }} text", "plain }} text");
}

#[test]
fn what_is_not_known_is_named() {
    check_failure(
        "{{.Nothing.here}}",
        10,
        ".Nothing.here",
        "can't evaluate field Nothing in type *template.Context",
    );
    check_failure(
        "{{.Service.Nam}}",
        10,
        ".Service.Nam",
        "can't evaluate field Nam in type struct { ID string; Name string; Labels map[string]string }",
    );
    check_failure(
        "{{.Service.Name.x.y}}",
        10,
        ".Service.Name.x.y",
        "can't evaluate field x in type string",
    );
    check_failure(
        "{{.Node.Labels.rack}}",
        7,
        ".Node.Labels.rack",
        "map has no entry for key \"rack\"",
    );
    check("{{index .Node.Labels \"rack\"}}", "");
    let text = "a\nb {{ .Task.Foo }}";
    check_error(
        text,
        "2:10: executing \"expansion\" at <.Task.Foo>: can't evaluate field Foo in type \
         struct { ID string; Name string; Slot string }",
    );
}

#[test]
fn labels_of_a_node_may_be_to_come() {
    let template = Template::parse(b"{{.Node.Labels.x}}").unwrap();
    let mut context = context();
    context.node_labels = NodeLabels::Untold;
    assert_eq!(
        template.expand(&context, FIELD_BYTES_MAX),
        Err(Error::NodeLabelsUntold)
    );
    context.node_labels = NodeLabels::Any;
    assert_eq!(template.expand(&context, FIELD_BYTES_MAX).unwrap(), b"");
}

#[test]
fn statements_are_gos() {
    check(
        "{{range 3}}{{if eq . 1}}{{continue}}{{end}}{{.}}{{end}}",
        "02",
    );
    check("{{range 3}}{{if eq . 1}}{{break}}{{end}}{{.}}{{end}}", "0");
    check("{{range $i := 2}}{{$i}},{{end}}", "0,1,");
    check("{{range 0}}a{{else}}none{{end}}", "none");
    check("{{with \"x\"}}{{.}}{{else with \"y\"}}{{.}}{{end}}", "x");
    check("{{with \"\"}}{{else with \"y\"}}{{.}}{{end}}", "y");
    check("{{if \"\"}}a{{else if 1}}b{{else}}c{{end}}", "b");
    check("a {{- \" b \" -}} c", "a b c");
    check("a{{/* x */}}b{{- /* y */ -}} c", "abc");
    check("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2");
    check(
        "{{define \"a\"}}<{{.}}>{{end}}{{template \"a\" \"x\"}}",
        "<x>",
    );
    check("{{block \"q\" 3}}[{{.}}]{{end}}", "[3]");
    check(
        "{{ $.Task.Slot }}{{(index .Service.Labels \"a\") | printf \"%03s\"}}",
        "3001",
    );
    check_failure(
        "{{range $i, $v := 2}}{{$i}}{{end}}",
        18,
        "2",
        "can't use 2 to iterate over more than one variable",
    );
    check_failure(
        "{{range \"abc\"}}{{end}}",
        8,
        "\"abc\"",
        "range can't iterate over abc",
    );
    check_failure("{{range $x = 3}}{{end}}", 13, "3", "undefined variable: $x");
    check_failure(
        "{{template \"x\"}}",
        11,
        "{{template \"x\"}}",
        "template \"x\" not defined",
    );
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    for (text, message) in [
        ("{{end}}", "unexpected {{end}}"),
        ("{{if 1}}", "unexpected EOF"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{break}}", "{{break}} outside {{range}}"),
        (
            "{{if 1}}{{else}}{{else}}{{end}}",
            "expected end; found {{else}}",
        ),
        (
            "{{range $a,$b,$c := 3}}{{end}}",
            "too many declarations in range",
        ),
        ("{{1 | 2}}", "non executable command in pipeline stage 2"),
        ("{{\"\\q\"}}", "invalid syntax"),
        ("{{}}", "missing value for command"),
        ("{{if}}", "missing value for if"),
        ("{{/* a }}", "unclosed comment"),
        ("{{/* a */ x}}", "comment ends before closing delimiter"),
        ("{{\"a\nb\"}}", "unterminated quoted string"),
        ("{{$x}}", "undefined variable \"$x\""),
        ("{{nil.x}}", "unexpected . after term \"nil\""),
        (
            "{{range $i := 2}}{{$i}}{{end}}{{$i}}",
            "undefined variable \"$i\"",
        ),
        ("{{define \"x\"}}{{end", "unclosed action"),
        ("{{if .Name}}{{.Name}}{{end}", "bad character U+007D '}'"),
        ("{{.Name \"a very long\" }", "unexpected \"}\" in operand"),
        ("{{foo}}", "function \"foo\" not defined"),
        ("{{secret \"x\"}}", "function \"secret\" not defined"),
        ("{{'ab'}}", "malformed character constant: 'ab'"),
        ("{{0x}}", "illegal number syntax: \"0x\""),
        (
            "{{99999999999999999999}}",
            "integer overflow: \"99999999999999999999\"",
        ),
        ("{{12a}}", "bad number syntax: \"12a\""),
        ("{{(1}}", "unclosed left paren"),
        ("{{1)}}", "unexpected right paren"),
        ("{{@}}", "unexpected \"@\" in command"),
        ("{{\u{e9}}}", "function \"\u{e9}\" not defined"),
    ] {
        check_error(text, &format!("1: {message}"));
    }
    check_error("{{if 1}}\n{{ \"a", "2: unterminated quoted string");
}

#[test]
fn functions_are_gos() {
    check("{{and 1 0 5}}{{or \"\" \"x\"}}{{not \"\"}}", "0xtrue");
    check("{{print nil 1 2 \"a\" \"b\" 3}}", "<nil> 1 2ab3");
    check(
        "{{1.5 | print}} {{print 1 2}}{{print \"a\" 1 2 \"b\"}}",
        "1.5 1 2a1 2b",
    );
    check("{{println 1 \"a\"}}", "1 a\n");
    check(
        "{{html \"<a href=\\\"x\\\">\"}}",
        "&lt;a href=&#34;x&#34;&gt;",
    );
    check("{{js \"it's <x>\"}}", "it\\'s \\u003Cx\\u003E");
    check("{{urlquery \"a b&c\"}}", "a+b%26c");
    check("{{\"a\" | printf \"%s-%s\" \"b\"}}", "b-a");
    check(
        "{{index \"abc\" 1}} {{slice \"abcdef\" 2 4}} {{len \"abc\"}}",
        "98 cd 3",
    );
    check(
        "{{eq \"a\" \"b\" \"a\"}} {{ne 1 2}} {{le \"a\" \"b\"}} {{eq nil nil}}",
        "true true true true",
    );
    check("{{or 1 (index \"a\" 9)}}", "1");
}

#[test]
fn calls_that_fail_say_why() {
    let at = "index \"a\" 9";
    check_failure(
        "{{and 1 (index \"a\" 9)}}",
        9,
        at,
        "error calling index: index out of range: 9",
    );
    for (call, message) in [
        (
            "index \"abc\" \"x\"",
            "error calling index: cannot index slice/array with type string",
        ),
        ("index nil 1", "error calling index: index of untyped nil"),
        ("len 3", "error calling len: len of type int"),
        (
            "eq 1 \"a\"",
            "error calling eq: incompatible types for comparison",
        ),
        ("eq 1", "error calling eq: missing argument for comparison"),
        (
            "lt true false",
            "error calling lt: invalid type for comparison",
        ),
        (
            "slice \"abc\" 3 1",
            "error calling slice: invalid slice index: 3 > 1",
        ),
    ] {
        check_failure(&format!("{{{{{call}}}}}"), 2, call, message);
    }
    check_failure(
        "{{3 | len}}",
        6,
        "len",
        "error calling len: len of type int",
    );
    check_failure("{{nil}}", 2, "nil", "nil is not a command");
    check_failure(
        "{{\"x\" 3}}",
        2,
        "\"x\"",
        "can't give argument to non-function \"x\"",
    );
    check_failure(
        "{{(\"a\").foo}}",
        3,
        "\"a\"",
        "can't evaluate field foo in type string",
    );
}

#[test]
fn arguments_must_fit() {
    check_failure(
        "{{len}}",
        2,
        "len",
        "wrong number of args for len: want 1 got 0",
    );
    check_failure(
        "{{ge 3 3 3}}",
        2,
        "ge",
        "wrong number of args for ge: want 2 got 3",
    );
    check_failure(
        "{{and}}",
        2,
        "and",
        "wrong number of args for and: want at least 1 got 0",
    );
    check_failure("{{printf 3}}", 9, "3", "expected string; found 3");
    check_failure("{{printf nil}}", 9, "nil", "cannot assign nil to string");
    check_failure(
        "{{.Node.ID | .Node.ID}}",
        18,
        ".Node.ID",
        "ID has arguments but cannot be invoked as function",
    );
}

#[test]
fn values_are_printed_as_go_prints_them() {
    check(
        "{{1000000.0}} {{123456789.5}} {{1e20}} {{0.00001}}",
        "1e+06 1.234567895e+08 1e+20 1e-05",
    );
    check(
        "{{1.0}} {{1e3}} {{.5}} {{017}} {{0x1F}} {{1_000}} {{'a'}}",
        "1 1000 0.5 15 31 1000 97",
    );
    check(
        "{{printf \"%g %v %e %5.1f|%-5d|%05d|%+d|%x|%#x|%q|%5s|%.2s|%c|%U\" 1234567.0 1e7 2.5 3.14 7 \
         42 5 255 255 65 \"ab\" \"abcdef\" 65 65}}",
        "1.234567e+06 1e+07 2.500000e+00   3.1|7    |00042|+5|ff|0xff|'A'|   ab|ab|A|U+0041",
    );
    check("{{printf \"%d\" \"x\"}}", "%!d(string=x)");
    check("{{printf \"%s %s\" \"a\"}}", "a %!s(MISSING)");
    check("{{printf \"%s\" \"a\" 3}}", "a%!(EXTRA int=3)");
    check(
        "{{printf \"%z\" 3}}{{printf \"%\"}}",
        "%!z(int=3)%!(NOVERB)",
    );
    check(
        "{{printf \"%05s|%-05d|%*d\" \"ab\" 3 5 7}}",
        "000ab|3    |    7",
    );
    check(
        "{{printf \"%v|%6.2f|%t|%x\" \"a\" 2.0 true \"\u{e9}\"}}",
        "a|  2.00|true|c3a9",
    );
    check(
        "{{printf \"%s\" 12}} {{printf \"%q\" \"a\\\"b\"}}",
        "%!s(int=12) \"a\\\"b\"",
    );
    check("{{printf \"%v %d\" nil nil}}", "<nil> %!d(<nil>)");
    check("{{\"\\x41\u{e9}\\n\\\"\"}}{{`a\\n`}}", "A\u{e9}\n\"a\\n");
}

#[test]
fn floats_have_as_many_digits_as_asked_for() {
    let zeros = "0".repeat(70_000);
    check(
        "{{printf \"%.70000f\" 1.5}}",
        &format!("1.5{}", &zeros[1..]),
    );
    check(
        "{{printf \"%.70000e\" 1.5}}",
        &format!("1.5{}e+00", &zeros[1..]),
    );
    check("{{printf \"%.70000g %.65536v\" 1.5 -0.0}}", "1.5 -0");
    let error = expand("{{printf \"%.999999f\" 1.0}}").unwrap_err();
    assert!(error.contains("result has more than"), "{error}");
}

#[test]
fn no_template_takes_for_ever() {
    let ends = |text: &str, part: &str| {
        let error = expand(text).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    ends("{{range 1000000000}}{{end}}", "takes more than 10000 steps");
    ends(
        "{{range 100000}}{{range 100000}}{{end}}{{end}}",
        "takes more than 10000 steps",
    );
    ends(
        "{{range 3000}}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{{end}}",
        "result has more than 131072 bytes",
    );
    ends(
        "{{$x := \"ab\"}}{{range 60}}{{$x = print $x $x}}{{end}}",
        "error calling print: result has more than 131072 bytes",
    );
    ends(
        "{{$x := printf \"%60000d\" 1}}{{range 900}}{{$y := printf $x}}{{end}}",
        "takes more than 10000 steps",
    );
    ends(
        "{{printf \"%999999d\" 1}}",
        "result has more than 131072 bytes",
    );
    ends(
        "{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}",
        "more than 100 levels deep",
    );
    let deep = |count: usize| format!("{{{{{}1{}}}}}", "(".repeat(count), ")".repeat(count));
    ends(&deep(60), "more than 50 levels of nesting");
    ends(&"{{if 1}}".repeat(60), "more than 50 levels of nesting");
    // The deepest that is taken, on a small stack.
    let text = format!(
        "{}{}{}",
        "{{if 1}}".repeat(24),
        deep(20),
        "{{end}}".repeat(24)
    );
    let small = thread::Builder::new().stack_size(1 << 20);
    let worker = small.spawn(move || expand(&text)).unwrap();
    assert_eq!(worker.join().unwrap().as_deref(), Ok("1"));
    ends(&format!("{{{{{}", "1 ".repeat(300_000)), "parts");
}

struct Given;

impl Payload for Given {
    fn secret(&self, target: &str) -> Result<Vec<u8>, String> {
        match target {
            "password" => Ok(vec![0xff, b'p']),
            other => Err(format!("secret target {other} not found")),
        }
    }

    fn config(&self, target: &str) -> Result<Vec<u8>, String> {
        Ok(format!("<{target}>").into_bytes())
    }

    fn env(&self, name: &str) -> Result<Vec<u8>, String> {
        Ok(name.to_lowercase().into_bytes())
    }
}

#[test]
fn secrets_and_configs_may_ask_for_others_and_be_no_text() {
    let expand = |text: &[u8]| {
        let template = Template::parse_payload(text).unwrap();
        let expanded = template.expand_payload(&context(), &Given);
        expanded.map_err(|error| error.to_string())
    };
    let text = b"\xfe{{secret \"password\"}} {{config \"c\"}} {{env \"HOME\"}} {{.Task.Slot}}";
    assert_eq!(expand(text).unwrap(), b"\xfe\xffp <c> home 3");
    assert_eq!(
        expand(b"SECRET_VAL={{secret \"unknowntarget\"}}\n").unwrap_err(),
        "template: expansion:1:13: executing \"expansion\" at <secret \"unknowntarget\">: \
         error calling secret: secret target unknowntarget not found"
    );
    assert!(
        expand(b"{{.Foo}}")
            .unwrap_err()
            .ends_with("in type *template.PayloadContext")
    );
}

#[test]
fn a_container_is_expanded_where_swarm_does() {
    let spec = ContainerSpec {
        hostname: "{{.Service.Name}}-{{.Task.Slot}}".to_owned(),
        env: vec![
            "PLAIN=x".to_owned(),
            "{{.NotExpanded}}=foo".to_owned(),
            "NODE={{.Node.Hostname}}".to_owned(),
            "{{.Unset}}".to_owned(),
        ],
        labels: BTreeMap::from([("l".to_owned(), "{{.Task.ID}}".to_owned())]),
        mounts: vec![Mount {
            source: "data-{{.Task.Slot}}".to_owned(),
            target: "/{{.Node.ID}}".to_owned(),
            volume: Some(VolumeOptions {
                labels: BTreeMap::from([("{{k}}".to_owned(), "{{.Service.ID}}".to_owned())]),
                driver: Some(Driver {
                    name: "local".to_owned(),
                    options: BTreeMap::from([("device".to_owned(), "/{{.Task.Slot}}".to_owned())]),
                }),
                ..VolumeOptions::default()
            }),
            ..Mount::default()
        }],
        ..ContainerSpec::default()
    };
    let expanded = container(&context(), &spec).unwrap();
    assert_eq!(expanded.hostname, "web-3");
    assert_eq!(
        expanded.env,
        ["PLAIN=x", "{{.NotExpanded}}=foo", "NODE=host", "{{.Unset}}"]
    );
    assert_eq!(expanded.labels, spec.labels);
    let mount = &expanded.mounts[0];
    assert_eq!((&mount.source[..], &mount.target[..]), ("data-3", "/nid"));
    let options = mount.volume.as_ref().unwrap();
    assert_eq!(options.labels["{{k}}"], "sid");
    assert_eq!(options.driver.as_ref().unwrap().options["device"], "/3");
}

#[test]
fn errors_say_which_field() {
    let text = |spec: &ContainerSpec| container(&context(), spec).unwrap_err().to_string();
    let mut spec = ContainerSpec {
        env: vec!["A={{.X}}".to_owned()],
        ..ContainerSpec::default()
    };
    assert!(
        text(&spec).starts_with(
            "expanding env failed: expanding env \"A={{.X}}\": template: expansion:1:2:"
        ),
        "{}",
        text(&spec)
    );
    spec.env.clear();
    spec.mounts.push(Mount {
        source: "{{".to_owned(),
        ..Mount::default()
    });
    assert_eq!(
        text(&spec),
        "expanding mounts failed: expanding mount source \"{{\": template: expansion:1: unclosed action"
    );
    spec.mounts.clear();
    spec.hostname = "{{foo}}".to_owned();
    assert_eq!(
        text(&spec),
        "expanding hostname failed: template: expansion:1: function \"foo\" not defined"
    );
}
