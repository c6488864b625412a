//! Tells requests that this server's own pages and programs make from those that other sites make a browser send.
//!
//! A browser sends a foreign page's request to this host as readily as any other: nothing but its `Origin` and `Host` tell.

use axum::http::{HeaderMap, header};
use url::{Host, Url};

/// Where a page that is developed beside this server is served from.
pub(super) const DEVELOPED: [&str; 2] = ["http://localhost:3000", "http://localhost:3001"];

/// Whether the request names this host as its target and comes from no foreign page.
///
/// The name is checked because a foreign name may be made to resolve to this host (DNS rebinding).
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(host) = text(header::HOST).filter(|host| names_this_host(host)) else { return false };
    match text(header::ORIGIN) {
        None => true,
        Some(origin) => DEVELOPED.contains(&origin) || is_of(origin, host),
    }
}

/// Whether `Origin` says that a page of the very server that `Host` names sent the request.
pub(super) fn is_same(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    text(header::HOST).zip(text(header::ORIGIN)).is_some_and(|(host, origin)| is_of(origin, host))
}

/// Whether the browser says so, by its `Origin` or in place of one.
pub(super) fn is_proven_same(headers: &HeaderMap) -> bool {
    match headers.get(header::ORIGIN) {
        Some(_) => is_same(headers),
        None => headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin"),
    }
}

/// Whether `Origin` or `Referer` names the server that `Host` does: anyone can say so, which is enough to find the way by.
pub(super) fn is_canvas(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    let referred = text(header::HOST).zip(text(header::REFERER)).is_some_and(|(host, referer)| {
        let rest = referer.strip_prefix("https://").or_else(|| referer.strip_prefix("http://"));
        rest.and_then(|rest| rest.strip_prefix(host)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    referred || is_same(headers)
}

/// Whether an origin is that of `host`, with TLS before it or without.
fn is_of(origin: &str, host: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host))
}

fn names_this_host(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}/")) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_sites_send_is_not_our_own() {
        let rows = [
            (Some("127.0.0.1:8080"), None, true),
            (Some("localhost:8080"), None, true),
            (Some("[::1]:8080"), None, true),
            (Some("localhost:8080"), Some("http://localhost:8080"), true),
            (Some("127.0.0.1:8080"), Some("http://localhost:3000"), true),
            (Some("127.0.0.1:8080"), Some("http://evil.example"), false),
            (Some("127.0.0.1:8080"), Some("null"), false),
            (Some("127.0.0.1:8080"), Some("http://localhost:9999"), false),
            (Some("rebound.example:8080"), None, false),
            (Some("rebound.example:8080"), Some("http://rebound.example:8080"), false),
            (Some("localhost.evil.example"), None, false),
            (None, None, false),
        ];
        for (host, origin, expected) in rows {
            let named = [(header::HOST, host), (header::ORIGIN, origin)];
            let headers = named.into_iter().filter_map(|(name, value)| Some((name, value?.parse().unwrap()))).collect();
            assert_eq!(is_own(&headers), expected, "{host:?} {origin:?}");
        }
    }
}
