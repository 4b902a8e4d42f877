//! How many clients of one address are logging in: a client that opens connections and says nothing takes the places of its
//! own address only.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Clients that are logging in, by address. Holds an entry only while somebody does.
#[derive(Clone, Debug, Default)]
pub struct Logins {
    under_way: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A client that is logging in.
#[derive(Debug)]
pub struct Login {
    logins: Logins,
    address: IpAddr,
}

impl Logins {
    /// Counts a client of `address` in until the value is dropped; `None` where there are `limit` already.
    pub fn enter(&self, address: IpAddr, limit: usize) -> Option<Login> {
        let address = address.to_canonical();
        let mut under_way = self.under_way();
        let count = under_way.entry(address).or_default();
        if limit > 0 && *count >= limit {
            return None;
        }
        *count += 1;
        Some(Login { logins: self.clone(), address })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let mut under_way = self.logins.under_way();
        if let Some(count) = under_way.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_the_places_of_another() {
        let logins = Logins::default();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let first = logins.enter(one, 2);
        let second = logins.enter(mapped, 2);
        assert!(first.is_some() && second.is_some());
        assert!(logins.enter(one, 2).is_none());
        assert!(logins.enter(other, 2).is_some());
        drop(first);
        assert!(logins.enter(one, 2).is_some());
        drop(second);
        assert!(logins.under_way().is_empty());
        assert!((0..10).all(|_| logins.enter(one, 0).is_some()), "0 is no limit");
    }
}
