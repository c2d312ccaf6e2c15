//! How the node network is cut into slices, and a slice into the node's own part and the tasks'.
//!
//! Number 0 is never given out, so that a slice's number says that it is one. The lower half of a
//! slice is the node's: it gives addresses to containers by itself. The upper half is the
//! leader's, for tasks with ports published on every node. Which number a node gets is not decided
//! here.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{directory::Slice, object::Network};

/// Slices of a pool should be one in 256 of it, but have at least this prefix length: about 500
/// tasks with published ports on a node.
const PREFIX_LEN_MIN: u8 = 22;
/// And at most this, below which a node has no place for tasks.
const PREFIX_LEN_MAX: u8 = 28;
/// Prefix length of a slice in IPv6, as every IPv6 host expects.
const PREFIX_LEN_V6: u8 = 64;

/// The pools that slices are cut from: the subnets of the node network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    /// IPv4.
    v4: Ipv4Net,
    /// IPv6, large enough for every number.
    v6: Option<Ipv6Net>,
}

// === impl Pools ===

impl Pools {
    /// Longest prefix of an IPv4 pool: one slice besides number 0.
    pub const PREFIX_LEN_MAX: u8 = PREFIX_LEN_MAX - 1;
    /// Longest prefix of an IPv6 pool: a /64 for every number.
    pub const PREFIX_LEN_MAX_V6: u8 = PREFIX_LEN_V6 - 16;

    /// The pools of the node network; `None` if it has none that slices can be cut from.
    pub fn of(network: &Network) -> Option<Self> {
        let subnets = || network.subnets().filter_map(|config| config.subnet);
        let v4 = subnets().find_map(|subnet| match subnet {
            ipnet::IpNet::V4(v4) => Some(v4.trunc()),
            ipnet::IpNet::V6(_) => None,
        })?;
        let v6 = subnets().find_map(|subnet| match subnet {
            ipnet::IpNet::V6(v6) => Some(v6.trunc()),
            ipnet::IpNet::V4(_) => None,
        });
        let v6 = v6.filter(|v6| v6.prefix_len() <= Self::PREFIX_LEN_MAX_V6);
        (v4.prefix_len() <= Self::PREFIX_LEN_MAX).then_some(Self { v4, v6 })
    }

    /// The IPv4 pool.
    pub fn v4(&self) -> Ipv4Net {
        self.v4
    }

    /// Prefix length of its slices in IPv4.
    pub fn slice_prefix_len(&self) -> u8 {
        (self.v4.prefix_len() + 8).clamp(PREFIX_LEN_MIN, PREFIX_LEN_MAX)
    }

    /// The largest number of a slice.
    pub fn number_max(&self) -> u16 {
        let bits = u32::from(self.slice_prefix_len() - self.v4.prefix_len());
        u16::try_from((1_u64 << bits) - 1).unwrap_or(u16::MAX)
    }

    /// The slice with this number; `None` if there is none.
    pub fn slice(&self, number: u16) -> Option<Slice> {
        if !(1..=self.number_max()).contains(&number) {
            return None;
        }
        let prefix_len = self.slice_prefix_len();
        let offset = u32::from(number) << (32 - u32::from(prefix_len));
        let bridge = Ipv4Addr::from_bits(self.v4.network().to_bits() + offset + 1);
        let v6 = self.v6.and_then(|pool| {
            let offset = u128::from(number) << (128 - u32::from(PREFIX_LEN_V6));
            let bridge = Ipv6Addr::from_bits(pool.network().to_bits() + offset + 1);
            Ipv6Net::new(bridge, PREFIX_LEN_V6).ok()
        });
        Some(Slice {
            number,
            v4: Ipv4Net::new(bridge, prefix_len).ok()?,
            v6,
        })
    }

    /// The number of the slice that an address lies in; 0 is no slice's.
    pub fn number_of(&self, ip: Ipv4Addr) -> Option<u16> {
        if !self.v4.contains(&ip) {
            return None;
        }
        let offset = ip.to_bits() - self.v4.network().to_bits();
        u16::try_from(offset >> (32 - u32::from(self.slice_prefix_len()))).ok()
    }
}

// === impl Slice ===

impl Slice {
    /// The first and last address the node may give out by itself: the lower half without the
    /// bridge's.
    pub fn own_v4(&self) -> (Ipv4Addr, Ipv4Addr) {
        let (upper, _) = self.tasks_v4();
        let first = Ipv4Addr::from_bits(self.v4.network().to_bits() + 2);
        (first, Ipv4Addr::from_bits(upper.to_bits() - 1))
    }

    /// The first and last address of tasks: the upper half without the broadcast address.
    pub fn tasks_v4(&self) -> (Ipv4Addr, Ipv4Addr) {
        let half = 1_u32 << (31 - u32::from(self.v4.prefix_len()));
        let first = self.v4.network().to_bits() + half;
        let last = self.v4.broadcast().to_bits() - 1;
        (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last))
    }

    /// As [`Slice::own_v4`], in IPv6.
    pub fn own_v6(&self) -> Option<(Ipv6Addr, Ipv6Addr)> {
        let (upper, _) = self.tasks_v6()?;
        let first = Ipv6Addr::from_bits(self.v6?.network().to_bits() + 2);
        Some((first, Ipv6Addr::from_bits(upper.to_bits() - 1)))
    }

    /// As [`Slice::tasks_v4`], in IPv6.
    pub fn tasks_v6(&self) -> Option<(Ipv6Addr, Ipv6Addr)> {
        let v6 = self.v6?;
        let half = 1_u128 << (127 - u32::from(v6.prefix_len()));
        let first = Ipv6Addr::from_bits(v6.network().to_bits() + half);
        Some((first, v6.broadcast()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pool: &str, number: u16, expected: Option<[&str; 5]>) {
        let pools = Pools {
            v4: pool.parse().unwrap(),
            v6: None,
        };
        let texts = pools.slice(number).map(|slice| {
            let (own, tasks) = (slice.own_v4(), slice.tasks_v4());
            assert_eq!(pools.number_of(slice.v4.addr()), Some(number));
            [
                slice.v4.to_string(),
                own.0.to_string(),
                own.1.to_string(),
                tasks.0.to_string(),
                tasks.1.to_string(),
            ]
        });
        let expected = expected.map(|texts| texts.map(str::to_owned));
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_pool_is_cut_into_slices() {
        let first = [
            "10.252.4.1/22",
            "10.252.4.2",
            "10.252.5.255",
            "10.252.6.0",
            "10.252.7.254",
        ];
        check("10.252.0.0/14", 1, Some(first));
        let last = [
            "10.255.252.1/22",
            "10.255.252.2",
            "10.255.253.255",
            "10.255.254.0",
            "10.255.255.254",
        ];
        check("10.252.0.0/14", 255, Some(last));
        let small = [
            "10.9.0.17/28",
            "10.9.0.18",
            "10.9.0.23",
            "10.9.0.24",
            "10.9.0.30",
        ];
        check("10.9.0.0/27", 1, Some(small));
    }

    #[test]
    fn numbers_end_with_the_pool() {
        check("10.252.0.0/14", 0, None);
        check("10.252.0.0/14", 256, None);
        check("10.9.0.0/27", 2, None);
        let wide = Pools {
            v4: "0.0.0.0/0".parse().unwrap(),
            v6: None,
        };
        assert_eq!(wide.number_max(), u16::MAX);
        assert!(wide.slice(u16::MAX).is_some());
    }

    #[test]
    fn ipv6_has_a_subnet_for_each_number() {
        let pools = Pools {
            v4: "10.0.0.0/8".parse().unwrap(),
            v6: Some("fd00:1:2::/48".parse().unwrap()),
        };
        let slice = pools.slice(16_383).unwrap();
        assert_eq!(slice.v6.unwrap().to_string(), "fd00:1:2:3fff::1/64");
        let (first, last) = slice.tasks_v6().unwrap();
        assert_eq!(first.to_string(), "fd00:1:2:3fff:8000::");
        assert_eq!(last.to_string(), "fd00:1:2:3fff:ffff:ffff:ffff:ffff");
        let (first, last) = slice.own_v6().unwrap();
        assert_eq!(first.to_string(), "fd00:1:2:3fff::2");
        assert_eq!(last.to_string(), "fd00:1:2:3fff:7fff:ffff:ffff:ffff");
    }
}
