//! What must hold of the parsers of texts that others send, whatever comes. Each function panics where it does not.
//!
//! The fuzzers of the repository call these, and so does a test, over what the fuzzers begin with.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use chrono::DateTime;
use futures_util::FutureExt;
use serde_json::{Map, Value};
use url::{Host, Url};
use uuid::Uuid;

use crate::{
    a2a::{Told, normalise},
    agent::file_path,
    identity::{bearer, offered_bearer},
    net::{Names, Policy, Resolver, check_as_written, check_url},
    provisioner::{FilePath, image_ref},
    schedules::timetable::Timetable,
    templates::{Template, required_env, shared_context, sub_workspaces},
    tools::Arguments,
};

/// A reference has a tag that stands in it, or may move; a runtime that may be part of one becomes no other part of it.
pub fn image_reference(text: &str) {
    match image_ref::tag(text) {
        Some(tag) => {
            assert!(
                text.contains(&format!(":{tag}")) && !tag.contains(['/', ':', '@']),
                "{text:?} has the tag {tag:?}"
            );
        }
        None => assert!(text.contains("@sha256:") || image_ref::is_moving(text), "{text:?} is pinned by nothing"),
    }
    assert!(!text.contains("@sha256:") || !image_ref::is_moving(text), "{text:?} has a digest, and may move");
    if image_ref::is_reference_part(text) {
        assert_eq!(image_ref::tag(&format!("registry.example:5000/a:{text}")), Some(text));
        assert_eq!(image_ref::tag(&format!("registry.example:5000/a-{text}")), None);
    }
}

/// A bearer has no blanks around it, stands in what was sent, and is the same when it is sent again.
pub fn bearers(text: &str) {
    if let Some(token) = bearer(text) {
        assert!(text.starts_with("Bearer ") && token.trim() == token && !token.is_empty(), "{text:?} has {token:?}");
        assert_eq!(bearer(&format!("Bearer {token}")), Some(token), "{text:?}");
    }
    if let Some(token) = offered_bearer(text) {
        assert!(token.trim() == token && !token.is_empty() && !token.contains(','), "{text:?} offers {token:?}");
        assert_eq!(offered_bearer(&format!("molecule, molecule.bearer.{token}")), Some(token), "{text:?}");
    }
}

/// No address is called that a policy forbids, however it is written; what is allowed to strangers is allowed to all. Names
/// are not looked up.
pub fn url(text: &str) {
    let Some(host) = Url::parse(text.trim()).ok().and_then(|url| url.host().map(|host| host.to_owned())) else {
        return;
    };
    let (ip, embedded) = match host {
        Host::Ipv4(ip) => (IpAddr::V4(ip), None),
        Host::Ipv6(ip) => (IpAddr::V6(ip), ip.to_ipv4().map(IpAddr::V4)),
        Host::Domain(_) => return,
    };
    let names = Names::new(Arc::new(Nobody));
    let verdict = |policy| check_url(text, policy, &names).now_or_never().expect("an address is not looked up");
    let policies = [Policy::Closed, Policy::Strict, Policy::Saas, Policy::Development];
    let verdicts = policies.map(verdict);
    for two in verdicts.windows(2) {
        assert!(two[0].is_err() || two[1].is_ok(), "{text:?} is for strangers alone");
    }
    let written = check_as_written(text).is_ok();
    assert!(written || verdicts.iter().all(Result::is_err), "{text:?} is refused as it is written, and called");
    for (policy, checked) in policies.into_iter().zip(verdicts) {
        let Ok(checked) = checked else { continue };
        for ip in embedded.into_iter().chain([ip]) {
            assert!(!is_forbidden(ip, policy), "{text:?} is {ip}, which {policy:?} lets be called");
        }
        assert!(matches!(checked.url.scheme(), "http" | "https"), "{text:?} is no http");
        assert!(checked.addresses.len() == 1, "{text:?} is more than one address: {:?}", checked.addresses);
    }
}

/// Knows no names.
#[derive(Debug)]
struct Nobody;

impl Resolver for Nobody {
    fn addresses(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// What the standard library says of an address, to compare with.
fn is_forbidden(ip: IpAddr, policy: Policy) -> bool {
    let is_loopback = ip.is_loopback() && policy != Policy::Development;
    let always = ip.is_unspecified() || ip.is_multicast();
    let by_version = match ip {
        IpAddr::V4(ip) => {
            let private = ip.is_private() && matches!(policy, Policy::Closed | Policy::Strict);
            private || ip.is_link_local() || ip.is_documentation() || ip == Ipv4Addr::BROADCAST
        }
        IpAddr::V6(ip) => {
            let private = ip.is_unique_local() && matches!(policy, Policy::Closed | Policy::Strict);
            private || ip.is_unicast_link_local()
        }
    };
    is_loopback || always || by_version
}

/// The configuration of a template is read or refused as a whole, in one line.
pub fn template(text: &str) {
    let read = Template::parse("x", text);
    let parts = [required_env(text).map(drop), sub_workspaces(text).map(drop), shared_context(text).map(drop)];
    match read {
        Ok(template) => {
            assert_eq!(template.id, "x");
            assert!(parts.iter().all(Result::is_ok), "{text:?} is read in parts: {parts:?}");
        }
        Err(why) => {
            assert!(!why.is_empty() && !why.contains('\n'), "{text:?} is refused with {why:?}");
            assert!(parts.iter().all(|part| part.as_ref() == Err(&why)), "{text:?} is refused in parts: {parts:?}");
        }
    }
}

/// A call that was brought to the shape of agents has it: brought there again it is the same.
pub fn call(body: &[u8]) {
    let Ok((request, method)) = normalise(body, Uuid::nil) else { return };
    assert!(request.get("jsonrpc").is_some(), "{request}");
    assert_eq!(request["method"].as_str().unwrap_or_default(), method);
    if let Some(message) = request["params"]["message"].as_object() {
        assert!(message.contains_key("messageId") && message.contains_key("parts"), "{request}");
    }
    let again = normalise(request.to_string().as_bytes(), || panic!("nothing is left out any more"));
    assert_eq!(again.expect("it is in shape"), (request, method));
}

/// What a tool is called with is taken as it stands, within bounds, or refused by its name.
pub fn arguments(body: &[u8]) {
    let Ok(given) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    let arguments = Arguments::new(Some(given.clone()));
    for (name, value) in &given {
        let is_named = |why: &str| why.starts_with(&format!("{name} must be "));
        match arguments.text(name) {
            Ok(text) => assert_eq!(text, value.as_str().unwrap_or_default().trim(), "{value}"),
            Err(refused) => assert!(is_named(&refused.0), "{refused:?}"),
        }
        match arguments.workspace(name) {
            Ok(None) => assert_eq!(arguments.text(name), Ok(""), "{value}"),
            Ok(Some(id)) => assert_eq!(arguments.text(name).map(str::to_lowercase), Ok(id.to_string())),
            Err(refused) => assert!(is_named(&refused.0), "{refused:?}"),
        }
        #[cfg(feature = "mcp")]
        {
            match arguments.number(name, 1.0, 60.0) {
                Ok(number) => assert!((0.0..=60.0).contains(&number), "{value} is {number}"),
                Err(refused) => assert!(is_named(&refused.0), "{refused:?}"),
            }
            match arguments.count(name, 20, 500) {
                Ok(count) => assert!((1..=500).contains(&count), "{value} is {count}"),
                Err(refused) => assert!(is_named(&refused.0), "{refused:?}"),
            }
            match arguments.texts(name) {
                Ok(texts) => assert_eq!(texts.len(), value.as_array().map_or(0, Vec::len), "{value}"),
                Err(refused) => assert!(is_named(&refused.0), "{refused:?}"),
            }
        }
    }
}

/// An answer that comes as events says the same wherever it is cut.
pub fn events(body: &[u8]) {
    let heard = |pieces: &[&[u8]]| {
        let mut told = Told::default();
        pieces.iter().for_each(|piece| told.hear(piece));
        told.into_kept()
    };
    let whole = heard(&[body]);
    assert!(whole.body.is_array(), "{:?}", whole.body);
    if let Some(used) = whole.used {
        assert!(used.input_tokens >= 0 && used.output_tokens >= 0, "{used:?}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(heard(&bytes), whole);
    let (one, other) = body.split_at(body.len() / 2);
    assert_eq!(heard(&[one, other]), whole);
}

/// Times that are taken are full minutes, each after the one before, whatever the clocks of a place do.
pub fn cron(text: &str) {
    for zone in ["UTC", "Europe/Berlin"] {
        let Ok(timetable) = Timetable::parse(text, zone) else { continue };
        // A day before the clocks of Berlin are put forward.
        let mut time = DateTime::from_timestamp(1_774_666_800, 0).expect("it is a time");
        for _ in 0..5 {
            let Some(next) = timetable.next_after(time) else { break };
            assert!(next > time && next.timestamp() % 60 == 0, "{text:?} in {zone} is at {next} after {time}");
            time = next;
        }
    }
}

/// A path that is taken stays below where it is put.
pub fn path(text: &str) {
    if file_path::check(text).is_ok() {
        let parts: Vec<&str> = text.split('/').skip(1).collect();
        let plain = parts.iter().all(|part| !part.is_empty() && !matches!(*part, "." | ".."));
        let below = matches!(parts.first(), Some(&("configs" | "workspace" | "home" | "plugins")));
        assert!(text.starts_with('/') && plain && below && !text.contains('\0'), "{text:?}");
    }
    if let Ok(path) = FilePath::parse(text) {
        assert!(path.names().all(|name| !matches!(name, "" | "." | "..") && name.len() <= 255), "{text:?} is {path}");
        assert!(!path.as_str().starts_with('/') && !path.as_str().contains('\0'), "{text:?} is {path}");
        assert_eq!(FilePath::parse(path.as_str()).expect("it is one"), path);
    }
}
