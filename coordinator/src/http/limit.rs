//! How often an address may be wrong about a token: a bucket of tries that fills again.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Tries that an address has at first.
const TRIES: f64 = 60.0;
/// Tries that come back in a second. A worker with a wrong token reports every two seconds by
/// default, so that it does not shut out its neighbours behind the same address.
const PER_SECOND: f64 = 1.0;
/// Addresses that are remembered; beyond it the ones that are nearly clean are forgotten.
const MOST: usize = 10_000;

/// Failures by address.
#[derive(Debug, Default)]
pub(super) struct FailureLimit {
    buckets: HashMap<IpAddr, (f64, Instant)>,
}

impl FailureLimit {
    /// How long an address has to wait before its token is looked at again; `None`: not at all.
    pub(super) fn wait(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        let left = left(self.buckets.get(&source(peer)), now);
        (left < 1.0).then(|| Duration::from_secs_f64((1.0 - left) / PER_SECOND))
    }

    /// The address was wrong.
    pub(super) fn failed(&mut self, peer: IpAddr, now: Instant) {
        if self.buckets.len() >= MOST {
            self.buckets.retain(|_, bucket| left(Some(bucket), now) < TRIES);
            if self.buckets.len() >= MOST {
                self.buckets.retain(|_, bucket| left(Some(bucket), now) < TRIES / 2.0);
            }
        }
        let bucket = self.buckets.entry(source(peer)).or_insert((TRIES, now));
        *bucket = ((left(Some(bucket), now) - 1.0).max(0.0), now);
    }
}

fn left(bucket: Option<&(f64, Instant)>, now: Instant) -> f64 {
    bucket.map_or(TRIES, |(tries, at)| {
        let since = now.saturating_duration_since(*at).as_secs_f64();
        since.mul_add(PER_SECOND, *tries).min(TRIES)
    })
}

/// One network of IPv6 is one caller: whoever has an address of it has all.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_wrong_too_often_waits_and_the_others_do_not() {
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let (mut limit, start) = (FailureLimit::default(), Instant::now());
        for _ in 0..60 {
            assert_eq!(limit.wait(bad, start), None);
            limit.failed(bad, start);
        }
        assert_eq!(limit.wait(bad, start), Some(Duration::from_secs(1)));
        assert_eq!(limit.wait(good, start), None);
        assert_eq!(limit.wait(bad, start + Duration::from_secs(1)), None);
        limit.failed(bad, start + Duration::from_secs(1));
        assert!(limit.wait(bad, start + Duration::from_secs(1)).is_some());
        assert_eq!(limit.wait(bad, start + Duration::from_secs(300)), None);
    }

    #[test]
    fn a_worker_with_a_wrong_token_never_shuts_out_its_neighbours() {
        let (peer, mut limit, start) =
            (IpAddr::from([10, 0, 0, 1]), FailureLimit::default(), Instant::now());
        for beat in 0..1000 {
            let now = start + Duration::from_secs(2 * beat);
            limit.failed(peer, now);
            assert_eq!(limit.wait(peer, now), None);
        }
    }

    #[test]
    fn a_network_is_one_caller_and_memory_is_bounded() {
        let (mut limit, start) = (FailureLimit::default(), Instant::now());
        for n in 0..100 {
            limit.failed(IpAddr::from([0x2001, 0xdb8, 0, 0, n, 1, 2, 3]), start);
        }
        assert!(limit.wait(IpAddr::from([0x2001, 0xdb8, 0, 0, 9, 9, 9, 9]), start).is_some());
        assert_eq!(limit.wait(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1]), start), None);
        for n in 0..50_000_u32 {
            limit.failed(IpAddr::from(n.to_be_bytes()), start + Duration::from_secs(1));
        }
        assert!(limit.buckets.len() <= MOST + 1);
    }
}
