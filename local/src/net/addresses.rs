//! Which address goes to whom: plain allocation from fixed ranges.
//!
//! The ranges can be fixed because the node's network touches no other one.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// The node's own address: the CA, the controller and probes.
pub(crate) const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The node's own address.
pub(crate) const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 1);
/// The cluster's name server.
pub(crate) const DNS_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Pods.
pub(crate) const PODS_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// Pods.
pub(crate) const PODS_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), 64);
/// Services.
pub(crate) const SERVICES_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// Services.
pub(crate) const SERVICES_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);

/// The first addresses of each range are given to nobody who doesn't ask for them by name: the network itself, the node,
/// the API server's customary address, the name server.
const RESERVED: u128 = 16;

/// Addresses of one range.
#[derive(Debug)]
pub(crate) struct Pool {
    network: IpNet,
    taken: BTreeSet<u128>,
    next: u128,
}

/// An address can't be had.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum AddressError {
    #[error("all addresses of {0} are taken")]
    Exhausted(IpNet),
    #[error("{0} is outside of {1}; use an address of that range, or none to be given one")]
    Outside(IpAddr, IpNet),
    #[error("{0} is taken already; use another address, or none to be given one")]
    Taken(IpAddr),
}

impl Pool {
    pub(crate) fn new(network: impl Into<IpNet>) -> Self {
        Self { network: network.into(), taken: BTreeSet::new(), next: RESERVED }
    }

    /// An address that nobody has, and that nobody has had for as long as possible: who still sends to its last owner
    /// shall not meet another one.
    pub(crate) fn take(&mut self) -> Result<IpAddr, AddressError> {
        let end = self.size() - 1;
        let after = (self.next..end).find(|offset| !self.taken.contains(offset));
        let free = after.or_else(|| (RESERVED..self.next).find(|offset| !self.taken.contains(offset)));
        let offset = free.ok_or(AddressError::Exhausted(self.network))?;
        self.taken.insert(offset);
        self.next = offset + 1;
        Ok(self.address(offset))
    }

    /// This very address, reserved ones included.
    pub(crate) fn claim(&mut self, address: IpAddr) -> Result<(), AddressError> {
        if !self.network.contains(&address) {
            return Err(AddressError::Outside(address, self.network));
        }
        match self.taken.insert(self.offset(address)) {
            true => Ok(()),
            false => Err(AddressError::Taken(address)),
        }
    }

    pub(crate) fn release(&mut self, address: IpAddr) {
        if self.network.contains(&address) {
            self.taken.remove(&self.offset(address));
        }
    }

    fn size(&self) -> u128 {
        1 << (self.network.max_prefix_len() - self.network.prefix_len())
    }

    fn address(&self, offset: u128) -> IpAddr {
        match self.network.network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                Ipv4Addr::from_bits(base.to_bits() | offset).into()
            }
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() | offset).into(),
        }
    }

    fn offset(&self, address: IpAddr) -> u128 {
        match (address, self.network.network()) {
            (IpAddr::V4(address), IpAddr::V4(base)) => (address.to_bits() - base.to_bits()).into(),
            (IpAddr::V6(address), IpAddr::V6(base)) => address.to_bits() - base.to_bits(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn small() -> Pool {
        Pool::new("10.0.0.0/27".parse::<IpNet>().unwrap())
    }

    #[test]
    fn an_address_that_was_given_back_is_the_last_to_be_given_again() {
        let mut pool = small();
        let first = pool.take().unwrap();
        assert_eq!(first, IpAddr::from([10, 0, 0, 16]));
        pool.release(first);
        let mut given = HashSet::new();
        loop {
            let address = pool.take().unwrap();
            if address == first {
                break;
            }
            assert!(given.insert(address));
        }
        assert_eq!(given.len(), 14);
        assert_eq!(pool.take(), Err(AddressError::Exhausted("10.0.0.0/27".parse().unwrap())));
    }

    #[test]
    fn addresses_asked_for_by_name_are_refused_when_taken_or_foreign() {
        let mut pool = Pool::new(SERVICES_V4);
        pool.claim(DNS_V4.into()).unwrap();
        assert_eq!(pool.claim(DNS_V4.into()), Err(AddressError::Taken(DNS_V4.into())));
        assert!(matches!(pool.claim(NODE_V4.into()), Err(AddressError::Outside(..))));
        assert!(matches!(pool.claim(NODE_V6.into()), Err(AddressError::Outside(..))));
    }

    #[test]
    fn ranges_of_both_families_start_behind_what_is_reserved() {
        assert_eq!(Pool::new(SERVICES_V6).take().unwrap(), "fd00:10:96::10".parse::<IpAddr>().unwrap());
        assert_eq!(Pool::new(PODS_V6).take().unwrap(), "fd00:10:244::10".parse::<IpAddr>().unwrap());
    }

    proptest! {
        /// Against the obvious model: a set of who has what.
        #[test]
        fn nobody_ever_gets_what_somebody_has(steps in prop::collection::vec(prop::option::of(0_usize..20), 0..200)) {
            let (mut pool, mut held) = (small(), Vec::new());
            for step in steps {
                match step {
                    None => match pool.take() {
                        Ok(address) => {
                            prop_assert!(!held.contains(&address));
                            held.push(address);
                        }
                        Err(_) => prop_assert_eq!(held.len(), 15),
                    },
                    Some(index) if index < held.len() => pool.release(held.swap_remove(index)),
                    Some(_) => {}
                }
            }
        }
    }
}
