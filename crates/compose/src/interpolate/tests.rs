//! Each form of a variable, set, empty and not set.

use super::*;

fn lookup(name: &str) -> Option<String> {
    match name {
        "SET" => Some("value".to_owned()),
        "EMPTY" => Some(String::new()),
        "Dollar_1" => Some("$SET".to_owned()),
        _ => None,
    }
}

#[track_caller]
fn check(text: &str, expect: &str) {
    let got = Interpolator::new(&lookup).text(text);
    assert_eq!(got.as_deref(), Ok(expect), "{text}");
}

#[track_caller]
fn check_error(text: &str, expect: &str) {
    let got = Interpolator::new(&lookup).text(text);
    assert_eq!(got.unwrap_err(), expect, "{text}");
}

#[test]
fn variables_become_their_values() {
    check("$SET ${SET} a$SET-b$EMPTY.", "value value avalue-b.");
    check("$NONE${NONE}", "");
    check("$Dollar_1", "$SET");
}

#[test]
fn dollar_signs_that_begin_no_variable_stay() {
    check("$$SET $${SET} $5 $ $", "$SET ${SET} $5 $ $");
    check("^a$", "^a$");
}

#[test]
fn defaults_stand_for_what_is_not_set() {
    check("${SET:-d}${SET-d}", "valuevalue");
    check("${EMPTY:-d}${EMPTY-d}", "d");
    check("${NONE:-d}${NONE-d}", "dd");
    check("${NONE:-}", "");
    check("${NONE:-a:b?c+d-e}", "a:b?c+d-e");
}

#[test]
fn alternatives_stand_for_what_is_set() {
    check("${SET:+r}${SET+r}", "rr");
    check("${EMPTY:+r}${EMPTY+r}", "r");
    check("${NONE:+r}${NONE+r}", "");
}

#[test]
fn defaults_may_hold_variables_and_braces() {
    check("${NONE:-${SET}}", "value");
    check("${NONE:-a${ALSO-${EMPTY:-b$SET}}c}d", "abvaluecd");
    check(r#"${NONE:-{"a":{"b":1}}}"#, r#"{"a":{"b":1}}"#);
    check(
        "${NONE:-{{.Node.Hostname}}}-{{.Task.Slot}}",
        "{{.Node.Hostname}}-{{.Task.Slot}}",
    );
}

#[test]
fn required_variables_have_to_be_set() {
    check("${SET:?no}${EMPTY?no}", "value");
    check_error(
        "${NONE:?tell $SET}",
        "required variable `NONE` is not set: tell value",
    );
    check_error("${EMPTY:?}", "required variable `EMPTY` is not set");
    check_error("${NONE?no}", "required variable `NONE` is not set: no");
}

#[test]
fn other_forms_are_refused() {
    check_error(
        "${}",
        "`${}` is no variable; a `$` that is meant is written `$$`",
    );
    check_error(
        "${1}",
        "`${1}` is no variable; a `$` that is meant is written `$$`",
    );
    check_error(
        "${SET!x}",
        "`${SET!x}` is no variable; a `$` that is meant is written `$$`",
    );
    check_error(
        "${SET:x}",
        "`${SET:x}` is no variable; a `$` that is meant is written `$$`",
    );
    check_error(
        "a ${SET",
        "`${SET` has no closing brace; a `$` that is meant is written `$$`",
    );
}

#[test]
fn texts_are_bounded() {
    let long = |_: &str| Some("x".repeat(TEXT_BYTES_MAX / 2));
    let mut interpolator = Interpolator::new(&long);
    assert_eq!(
        interpolator.text("$A$B$C").unwrap_err(),
        "becomes longer than 1048576 bytes"
    );
    let deep = format!("{}x{}", "${N-".repeat(17), "}".repeat(17));
    check_error(&deep, "more than 16 variables within each other");
}
