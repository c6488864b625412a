//! placeholder replaced at merge
use crate::error::{Error, ErrorKind, Result};
pub(crate) fn for_agents() -> Result<reqwest::Client> {
    builder().build().map_err(|e| Error::new(ErrorKind::Unexpected, "x").caused_by(e))
}
fn builder() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none())
}
#[cfg(feature = "server")]
pub(crate) fn pinned_to(checked: &crate::net::CheckedUrl) -> Result<reqwest::Client> {
    let host = checked.url.host_str().unwrap_or_default();
    builder()
        .resolve_to_addrs(host, &checked.addresses)
        .build()
        .map_err(|e| Error::new(ErrorKind::Unexpected, "x").caused_by(e))
}
