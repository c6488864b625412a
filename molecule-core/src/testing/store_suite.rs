//! What every database must do alike. Each case gets a store of its own, fresh and empty.

use std::{future::Future, pin::Pin};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    activity::{NewActivity, Page, Source},
    clock::{SystemEntropy, random_uuid},
    events::{Event, EventKind, Which},
    id::{ActivityId, AttemptId, EventId, TokenId, WorkspaceId},
    identity::{self, NewOrgToken, NewToken},
    secrets::Cipher,
    secrets::Sealed,
    store::{
        Added, Condition, NewAgent, NewSecret, NewWorkspace, Patched, Registration, RowPatch, Store,
        suite_access as gate,
    },
    workspace::{Access, DeliveryMode, Position, Status},
};

mod data;

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
    [CASES, data::CASES].into_iter().flatten()
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

cases! {
    /// A workspace reads back as it was written, in every status
    async fn reads_back(store: Store) {
        for status in Status::ALL {
            let new = NewWorkspace { status, ..workspace() };
            insert(&store, &new).await;
            let row = store.workspace(new.id).await.unwrap().unwrap();
            assert_eq!((row.id, row.status, row.name.as_str()), (new.id, status, "näme"));
            assert_eq!((row.created_at, row.updated_at), (new.created_at, new.created_at));
            assert_eq!((row.workspace_access, row.delivery_mode), (Access::None, DeliveryMode::Push));
            assert_eq!(row.provision_attempt, new.provision_attempt);
            assert_eq!((row.x, row.y, row.collapsed), (0.0, 0.0, false));
        }
        let listed: Vec<Status> = store.workspaces().await.unwrap().into_iter().map(|row| row.status).collect();
        assert_eq!(listed.len(), Status::ALL.len() - 1);
        assert!(!listed.contains(&Status::Removed));
    }

    /// Times are kept to the microsecond
    async fn keeps_microseconds(store: Store) {
        let new = NewWorkspace { created_at: at(0) + TimeDelta::microseconds(1), ..workspace() };
        insert(&store, &new).await;
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().created_at, new.created_at);
    }

    /// A step is taken only from its start, and its event is recorded only with it
    async fn steps_compare_and_set(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let online = Status::Provisioning.to(Status::Online).unwrap();
        assert!(store.step(new.id, online, &event(new.id, 1)).await.unwrap());
        assert!(!store.step(new.id, online, &event(new.id, 2)).await.unwrap());
        assert_eq!(events(&store, new.id).await, 1);
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().updated_at, at(1));
    }

    /// Of callers who race for one step, exactly one takes it
    async fn one_takes_a_step(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let step = Status::Provisioning.to(Status::Online).unwrap();
        let tries = join_all((0..8).map(|n| {
            let (store, event) = (store.clone(), event(new.id, n));
            async move { store.step(new.id, step, &event).await.unwrap() }
        }));
        assert_eq!(tries.await.into_iter().filter(|taken| *taken).count(), 1);
        assert_eq!(events(&store, new.id).await, 1);
    }

    /// A token that is stale is revoked where its agent has no excuse, and only as long as it is stale
    async fn revokes_stale_tokens(store: Store) {
        let mut stale = Vec::new();
        for (status, runtime) in Status::ALL.map(|status| (status, "hermes")).into_iter().chain([(Status::Online, "external")]) {
            let new = NewWorkspace { status, runtime: runtime.to_owned(), ..workspace() };
            insert(&store, &new).await;
            store.replace_tokens(&token(new.id)).await.unwrap();
            let excused = runtime == "external"
                || !matches!(status, Status::Online | Status::Degraded | Status::Offline | Status::Failed);
            if !excused {
                stale.push(new.id);
            }
            if status != Status::Removed {
                assert_eq!(store.revoke_stale_tokens(new.id, at(-1), at(9)).await.unwrap(), 0, "{status}: it is fresh");
                assert!(store.has_live_token(new.id).await.unwrap());
            }
        }
        stale.sort();
        assert!(store.with_stale_tokens(at(0)).await.unwrap().is_empty(), "issued at that very moment");
        let mut found = store.with_stale_tokens(at(1)).await.unwrap();
        found.sort();
        assert_eq!(found, stale);
        for id in found {
            assert_eq!(store.revoke_stale_tokens(id, at(1), at(9)).await.unwrap(), 1);
            assert_eq!(store.revoke_stale_tokens(id, at(1), at(9)).await.unwrap(), 0);
        }
        assert!(store.with_stale_tokens(at(1)).await.unwrap().is_empty());
        for excused in store.workspaces().await.unwrap().into_iter().filter(|row| !stale.contains(&row.id)) {
            assert_eq!(store.revoke_stale_tokens(excused.id, at(1), at(9)).await.unwrap(), 0, "{}", excused.status);
        }
    }

    /// A workspace is not lost when its agent was heard after the decision was made
    async fn a_late_beat_saves(store: Store) {
        let new = NewWorkspace { status: Status::Online, ..workspace() };
        insert(&store, &new).await;
        let lose = Status::Online.to(Status::Offline).unwrap();
        assert!(store.heartbeat(new.id, &beat(10)).await.unwrap());
        assert!(!store.lose(new.id, lose, None, &event(new.id, 11)).await.unwrap());
        assert!(!store.lose(new.id, lose, Some(at(9)), &event(new.id, 11)).await.unwrap());
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().status, Status::Online);
        assert!(store.lose(new.id, lose, Some(at(10)), &event(new.id, 11)).await.unwrap());
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().status, Status::Offline);
    }

    /// A late result of an earlier try changes nothing
    async fn late_results_change_nothing(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let first = new.provision_attempt.unwrap();
        let second = attempt();
        let again = Status::Provisioning.to(Status::Provisioning).unwrap();
        assert!(store.begin_attempt(new.id, again, second, &event(new.id, 1)).await.unwrap());
        let failed = Status::Provisioning.to(Status::Failed).unwrap();
        assert!(!store.fail_attempt(new.id, failed, first, "late", false, &event(new.id, 2)).await.unwrap());
        assert!(!store.assign(new.id, first, Some("http://late"), None, at(3)).await.unwrap());
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.status, row.url.as_str(), row.last_sample_error), (Status::Provisioning, "", None));
        assert!(store.assign(new.id, second, Some("http://now"), Some("i-1"), at(4)).await.unwrap());
        assert!(store.fail_attempt(new.id, failed, second, "why", false, &event(new.id, 5)).await.unwrap());
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.url.as_str(), row.instance_id.as_deref()), ("", Some("i-1")));
        assert_eq!((row.status, row.last_sample_error.as_deref()), (Status::Failed, Some("why")));
    }

    /// Of register calls that race for the first token, exactly one gets it
    async fn one_first_token(store: Store) {
        let new = NewWorkspace { status: Status::Online, ..workspace() };
        insert(&store, &new).await;
        let card = json!({"name": "x"});
        let tries = join_all((0..8).map(|n| {
            let (store, card) = (store.clone(), card.clone());
            async move {
                let registration = Registration {
                    id: new.id,
                    from: Status::Online,
                    to: Status::Online,
                    url: None,
                    agent_card: &card,
                    delivery_mode: DeliveryMode::Push,
                    at: at(n),
                };
                store.register(&registration, Some(&token(new.id)), &event(new.id, n)).await.unwrap()
            }
        }));
        let kept: Vec<Option<bool>> = tries.await;
        assert_eq!(kept.iter().filter(|kept| **kept == Some(true)).count(), 1, "{kept:?}");
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().agent_card, Some(card));
    }

    /// A register call that was judged by another status changes nothing
    async fn register_compares(store: Store) {
        let new = NewWorkspace { status: Status::Paused, ..workspace() };
        insert(&store, &new).await;
        let registration = Registration {
            id: new.id,
            from: Status::Online,
            to: Status::Online,
            url: Some("http://x"),
            agent_card: &Value::Null,
            delivery_mode: DeliveryMode::Poll,
            at: at(1),
        };
        let kept = store.register(&registration, Some(&token(new.id)), &event(new.id, 1)).await.unwrap();
        assert_eq!(kept, None);
        assert!(!store.has_live_token(new.id).await.unwrap());
        assert_eq!(events(&store, new.id).await, 0);
    }

    /// A token names its owner until it is revoked, replaced, or its workspace is removed
    async fn token_owners(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let (first, second) = (token(new.id), token(new.id));
        assert!(store.token_owner(&first.hash, at(0)).await.unwrap().is_none());
        assert!(!store.any_live_token().await.unwrap());
        store.replace_tokens(&first).await.unwrap();
        let owner = store.token_owner(&first.hash, at(0)).await.unwrap().unwrap();
        assert_eq!((owner.id, owner.workspace_id), (first.id, new.id));
        assert!(store.any_live_token().await.unwrap());
        store.replace_tokens(&second).await.unwrap();
        assert!(store.token_owner(&first.hash, at(0)).await.unwrap().is_none());
        assert!(store.token_owner(&second.hash, at(0)).await.unwrap().is_some());
        store.revoke_tokens(new.id, at(1)).await.unwrap();
        assert!(store.token_owner(&second.hash, at(0)).await.unwrap().is_none());
        let third = token(new.id);
        store.replace_tokens(&third).await.unwrap();
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(new.id, gone, event(new.id, 2))], None).await.unwrap());
        assert!(store.token_owner(&third.hash, at(0)).await.unwrap().is_none());
        assert!(!store.any_live_token().await.unwrap());
    }

    /// Tokens are added up to the limit, however many at once, and revoked one by one
    async fn adds_and_revokes_tokens(store: Store) {
        let (new, other) = (workspace(), workspace());
        insert(&store, &new).await;
        assert_eq!(store.add_token(&token(other.id), 3).await.unwrap(), Added::NoWorkspace);
        let tokens: Vec<NewToken> = (0..6).map(|_| token(new.id)).collect();
        let added = join_all(tokens.iter().map(|token| store.add_token(token, 3))).await;
        let kept: Vec<bool> = added.into_iter().map(|added| added.unwrap() == Added::Kept).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), 3);
        let live = store.live_tokens(new.id, 10, 0).await.unwrap();
        assert_eq!(live.len(), 3);
        assert_eq!(store.live_tokens(new.id, 1, 2).await.unwrap(), live[2..]);
        let first = tokens.iter().find(|token| token.id == live[0].id).unwrap();
        assert_eq!((&live[0].prefix, live[0].created_at, live[0].last_used_at), (&first.prefix, at(0), None));

        assert!(store.token_owner(&first.hash, at(1)).await.unwrap().is_some());
        insert(&store, &other).await;
        assert!(!store.revoke_token(other.id, first.id, at(2)).await.unwrap(), "it is another workspace's");
        assert!(store.revoke_token(new.id, first.id, at(2)).await.unwrap());
        assert!(!store.revoke_token(new.id, first.id, at(3)).await.unwrap());
        assert!(store.token_owner(&first.hash, at(3)).await.unwrap().is_none());
        assert_eq!(store.live_tokens(new.id, 10, 0).await.unwrap(), live[1..]);
        assert_eq!(store.add_token(first, 2).await.unwrap(), Added::Full);
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(new.id, gone, event(new.id, 4))], None).await.unwrap());
        assert_eq!(store.add_token(&token(new.id), 3).await.unwrap(), Added::NoWorkspace);
    }

    /// Secrets are kept, replaced and deleted by name, and go with their workspace
    async fn keeps_secrets(store: Store) {
        let secret = |key: &str, value: &str| NewSecret {
            key: key.to_owned(),
            sealed: Sealed { encrypted_value: value.into(), encryption_version: 1, key_id: Some("k".to_owned()) },
        };
        let new = NewWorkspace { secrets: vec![secret("B", "1"), secret("A", "2")], ..workspace() };
        insert(&store, &new).await;
        let kept = store.workspace_secrets(new.id).await.unwrap();
        assert_eq!(kept.iter().map(|secret| secret.key.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!((kept[1].created_at, kept[1].updated_at), (new.created_at, new.created_at));
        let plain = Sealed { encrypted_value: vec![0, 255], encryption_version: 0, key_id: None };
        let renewed = NewSecret { key: "B".to_owned(), sealed: plain.clone() };
        store.set_workspace_secret(new.id, &renewed, at(5)).await.unwrap();
        let kept = store.workspace_secret(new.id, "B").await.unwrap().unwrap();
        assert_eq!((kept.sealed, kept.created_at, kept.updated_at), (plain, new.created_at, at(5)));
        assert!(store.set_workspace_secret(id(), &renewed, at(5)).await.is_err(), "nobody's secret is kept");

        store.set_global_secret(&secret("B", "3"), at(6)).await.unwrap();
        store.set_global_secret(&secret("B", "4"), at(7)).await.unwrap();
        let global = store.global_secrets().await.unwrap();
        assert_eq!((global.len(), global[0].sealed.encrypted_value.as_slice()), (1, &b"4"[..]));
        assert_eq!((global[0].created_at, global[0].updated_at), (at(6), at(7)));

        assert!(store.delete_workspace_secret(new.id, "A").await.unwrap());
        assert!(!store.delete_workspace_secret(new.id, "A").await.unwrap());
        assert!(store.delete_global_secret("B").await.unwrap());
        assert!(!store.delete_global_secret("B").await.unwrap());
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(new.id, gone, event(new.id, 8))], None).await.unwrap());
        assert_eq!(store.workspace_secrets(new.id).await.unwrap().len(), 1);
        store.purge(&[new.id]).await.unwrap();
        assert!(store.workspace_secrets(new.id).await.unwrap().is_empty());
    }

    /// A global secret concerns the managed workspaces that have none of their own by its name
    async fn who_is_given_a_global_secret(store: Store) {
        let sealed = Sealed { encrypted_value: vec![1], encryption_version: 0, key_id: None };
        let own = NewSecret { key: "A".to_owned(), sealed };
        let (with, without) = (NewWorkspace { secrets: vec![own], ..workspace() }, workspace());
        let removed = NewWorkspace { status: Status::Removed, ..workspace() };
        let external = NewWorkspace { runtime: "external".to_owned(), ..workspace() };
        for new in [&with, &without, &removed, &external] {
            insert(&store, new).await;
        }
        assert_eq!(store.workspaces_without_secret("A").await.unwrap(), [without.id]);
        assert_eq!(store.workspaces_without_secret("B").await.unwrap().len(), 2);
    }

    /// Halting several workspaces is all or nothing, and forgets their addresses and tries
    async fn halts_all_or_nothing(store: Store) {
        let (one, two) = (workspace(), NewWorkspace { status: Status::Online, ..workspace() });
        insert(&store, &one).await;
        insert(&store, &two).await;
        let (from_one, from_two) = (Status::Provisioning, Status::Degraded);
        let step = |new: &NewWorkspace, from: Status| (new.id, from.to(Status::Paused).unwrap(), event(new.id, 1));
        assert!(!store.halt(&[step(&one, from_one), step(&two, from_two)]).await.unwrap());
        assert_eq!(store.workspace(one.id).await.unwrap().unwrap().status, Status::Provisioning);
        assert_eq!(events(&store, one.id).await, 0);
        assert!(store.halt(&[step(&one, from_one), step(&two, Status::Online)]).await.unwrap());
        for new in [&one, &two] {
            let row = store.workspace(new.id).await.unwrap().unwrap();
            assert_eq!((row.status, row.url.as_str(), row.provision_attempt), (Status::Paused, "", None));
            assert_eq!(events(&store, new.id).await, 1);
        }
    }

    /// A workspace is claimed for hibernation while it is idle, or by force, once
    async fn claims_for_hibernation(store: Store) {
        let new = NewWorkspace { status: Status::Online, ..workspace() };
        insert(&store, &new).await;
        let step = Status::Online.to(Status::Hibernating).unwrap();
        let busy = Condition {
            at: at(1),
            error_rate: 0.0,
            sample_error: "".into(),
            active_tasks: 1,
            uptime_seconds: 0,
            current_task: "".into(),
            monthly_spend: None,
        };
        assert!(store.heartbeat(new.id, &busy).await.unwrap());
        assert!(!store.claim_for_hibernation(new.id, step, false, at(2)).await.unwrap());
        assert!(store.claim_for_hibernation(new.id, step, true, at(2)).await.unwrap());
        assert!(!store.claim_for_hibernation(new.id, step, true, at(3)).await.unwrap());
        let other = NewWorkspace { status: Status::Online, ..workspace() };
        insert(&store, &other).await;
        assert!(store.claim_for_hibernation(other.id, step, false, at(2)).await.unwrap());
    }

    /// The nearest paused workspace above another is found, and only one above it
    async fn finds_what_is_paused_above(store: Store) {
        let top = NewWorkspace { status: Status::Paused, name: "top".to_owned(), ..workspace() };
        let middle = NewWorkspace { parent_id: Some(top.id), name: "middle".to_owned(), ..workspace() };
        let below = NewWorkspace { parent_id: Some(middle.id), status: Status::Paused, ..workspace() };
        for new in [&top, &middle, &below] {
            insert(&store, new).await;
        }
        assert_eq!(store.paused_above(below.id).await.unwrap().as_deref(), Some("top"));
        assert_eq!(store.paused_above(top.id).await.unwrap(), None);
        let step = Status::Provisioning.to(Status::Paused).unwrap();
        assert!(store.halt(&[(middle.id, step, event(middle.id, 1))]).await.unwrap());
        assert_eq!(store.paused_above(below.id).await.unwrap().as_deref(), Some("middle"));
    }

    /// A patch changes what it names and nothing else
    async fn patches(store: Store) {
        let (new, parent) = (workspace(), workspace());
        insert(&store, &new).await;
        insert(&store, &parent).await;
        let before = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!(store.patch(new.id, &RowPatch::default(), before.updated_at).await.unwrap(), Patched::Done);
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap(), before);
        let all = RowPatch {
            name: Some("other".to_owned()),
            role: Some(Some("role".to_owned())),
            tier: Some(1),
            parent_id: Some(Some(parent.id)),
            runtime: Some("hermes".to_owned()),
            workspace_dir: Some(Some("/srv".to_owned())),
            position: Some(Position { x: 1.5, y: -2.0 }),
            collapsed: None,
        };
        assert_eq!(store.patch(new.id, &all, at(5)).await.unwrap(), Patched::Done);
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.role.as_deref(), row.tier), ("other", Some("role"), 1));
        assert_eq!((row.parent_id, row.runtime.as_str()), (Some(parent.id), "hermes"));
        assert_eq!((row.workspace_dir.as_deref(), row.updated_at), (Some("/srv"), at(5)));
        assert_eq!((row.x, row.y, row.collapsed), (1.5, -2.0, false));
        let none = RowPatch {
            role: Some(None),
            parent_id: Some(None),
            workspace_dir: Some(None),
            collapsed: Some(true),
            ..RowPatch::default()
        };
        assert_eq!(store.patch(new.id, &none, at(6)).await.unwrap(), Patched::Done);
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.role, row.parent_id, row.workspace_dir), (None, None, None));
        assert_eq!((row.x, row.y, row.collapsed), (1.5, -2.0, true));
        assert_eq!(store.patch(workspace().id, &none, at(7)).await.unwrap(), Patched::NoWorkspace);
        let below = |parent| RowPatch { parent_id: Some(Some(parent)), ..RowPatch::default() };
        assert_eq!(store.patch(new.id, &below(workspace().id), at(7)).await.unwrap(), Patched::NoParent);
    }

    /// No workspace ends up below itself, however many move at once
    async fn refuses_cycles(store: Store) {
        for _ in 0..5 {
            let ring: Vec<NewWorkspace> = (0..4).map(|_| workspace()).collect();
            for new in &ring {
                insert(&store, new).await;
            }
            let below = |parent| RowPatch { parent_id: Some(Some(parent)), ..RowPatch::default() };
            assert_eq!(store.patch(ring[0].id, &below(ring[0].id), at(1)).await.unwrap(), Patched::Cycle);
            let moves = ring.iter().zip(ring.iter().cycle().skip(1)).map(|(one, next)| {
                let (store, patch) = (&store, below(next.id));
                async move { store.patch(one.id, &patch, at(1)).await }
            });
            let moved = join_all(moves).await;
            assert!(moved.iter().flatten().filter(|moved| **moved == Patched::Done).count() < 4, "{moved:?}");
            for new in &ring {
                let mut seen = Vec::new();
                let mut here = Some(new.id);
                while let Some(id) = here {
                    assert!(!seen.contains(&id), "{id} is below itself");
                    seen.push(id);
                    here = store.workspace(id).await.unwrap().unwrap().parent_id;
                }
            }
        }
    }

    /// A workspace has one agent at a time, however many assign one at once
    async fn keeps_one_agent(store: Store) {
        let (new, other) = (workspace(), workspace());
        insert(&store, &new).await;
        insert(&store, &other).await;
        let agents: Vec<NewAgent> = (0..6).map(|n| agent(new.id, n)).collect();
        let told = event(new.id, 1);
        let assigned = join_all(agents.iter().map(|agent| {
            let told = Event { id: EventId::from_uuid(random_uuid(&SystemEntropy)), ..told.clone() };
            let store = &store;
            async move { store.assign_agent(agent, &told).await.unwrap() }
        }))
        .await;
        assert_eq!(assigned.iter().filter(|assigned| **assigned).count(), 1);
        assert_eq!(events(&store, new.id).await, 1);
        let first = store.active_agent(new.id).await.unwrap().unwrap();
        let second = agent(new.id, 9);
        assert!(store.replace_agent(first.id, &second, &event(new.id, 2)).await.unwrap());
        assert!(!store.replace_agent(first.id, &agent(new.id, 10), &event(new.id, 3)).await.unwrap());
        assert_eq!(store.active_agent(new.id).await.unwrap().unwrap().model, "model 9");
        assert!(store.assign_agent(&agent(other.id, 11), &event(other.id, 4)).await.unwrap());
        let told = [event(new.id, 5), event(other.id, 5)];
        assert!(!store.move_agent(second.id, other.id, &told).await.unwrap(), "the target has one");
        let occupant = store.active_agent(other.id).await.unwrap().unwrap();
        assert!(store.remove_agent(occupant.id, &event(other.id, 6)).await.unwrap());
        assert!(!store.remove_agent(occupant.id, &event(other.id, 7)).await.unwrap());
        assert!(store.move_agent(second.id, other.id, &told).await.unwrap());
        assert_eq!(store.active_agent(new.id).await.unwrap(), None);
        assert_eq!(store.active_agent(other.id).await.unwrap().unwrap().id, second.id);
        assert!(!store.assign_agent(&agent(workspace().id, 12), &event(new.id, 8)).await.unwrap(), "nobody's");
    }

    /// Removing several workspaces is all or nothing
    async fn removes_all_or_nothing(store: Store) {
        let (one, two) = (workspace(), NewWorkspace { status: Status::Online, ..workspace() });
        insert(&store, &one).await;
        insert(&store, &two).await;
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        let steps = [(one.id, gone, event(one.id, 1)), (two.id, gone, event(two.id, 1))];
        assert!(!store.remove(&steps, None).await.unwrap());
        assert_eq!(store.workspace(one.id).await.unwrap().unwrap().status, Status::Provisioning);
        assert_eq!(events(&store, one.id).await, 0);
        assert!(store.remove(&steps[..1], None).await.unwrap());
        assert_eq!(store.workspace(one.id).await.unwrap().unwrap().status, Status::Removed);
    }

    /// Purging deletes removed workspaces and what hangs on them, and no others
    async fn purges_removed_ones(store: Store) {
        let (one, two) = (NewWorkspace { status: Status::Removed, ..workspace() }, workspace());
        insert(&store, &one).await;
        insert(&store, &two).await;
        store.replace_tokens(&token(one.id)).await.unwrap();
        store.purge(&[one.id, two.id]).await.unwrap();
        assert!(store.workspace(one.id).await.unwrap().is_none());
        assert!(!store.has_live_token(one.id).await.unwrap());
        assert!(store.workspace(two.id).await.unwrap().is_some());
    }

    /// A removed workspace takes no heartbeat and no card
    async fn tombstones_stay(store: Store) {
        let new = NewWorkspace { status: Status::Removed, ..workspace() };
        insert(&store, &new).await;
        assert!(!store.heartbeat(new.id, &beat(1)).await.unwrap());
        assert!(!store.update_card(new.id, &json!({}), &event(new.id, 1)).await.unwrap());
        assert!(!store.heartbeat(id(), &beat(1)).await.unwrap());
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().last_heartbeat_at, None);
    }

    /// A spend of nothing leaves what was spent alone
    async fn spend_is_kept(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        store.heartbeat(new.id, &Condition { monthly_spend: Some(700), ..beat(1) }).await.unwrap();
        store.heartbeat(new.id, &beat(2)).await.unwrap();
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.monthly_spend, row.last_heartbeat_at), (700, Some(at(2))));
    }

    /// Conditions are saved in batches, and what moved meanwhile is found out
    async fn saves_conditions(store: Store) {
        let rows: Vec<NewWorkspace> =
            (0..1500).map(|_| NewWorkspace { status: Status::Online, ..workspace() }).collect();
        for new in &rows {
            insert(&store, new).await;
            let memory = store.memory();
            memory.track(new.id, memory.epoch(new.id), Status::Online, beat(1));
            let condition = Condition { sample_error: "ö'\"\\".into(), monthly_spend: Some(7), ..beat(2) };
            assert!(memory.beat(new.id, condition, |_, _| true));
        }
        // Moved behind the store's back: by somebody whom this process does not hear.
        let moved = rows[3].id;
        gate::move_unheard(&store, moved, Status::Degraded).await;
        store.save_telemetry().await.unwrap();
        for new in &rows {
            let row = store.workspace(new.id).await.unwrap().unwrap();
            assert_eq!((row.last_heartbeat_at, row.updated_at), (Some(at(2)), at(2)));
            assert_eq!((row.last_sample_error.as_deref(), row.monthly_spend), (Some("ö'\"\\"), 7));
            assert_eq!((row.last_error_rate, row.active_tasks, row.uptime_seconds), (0.25, 1, 3));
            assert_eq!(store.memory().last_heard(new.id).is_some(), new.id != moved);
        }
        assert!(store.memory().take_unsaved().is_empty());
    }

    /// A row that is read shows what was heard since it was written
    async fn reads_show_what_was_heard(store: Store) {
        let new = NewWorkspace { status: Status::Online, ..workspace() };
        insert(&store, &new).await;
        store.heartbeat(new.id, &beat(1)).await.unwrap();
        store.memory().track(new.id, store.memory().epoch(new.id), Status::Online, beat(1));
        assert!(store.memory().beat(new.id, beat(5), |_, _| true));
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().last_heartbeat_at, Some(at(5)));
        assert_eq!(store.workspaces().await.unwrap()[0].last_heartbeat_at, Some(at(5)));
    }

    /// The use of a token is saved, and a revoked one is not remembered
    async fn saves_uses(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        store.memory().set_trusted(true);
        let token = token(new.id);
        store.replace_tokens(&token).await.unwrap();
        assert!(store.token_owner(&token.hash, at(3)).await.unwrap().is_some());
        assert!(store.token_owner(&token.hash, at(4)).await.unwrap().is_some());
        store.save_telemetry().await.unwrap();
        assert_eq!(gate::last_use(&store, token.id).await, Some(at(4)));
        store.revoke_tokens(new.id, at(5)).await.unwrap();
        assert!(store.token_owner(&token.hash, at(6)).await.unwrap().is_none());
    }

    /// Of callers who mint an inbound secret at once, all are given the same, and a workspace that is not there none
    async fn one_secret_is_minted(store: Store) {
        let (new, gone) = (workspace(), NewWorkspace { status: Status::Removed, ..workspace() });
        insert(&store, &new).await;
        insert(&store, &gone).await;
        for nothing in [None, Some("")] {
            gate::set_inbound_secret(&store, new.id, nothing).await;
            assert!(store.inbound_secret(new.id, &Cipher::default(), at(0)).await.unwrap().is_none(), "{nothing:?}");
            let tries = join_all((0..8).map(async |n| {
                let kept = format!("{nothing:?} {n}");
                store.mint_inbound_secret(new.id, &kept, &Cipher::default(), at(0)).await.unwrap().unwrap().expose_secret().to_owned()
            }));
            let minted: std::collections::BTreeSet<String> = tries.await.into_iter().collect();
            assert_eq!(minted.len(), 1, "{minted:?}");
            let kept = store.inbound_secret(new.id, &Cipher::default(), at(0)).await.unwrap().unwrap();
            assert!(minted.contains(kept.expose_secret()));
            store.memory().forget_inbound_secrets();
        }
        for absent in [gone.id, id()] {
            assert!(store.mint_inbound_secret(absent, "s", &Cipher::default(), at(0)).await.unwrap().is_none());
            assert!(!store.replace_inbound_secret(absent, &"s".into(), "s", at(0)).await.unwrap());
            assert!(store.inbound_secret(absent, &Cipher::default(), at(0)).await.unwrap().is_none());
        }
    }

    /// An inbound secret is read once in five minutes, what is written is known at once, and absence is not remembered
    async fn remembers_secrets(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let reads = || store.statements().reads;
        let secret = async |seconds| {
            let secret = store.inbound_secret(new.id, &Cipher::default(), at(seconds)).await.unwrap();
            secret.map(|secret| secret.expose_secret().to_owned())
        };
        let before = reads();
        assert_eq!((secret(0).await, secret(0).await), (None, None));
        assert_eq!(reads() - before, 2, "absence is looked up each time");
        assert!(store.replace_inbound_secret(new.id, &"one".into(), "one", at(0)).await.unwrap());
        let before = reads();
        assert_eq!((secret(0).await.as_deref(), secret(299).await.as_deref()), (Some("one"), Some("one")));
        assert_eq!(reads(), before);
        // By somebody whom this process does not hear.
        gate::set_inbound_secret(&store, new.id, Some("two")).await;
        assert_eq!(secret(299).await.as_deref(), Some("one"));
        assert_eq!(secret(300).await.as_deref(), Some("two"));
        assert_eq!(secret(300 + 299).await.as_deref(), Some("two"));
        assert_eq!(reads() - before, 1);
        assert!(store.replace_inbound_secret(new.id, &"three".into(), "three", at(600)).await.unwrap());
        assert_eq!(secret(600).await.as_deref(), Some("three"));
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(new.id, gone, event(new.id, 601))], None).await.unwrap());
        assert_eq!(secret(601).await, None);
    }

    /// Saving the conditions of those who beat keeps their secrets known, and finds out which were rotated
    async fn saving_sees_secrets(store: Store) {
        let (same, rotated) = (workspace(), workspace());
        for new in [&same, &rotated] {
            let new = NewWorkspace { status: Status::Online, ..NewWorkspace { id: new.id, ..workspace() } };
            insert(&store, &new).await;
            assert!(store.replace_inbound_secret(new.id, &"one".into(), "one", at(0)).await.unwrap());
            store.memory().track(new.id, store.memory().epoch(new.id), Status::Online, beat(1));
            assert!(store.memory().beat(new.id, beat(200), |_, _| true));
        }
        gate::set_inbound_secret(&store, rotated.id, Some("two")).await;
        store.save_telemetry().await.unwrap();
        let known = |id| store.memory().inbound_secret(id, at(499)).map(|secret| secret.expose_secret().to_owned());
        assert_eq!(known(same.id).as_deref(), Some("one"));
        assert_eq!(known(rotated.id), None);
    }

    /// Tokens of the organisation are found until they are revoked, and listed without their text
    async fn org_tokens(store: Store) {
        store.memory().set_trusted(true);
        let tokens: Vec<NewOrgToken> = (0..3).map(|n| org_token(n, None)).collect();
        for token in &tokens {
            store.add_org_token(token).await.unwrap();
        }
        assert!(store.any_live_token().await.unwrap());
        for _ in 0..2 {
            for token in &tokens {
                let owner = store.org_token_owner(&token.hash, at(7)).await.unwrap().unwrap();
                assert_eq!((owner.id, owner.org_id), (token.id, None));
            }
        }
        assert!(store.known_org_token(&tokens[0].hash, at(8)).is_some());
        assert!(store.org_token_owner(&[0; 32], at(7)).await.unwrap().is_none());
        store.save_telemetry().await.unwrap();
        let listed = store.live_org_tokens(2).await.unwrap();
        let ids: Vec<_> = listed.iter().map(|token| token.id).collect();
        assert_eq!(ids, [tokens[2].id, tokens[1].id], "the newest come first");
        assert_eq!((listed[0].name.as_deref(), listed[0].created_by.as_deref()), (Some("näme"), Some("session")));
        assert_eq!((listed[0].created_at, listed[0].last_used_at), (at(2), Some(at(7))));
        assert_eq!(store.org_token_prefix(tokens[0].id).await.unwrap().as_ref(), Some(&tokens[0].prefix));
        assert!(store.revoke_org_token(tokens[2].id, at(9)).await.unwrap());
        assert!(!store.revoke_org_token(tokens[2].id, at(9)).await.unwrap());
        assert!(!store.revoke_org_token(TokenId::from_uuid(Uuid::nil()), at(9)).await.unwrap());
        assert!(store.known_org_token(&tokens[2].hash, at(9)).is_none());
        assert!(store.org_token_owner(&tokens[2].hash, at(9)).await.unwrap().is_none());
        assert!(store.org_token_owner(&tokens[1].hash, at(9)).await.unwrap().is_some());
        assert_eq!(store.live_org_tokens(500).await.unwrap().len(), 2);
        for token in &tokens {
            store.revoke_org_token(token.id, at(9)).await.unwrap();
        }
        assert!(!store.any_live_token().await.unwrap());
    }

    /// A token of the organisation is bound to it as long as its topmost workspace is there
    async fn bound_org_tokens(store: Store) {
        store.memory().set_trusted(true);
        let top = NewWorkspace { status: Status::Removed, ..workspace() };
        insert(&store, &top).await;
        let token = org_token(0, Some(top.id));
        store.add_org_token(&token).await.unwrap();
        let bound_to = async || store.org_token_owner(&token.hash, at(1)).await.unwrap().unwrap().org_id;
        assert_eq!((bound_to().await, bound_to().await), (Some(top.id), Some(top.id)));
        store.purge(&[top.id]).await.unwrap();
        assert_eq!(bound_to().await, None);
    }

    /// The tree below a workspace holds removed members, and kin leaves them out
    async fn trees(store: Store) {
        let root = workspace();
        let child = NewWorkspace { parent_id: Some(root.id), ..workspace() };
        let grandchild = NewWorkspace { parent_id: Some(child.id), status: Status::Removed, ..workspace() };
        for new in [&root, &child, &grandchild] {
            insert(&store, new).await;
        }
        let mut tree = store.subtree(root.id).await.unwrap();
        let mut expected = vec![root.id, child.id, grandchild.id];
        tree.sort();
        expected.sort();
        assert_eq!(tree, expected);
        assert!(store.subtree(id()).await.unwrap().is_empty());
        let kin = store.kin(child.id, grandchild.id).await.unwrap();
        let chain: Vec<_> = kin.iter().map(|kin| (kin.start, kin.id, kin.depth)).collect();
        assert_eq!(chain, [(child.id, child.id, 0), (child.id, root.id, 1)]);
        assert_eq!(store.children(root.id).await.unwrap().len(), 1);
    }

    /// An activity reads back as it was written, without what a database refuses
    async fn keeps_activity(store: Store) {
        let (new, other) = (workspace(), id());
        insert(&store, &new).await;
        let row = NewActivity {
            source_id: Some(other),
            target_id: Some(new.id),
            method: Some("message/send".to_owned()),
            summary: Some("a\0b ünï 🦀".to_owned()),
            request_body: Some(json!({"b": 1, "a": ["\0"]})),
            response_body: Some(Value::Null),
            tool_trace: Some(json!([{"tool": "x"}])),
            duration_ms: Some(7),
            status: "error".to_owned(),
            error_detail: Some("why".to_owned()),
            ..activity(new.id, "a2a_receive", 5)
        };
        assert_eq!(store.insert_activity(&row).await.unwrap(), at(5));
        let kept = store.activity(new.id, &page()).await.unwrap();
        assert_eq!((kept[0].id, kept[0].created_at, kept[0].workspace_id), (row.id, at(5), new.id));
        assert_eq!(kept[0].summary.as_deref(), Some("a\u{fffd}b ünï 🦀"));
        assert_eq!(kept[0].request_body, Some(json!({"b": 1, "a": ["\u{fffd}"]})));
        assert_eq!(kept[0].tool_trace, row.tool_trace);
        assert_eq!((kept[0].duration_ms, kept[0].status.as_str()), (Some(7), "error"));
        assert_eq!(store.activity_time(new.id, row.id).await.unwrap(), Some(at(5)));
        assert_eq!(store.activity_time(other, row.id).await.unwrap(), None);
        let nowhere = store.insert_activity(&activity(other, "error", 1)).await.unwrap_err();
        assert_eq!(nowhere.kind(), crate::ErrorKind::NotFound);
    }

    /// Every way to filter activity gives the rows that all of its filters fit, in order
    async fn filters_activity(store: Store) {
        let (new, peers) = (workspace(), [id(), id()]);
        insert(&store, &new).await;
        let mut rows = Vec::new();
        for n in 0..48_usize {
            let one_of = |n: usize| [None, Some(new.id), Some(peers[0]), Some(peers[1])][n % 4];
            let row = NewActivity {
                source_id: one_of(n),
                target_id: one_of(n / 4),
                ..activity(new.id, ["a2a_receive", "error", "agent_log"][n / 16], i64::try_from(n).unwrap())
            };
            store.insert_activity(&row).await.unwrap();
            rows.push(row);
        }
        for activity_type in [None, Some("error".to_owned())] {
            for source in [None, Some(Source::Canvas), Some(Source::Agent)] {
                for peer in [None, Some(peers[0])] {
                    for (from, before, oldest_first, limit) in
                        [(0, 48, false, 100), (10, 40, false, 100), (10, 40, true, 100), (0, 48, false, 3), (0, 48, true, 3)]
                    {
                        let fits = |row: &&NewActivity| {
                            activity_type.as_ref().is_none_or(|wanted| *wanted == row.activity_type)
                                && source.is_none_or(|source| (source == Source::Canvas) == row.source_id.is_none())
                                && (peer.is_none() || peer == row.source_id || peer == row.target_id)
                                && (at(from)..at(before)).contains(&row.at)
                        };
                        let mut expected: Vec<_> = rows.iter().filter(fits).map(|row| row.id).collect();
                        if !oldest_first {
                            expected.reverse();
                        }
                        expected.truncate(limit);
                        let page = Page {
                            activity_type: activity_type.clone(),
                            source,
                            peer,
                            after: (at(from), ActivityId::from_uuid(Uuid::nil())),
                            before: at(before),
                            oldest_first,
                            limit: u32::try_from(limit).unwrap(),
                        };
                        let found = store.activity(new.id, &page).await.unwrap();
                        assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), expected, "{page:?}");
                    }
                }
            }
        }
    }

    /// A reader that follows the activity of writers who race sees every row once, whatever their clocks say
    async fn follows_activity(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        const WRITERS: usize = 6;
        const ROWS: usize = 20;
        let write = join_all((0..WRITERS).map(|n| {
            let (store, id) = (store.clone(), new.id);
            async move {
                for _ in 0..ROWS {
                    // The clocks of replicas differ; those of some stand still.
                    store.insert_activity(&activity(id, "agent_log", i64::try_from(n).unwrap())).await.unwrap();
                }
            }
        }));
        let read = async {
            let mut seen = Vec::new();
            let mut after = page().after;
            while seen.len() < WRITERS * ROWS {
                let next = store.activity(new.id, &Page { after, oldest_first: true, limit: 7, ..page() }).await.unwrap();
                if let Some(last) = next.last() {
                    after = (last.created_at, last.id);
                }
                seen.extend(next.into_iter().map(|row| (row.created_at, row.id)));
                tokio::task::yield_now().await;
            }
            seen
        };
        let ((), mut seen) = tokio::join!(async { write.await; }, read);
        assert_eq!(seen.len(), WRITERS * ROWS);
        assert!(seen.is_sorted());
        seen.dedup_by_key(|(time, _)| *time);
        assert_eq!(seen.len(), WRITERS * ROWS, "no two rows share a time: paging backwards loses none either");
    }

    /// Old activity is deleted in batches, and goes with its workspace
    async fn prunes_activity(store: Store) {
        let new = NewWorkspace { status: Status::Removed, ..workspace() };
        insert(&store, &new).await;
        for n in 0..5 {
            store.insert_activity(&activity(new.id, "agent_log", n)).await.unwrap();
        }
        assert_eq!(store.prune_activity(at(3), 2).await.unwrap(), 2);
        assert_eq!(store.prune_activity(at(3), 2).await.unwrap(), 1);
        assert_eq!(store.prune_activity(at(3), 2).await.unwrap(), 0);
        assert_eq!(store.activity(new.id, &page()).await.unwrap().len(), 2);
        store.purge(&[new.id]).await.unwrap();
        assert!(store.activity(new.id, &page()).await.unwrap().is_empty());
    }

    /// A search finds text in whatever case, and takes no character for a wildcard
    async fn searches_sessions(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let texts = ["Deploy 100% of it", "deploy a_b", r"back\slash", "nothing"];
        for (n, text) in texts.iter().enumerate() {
            let row = NewActivity {
                summary: (n % 2 == 0).then(|| (*text).to_owned()),
                response_body: (n % 2 == 1).then(|| json!({"result": text})),
                ..activity(new.id, "agent_log", i64::try_from(n).unwrap())
            };
            store.insert_activity(&row).await.unwrap();
        }
        for (text, expected) in
            [("DEPLOY", 2), ("100%", 1), ("0%o", 0), ("a_b", 1), ("a%b", 0), ("%", 1), ("_", 4), (r"\", 1), ("", 4), ("AGENT_LOG", 4)]
        {
            let found = store.search_session(new.id, text, 10).await.unwrap();
            assert_eq!(found.len(), expected, "{text:?}: {found:?}");
        }
        let found = store.search_session(new.id, "", 1).await.unwrap();
        assert_eq!((found[0].kind.as_str(), found[0].label.as_str(), found[0].created_at), ("activity", "agent_log", at(3)));
    }

    /// Events are found by time and kind, and old ones are deleted unless they tell how a workspace came and went
    async fn finds_and_prunes_events(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let online = Status::Provisioning.to(Status::Online).unwrap();
        assert!(store.step(new.id, online, &event(new.id, 0)).await.unwrap());
        for seconds in 1..=2500 {
            gate::record(&store, "CRON_EXECUTED", new.id, at(seconds)).await;
        }
        let seconds = async |of, which| -> Vec<i64> {
            let found = store.newest_events(of, &which).await.unwrap();
            found.iter().map(|event| (event.created_at - at(0)).num_seconds()).collect()
        };
        for of in [None, Some(new.id)] {
            assert_eq!(seconds(of, Which { before: Some(at(3)), ..newest(10) }).await, [2, 1, 0]);
            let online = Which { event_type: Some("WORKSPACE_ONLINE".to_owned()), ..newest(10) };
            assert_eq!(seconds(of, online).await, [0]);
            let both = Which { before: Some(at(5)), event_type: Some("CRON_EXECUTED".to_owned()), ..newest(2) };
            assert_eq!(seconds(of, both).await, [4, 3]);
            let unknown = Which { event_type: Some("x\0".to_owned()), ..newest(2) };
            assert_eq!(seconds(of, unknown).await, [0; 0]);
        }
        assert_eq!(seconds(Some(id()), newest(5)).await, [0; 0]);
        assert_eq!(store.delete_events(at(2499)).await.unwrap(), 2498);
        assert_eq!(seconds(None, newest(10)).await, [2500, 2499, 0]);
        assert_eq!(store.delete_events(at(2499)).await.unwrap(), 0);
    }

    /// Events come back newest first, whatever is in their payload
    async fn event_log(store: Store) {
        let (one, two) = (workspace(), workspace());
        insert(&store, &one).await;
        insert(&store, &two).await;
        let online = Status::Provisioning.to(Status::Online).unwrap();
        let offline = Status::Online.to(Status::Offline).unwrap();
        let odd = Event { payload: json!({"text": "a\0b ünï 🦀"}), ..event(one.id, 1) };
        store.step(one.id, online, &odd).await.unwrap();
        store.step(two.id, online, &event(two.id, 2)).await.unwrap();
        store.step(one.id, offline, &event(one.id, 3)).await.unwrap();
        let all = store.newest_events(None, &newest(2)).await.unwrap();
        assert_eq!(all.iter().map(|event| event.created_at).collect::<Vec<_>>(), [at(3), at(2)]);
        let own = store.newest_events(Some(one.id), &newest(10)).await.unwrap();
        assert_eq!(own.len(), 2);
        assert_eq!(own[1].payload, Some(json!({"text": "a\u{fffd}b ünï 🦀"})));
        assert_eq!((own[1].id, own[1].event_type.as_str()), (odd.id, "WORKSPACE_ONLINE"));
    }
}

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
        budget_limit: Some(5),
        max_concurrent_tasks: 1,
        delivery_mode: DeliveryMode::Push,
        provision_attempt: Some(attempt()),
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

fn activity(workspace_id: WorkspaceId, activity_type: &str, seconds: i64) -> NewActivity {
    NewActivity {
        id: ActivityId::from_uuid(random_uuid(&SystemEntropy)),
        workspace_id,
        activity_type: activity_type.to_owned(),
        source_id: None,
        target_id: None,
        method: None,
        summary: None,
        request_body: None,
        response_body: None,
        tool_trace: None,
        duration_ms: None,
        status: "ok".to_owned(),
        error_detail: None,
        delegation_id: None,
        idempotency_key: None,
        at: at(seconds),
    }
}

/// Everything, newest first.
fn page() -> Page {
    Page {
        activity_type: None,
        source: None,
        peer: None,
        after: (DateTime::UNIX_EPOCH, ActivityId::from_uuid(Uuid::nil())),
        before: at(1_000_000),
        oldest_first: false,
        limit: 500,
    }
}

fn token(workspace_id: WorkspaceId) -> NewToken {
    let (kept, issued) = identity::issue(workspace_id, None, &SystemEntropy, at(0));
    debug_assert_eq!(kept.hash, identity::hash(issued.token.expose_secret()));
    kept
}

fn agent(workspace_id: WorkspaceId, n: u32) -> NewAgent {
    NewAgent {
        id: crate::id::AgentId::from_uuid(random_uuid(&SystemEntropy)),
        workspace_id,
        model: format!("model {n}"),
    }
}

fn org_token(seconds: i64, org_id: Option<WorkspaceId>) -> NewOrgToken {
    let (name, by) = (Some("näme".to_owned()), Some("session".to_owned()));
    let (kept, issued) = identity::issue_for_org(name, by, org_id, &SystemEntropy, at(seconds));
    debug_assert_eq!(kept.hash, identity::hash(issued.token.expose_secret()));
    kept
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
    }
}

async fn insert(store: &Store, new: &NewWorkspace) {
    store.insert_workspace(new, None, &[]).await.unwrap();
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
