//! Agents that report in.

mod finding;
mod heartbeat;
mod joining;
mod membership;
mod proof;

use crate::{case::Case, http::Server};

/// All of them.
pub(super) fn cases() -> Vec<Case<Server>> {
    [joining::cases(), heartbeat::cases(), membership::cases(), finding::cases(), proof::cases()]
        .into_iter()
        .flatten()
        .collect()
}
