//! A large fleet that was heard already, made in seconds.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    control_plane::ControlPlane,
    id::WorkspaceId,
    identity::{self, NewToken},
    store::{Condition, suite_access},
    sweep,
    workspace::Status,
};

/// How many rows one statement inserts.
const BATCH: usize = 500;

/// Makes `count` external workspaces that are online, each with its token and its inbound secret, and remembers of each
/// what hearing it leaves in memory: as if every agent had beaten before. Secrets are kept as without a key.
///
/// Making them one by one takes a durable transaction each, and hearing each for the first time some more.
///
/// # Panics
/// Where the database cannot take them.
pub async fn heard_fleet(control_plane: &ControlPlane, count: usize) -> Vec<(WorkspaceId, SecretString)> {
    let (inner, now) = (&control_plane.inner, control_plane.now());
    let (mut kept, mut agents) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let id = WorkspaceId::from_uuid(crate::clock::random_uuid(&*inner.entropy));
        let (token, issued) = identity::issue(id, None, &*inner.entropy, now);
        kept.push(token);
        agents.push((id, issued.token));
    }
    let secret = identity::random_token(&*inner.entropy);
    for batch in kept.chunks(BATCH) {
        suite_access::insert_heard(&inner.store, batch, secret.expose_secret(), now).await;
    }
    kept.iter().for_each(|token| remember(control_plane, token, &secret, now));
    agents
}

/// Hears what other replicas change, and runs none of the loops that look at the database now and then.
pub fn hear_peers(control_plane: &ControlPlane) {
    sweep::relay(control_plane);
}

fn remember(control_plane: &ControlPlane, token: &NewToken, secret: &SecretString, now: DateTime<Utc>) {
    let store = &control_plane.inner.store;
    let (id, memory) = (token.workspace_id, store.memory());
    memory.track(id, memory.epoch(id), Status::Online, Condition::quiet(now));
    memory.know(token.hash, token.owner(), memory.moment(), now);
    store.remember_inbound_secret(id, secret, secret.expose_secret(), now);
}
