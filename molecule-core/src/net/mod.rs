//! Which addresses the control plane may call on an agent's word.
//!
//! One classifier serves the check of a registration and the check before a call (`docs/addresses.md`). The call
//! then goes to the addresses that were checked, so that an answer that changes in between leads nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

use crate::error::{Error, Result};

/// How far the network around this control plane is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// A host of its own: no private addresses; `localhost` by name.
    #[default]
    Strict,
    /// A private network of the operator's: its private ranges are allowed.
    Saas,
    /// A developer's machine: loopback and private ranges are allowed.
    Development,
}

/// A URL whose every address was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedUrl {
    /// The URL.
    pub url: Url,
    /// The addresses that a connection may be made to.
    pub addresses: Vec<SocketAddr>,
}

/// Checks that an agent may be called at `text`.
///
/// # Errors
/// [`InvalidInput`](crate::error::ErrorKind::InvalidInput), naming the first thing that forbids it.
pub async fn check_url(text: &str, policy: Policy) -> Result<CheckedUrl> {
    if text.trim().is_empty() {
        return Err(Error::invalid("url is required"));
    }
    if text.contains('\0') {
        return Err(Error::invalid("url contains invalid characters"));
    }
    let url = Url::parse(text.trim()).map_err(|error| Error::invalid("url cannot be parsed").caused_by(error))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::invalid(format!("url scheme must be http or https, got {:?}", url.scheme())));
    }
    let port = url.port_or_known_default().unwrap_or(80);
    let literal = |ip: IpAddr| match blocked(ip, policy) {
        Some(label) => Err(Error::invalid(format!("url targets a blocked address: {label}"))),
        None => Ok(vec![SocketAddr::new(ip, port)]),
    };
    let addresses = match url.host() {
        None => return Err(Error::invalid("url is required")),
        Some(Host::Ipv4(ip)) => literal(IpAddr::V4(ip))?,
        Some(Host::Ipv6(ip)) => literal(IpAddr::V6(ip))?,
        Some(Host::Domain(name)) => {
            let by_name = name.trim_end_matches('.').eq_ignore_ascii_case("localhost") && policy != Policy::Saas;
            let answers: Vec<SocketAddr> = tokio::net::lookup_host((name, port))
                .await
                .map_err(|error| Error::invalid(format!("hostname {name:?} cannot be resolved (DNS error): {error}")))?
                .collect();
            let forbidden = answers.iter().find_map(|address| {
                let allowed = by_name && address.ip().is_loopback();
                blocked(address.ip(), policy).filter(|_| !allowed)
            });
            match forbidden {
                Some(label) => {
                    let text = format!("hostname {name:?} resolves to forbidden address: {label}");
                    return Err(Error::invalid(text));
                }
                None if answers.is_empty() => {
                    let text = format!("hostname {name:?} cannot be resolved (DNS error): no address");
                    return Err(Error::invalid(text));
                }
                None => answers,
            }
        }
    };
    Ok(CheckedUrl { url, addresses })
}

/// Why `ip` must not be called under `policy`; `None` where it may.
pub fn blocked(ip: IpAddr, policy: Policy) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => blocked_v4(ip, policy),
        IpAddr::V6(ip) => match embedded_v4(ip) {
            Some(v4) => blocked_v4(v4, policy),
            None => blocked_v6(ip, policy),
        },
    }
}

fn blocked_v4(ip: Ipv4Addr, policy: Policy) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (127, ..) => (policy != Policy::Development).then_some("loopback"),
        (0, ..) => Some("this network"),
        (169, 254, _) => Some("link-local"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => (policy == Policy::Strict).then_some("private"),
        (100, 64..=127, _) => Some("carrier-grade NAT"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("documentation"),
        (192, 0, 0) => Some("protocol assignments"),
        (198, 18..=19, _) => Some("benchmarking"),
        (224..=239, ..) => Some("multicast"),
        (240..=255, ..) => Some("reserved"),
        _ => None,
    }
}

fn blocked_v6(ip: Ipv6Addr, policy: Policy) -> Option<&'static str> {
    let [first, second, ..] = ip.segments();
    match first {
        _ if ip.is_loopback() => (policy != Policy::Development).then_some("loopback"),
        _ if ip.is_unspecified() => Some("unspecified"),
        0xfe80..=0xfebf => Some("link-local"),
        0xfd00..=0xfdff => (policy == Policy::Strict).then_some("private"),
        0xfc00..=0xfcff => Some("unique local"),
        0xff00..=0xffff => Some("multicast"),
        0x2001 if second == 0x0db8 => Some("documentation"),
        // Address translation: where the packets end up is not for this side to see.
        0x0064 if second == 0xff9b => Some("NAT64"),
        0x2002 => Some("6to4"),
        _ => None,
    }
}

/// The IPv4 address that an IPv4-mapped one stands for.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    ip.to_ipv4_mapped()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_under_every_policy() {
        // address, blocked when strict, saas, development
        let rows = [
            ("8.8.8.8", false, false, false),
            ("2606:4700::1111", false, false, false),
            ("127.0.0.1", true, true, false),
            ("127.255.255.254", true, true, false),
            ("::1", true, true, false),
            ("::ffff:127.0.0.1", true, true, false),
            ("0.0.0.0", true, true, true),
            ("0.1.2.3", true, true, true),
            ("::", true, true, true),
            ("169.254.169.254", true, true, true),
            ("::ffff:169.254.169.254", true, true, true),
            ("fe80::1", true, true, true),
            ("febf::1", true, true, true),
            ("10.0.0.1", true, false, false),
            ("172.16.0.1", true, false, false),
            ("172.31.255.255", true, false, false),
            ("172.32.0.1", false, false, false),
            ("192.168.1.1", true, false, false),
            ("fd00::1", true, false, false),
            ("fc00::1", true, true, true),
            ("100.64.0.1", true, true, true),
            ("100.128.0.1", false, false, false),
            ("192.0.2.1", true, true, true),
            ("198.51.100.1", true, true, true),
            ("203.0.113.1", true, true, true),
            ("2001:db8::1", true, true, true),
            ("224.0.0.1", true, true, true),
            ("239.1.1.1", true, true, true),
            ("ff02::1", true, true, true),
            ("192.0.0.1", true, true, true),
            ("198.18.0.1", true, true, true),
            ("198.19.255.255", true, true, true),
            ("240.0.0.1", true, true, true),
            ("255.255.255.255", true, true, true),
            ("64:ff9b::7f00:1", true, true, true),
            ("2002:7f00:1::", true, true, true),
        ];
        for (text, strict, saas, development) in rows {
            let ip = text.parse().unwrap();
            let verdict =
                [Policy::Strict, Policy::Saas, Policy::Development].map(|policy| blocked(ip, policy).is_some());
            assert_eq!(verdict, [strict, saas, development], "{text}");
        }
    }

    #[tokio::test]
    async fn names_what_forbids_a_url() {
        let rows = [
            ("", "url is required"),
            ("ftp://8.8.8.8/", "url scheme must be http or https, got \"ftp\""),
            ("file:///etc/passwd", "url scheme must be http or https, got \"file\""),
            ("http://127.0.0.1:1/", "url targets a blocked address: loopback"),
            ("http://0x7f.1/", "url targets a blocked address: loopback"),
            ("http://2130706433/", "url targets a blocked address: loopback"),
            ("http://[::ffff:169.254.169.254]/latest", "url targets a blocked address: link-local"),
        ];
        for (text, message) in rows {
            assert_eq!(check_url(text, Policy::Strict).await.unwrap_err().message(), message, "{text}");
        }
        let unresolvable = check_url("http://no-such-host.invalid/", Policy::Strict).await.unwrap_err();
        assert!(unresolvable.message().starts_with("hostname \"no-such-host.invalid\" cannot be resolved"));
    }

    #[tokio::test]
    async fn localhost_by_name_is_for_self_hosters() {
        assert!(check_url("http://localhost:9000", Policy::Strict).await.is_ok());
        assert!(check_url("http://localhost:9000", Policy::Saas).await.is_err());
        let checked = check_url("http://8.8.8.8:81/x", Policy::Strict).await.unwrap();
        assert_eq!(checked.addresses, ["8.8.8.8:81".parse().unwrap()]);
    }
}
