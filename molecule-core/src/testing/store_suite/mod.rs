//! What every database must do alike. Each case gets a store of its own, fresh and empty.

use std::{future::Future, pin::Pin};

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde_json::json;
use uuid::Uuid;

use crate::{
    clock::{SystemEntropy, random_uuid},
    events::{Event, EventKind, Which},
    id::{AttemptId, EventId, WorkspaceId},
    identity::{self, NewToken},
    store::{Condition, Credentials, NewWorkspace, Store},
    workspace::{Access, DeliveryMode, Status},
};

mod activity;
mod audit;
mod data;
mod lifecycle;
mod secrets;
mod telemetry;
mod tokens;
mod workspaces;

type Run = fn(Store) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One thing that a store does. It panics where the store does otherwise.
#[derive(Clone, Copy)]
pub struct StoreCase {
    /// What the store does, as a sentence.
    pub name: &'static str,
    /// Tries it on a fresh store.
    pub run: Run,
}

impl std::fmt::Debug for StoreCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every case.
pub fn all() -> impl Iterator<Item = &'static StoreCase> {
    [
        workspaces::CASES,
        lifecycle::CASES,
        telemetry::CASES,
        tokens::CASES,
        secrets::CASES,
        activity::CASES,
        data::CASES,
        audit::CASES,
    ]
    .into_iter()
    .flatten()
}

macro_rules! cases {
    ($($(#[doc = $name:literal])+ async fn $case:ident($store:ident: Store) $body:block)*) => {
        $(async fn $case($store: Store) $body)*

        /// Every case of this module: none of its functions can be left out.
        pub(super) const CASES: &[StoreCase] = &[$(StoreCase {
            name: concat!($($name),+).trim_ascii(),
            run: |store| Box::pin($case(store)),
        }),*];
    };
}
use cases;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time of this century")
}

fn id() -> WorkspaceId {
    WorkspaceId::from_uuid(random_uuid(&SystemEntropy))
}

fn attempt() -> AttemptId {
    AttemptId::from_uuid(random_uuid(&SystemEntropy))
}

fn workspace() -> NewWorkspace {
    NewWorkspace {
        id: id(),
        name: "näme".to_owned(),
        role: None,
        tier: 2,
        status: Status::Provisioning,
        url: None,
        parent_id: None,
        runtime: "hermes".to_owned(),
        workspace_dir: None,
        workspace_access: Access::None,
        hibernation_idle_minutes: None,
        budget_limit: Some(5),
        max_concurrent_tasks: 1,
        delivery_mode: DeliveryMode::Push,
        provision_attempt: Some(attempt()),
        template: None,
        canvas: None,
        secrets: Vec::new(),
        created_at: at(0),
    }
}

fn event(workspace_id: WorkspaceId, seconds: i64) -> Event {
    Event {
        id: EventId::from_uuid(Uuid::from_u128(random_uuid(&SystemEntropy).as_u128())),
        kind: EventKind::WorkspaceOnline,
        workspace_id: Some(workspace_id),
        payload: json!({}),
        created_at: at(seconds),
    }
}

fn token(workspace_id: WorkspaceId) -> NewToken {
    let (kept, issued) = identity::issue(workspace_id, None, &SystemEntropy, at(0));
    debug_assert_eq!(kept.hash, identity::hash(issued.token.expose_secret()));
    kept
}

/// Renews the credentials of a workspace for `attempt`, with `token` among them.
async fn renew(store: &Store, id: WorkspaceId, attempt: AttemptId, token: Option<&NewToken>) -> bool {
    let new = Credentials { token, inbound_secret: &"s".into(), sealed: "s" };
    store.renew_credentials(id, attempt, new, at(1)).await.unwrap()
}

fn beat(seconds: i64) -> Condition {
    Condition {
        at: at(seconds),
        error_rate: 0.25,
        sample_error: "".into(),
        active_tasks: 1,
        uptime_seconds: 3,
        current_task: "".into(),
        monthly_spend: None,
        runtime: crate::registry::Runtime::default(),
    }
}

async fn insert(store: &Store, new: &NewWorkspace) {
    let inserted = store.insert_workspace(new, None, &[]).await.unwrap();
    assert_eq!(store.workspace(new.id).await.unwrap().as_ref(), Some(&inserted), "it is what will be read");
}

fn newest(limit: u32) -> Which {
    Which { limit, ..Which::default() }
}

async fn events(store: &Store, id: WorkspaceId) -> usize {
    store.newest_events(Some(id), &newest(100)).await.unwrap().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_in_memory_and_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        for (number, case) in all().enumerate() {
            (case.run)(Store::connect("sqlite::memory:").await.unwrap()).await;
            let path = folder.path().join(format!("{number}.db"));
            (case.run)(Store::connect(&format!("sqlite:{}", path.display())).await.unwrap()).await;
        }
    }
}
