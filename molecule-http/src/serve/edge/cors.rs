//! Which pages of other origins may talk to this server, and which requests of theirs are refused.

use axum::http::{
    HeaderMap, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, COOKIE, ORIGIN, UPGRADE, VARY,
    },
};
use url::Url;

use crate::serve::{guard::bearer, origin};

const METHODS: &str = "GET,POST,PUT,PATCH,DELETE,OPTIONS";
const HEADERS: &str = "Origin,Content-Type,X-Workspace-Id,Authorization,X-Molecule-Org-Id,X-Molecule-Org-Slug";

/// The origins whose pages may.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<String>,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is nobody else's page.
    Pass,
    /// A page of this origin may read the answer.
    Share(HeaderValue),
    /// It only asks what it may do.
    Preflight(HeaderValue),
    /// An empty 403.
    Refuse,
}

impl Cors {
    /// `list` has origins separated by commas; without one, those where pages are developed.
    pub(crate) fn new(list: Option<&str>) -> Self {
        let origins = match list {
            None => origin::DEVELOPED.map(str::to_owned).to_vec(),
            Some(list) => {
                let (good, bad): (Vec<&str>, Vec<&str>) = list
                    .split(',')
                    .map(|entry| entry.trim().trim_end_matches('/'))
                    .filter(|entry| !entry.is_empty())
                    .partition(|entry| is_origin(entry));
                for entry in bad {
                    tracing::warn!(entry, "an entry of CORS_ORIGINS is no origin, such as https://canvas.example");
                }
                good.into_iter().map(str::to_owned).collect()
            }
        };
        Self { origins }
    }

    /// `sessions` says whether cookies can be a credential here.
    pub(super) fn judge(&self, method: &Method, headers: &HeaderMap, sessions: bool) -> Verdict {
        let origin = headers.get(ORIGIN);
        let own = origin.is_none() || origin::is_same(headers);
        let listed = origin.filter(|origin| self.origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes()));
        if !own && method == Method::OPTIONS {
            return listed.map_or(Verdict::Refuse, |origin| Verdict::Preflight(origin.clone()));
        }
        // A browser adds the cookies of this server to whatever page asks; a bearer it does not.
        let by_cookie = sessions && headers.contains_key(COOKIE) && bearer(headers).is_none();
        let changes = !method.is_safe() || headers.contains_key(UPGRADE);
        if by_cookie && changes && listed.is_none() && !origin::is_proven_same(headers) {
            return Verdict::Refuse;
        }
        match listed {
            Some(origin) if !own => Verdict::Share(origin.clone()),
            _ => Verdict::Pass,
        }
    }
}

/// Adds what lets a page of `origin` read the answer.
pub(super) fn share(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// Adds what a page of `origin` may send.
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    share(headers, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
}

fn is_origin(entry: &str) -> bool {
    Url::parse(entry).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization().eq_ignore_ascii_case(entry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent = &'static [(&'static str, &'static str)];

    #[test]
    fn entries_are_trimmed_and_bad_ones_left_out() {
        let cors =
            Cors::new(Some(" https://a.example , ,*,nonsense,https://b.example/,https://c.example/path,ftp://d"));
        assert_eq!(cors.origins, ["https://a.example", "https://b.example"]);
        assert_eq!(Cors::new(None).origins, ["http://localhost:3000", "http://localhost:3001"]);
        assert_eq!(Cors::new(Some(",")).origins, [] as [&str; 0]);
    }

    #[test]
    fn what_other_pages_may_row_by_row() {
        let cors = Cors::new(Some("https://canvas.example"));
        let canvas = || HeaderValue::from_static("https://canvas.example");
        type Header = (&'static str, &'static str);
        const LISTED: Header = ("origin", "https://canvas.example");
        const FOREIGN: Header = ("origin", "https://evil.example");
        const OWN: Header = ("origin", "http://us:1");
        const COOKIE: Header = ("cookie", "s=1");
        const BEARER: Header = ("authorization", "Bearer x");
        const UPGRADE: Header = ("upgrade", "websocket");
        let rows: [(Method, bool, Sent, Verdict); 23] = [
            (Method::GET, false, &[], Verdict::Pass),
            (Method::GET, false, &[OWN], Verdict::Pass),
            (Method::OPTIONS, false, &[], Verdict::Pass),
            (Method::OPTIONS, false, &[OWN], Verdict::Pass),
            (Method::OPTIONS, false, &[LISTED], Verdict::Preflight(canvas())),
            (Method::OPTIONS, false, &[FOREIGN], Verdict::Refuse),
            (Method::GET, false, &[LISTED], Verdict::Share(canvas())),
            (Method::POST, false, &[LISTED], Verdict::Share(canvas())),
            (Method::GET, false, &[FOREIGN], Verdict::Pass),
            (Method::POST, false, &[FOREIGN, BEARER], Verdict::Pass),
            (Method::POST, false, &[FOREIGN, COOKIE], Verdict::Pass),
            (Method::POST, true, &[FOREIGN, COOKIE], Verdict::Refuse),
            (Method::POST, true, &[FOREIGN, COOKIE, BEARER], Verdict::Pass),
            (Method::POST, true, &[FOREIGN, COOKIE, ("authorization", "Basic eDp5")], Verdict::Refuse),
            (Method::DELETE, true, &[COOKIE], Verdict::Refuse),
            (Method::POST, true, &[COOKIE, ("origin", "null")], Verdict::Refuse),
            (Method::POST, true, &[COOKIE, ("sec-fetch-site", "cross-site")], Verdict::Refuse),
            (Method::POST, true, &[COOKIE, ("sec-fetch-site", "same-origin")], Verdict::Pass),
            (Method::POST, true, &[COOKIE, OWN], Verdict::Pass),
            (Method::POST, true, &[COOKIE, LISTED], Verdict::Share(canvas())),
            (Method::GET, true, &[COOKIE, FOREIGN], Verdict::Pass),
            (Method::GET, true, &[COOKIE, FOREIGN, UPGRADE], Verdict::Refuse),
            (Method::GET, true, &[COOKIE, OWN, UPGRADE], Verdict::Pass),
        ];
        for (method, sessions, sent, expected) in rows {
            let mut headers = HeaderMap::from_iter([("host".parse().unwrap(), "us:1".parse().unwrap())]);
            for (name, value) in sent {
                headers.insert(*name, value.parse().unwrap());
            }
            assert_eq!(cors.judge(&method, &headers, sessions), expected, "{method} {sent:?} {sessions}");
        }
    }
}
