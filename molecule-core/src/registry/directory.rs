//! Who is there, and where: what agents ask before they call one another.

use url::{Host, Url};

use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    workspace::{DeliveryMode, Status, Workspace, lifecycle::gone_is_not_found},
};

/// The name under which a workload reaches the host it runs on.
const HOST_OF_CONTAINERS: &str = "host.docker.internal";

/// Where an agent is called by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its workspace.
    pub id: WorkspaceId,
    /// The name of its workspace.
    pub name: String,
    /// Where the asker calls it.
    pub url: String,
}

impl ControlPlane {
    /// Where `caller` reaches the agent of `target`.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] where the two may not talk, which an unknown target is not told apart from;
    /// [`ErrorKind::Unavailable`] while the agent is not there.
    pub async fn discover(&self, caller: WorkspaceId, target: WorkspaceId) -> Result<Whereabouts> {
        if !self.can_communicate(caller, target).await? {
            let text = "not authorized to discover this workspace";
            return Err(Error::new(ErrorKind::PermissionDenied, text));
        }
        let asker = self.existing(caller).await.map_err(gone_is_not_found)?;
        let found = self.existing(target).await.map_err(gone_is_not_found)?;
        if !matches!(found.status, Status::Online | Status::Degraded) {
            return Err(Error::new(ErrorKind::Unavailable, "workspace not available")
                .with_member("status", found.status.as_str()));
        }
        let url = self.address_for(&asker, &found).await?;
        Ok(Whereabouts { id: found.id, name: found.name, url })
    }

    async fn address_for(&self, asker: &Workspace, found: &Workspace) -> Result<String> {
        let through_here = || format!("{}/workspaces/{}/a2a", self.inner.config.platform_url, found.id);
        if found.delivery_mode == DeliveryMode::Poll || found.url.is_empty() || !self.reaches(found) {
            // It has no address that is known here; this control plane keeps its messages for it.
            return Ok(through_here());
        }
        match &self.inner.backend {
            Backend::Local { inspector, .. } if !found.is_external() => {
                // An external asker is on no network of the backend's.
                let near = (!asker.is_external()).then(|| inspector.peer_url(found.id)).flatten();
                Ok(near.unwrap_or_else(|| found.url.clone()))
            }
            _ => {
                let contained = !asker.is_external() && !self.inner.backend.shares_host();
                let url = if contained { from_a_workload(&found.url) } else { found.url.clone() };
                let unsafe_url = |error: Error| {
                    Error::new(ErrorKind::Unavailable, "workspace URL failed safety check").caused_by(error)
                };
                // Checked as it is kept: the name of the host is for the asker to resolve.
                self.check_url(&found.url).await.map_err(unsafe_url)?;
                Ok(url)
            }
        }
    }

    /// The agents around the one of `id`: those beside it, those it leads, the one that leads it.
    ///
    /// `query` keeps those with it in their name or role, in whatever case.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn peers(&self, id: WorkspaceId, query: Option<&str>) -> Result<Vec<Workspace>> {
        self.around(id, query).await.map_err(|error| match error.kind() {
            ErrorKind::Unexpected => error.with_message("lookup failed"),
            _ => error,
        })
    }

    async fn around(&self, id: WorkspaceId, query: Option<&str>) -> Result<Vec<Workspace>> {
        let own = self.existing(id).await.map_err(gone_is_not_found)?;
        let mut peers = self.inner.store.siblings(&own).await?;
        peers.extend(self.inner.store.children(id).await?);
        if let Some(parent) = own.parent_id {
            peers.extend(self.workspace(parent).await?.filter(|parent| parent.status != Status::Removed));
        }
        let query = query.map(str::trim).unwrap_or_default().to_lowercase();
        peers.retain(|peer| matches(peer, &query));
        Ok(peers)
    }
}

fn matches(peer: &Workspace, query: &str) -> bool {
    let holds = |text: &str| text.to_lowercase().contains(query);
    query.is_empty() || holds(&peer.name) || peer.role.as_deref().is_some_and(holds)
}

/// The address of something on the host, as a workload on it says it.
fn from_a_workload(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return text.to_owned() };
    let is_host = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        _ => false,
    };
    if is_host && url.set_host(Some(HOST_OF_CONTAINERS)).is_ok() { url.into() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_of_an_address_is_rewritten() {
        let rows = [
            ("http://127.0.0.1:9000/a", "http://host.docker.internal:9000/a"),
            ("http://localhost/", "http://host.docker.internal/"),
            ("https://agent.example/localhost?u=127.0.0.1", "https://agent.example/localhost?u=127.0.0.1"),
            ("http://localhost.example/", "http://localhost.example/"),
            ("not a url", "not a url"),
        ];
        for (text, expected) in rows {
            assert_eq!(from_a_workload(text), expected);
        }
    }
}
