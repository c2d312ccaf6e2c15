//! Lines of `.env` files and what they mean.

use super::*;

fn lookup(name: &str) -> Option<String> {
    (name == "HOME").then(|| "/root".to_owned())
}

fn read(text: &str, format: Format) -> Result<Environment, String> {
    let known = Environment::from([("BEFORE".to_owned(), "b4".to_owned())]);
    parse(Path::new("a.env"), text.as_bytes(), format, &known, &lookup)
        .map_err(|problem| problem.to_string())
}

#[track_caller]
fn check(text: &str, expect: &[(&str, &str)]) {
    let expect: Environment = expect
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(read(text, Format::Dotenv), Ok(expect), "{text}");
}

#[test]
fn lines_are_variables() {
    check(
        "A=1\n\n# comment\n  B = two words  \nexport C=3\r\nD:4\nE=",
        &[
            ("A", "1"),
            ("B", "two words"),
            ("C", "3"),
            ("D", "4"),
            ("E", ""),
        ],
    );
}

#[test]
fn comments_need_a_space_before_them() {
    check(
        "A=a #c\nB=a#b\nC='a' # c\nD=\"x\" # c",
        &[("A", "a"), ("B", "a#b"), ("C", "a"), ("D", "x")],
    );
}

#[test]
fn names_alone_take_the_value_of_the_environment() {
    check("HOME\nNONE\nA=1", &[("HOME", "/root"), ("A", "1")]);
}

#[test]
fn values_name_others() {
    check(
        "A=1\nB=$A-${HOME}\nC='$A'\nD=\"${NONE:-d}\\$A\"\nE=$BEFORE\nHOME=x\nF=$HOME",
        &[
            ("A", "1"),
            ("B", "1-/root"),
            ("C", "$A"),
            ("D", "d$A"),
            ("E", "b4"),
            ("HOME", "x"),
            ("F", "/root"),
        ],
    );
}

#[test]
fn quoted_values_have_lines_and_escapes() {
    check(
        "A=\"a\\nb\nc \\\"q\\\" \\101 \\0101\"\nB='it\\'s\n\\n'",
        &[("A", "a\nb\nc \"q\" \\101 A"), ("B", "it's\n\\n")],
    );
}

#[test]
fn raw_values_stand_as_they_are() {
    let got = read("A='$X' # \"c\"\n#B=1\nC= x ", Format::Raw).unwrap();
    assert_eq!(got["A"], "'$X' # \"c\"");
    assert_eq!(got["C"], " x ");
    assert_eq!(got.len(), 2);
}

#[test]
fn mistakes_name_their_line() {
    let error = |text| read(text, Format::Dotenv).unwrap_err();
    assert_eq!(
        error("A=1\n\nB C=1"),
        "a.env:3:1: character ` ` in the name of variable `B C`"
    );
    assert_eq!(error("A='x\ny\n"), "a.env:1:1: a quoted value without end");
    assert_eq!(error("=x"), "a.env:1:1: a line without a name");
    assert_eq!(
        error("A=1\nB=${C:?no}"),
        "a.env:2:1: required variable `C` is not set: no"
    );
}

#[test]
fn values_cannot_double_for_ever() {
    let mut text = "A0=0123456789\n".to_owned();
    for at in 1..60 {
        text.push_str(&format!("A{at}=$A{0}$A{0}\n", at - 1));
    }
    let error = read(&text, Format::Dotenv).unwrap_err();
    assert!(error.ends_with("is too long"), "{error}");
}
