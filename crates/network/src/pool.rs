//! The address pool: which address the next endpoint gets. Pure; the state file keeps it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// Why no address was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Every address is in use. The text is Docker's.
    #[error("no available IPv4 addresses on this network's address pools")]
    Exhausted,
    /// The address is not one the pool hands out.
    #[error("address `{0}` is not in the pool")]
    Foreign(IpAddr),
    /// The address is in use already.
    #[error("address `{0}` is in use")]
    Taken(IpAddr),
}

/// Addresses of one subnet. Network, broadcast and gateway (the first host) are never given out.
///
/// Gives the next free address after the last one given, wrapping, so that an address rests as long as possible before it
/// is used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    subnet: Ipv4Net,
    /// Addresses in use, as offsets from the network address. All lie between `OFFSET_FIRST` and `offset_last()`.
    taken: BTreeSet<u32>,
    /// Offset given last; the search starts behind it.
    cursor: u32,
    /// Whether the upper half is somebody else's to give out: it can be reserved only.
    is_shared: bool,
}

/// Offset 0 is the network, 1 the gateway.
const OFFSET_FIRST: u32 = 2;

// === impl Pool ===

impl Pool {
    /// An empty pool; of one that is shared only the lower half is given out.
    pub fn new(subnet: Ipv4Net, is_shared: bool) -> Pool {
        Pool {
            subnet: subnet.trunc(),
            taken: BTreeSet::new(),
            cursor: OFFSET_FIRST - 1,
            is_shared,
        }
    }

    /// From now on gives out the lower half only, or everything.
    pub fn share(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
    }

    /// Takes the next free address.
    pub fn allocate(&mut self) -> Result<IpAddr, PoolError> {
        let last = if self.is_shared {
            self.offset_last() / 2
        } else {
            self.offset_last()
        };
        let offset = self
            .first_free(self.cursor.saturating_add(1), last)
            .or_else(|| self.first_free(OFFSET_FIRST, self.cursor.min(last)))
            .ok_or(PoolError::Exhausted)?;
        self.taken.insert(offset);
        self.cursor = offset;
        Ok(self.address(offset))
    }

    /// Takes a given address, as when state is read back.
    pub fn reserve(&mut self, address: IpAddr) -> Result<(), PoolError> {
        let offset = self.offset(address).ok_or(PoolError::Foreign(address))?;
        if self.taken.insert(offset) {
            Ok(())
        } else {
            Err(PoolError::Taken(address))
        }
    }

    /// Gives an address back; one that is free or foreign already is fine.
    pub fn release(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.taken.remove(&offset);
        }
    }

    /// The address given last, to be kept with the state.
    pub fn cursor(&self) -> IpAddr {
        self.address(self.cursor)
    }

    /// Continues after `address`; one outside the subnet starts from the beginning.
    pub fn set_cursor(&mut self, address: IpAddr) {
        self.cursor = self.offset(address).unwrap_or(OFFSET_FIRST - 1);
    }

    fn offset_last(&self) -> u32 {
        u32::from(self.subnet.broadcast()) - u32::from(self.subnet.network()) - 1
    }

    fn address(&self, offset: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(u32::from(self.subnet.network()) + offset))
    }

    fn offset(&self, address: IpAddr) -> Option<u32> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        let offset = u32::from(address).checked_sub(u32::from(self.subnet.network()))?;
        (OFFSET_FIRST..=self.offset_last())
            .contains(&offset)
            .then_some(offset)
    }

    /// The lowest offset in `from..=to` that is not taken: walks along the run of taken ones.
    fn first_free(&self, from: u32, to: u32) -> Option<u32> {
        if from > to {
            return None;
        }
        let mut candidate = from;
        for &taken in self.taken.range(from..=to) {
            if taken > candidate {
                break;
            }
            candidate = taken.checked_add(1)?;
        }
        (candidate <= to).then_some(candidate)
    }
}

#[cfg(test)]
mod tests;
