//! Which addresses the control plane may call on an agent's word.
//!
//! One classifier serves the check of a registration and the check before a call (`docs/addresses.md`). The call
//! then goes to the addresses that were checked, so that an answer that changes in between leads nowhere.

mod names;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

pub(crate) use self::names::Names;
pub use self::names::Resolver;
use crate::error::{Error, Result};

/// How far the network around this control plane is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// A host that others reach: no private addresses, and not itself.
    Closed,
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
pub(crate) async fn check_url(text: &str, policy: Policy, names: &Names) -> Result<CheckedUrl> {
    let url = parse(text)?;
    let port = url.port_or_known_default().unwrap_or(80);
    let addresses = match (literal(&url), url.host_str()) {
        (Some(ip), _) => match blocked(ip, policy) {
            Some(label) => return Err(Error::invalid(format!("url targets a blocked address: {label}"))),
            None => vec![SocketAddr::new(ip, port)],
        },
        (None, Some(name)) => check_name(name, port, policy, names).await?,
        (None, None) => return Err(Error::invalid("url is required")),
    };
    Ok(CheckedUrl { url, addresses })
}

/// Checks of `text` what can be seen in it. Names, and the addresses of this host and of networks of its own, are for a
/// backend to know.
///
/// # Errors
/// As [`check_url`].
pub(crate) fn check_as_written(text: &str) -> Result<()> {
    let url = parse(text)?;
    let beyond = literal(&url).filter(|ip| !ip.is_unspecified());
    match beyond.and_then(|ip| blocked(ip, Policy::Development)) {
        Some(label) => Err(Error::invalid(format!("url targets a blocked address: {label}"))),
        None => Ok(()),
    }
}

fn parse(text: &str) -> Result<Url> {
    if text.trim().is_empty() {
        return Err(Error::invalid("url is required"));
    }
    if text.contains('\0') {
        return Err(Error::invalid("url contains invalid characters"));
    }
    let url = Url::parse(text.trim()).map_err(|error| Error::invalid("url cannot be parsed").caused_by(error))?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(Error::invalid(format!("url scheme must be http or https, got {:?}", url.scheme())))
    }
}

/// The address that stands in `url` itself.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
        Host::Domain(_) => None,
    }
}

/// The addresses of `name`, every one of which may be called.
async fn check_name(name: &str, port: u16, policy: Policy, names: &Names) -> Result<Vec<SocketAddr>> {
    let by_name = name.trim_end_matches('.').eq_ignore_ascii_case("localhost")
        && !matches!(policy, Policy::Closed | Policy::Saas);
    let unresolved = |why: String| Error::invalid(format!("hostname {name:?} cannot be resolved (DNS error): {why}"));
    let answers = names.addresses(name, port).await.map_err(|error| unresolved(error.to_string()))?;
    let forbidden = answers.iter().find_map(|address| {
        let allowed = by_name && address.ip().is_loopback();
        blocked(address.ip(), policy).filter(|_| !allowed)
    });
    match forbidden {
        Some(label) => Err(Error::invalid(format!("hostname {name:?} resolves to forbidden address: {label}"))),
        None if answers.is_empty() => Err(unresolved("no address".to_owned())),
        None => Ok(answers),
    }
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
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => is_closed(policy).then_some("private"),
        (100, 64..=127, _) => Some("carrier-grade NAT"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("documentation"),
        (192, 0, 0) => Some("protocol assignments"),
        (198, 18..=19, _) => Some("benchmarking"),
        (192, 88, 99) => Some("6to4"),
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
        0xfd00..=0xfdff => is_closed(policy).then_some("private"),
        0xfc00..=0xfcff => Some("unique local"),
        0xff00..=0xffff => Some("multicast"),
        0x2001 if second == 0x0db8 => Some("documentation"),
        0x3fff if second < 0x1000 => Some("documentation"),
        // Address translation: where the packets end up is not for this side to see.
        0x0064 if second == 0xff9b => Some("NAT64"),
        0x2001 if second == 0 => Some("Teredo"),
        0x2001 if second < 0x0200 => Some("protocol assignments"),
        0x2002 => Some("6to4"),
        0x2000..=0x3fff => None,
        // Nobody is there, or it stands for an address of another kind.
        _ => Some("reserved"),
    }
}

/// Whether private networks are none of this control plane's.
fn is_closed(policy: Policy) -> bool {
    matches!(policy, Policy::Closed | Policy::Strict)
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
            ("192.88.99.1", true, true, true),
            ("::127.0.0.1", true, true, true),
            ("::ffff:0:127.0.0.1", true, true, true),
            ("64:ff9b:1::1", true, true, true),
            ("100::1", true, true, true),
            ("2001::1", true, true, true),
            ("2001:20::1", true, true, true),
            ("2001:200::1", false, false, false),
            ("3fff::1", true, true, true),
            ("3fff:1000::1", false, false, false),
            ("fec0::1", true, true, true),
            ("4000::1", true, true, true),
        ];
        for (text, strict, saas, development) in rows {
            let ip = text.parse().unwrap();
            let verdict =
                [Policy::Strict, Policy::Saas, Policy::Development].map(|policy| blocked(ip, policy).is_some());
            assert_eq!(verdict, [strict, saas, development], "{text}");
            assert_eq!(blocked(ip, Policy::Closed).is_some(), strict, "{text}");
        }
    }

    /// One that knows a few names.
    #[derive(Debug)]
    struct Few;

    impl Resolver for Few {
        fn addresses(&self, name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
            let found: &[&str] = match name {
                "public.example" => &["8.8.8.8", "2606:4700::1111"],
                "mixed.example" => &["8.8.8.8", "10.0.0.1"],
                "metadata.example" => &["169.254.169.254"],
                "localhost" | "localhost." => &["::1", "127.0.0.1"],
                "odd.localhost" => &["127.0.0.1"],
                "empty.example" => &[],
                _ => return Err(std::io::Error::other("no such host")),
            };
            Ok(found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
        }
    }

    async fn check_url(text: &str, policy: Policy) -> Result<CheckedUrl> {
        super::check_url(text, policy, &Names::new(std::sync::Arc::new(Few))).await
    }

    #[tokio::test]
    async fn every_address_of_a_name_must_pass() {
        let checked = check_url("https://public.example/a", Policy::Closed).await.unwrap();
        assert_eq!(checked.addresses, ["8.8.8.8:443", "[2606:4700::1111]:443"].map(|address| address.parse().unwrap()));
        for (name, policy, why) in [
            ("mixed.example", Policy::Strict, "resolves to forbidden address: private"),
            ("metadata.example", Policy::Development, "resolves to forbidden address: link-local"),
            ("odd.localhost", Policy::Strict, "resolves to forbidden address: loopback"),
            ("empty.example", Policy::Strict, "cannot be resolved (DNS error): no address"),
            ("no-such-host.invalid", Policy::Strict, "cannot be resolved (DNS error): no such host"),
        ] {
            let error = check_url(&format!("http://{name}/"), policy).await.unwrap_err();
            assert_eq!(error.message(), format!("hostname {name:?} {why}"));
        }
        assert!(check_url("http://mixed.example/", Policy::Saas).await.is_ok());
    }

    #[test]
    fn what_is_written_may_be_on_this_host_and_nowhere_odd() {
        for text in
            ["http://ws-0123:8000", "http://127.0.0.1:1/", "http://0.0.0.0:8000", "http://[::]:1", "http://10.0.0.1"]
        {
            assert!(check_as_written(text).is_ok(), "{text}");
        }
        for text in
            ["http://169.254.169.254/", "http://[fe80::1]/", "ftp://ws-0123/", "", "http://224.0.0.1/", "nonsense"]
        {
            assert!(check_as_written(text).is_err(), "{text}");
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
    }

    #[tokio::test]
    async fn localhost_by_name_is_for_self_hosters() {
        for text in ["http://localhost:9000", "http://LOCALHOST.:9000"] {
            assert!(check_url(text, Policy::Strict).await.is_ok(), "{text}");
            assert!(check_url(text, Policy::Saas).await.is_err(), "{text}");
            assert!(check_url(text, Policy::Closed).await.is_err(), "{text}");
        }
        let checked = check_url("http://8.8.8.8:81/x", Policy::Strict).await.unwrap();
        assert_eq!(checked.addresses, ["8.8.8.8:81".parse().unwrap()]);
    }
}
