//! What every answer tells a browser, unless its handler said otherwise.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_SECURITY_POLICY},
    middleware::Next,
    response::Response,
};

/// The first parts of paths that answer with data.
const API: [&str; 19] = [
    "workspaces",
    "registry",
    "health",
    "admin",
    "metrics",
    "settings",
    "bundles",
    "org",
    "orgs",
    "templates",
    "plugins",
    "webhooks",
    "channels",
    "ws",
    "events",
    "approvals",
    "buildinfo",
    "canvas",
    "instructions",
];

const FOR_DATA: HeaderValue = HeaderValue::from_static("default-src 'self'");
const FOR_PAGES: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     connect-src 'self' ws: wss:; font-src 'self' data:",
);

const FOR_ALL: [(HeaderName, HeaderValue); 5] = [
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
    (
        HeaderName::from_static("strict-transport-security"),
        HeaderValue::from_static("max-age=31536000; includeSubDomains"),
    ),
    (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("strict-origin-when-cross-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), microphone=(), geolocation=()"),
    ),
];

/// Adds them to every answer.
pub(crate) async fn add(request: Request, next: Next) -> Response {
    let for_data = is_api(request.uri().path());
    let mut response = next.run(request).await;
    complete(response.headers_mut(), for_data);
    response
}

/// Adds them to those of an answer with data, or with a page.
pub(crate) fn complete(headers: &mut HeaderMap, for_data: bool) {
    let policy = if for_data { FOR_DATA } else { FOR_PAGES };
    for (name, value) in FOR_ALL.into_iter().chain([(CONTENT_SECURITY_POLICY, policy)]) {
        headers.entry(name).or_insert(value);
    }
}

fn is_api(path: &str) -> bool {
    path.split('/').nth(1).is_some_and(|first| API.contains(&first))
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn every_path_with_data_is_told_from_pages() {
        for first in API {
            for path in [format!("/{first}"), format!("/{first}/"), format!("/{first}/a/b")] {
                assert!(is_api(&path), "{path}");
            }
            assert!(!is_api(&format!("/{first}x")) && !is_api(&format!("/x/{first}")), "{first}");
        }
    }

    #[tokio::test]
    async fn a_header_of_a_handler_is_its_own() {
        let own = [("x-frame-options", "SAMEORIGIN"), ("content-security-policy", "default-src 'none'")];
        let router: Router =
            Router::new().route("/workspaces", get(async move || own)).layer(axum::middleware::from_fn(add));
        let request = Request::get("/workspaces").body(axum::body::Body::empty()).unwrap();
        let headers = router.oneshot(request).await.unwrap().into_parts().0.headers;
        for (name, value) in own.into_iter().chain([("x-content-type-options", "nosniff")]) {
            assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
        }
    }

    #[test]
    fn data_needs_no_scripts() {
        for (path, expected) in [
            ("/workspaces", true),
            ("/workspaces/1/logs", true),
            ("/buildinfo", true),
            ("/canvas/viewport", true),
            ("/organisations", false),
            ("/", false),
            ("/assets/app.js", false),
            ("*", false),
        ] {
            assert_eq!(is_api(path), expected, "{path}");
        }
    }
}
