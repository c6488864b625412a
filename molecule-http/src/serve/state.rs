//! What every handler can reach.

use std::sync::Arc;

use molecule_core::ControlPlane;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{edge::Edge, listeners::Listeners, mcp::Sdk, metrics::Metrics};

/// Cheap to clone: every field is a handle.
#[derive(Debug, Clone)]
pub(crate) struct AppState {
    /// Everything that is not about HTTP.
    pub(crate) control_plane: ControlPlane,
    /// What `/metrics` shows.
    pub(crate) metrics: Metrics,
    /// Who gets as far as a route.
    pub(crate) edge: Arc<Edge>,
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
