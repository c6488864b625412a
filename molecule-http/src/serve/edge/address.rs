//! Where a request came from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The address of who sent a request that `peer` handed over: `peer`, unless it is a proxy that is `trusted`; then what
/// that says in `X-Forwarded-For`, up to the first hop that is not trusted, from the right. Everything left of it can have
/// been made up.
pub(super) fn of_sender(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut sender = peer.to_canonical();
    if trusted.is_empty() {
        return sender;
    }
    let lines: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or_default()).collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    while trusted.iter().any(|net| net.contains(&sender)) {
        // Where a trusted proxy says nothing that can be read, it is as far as can be known.
        let Some(hop) = hops.next().and_then(parse) else { break };
        sender = hop;
    }
    sender
}

/// What counts as one sender: an address, or the network of 2^64 addresses that a host of IPv6 has to itself.
pub(super) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

fn parse(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed_and_only_for_the_hop_before_them() {
        let proxies = "10.0.0.0/8,127.0.0.1/32,fd00::/8";
        // who is trusted, the peer, what it forwards, the sender
        let rows: [(&str, &str, &[&str], &str); 14] = [
            ("", "203.0.113.7", &[], "203.0.113.7"),
            ("", "127.0.0.1", &["198.51.100.1"], "127.0.0.1"),
            (proxies, "203.0.113.7", &["198.51.100.1"], "203.0.113.7"),
            (proxies, "127.0.0.1", &[], "127.0.0.1"),
            (proxies, "127.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            (proxies, "127.0.0.1", &["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            (proxies, "127.0.0.1", &["6.6.6.6, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
            (proxies, "127.0.0.1", &["6.6.6.6", "198.51.100.1,10.1.2.3"], "198.51.100.1"),
            (proxies, "127.0.0.1", &["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
            (proxies, "127.0.0.1", &["6.6.6.6, nonsense"], "127.0.0.1"),
            (proxies, "127.0.0.1", &["6.6.6.6, nonsense, 10.1.2.3"], "10.1.2.3"),
            (proxies, "127.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            (proxies, "fd00::1", &["[2001:db8::1]:443"], "2001:db8::1"),
            (proxies, "::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
        ];
        for (trusted, peer, forwarded, sender) in rows {
            let trusted: Vec<IpNet> =
                trusted.split(',').filter(|net| !net.is_empty()).map(|net| net.parse().unwrap()).collect();
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            let found = of_sender(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), sender, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn a_host_of_ipv6_has_one_household() {
        let rows = [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ];
        for (address, expected) in rows {
            assert_eq!(household(address.parse().unwrap()).to_string(), expected);
        }
    }
}
