//! Probe by probe, against Docker's documented rules.

use super::*;

const SECOND: i64 = 1_000_000_000;
/// When the containers of these tests start.
const START: i64 = 1_000 * SECOND;

fn config(test: &[&str]) -> Healthcheck {
    Healthcheck {
        test: test.iter().map(|word| (*word).to_owned()).collect(),
        ..Healthcheck::default()
    }
}

fn machine(settings: Healthcheck) -> HealthMachine {
    let check = HealthCheck::of(&settings).unwrap();
    HealthMachine::new(check, Timestamp(START), Health::default(), Timestamp(START))
}

/// A probe that began `at` seconds after the start and took one.
fn probe(at: i64, exit_code: i32) -> ProbeResult {
    let started_at_ns = START + at * SECOND;
    ProbeResult {
        started_at_ns,
        ended_at_ns: started_at_ns + SECOND,
        exit_code,
        output: format!("probe at {at}"),
    }
}

/// Seconds from the start to the next probe.
fn due(machine: &HealthMachine) -> i64 {
    (machine.next_probe().0 - START) / SECOND
}

/// Hands in results, each a second long and begun when due; gives status and streak after each.
#[track_caller]
fn check(settings: Healthcheck, exit_codes: &[i32], expected: &[(i64, &str, u32)]) {
    let mut machine = machine(settings);
    let mut seen = Vec::new();
    for code in exit_codes {
        let at = due(&machine);
        machine.handle(probe(at, *code));
        let health = machine.health();
        seen.push((at, health.status.name(), health.failing_streak));
    }
    assert_eq!(seen, expected);
}

#[test]
fn settings_left_out_are_dockers() {
    let check = HealthCheck::of(&config(&["CMD-SHELL", "curl x || exit 1"])).unwrap();
    assert_eq!(check.command, ["/bin/sh", "-c", "curl x || exit 1"]);
    assert_eq!(check.interval, Duration::from_secs(30));
    assert_eq!(check.timeout, Duration::from_secs(30));
    assert_eq!(check.start_period, Duration::ZERO);
    assert_eq!(check.start_interval, Duration::from_secs(5));
    assert_eq!(check.retries, 3);
    let check = HealthCheck::of(&config(&["CMD", "curl", "x"])).unwrap();
    assert_eq!(check.command, ["curl", "x"]);
}

#[test]
fn nothing_is_probed_where_nothing_is_asked_for() {
    for test in [&["NONE"][..], &[], &["HTTP", "/"]] {
        assert_eq!(HealthCheck::of(&config(test)), None, "{test:?}");
    }
}

#[test]
fn a_service_overrides_its_image_setting_by_setting() {
    let image = Healthcheck {
        interval: 7 * SECOND,
        retries: 9,
        ..config(&["CMD", "image"])
    };
    assert_eq!(merge(None, None), None);
    assert_eq!(merge(None, Some(&image)), Some(image.clone()));
    let quicker = HealthConfig {
        interval: Duration::from_secs(1),
        ..HealthConfig::default()
    };
    let merged = merge(Some(&quicker), Some(&image)).unwrap();
    assert_eq!(merged.test, ["CMD", "image"]);
    assert_eq!((merged.interval, merged.retries), (SECOND, 9));
    let none = HealthConfig {
        test: vec!["NONE".to_owned()],
        ..HealthConfig::default()
    };
    let merged = merge(Some(&none), Some(&image)).unwrap();
    assert_eq!(merged.test, ["NONE"]);
    assert_eq!(HealthCheck::of(&merged), None);
    // Settings alone, without a test anywhere, probe nothing.
    let merged = merge(Some(&quicker), None).unwrap();
    assert_eq!(HealthCheck::of(&merged), None);
}

#[test]
fn the_first_probe_comes_after_an_interval() {
    check(
        config(&["CMD", "x"]),
        &[0, 0],
        &[(30, "healthy", 0), (61, "healthy", 0)],
    );
}

#[test]
fn retries_failures_in_a_row_are_unhealthy_and_one_success_is_not() {
    let settings = || Healthcheck {
        interval: 10 * SECOND,
        retries: 2,
        ..config(&["CMD", "x"])
    };
    check(
        settings(),
        &[0, 1, 0, 137, -1, 1, 0],
        &[
            (10, "healthy", 0),
            (21, "healthy", 1),
            (32, "healthy", 0),
            (43, "healthy", 1),
            (54, "unhealthy", 2),
            (65, "unhealthy", 3),
            (76, "healthy", 0),
        ],
    );
    check(
        settings(),
        &[1, 1],
        &[(10, "starting", 1), (21, "unhealthy", 2)],
    );
}

#[test]
fn failures_in_the_start_period_do_not_count() {
    let settings = || Healthcheck {
        interval: 10 * SECOND,
        start_period: 8 * SECOND,
        start_interval: 2 * SECOND,
        retries: 1,
        ..config(&["CMD", "x"])
    };
    check(
        settings(),
        &[1, 1, 1, 1],
        &[
            (2, "starting", 0),
            (5, "starting", 0),
            (8, "unhealthy", 1),
            (19, "unhealthy", 2),
        ],
    );
    // A success ends the special treatment at once.
    check(
        settings(),
        &[0, 1],
        &[(2, "healthy", 0), (13, "unhealthy", 1)],
    );
    let settings = Healthcheck {
        start_period: 100 * SECOND,
        start_interval: SECOND,
        retries: 1,
        interval: 10 * SECOND,
        ..config(&["CMD", "x"])
    };
    check(
        settings,
        &[0, 1],
        &[(1, "healthy", 0), (12, "unhealthy", 1)],
    );
}

#[test]
fn the_last_five_results_are_kept() {
    let mut machine = machine(config(&["CMD", "x"]));
    for at in 1..=7 {
        machine.handle(probe(at, 0));
    }
    let outputs: Vec<&str> = machine
        .health()
        .log
        .iter()
        .map(|it| &it.output[..])
        .collect();
    assert_eq!(
        outputs,
        [
            "probe at 3",
            "probe at 4",
            "probe at 5",
            "probe at 6",
            "probe at 7"
        ]
    );
}

#[test]
fn only_changes_are_news() {
    let mut machine = machine(config(&["CMD", "x"]));
    let mut verdict = |code| {
        let Verdict {
            has_turned,
            is_news,
        } = machine.handle(probe(1, code));
        (has_turned, is_news)
    };
    assert_eq!(verdict(0), (true, true));
    assert_eq!(verdict(0), (false, false));
    assert_eq!(verdict(1), (false, true));
    assert_eq!(verdict(1), (false, true));
    assert_eq!(verdict(1), (true, true));
    assert_eq!(verdict(0), (true, true));
}

#[test]
fn a_restarted_daemon_goes_on_where_it_was() {
    let settings = Healthcheck {
        interval: 10 * SECOND,
        ..config(&["CMD", "x"])
    };
    let mut first = machine(settings.clone());
    first.handle(probe(10, 0));
    first.handle(probe(21, 1));
    first.handle(probe(32, 1));
    let text = serde_json::to_string(first.health()).unwrap();
    let health: Health = serde_json::from_str(&text).unwrap();
    let check = HealthCheck::of(&settings).unwrap();
    let at = |seconds: i64| Timestamp(START + seconds * SECOND);
    let mut second = HealthMachine::new(check.clone(), at(0), health.clone(), at(40));
    assert_eq!(due(&second), 43);
    second.handle(probe(43, 1));
    assert_eq!(second.health().status, HealthStatus::Unhealthy);
    // The clock was set back meanwhile.
    let early = HealthMachine::new(check, at(0), health, at(5));
    assert_eq!(due(&early), 15);
}
