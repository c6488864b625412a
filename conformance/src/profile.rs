//! What a server is taken to have.

use std::collections::BTreeSet;

use clap::ValueEnum;
use reqwest::Method;

use crate::{
    case::{Feature, Verdict},
    http::{Answer, Server, unknown_id},
};

/// Which features the cases demand of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// None: what every server must have.
    Core,
    /// Those that it is seen to have.
    Offered,
    /// All that there are.
    Everything,
}

impl Profile {
    /// The features that it stands for at `server`.
    ///
    /// # Errors
    /// Where the server has to be asked and does not answer.
    pub async fn features(self, server: &Server) -> Result<BTreeSet<Feature>, Verdict> {
        match self {
            Self::Core => Ok(BTreeSet::new()),
            Self::Everything => Ok(all(server)),
            Self::Offered => offered(server).await,
        }
    }
}

/// Every feature that can be tried: whose server it is nobody knows but who was told.
fn all(server: &Server) -> BTreeSet<Feature> {
    let tried = |feature: &Feature| *feature != Feature::Organisation || server.is_of_an_organisation();
    Feature::ALL.iter().copied().filter(tried).collect()
}

/// A bearer that nobody issued: it is refused where there is a route, and changes nothing there.
const NOBODY: &str = "nobody-issued-this";

/// The features whose routes `server` has. Whether it runs workspaces no route tells: the cases find that out.
async fn offered(server: &Server) -> Result<BTreeSet<Feature>, Verdict> {
    let id = unknown_id()?.to_string();
    let ask = async |method: Method, path: &str| {
        server.call(method, &path.replace("{id}", &id)).bearer(NOBODY).text("{}").send().await
    };
    let nothing = ask(Method::GET, "/workspaces/{id}/no-such-route").await?;
    let mut features = BTreeSet::new();
    for feature in Feature::ALL {
        let there = match probe(*feature) {
            None => *feature != Feature::Organisation || server.is_of_an_organisation(),
            Some((method, path)) => is_route(&ask(method, path).await?, &nothing),
        };
        if there {
            features.insert(*feature);
        }
    }
    Ok(features)
}

/// A request that only servers with the feature have a route for.
fn probe(feature: Feature) -> Option<(Method, &'static str)> {
    Some(match feature {
        Feature::Backend | Feature::Organisation => return None,
        Feature::OrgTokens => (Method::GET, "/org/tokens"),
        Feature::Secrets => (Method::GET, "/settings/secrets"),
        Feature::Templates => (Method::GET, "/templates"),
        Feature::Lifecycle => (Method::POST, "/workspaces/{id}/pause"),
        Feature::Activity => (Method::GET, "/workspaces/{id}/activity"),
        Feature::Delegation => (Method::GET, "/workspaces/{id}/delegations"),
        Feature::Memory => (Method::GET, "/workspaces/{id}/memory"),
        Feature::Records => (Method::GET, "/workspaces/{id}/approvals"),
        Feature::Schedules => (Method::GET, "/workspaces/{id}/schedules"),
        Feature::Files => (Method::GET, "/workspaces/{id}/files"),
        Feature::Streams => (Method::GET, "/workspaces/{id}/events/stream"),
        Feature::Mcp => (Method::POST, "/workspaces/{id}/mcp"),
    })
}

/// Whether `answer` comes from a route, and not from where there is none, as `nothing` does.
fn is_route(answer: &Answer, nothing: &Answer) -> bool {
    match answer.status() {
        405 | 501 => false,
        status => status != nothing.status() || answer.body() != nothing.body(),
    }
}
