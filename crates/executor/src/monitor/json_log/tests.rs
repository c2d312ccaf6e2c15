//! Format, rotation and full-disk behaviour of the log writer.

use proptest::prelude::*;

use super::*;

fn log_in(dir: &Path, max_size: u64, max_files: u32) -> JsonLog {
    JsonLog::open(LogFile {
        path: dir.join("c-json.log"),
        max_size,
        max_files,
        details: BTreeMap::new(),
    })
}

#[test]
fn an_entry_is_byte_equal_to_dockers() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_in(dir.path(), 0, 1);
    log.append(
        "stdout",
        b"tab\there <b> & \"q\" \\ \xff \r",
        true,
        1_700_000_000_120_000_000,
    );
    log.append(
        "stderr",
        "é\u{2028}".as_bytes(),
        false,
        1_700_000_000_000_000_000,
    );
    log.flush();
    let expected = concat!(
        r#"{"log":"tab\u0009here \u003cb\u003e \u0026 \"q\" \\ \ufffd \r\n","stream":"stdout","time":"2023-11-14T22:13:20.12Z"}"#,
        "\n",
        r#"{"log":"é\u2028","stream":"stderr","time":"2023-11-14T22:13:20Z"}"#,
        "\n"
    );
    assert_eq!(
        fs::read_to_string(dir.path().join("c-json.log")).unwrap(),
        expected
    );
}

#[test]
fn rotation_keeps_the_newest_files_and_loses_no_line_among_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_in(dir.path(), 300, 3);
    for n in 0..20 {
        log.append("stdout", format!("line {n}").as_bytes(), true, 0);
    }
    log.flush();
    let path = dir.path().join("c-json.log");
    let text: String = [rotated(&path, 2), rotated(&path, 1), path.clone()]
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let numbers: Vec<u32> = text
        .lines()
        .map(|line| {
            line.split("line ")
                .nth(1)
                .unwrap()
                .split('\\')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    let first = numbers[0];
    assert!(first > 0, "the oldest file must be gone");
    assert_eq!(numbers, (first..20).collect::<Vec<_>>());
    assert!(!rotated(&path, 3).exists());
}

#[test]
fn one_file_is_truncated_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_in(dir.path(), 200, 1);
    for _ in 0..10 {
        log.append("stdout", b"0123456789", true, 0);
        log.flush();
    }
    assert!(fs::metadata(dir.path().join("c-json.log")).unwrap().len() < 300);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn details_stand_where_docker_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = JsonLog::open(LogFile {
        path: dir.path().join("c-json.log"),
        max_size: 0,
        max_files: 1,
        details: BTreeMap::from([
            ("a".to_owned(), "<1>".to_owned()),
            ("b".to_owned(), String::new()),
        ]),
    });
    log.append("stdout", b"x", true, 0);
    log.flush();
    assert_eq!(
        fs::read_to_string(dir.path().join("c-json.log")).unwrap(),
        "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"\\u003c1\\u003e\",\"b\":\"\"},\"time\":\"1970-01-01T00:00:00Z\"}\n"
    );
}

#[test]
fn a_full_disk_drops_and_counts_entries() {
    let mut log = JsonLog::open(LogFile {
        path: "/dev/full".into(),
        max_size: 0,
        max_files: 1,
        details: BTreeMap::new(),
    });
    log.append("stdout", b"a", true, 0);
    log.append("stdout", b"b", true, 0);
    log.flush();
    assert_eq!(log.dropped(), 2);
}

proptest! {
    #[test]
    fn times_are_what_an_independent_library_prints(nanos in 0i64..4_102_444_800_000_000_000) {
        let parsed: jiff::Timestamp = rfc3339_nanos(nanos).parse().unwrap();
        prop_assert_eq!(parsed.as_nanosecond(), i128::from(nanos));
    }

    #[test]
    fn entries_are_json_and_valid_text_survives(text: String) {
        let mut out = Vec::new();
        encode(&mut out, "stdout", text.as_bytes(), false, (b"", "t"));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(value["log"].as_str().unwrap(), text);
    }
}
