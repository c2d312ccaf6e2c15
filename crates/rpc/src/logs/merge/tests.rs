//! The order of lines, and how long they wait.

use skep_model::Rng;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Waits for old lines as long as it takes.
const FINITE: Patience = Patience {
    past: None,
    live: Duration::ZERO,
};
const FOLLOWING: Patience = Patience {
    past: Some(Duration::from_secs(3)),
    live: SECOND,
};

const NONE: [i64; 0] = [];

fn at(seconds: u64) -> Timestamp {
    Timestamp(0).saturating_add(SECOND * u32::try_from(seconds).unwrap())
}

/// Lines that are their own times.
fn lines(times: &[i64]) -> Vec<(Timestamp, i64)> {
    times.iter().map(|time| (Timestamp(*time), *time)).collect()
}

fn opened(patience: Patience, sources: &[u32]) -> Merge<u32, i64> {
    let mut merge = Merge::new(patience);
    sources.iter().for_each(|source| merge.open(*source));
    merge
}

#[test]
fn nothing_comes_before_every_source_has_spoken() {
    let mut merge = opened(FINITE, &[1, 2, 3]);
    merge.push(at(0), 1, lines(&[10, 30]));
    merge.push(at(0), 2, lines(&[20]));
    assert_eq!(merge.pop(at(1000), 9), NONE);
    assert_eq!(merge.next_deadline(), None, "it waits as long as it takes");
    assert_eq!(merge.wanted().collect::<Vec<_>>(), [3]);
    merge.push(at(0), 3, lines(&[15, 16]));
    // 16 is followed by what source 3 sends next; 20 must wait for that.
    assert_eq!(merge.pop(at(0), 9), [10, 15, 16]);
    merge.end(3);
    assert_eq!(merge.pop(at(0), 9), [20]);
    merge.end(2);
    assert_eq!(merge.pop(at(0), 9), [30]);
    assert!(!merge.is_over());
    merge.end(1);
    assert!(merge.is_over());
}

#[test]
fn lines_that_are_written_now_wait_a_moment_for_quiet_sources() {
    let mut merge = opened(FOLLOWING, &[1, 2]);
    merge.catch_up(1);
    merge.catch_up(2);
    merge.push(at(0), 1, lines(&[10]));
    assert_eq!(merge.pop(at(0), 9), NONE);
    assert_eq!(merge.next_deadline(), Some(at(1)));
    merge.push(at(0), 2, lines(&[5]));
    assert_eq!(merge.pop(at(0), 9), [5], "10 waits for what 2 says next");
    assert_eq!(merge.pop(at(1), 9), [10]);
    merge.push(at(2), 1, lines(&[20]));
    merge.push(at(3), 2, lines(&[15]));
    assert_eq!(merge.pop(at(3), 9), [15, 20]);
    assert_eq!(merge.next_deadline(), None);
}

#[test]
fn old_lines_wait_longer_and_a_source_that_says_nothing_only_once() {
    let mut merge = opened(FOLLOWING, &[1, 2]);
    merge.catch_up(1);
    merge.push(at(0), 1, lines(&[10, 20]));
    assert_eq!(merge.next_deadline(), Some(at(3)));
    assert_eq!(merge.pop(at(2), 9), NONE);
    assert_eq!(merge.pop(at(3), 9), [10, 20]);
    merge.push(at(4), 1, lines(&[30]));
    assert_eq!(merge.next_deadline(), Some(at(5)));
    assert_eq!(merge.pop(at(5), 9), [30]);
}

#[test]
fn a_clock_set_back_does_not_change_the_order_of_its_source() {
    let mut merge = opened(FINITE, &[1, 2]);
    merge.push(at(0), 1, lines(&[50, 10, 60]));
    merge.push(at(0), 2, lines(&[40, 55]));
    merge.end(1);
    merge.end(2);
    assert_eq!(merge.pop(at(0), 9), [40, 50, 10, 55, 60]);
}

#[test]
fn a_source_that_begins_anew_loses_what_waited_and_sends_it_again() {
    let mut merge = opened(FINITE, &[1, 2]);
    merge.push(at(0), 1, lines(&[10, 20]));
    merge.open(1);
    merge.push(at(0), 2, lines(&[15]));
    merge.end(2);
    assert_eq!(merge.pop(at(0), 9), NONE);
    merge.push(at(0), 1, lines(&[10, 20]));
    merge.end(1);
    assert_eq!(merge.pop(at(0), 9), [10, 15, 20]);
    assert!(merge.is_over());
    merge.push(at(0), 1, lines(&[30]));
    assert_eq!(merge.pop(at(0), 9), NONE, "it has ended");
}

#[test]
fn pop_gives_no_more_than_is_asked_for() {
    let mut merge = opened(FINITE, &[1]);
    merge.push(at(0), 1, lines(&[1, 2, 3, 4, 5]));
    assert_eq!(merge.pop(at(0), 2), [1, 2]);
    assert_eq!(merge.pop(at(0), 2), [3, 4]);
    assert_eq!(merge.pop(at(0), 2), [5]);
}

/// Whatever the batches and their order of arrival: the output is what sorting everything gives.
#[test]
fn any_arrival_gives_the_order_of_time() {
    for seed in 0..200 {
        let mut rng = Rng::from_seed(seed);
        let mut number = |below: u64| rng.below(below);
        let count = 1 + number(5);
        let mut rest: Vec<Vec<(Timestamp, i64)>> = (0..count)
            .map(|_| {
                let mut times: Vec<i64> =
                    (0..number(40)).map(|_| number(100).cast_signed()).collect();
                times.sort_unstable();
                lines(&times)
            })
            .collect();
        let mut sorted: Vec<i64> = rest.iter().flatten().map(|(_, time)| *time).collect();
        sorted.sort_unstable();
        let ids: Vec<u32> = (0..u32::try_from(count).unwrap()).collect();
        let mut merge = opened(FINITE, &ids);
        let mut out = Vec::new();
        while !merge.is_over() {
            let wanted: Vec<u32> = merge.wanted().collect();
            let pick = number(wanted.len().max(1) as u64);
            if let Some(source) = wanted.get(usize::try_from(pick).unwrap()) {
                let rest = &mut rest[*source as usize];
                let some = usize::try_from(number(7)).unwrap().min(rest.len());
                merge.push(at(0), *source, rest.drain(..some));
                if rest.is_empty() {
                    merge.end(*source);
                }
            }
            let most = 1 + number(9);
            out.extend(merge.pop(at(0), usize::try_from(most).unwrap()));
        }
        assert_eq!(out, sorted, "seed {seed}");
    }
}
