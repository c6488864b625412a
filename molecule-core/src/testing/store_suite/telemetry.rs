//! What agents are heard to be.

use serde_json::json;

use super::{StoreCase, at, beat, cases, event, insert, renew, token, workspace};

use crate::{
    store::{Condition, NewWorkspace, Store, suite_access as gate},
    workspace::Status,
};

cases! {
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

    /// A spend of nothing leaves what was spent alone
    async fn spend_is_kept(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        store.heartbeat(new.id, &Condition { monthly_spend: Some(700), ..beat(1) }).await.unwrap();
        store.heartbeat(new.id, &beat(2)).await.unwrap();
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.monthly_spend, row.spent_at, row.last_heartbeat_at), (700, Some(at(1)), Some(at(2))));
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
        store.save_telemetry(at(4)).await.unwrap();
        for new in &rows {
            let row = store.workspace(new.id).await.unwrap().unwrap();
            assert_eq!((row.last_heartbeat_at, row.updated_at), (Some(at(2)), at(2)));
            assert_eq!((row.last_sample_error.as_deref(), row.monthly_spend), (Some("ö'\"\\"), 7));
            assert_eq!(row.spent_at, Some(at(2)));
            assert_eq!((row.last_error_rate, row.active_tasks, row.uptime_seconds), (0.25, 1, 3));
            assert_eq!(store.memory().last_heard(new.id).is_some(), new.id != moved);
        }
        assert!(store.memory().unsaved().is_empty());
    }

    /// Since when a workspace is hibernating is not told by who beats meanwhile
    async fn hibernating_since(store: Store) {
        let new = NewWorkspace { status: Status::Hibernating, ..workspace() };
        insert(&store, &new).await;
        let since = store.standing(new.id).await.unwrap().unwrap().updated_at;
        assert!(store.heartbeat(new.id, &beat(50)).await.unwrap());
        let memory = store.memory();
        memory.track(new.id, memory.epoch(new.id), Status::Hibernating, beat(50));
        assert!(memory.beat(new.id, beat(60), |_, _| true));
        store.save_telemetry(at(60)).await.unwrap();
        assert!(store.update_card(new.id, &json!({}), &event(new.id, 70)).await.unwrap());
        assert_eq!(store.workspace(new.id).await.unwrap().unwrap().last_heartbeat_at, Some(at(60)));
        assert_eq!(store.standing(new.id).await.unwrap().unwrap().updated_at, since);
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
        let attempt = new.provision_attempt.unwrap();
        assert!(renew(&store, new.id, attempt, Some(&token)).await);
        assert!(store.token_owner(&token.hash, at(3)).await.unwrap().is_some());
        assert!(store.token_owner(&token.hash, at(4)).await.unwrap().is_some());
        store.save_telemetry(at(4)).await.unwrap();
        assert_eq!(gate::last_use(&store, token.id).await, Some(at(4)));
        assert!(renew(&store, new.id, attempt, None).await);
        assert!(store.token_owner(&token.hash, at(6)).await.unwrap().is_none());
    }
}
