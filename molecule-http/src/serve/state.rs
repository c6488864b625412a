//! What every handler can reach.

use std::{ops::Deref, sync::Arc};

use molecule_core::ControlPlane;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{edge::Edge, listeners::Listeners, mcp::Sdk, metrics::Metrics};

/// Handles to what the server is made of. A request clones this several times on its way, so it is one pointer.
#[derive(Debug, Clone)]
pub(crate) struct AppState(Arc<Parts>);

impl AppState {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

#[cfg(test)]
impl AppState {
    /// That of a server with nothing set, which `control_plane` is all of.
    pub(super) fn alone(control_plane: ControlPlane) -> Self {
        let stop = CancellationToken::new();
        Self::new(Parts {
            mcp: Sdk::new(control_plane.clone(), stop.clone()),
            control_plane,
            metrics: Metrics::new().unwrap(),
            edge: Edge::new(&super::edge::args::EdgeArgs::default(), None, true).unwrap(),
            stop,
            sockets: TaskTracker::new(),
            listeners: Listeners::new(None),
            external_url: None,
        })
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What the server is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Everything that is not about HTTP.
    pub(crate) control_plane: ControlPlane,
    /// What `/metrics` shows.
    pub(crate) metrics: Metrics,
    /// Who gets as far as a route.
    pub(crate) edge: Edge,
    /// Cancelled when the server goes down: what would otherwise last for ever ends then.
    pub(crate) stop: CancellationToken,
    /// The tasks of connections that were upgraded; waited for on the way down.
    pub(crate) sockets: TaskTracker,
    /// The tools, for clients of streamable HTTP.
    pub(crate) mcp: Sdk,
    /// Those who hear what happens.
    pub(crate) listeners: Listeners,
    /// Where external agents reach this server, where its operator said so.
    pub(crate) external_url: Option<String>,
}
