//! Keeps requests that are meant for another organisation's server from finding anything here.
//!
//! This is routing, not authentication: whoever passes still needs a credential.

use axum::http::HeaderMap;

use crate::serve::origin;

/// What is answered to everyone, because who asks cannot know the organisation. Exactly these.
const OPEN: [&str; 5] = ["/health", "/metrics", "/buildinfo", "/registry/register", "/registry/heartbeat"];

/// The organisation whose server this is.
#[derive(Debug)]
pub(crate) struct TenantGuard {
    pub(crate) org_id: String,
    /// A page that another server shows talks to this one as if it were its own.
    pub(crate) has_canvas: bool,
}

impl TenantGuard {
    pub(super) fn passes(&self, path: &str, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        OPEN.contains(&path)
            || path.starts_with("/cp/")
            || text("x-molecule-org-id").is_some_and(|org_id| org_id == self.org_id)
            || text("fly-replay-src").and_then(state).is_some_and(|org_id| org_id == self.org_id)
            || (self.has_canvas && origin::is_canvas(headers))
    }
}

/// The first `state` of what a router says about where it replays a request from.
fn state(replay: &str) -> Option<&str> {
    replay.split(';').find_map(|part| part.trim().strip_prefix("state="))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent = &'static [(&'static str, &'static str)];

    #[test]
    fn who_passes_row_by_row() {
        let rows: [(&str, bool, Sent, bool); 24] = [
            ("/health", false, &[], true),
            ("/metrics", false, &[], true),
            ("/buildinfo", false, &[], true),
            ("/registry/register", false, &[], true),
            ("/registry/heartbeat", false, &[], true),
            ("/registry/heartbeat/", false, &[], false),
            ("/health/deep", false, &[], false),
            ("/registry/update-card", false, &[], false),
            ("/registry/discover/1", false, &[], false),
            ("/ws", false, &[], false),
            ("/workspaces", false, &[], false),
            ("/cp/auth/me", false, &[], true),
            ("/cp", false, &[], false),
            ("/workspaces", false, &[("x-molecule-org-id", "org-1")], true),
            ("/workspaces", false, &[("x-molecule-org-id", "org-2")], false),
            ("/workspaces", false, &[("fly-replay-src", "instance=a; region=b; t=1; state=org-1")], true),
            ("/workspaces", false, &[("fly-replay-src", "state=org-2;state=org-1")], false),
            ("/workspaces", false, &[("fly-replay-src", "org-1")], false),
            ("/workspaces", true, &[("host", "us"), ("origin", "https://us")], true),
            ("/workspaces", true, &[("host", "us"), ("referer", "http://us/canvas")], true),
            ("/workspaces", true, &[("host", "us"), ("referer", "http://us.evil.example/")], false),
            ("/workspaces", true, &[("host", "us"), ("origin", "https://evil.example")], false),
            ("/workspaces", true, &[("host", ""), ("origin", "https://")], false),
            ("/workspaces", false, &[("host", "us"), ("origin", "https://us")], false),
        ];
        for (path, has_canvas, sent, expected) in rows {
            let guard = TenantGuard { org_id: "org-1".to_owned(), has_canvas };
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.insert(*name, value.parse().unwrap());
            }
            assert_eq!(guard.passes(path, &headers), expected, "{path} {sent:?} {has_canvas}");
        }
    }
}
