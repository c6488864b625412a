//! The settings of the edge, and of who is let in by what comes from elsewhere.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use molecule_core::{Error, identity::SessionSource};

/// The flags of the edge.
#[derive(Debug, Default, Args)]
pub(crate) struct EdgeArgs {
    /// Origins whose pages may talk to this server, separated by commas.
    #[arg(env = "CORS_ORIGINS", long, hide = true, value_name = "ORIGINS")]
    cors_origins: Option<String>,

    /// How many requests a minute one sender, or one token, may make.
    #[arg(env = "RATE_LIMIT", long, hide = true, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rate_limit: Option<u32>,

    /// Addresses and networks of proxies that are believed where a request came from, separated by commas.
    #[arg(env = "TRUSTED_PROXIES", long, hide = true, value_name = "NETWORKS")]
    trusted_proxies: Option<String>,

    /// Where a page is that shows this server as its own.
    #[arg(env = "CANVAS_PROXY_URL", long, hide = true, value_name = "URL")]
    canvas_proxy_url: Option<String>,

    /// The control plane that signs people in.
    #[arg(env = "CP_UPSTREAM_URL", long, hide = true, value_name = "URL")]
    cp_upstream_url: Option<String>,

    /// The name under which that control plane knows the organisation of this server.
    #[arg(env = "MOLECULE_ORG_SLUG", long, hide = true, value_name = "SLUG")]
    org_slug: Option<String>,

    /// The cookie that holds a session, where only one can.
    #[arg(env = "MOLECULE_SESSION_COOKIE", long, hide = true, value_name = "NAME")]
    session_cookie: Option<String>,

    /// `1` gives tokens of any workspace to tests that the operator's token lets in.
    #[arg(env = "MOLECULE_ENABLE_TEST_TOKENS", long, hide = true, value_name = "1")]
    enable_test_tokens: Option<String>,

    /// `true` lets agents message their users by a tool of this server.
    #[arg(env = "MOLECULE_MCP_ALLOW_SEND_MESSAGE", long, hide = true, value_name = "true")]
    mcp_allow_send_message: Option<String>,
}

impl EdgeArgs {
    /// Whether agents may message their users by a tool of this server.
    pub(crate) fn mcp_allow_send_message(&self) -> bool {
        given(&self.mcp_allow_send_message).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Origins whose pages may talk to this server, where somebody said.
    pub(crate) fn cors_origins(&self) -> Option<&str> {
        given(&self.cors_origins)
    }

    /// How many requests a minute one sender may make.
    pub(crate) fn rate_limit(&self) -> u32 {
        self.rate_limit.unwrap_or(600)
    }

    /// The proxies that are believed.
    ///
    /// # Errors
    /// Where one cannot be read: to believe too few or too many of them is a mistake to be told.
    pub(crate) fn trusted_proxies(&self) -> Result<Vec<IpNet>, Error> {
        let list = given(&self.trusted_proxies).unwrap_or_default();
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let network = |entry: &str| {
            let network = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
            network
                .map_err(|_| Error::invalid(format!("TRUSTED_PROXIES has {entry:?}, which is no address or network")))
        };
        entries.map(network).collect()
    }

    /// Whether another server shows a page that talks to this one.
    pub(crate) fn has_canvas(&self) -> bool {
        given(&self.canvas_proxy_url).is_some()
    }

    /// Who signs people in, where it is known who and for which organisation.
    pub(crate) fn sessions(&self) -> Option<SessionSource> {
        Some(SessionSource {
            upstream_url: given(&self.cp_upstream_url)?.to_owned(),
            org_slug: given(&self.org_slug)?.to_owned(),
            cookie_name: given(&self.session_cookie).map(str::to_owned),
        })
    }

    /// Whether tests may be given tokens.
    pub(crate) fn test_tokens(&self) -> bool {
        given(&self.enable_test_tokens) == Some("1")
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_addresses_or_networks() {
        let proxies = |list: &str| EdgeArgs { trusted_proxies: Some(list.to_owned()), ..EdgeArgs::default() };
        let read = |list| proxies(list).trusted_proxies().map(|list| list.iter().map(ToString::to_string).collect());
        let good: Vec<String> = read(" 10.0.0.0/8, 127.0.0.1 ,,fd00::/8 ").unwrap();
        assert_eq!(good, ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"]);
        let bad: Result<Vec<String>, _> = read("10.0.0.0/8,proxy.example");
        assert!(bad.unwrap_err().message().contains("\"proxy.example\""));
    }

    #[test]
    fn sessions_need_a_control_plane_and_an_organisation() {
        let args = |url: &str, slug: &str| EdgeArgs {
            cp_upstream_url: Some(url.to_owned()),
            org_slug: Some(slug.to_owned()),
            ..EdgeArgs::default()
        };
        assert!(args("https://cp.example", "acme").sessions().is_some());
        assert!(args("https://cp.example", " ").sessions().is_none());
        assert!(args("", "acme").sessions().is_none());
    }
}
