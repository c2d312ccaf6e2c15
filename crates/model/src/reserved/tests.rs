//! Reserved labels, right and wrong.

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(pair).collect()
}

#[track_caller]
fn check_ttl(value: &str, expect: Option<Duration>) {
    assert_eq!(
        node_ttl(&labels(&[(NODE_TTL, value)])).ok().flatten(),
        expect
    );
}

#[track_caller]
fn check_time(value: &str, expect: Option<i64>) {
    let policy = JoinPolicy::read(&labels(&[(JOIN_WORKER_EXPIRES, value)]), Role::Worker);
    let nanos = policy.ok().and_then(|policy| policy.expires).map(|at| at.0);
    assert_eq!(nanos, expect, "{value}");
}

#[test]
fn durations_are_read_as_go_reads_them() {
    let minutes = |count: u64| Some(Duration::from_secs(count * 60));
    check_ttl("24h", minutes(24 * 60));
    check_ttl("1h30m", minutes(90));
    check_ttl("1.5h", minutes(90));
    check_ttl("+2h", minutes(120));
    check_ttl("90000ms", Some(Duration::from_secs(90)));
    check_ttl("1m", minutes(1));
    check_ttl("3600000000µs", minutes(60));
    for bad in [
        "",
        "0",
        "59s",
        "-1h",
        "24",
        "h",
        "1d",
        "1h ",
        " 1h",
        ".h",
        "1..5h",
        "+",
        "9999999999h",
        "1h30",
        "1hm",
        "340282366920938463463374607431768211456h",
    ] {
        check_ttl(bad, None);
    }
}

#[test]
fn times_are_read_as_rfc_3339() {
    check_time("1970-01-01T00:00:00Z", Some(0));
    check_time("2000-02-29T12:34:56Z", Some(951_827_696_000_000_000));
    check_time(
        "2026-11-21T15:00:00.25+01:30",
        Some(1_795_267_800_250_000_000),
    );
    check_time("2026-11-21t15:00:00z", Some(1_795_273_200_000_000_000));
    check_time("2026-11-21T15:00:00-00:30", Some(1_795_275_000_000_000_000));
    for bad in [
        "",
        "tomorrow",
        "2026-11-21",
        "2026-11-21T15:00:00",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-11-31T00:00:00Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T15:00:00.Z",
        "2026-11-21T15:00:00+1:00",
        "2026-11-21T15:00:00+24:00",
        "2026-11-21 15:00:00Z",
        "+026-11-21T15:00:00Z",
        "2026-11-21T15:00:00Zé",
        "2026-11-21T15:00:00.1234567890Z",
    ] {
        check_time(bad, None);
    }
}

#[test]
fn a_token_admits_as_often_as_it_says() {
    let mut labels = labels(&[(JOIN_MANAGER_USES, "2")]);
    let now = Timestamp(1);
    let mut admitted = 0;
    let refusal = loop {
        let policy = JoinPolicy::read(&labels, Role::Manager).unwrap();
        match policy.admit(now) {
            Ok(left) => JoinPolicy::store_uses(&mut labels, Role::Manager, left.unwrap()),
            Err(refusal) => break refusal,
        }
        admitted += 1;
    };
    assert_eq!((admitted, refusal), (2, Refusal::UsedUp));
    let worker = JoinPolicy::read(&labels, Role::Worker).unwrap();
    assert_eq!(worker.admit(now), Ok(None), "the other token has no limit");
}

#[test]
fn a_token_admits_until_it_expires() {
    let policy = JoinPolicy {
        expires: Some(Timestamp(10)),
        uses: Some(1),
    };
    assert_eq!(policy.admit(Timestamp(9)), Ok(Some(0)));
    assert_eq!(policy.admit(Timestamp(10)), Err(Refusal::Expired));
}

#[test]
fn a_limit_that_cannot_be_read_is_no_permission() {
    for bad in ["", "-1", "+1", "1.5", "many", "1000001"] {
        let labels = labels(&[(JOIN_WORKER_USES, bad)]);
        assert!(JoinPolicy::read(&labels, Role::Worker).is_err(), "{bad}");
    }
}

#[test]
fn every_mistake_is_told() {
    let labels = labels(&[
        (NODE_TTL, "1s"),
        (JOIN_WORKER_EXPIRES, "soon"),
        (JOIN_MANAGER_USES, "x"),
        ("skep.node.tll", "1h"),
        ("skep.other", "not ours to judge"),
        ("team", "blue"),
    ]);
    let texts: Vec<String> = problems(&labels).iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "unknown label `skep.node.tll`: known are skep.node.ttl, skep.join.worker.expires, \
             skep.join.worker.uses, skep.join.manager.expires, skep.join.manager.uses, skep.rebalance, skep.rebalance.budget, skep.rebalance.once",
            "label `skep.node.ttl`: `1s` is less than 1m; remove the label to keep nodes for ever",
            "label `skep.join.worker.expires`: `soon` is not a time like `2030-01-31T12:00:00Z`",
            "label `skep.join.manager.uses`: `x` is not a number between 0 and 1000000",
        ]
    );
}
