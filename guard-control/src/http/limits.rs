//! How often one address may ask. A bucket for each; what overflows is refused at once.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Addresses that are remembered; beyond, those that have been quiet go.
const MOST: usize = 20_000;

/// How much one address may do.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// Per second after that.
    pub per_second: f64,
}

/// Pages and questions.
pub const ORDINARY: Rate = Rate { burst: 120.0, per_second: 30.0 };
/// Passwords: each costs memory and time.
pub const PASSWORDS: Rate = Rate { burst: 10.0, per_second: 0.5 };

/// Buckets of one rate.
#[derive(Debug)]
pub struct Limits {
    rate: Rate,
    buckets: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl Limits {
    /// At this rate.
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Whether `address` may do it now.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.admits_at(address, Instant::now())
    }

    fn admits_at(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let fill = |(left, since): (f64, Instant)| {
            let gone = now.saturating_duration_since(since).as_secs_f64();
            (left + gone * self.rate.per_second).min(self.rate.burst)
        };
        if buckets.len() >= MOST && !buckets.contains_key(&network(address)) {
            buckets.retain(|_, bucket| fill(*bucket) < self.rate.burst);
            if buckets.len() >= MOST {
                // So many at once are an attack: strangers wait.
                return false;
            }
        }
        let bucket = buckets.entry(network(address)).or_insert((self.rate.burst, now));
        let left = fill(*bucket);
        let admitted = left >= 1.0;
        *bucket = (if admitted { left - 1.0 } else { left }, now);
        admitted
    }
}

/// Whoever has one address of an IPv6 network has all of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_as_much_as_flows_in() {
        let limits = Limits::new(Rate { burst: 3.0, per_second: 1.0 });
        let (start, peer) = (Instant::now(), IpAddr::from([192, 0, 2, 1]));
        let asks = |seconds: u64| limits.admits_at(peer, start + Duration::from_secs(seconds));
        assert_eq!([asks(0), asks(0), asks(0), asks(0)], [true, true, true, false]);
        assert_eq!([asks(2), asks(2), asks(2)], [true, true, false]);
        assert!(limits.admits_at(IpAddr::from([192, 0, 2, 2]), start), "another address is another bucket");
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        assert_eq!(network(one), network(neighbour));
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let limits = Limits::new(ORDINARY);
        let start = Instant::now();
        for n in 0..(MOST as u32 + 10) {
            limits.admits_at(IpAddr::from(n.to_be_bytes()), start);
        }
        assert!(limits.buckets.lock().unwrap().len() <= MOST);
        assert!(limits.admits_at(IpAddr::from([255, 1, 1, 1]), start + Duration::from_secs(60)));
    }
}
