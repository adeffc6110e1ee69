//! Which addresses a request may go to, checked when the connection is made: a name that was
//! harmless when the configuration was read may resolve to something else later.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use reqwest::Url;
use tower_service::Service;

/// A name that leads to an address of a private network.
#[derive(Debug, thiserror::Error)]
#[error("{name} resolves to {ip}, which is private, while allow_private is false")]
pub(super) struct PrivateAddress {
    name: String,
    ip: IpAddr,
}

/// Resolves names, and refuses those with any private address unless they are allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolver {
    pub(super) allow_private: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let name = name.as_str();
            let found: Vec<_> = tokio::net::lookup_host((name, 0)).await?.collect();
            if !allow_private {
                check(name, found.iter().map(SocketAddr::ip))?;
            }
            Ok(found.into_iter())
        })
    }
}

/// Refuses a private address among those that `name` resolved to.
pub(super) fn check(
    name: &str,
    mut found: impl Iterator<Item = IpAddr>,
) -> Result<(), PrivateAddress> {
    match found.find(|ip| is_private(*ip)) {
        Some(ip) => Err(PrivateAddress { name: name.to_owned(), ip }),
        None => Ok(()),
    }
}

/// The host of an address as a name or an IP address without brackets.
pub(super) fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// The IP address that an address names instead of a host.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    host(url).parse().ok()
}

/// Whether an address is anything but one of the public internet: the special-purpose registries
/// of IANA, and IPv6 addresses that carry such an IPv4 address.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => embedded(ip).map_or_else(|| is_private_v6(ip), is_private_v4),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b == 18 || b == 19))
        || (a == 192 && b == 0 && c == 0)
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    // Global unicast is 2000::/3; of that, 2001:db8::/32 is documentation.
    first & 0xe000 != 0x2000 || ip.segments()[..2] == [0x2001, 0x0db8]
}

/// The IPv4 address inside a mapped, 6to4 or NAT64 address.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let from = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(from(high, low))
        }
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known_in_every_disguise() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn one_private_address_among_public_ones_is_enough() {
        let found = ["1.1.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        let error = check("example.com", found.into_iter()).unwrap_err();
        assert!(error.to_string().contains("example.com resolves to 10.0.0.1"));
        assert!(check("example.com", found.into_iter().take(1)).is_ok());
    }

    #[tokio::test]
    async fn a_name_is_checked_when_it_is_resolved() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(Resolver { allow_private: false }.call(name()).await.is_err());
        assert!(Resolver { allow_private: true }.call(name()).await.is_ok());
    }
}
