//! Tests of the address pool, among them a comparison with a naive model.

use proptest::prelude::*;

use super::*;

fn pool(subnet: &str) -> Pool {
    Pool::new(subnet.parse().unwrap(), false)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_are_given_serially_and_rest_before_reuse() {
    let mut pool = pool("10.0.0.0/29");
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.2")));
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.3")));
    pool.release(ip("10.0.0.2"));
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.4")));
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.5")));
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.6")));
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.2")));
    assert_eq!(pool.allocate(), Err(PoolError::Exhausted));
}

#[test]
fn exhaustion_speaks_as_docker_does() {
    assert_eq!(
        PoolError::Exhausted.to_string(),
        "no available IPv4 addresses on this network's address pools"
    );
}

#[test]
fn network_gateway_and_broadcast_cannot_be_reserved() {
    let mut pool = pool("10.0.0.0/29");
    for text in ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.1.2", "fd00::2"] {
        assert_eq!(pool.reserve(ip(text)), Err(PoolError::Foreign(ip(text))));
    }
    assert_eq!(pool.reserve(ip("10.0.0.6")), Ok(()));
    assert_eq!(
        pool.reserve(ip("10.0.0.6")),
        Err(PoolError::Taken(ip("10.0.0.6")))
    );
}

#[test]
fn a_subnet_at_the_end_of_the_address_space_does_not_overflow() {
    let mut pool = pool("255.255.255.248/29");
    for _ in 0..5 {
        pool.allocate().unwrap();
    }
    assert_eq!(pool.allocate(), Err(PoolError::Exhausted));
}

#[test]
fn the_upper_half_of_a_shared_pool_is_reserved_and_never_given_out() {
    let mut pool = Pool::new("10.0.0.0/28".parse().unwrap(), true);
    for last in 2..8 {
        assert_eq!(pool.allocate(), Ok(ip(&format!("10.0.0.{last}"))));
    }
    assert_eq!(pool.allocate(), Err(PoolError::Exhausted));
    assert_eq!(pool.reserve(ip("10.0.0.8")), Ok(()));
    assert_eq!(pool.reserve(ip("10.0.0.14")), Ok(()));
    pool.share(false);
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.9")));
    pool.share(true);
    assert_eq!(pool.allocate(), Err(PoolError::Exhausted));
    pool.release(ip("10.0.0.5"));
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.5")));
}

#[derive(Debug, Clone)]
enum Action {
    Allocate,
    Release(u8),
    Reserve(u8),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Allocate),
        2 => (0u8..16).prop_map(Action::Release),
        1 => (0u8..16).prop_map(Action::Reserve),
        1 => Just(Action::Restart),
    ]
}

proptest! {
    /// The model is a plain list of the fourteen hosts and a position in it.
    #[test]
    fn pool_does_what_a_list_of_hosts_does(actions in prop::collection::vec(action(), 0..200)) {
        let host = |last: u8| ip(&format!("192.168.7.{}", 16 + last));
        let mut pool = pool("192.168.7.16/28");
        let mut used = [false; 16];
        for reserved in [0, 1, 15] {
            used[reserved] = true;
        }
        let mut position = 1;
        for action in actions {
            match action {
                Action::Allocate => {
                    let free = (1..=16).map(|step| (position + step) % 16).find(|&n| !used[n]);
                    let expect = free.map(|n| host(u8::try_from(n).unwrap())).ok_or(PoolError::Exhausted);
                    prop_assert_eq!(pool.allocate(), expect);
                    if let Some(n) = free {
                        used[n] = true;
                        position = n;
                    }
                }
                Action::Release(n) => {
                    pool.release(host(n));
                    used[usize::from(n)] = matches!(n, 0 | 1 | 15);
                }
                Action::Reserve(n) => {
                    let was_used = std::mem::replace(&mut used[usize::from(n)], true);
                    prop_assert_eq!(pool.reserve(host(n)).is_ok(), !was_used);
                }
                Action::Restart => {
                    let cursor = pool.cursor();
                    pool = self::pool("192.168.7.16/28");
                    for n in (2u8..15).filter(|&n| used[usize::from(n)]) {
                        pool.reserve(host(n)).unwrap();
                    }
                    pool.set_cursor(cursor);
                }
            }
        }
    }
}
