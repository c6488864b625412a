//! Rows of workspaces: how they come, change and go.

use super::{StoreCase, at, attempt, beat, cases, event, events, id, insert, token, workspace};
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    identity,
    store::{Asked, Cause, NewWorkspace, Patched, Registration, RowPatch, Store},
    workspace::{Access, DeliveryMode, Position, Status},
};

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

    /// A late result of an earlier try changes nothing
    async fn late_results_change_nothing(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let first = new.provision_attempt.unwrap();
        let second = attempt();
        let again = Status::Provisioning.to(Status::Provisioning).unwrap();
        let cause = Cause::Asked(Asked::default());
        assert!(store.begin_attempt(new.id, again, second, &cause, &event(new.id, 1)).await.unwrap().is_some());
        let failed = Status::Provisioning.to(Status::Failed).unwrap();
        assert!(!store.fail_attempt(new.id, failed, first, "late", Some(""), &event(new.id, 2)).await.unwrap());
        assert!(!store.assign(new.id, first, Some("http://late"), None, at(3)).await.unwrap());
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.status, row.url.as_str(), row.last_sample_error), (Status::Provisioning, "", None));
        assert!(store.assign(new.id, second, Some("http://now"), Some("i-1"), at(4)).await.unwrap());
        assert!(store.fail_attempt(new.id, failed, second, "why", Some(""), &event(new.id, 5)).await.unwrap());
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.url.as_str(), row.instance_id.as_deref()), ("", Some("i-1")));
        assert_eq!((row.status, row.last_sample_error.as_deref()), (Status::Failed, Some("why")));
    }

    /// Why a workspace failed is kept whatever its agent says, at once or later
    async fn reasons_are_kept(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let failed = Status::Provisioning.to(Status::Failed).unwrap();
        let attempt = new.provision_attempt.unwrap();
        assert!(store.fail_attempt(new.id, failed, attempt, "why", Some("http://old"), &event(new.id, 1)).await.unwrap());
        assert!(store.heartbeat(new.id, &beat(2)).await.unwrap());
        let reason = async || store.workspace(new.id).await.unwrap().unwrap().last_sample_error;
        assert_eq!(reason().await.as_deref(), Some("why"));
        store.memory().track(new.id, store.memory().epoch(new.id), Status::Failed, beat(2));
        assert!(store.memory().beat(new.id, beat(3), |_, _| true));
        assert_eq!(reason().await.as_deref(), Some("why"));
        store.save_telemetry(at(4)).await.unwrap();
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.last_sample_error.as_deref(), row.url.as_str()), (Some("why"), "http://old"));
        assert_eq!(row.last_heartbeat_at, Some(at(3)));
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
            hibernation_idle_minutes: Some(Some(30)),
            collapsed: None,
        };
        assert_eq!(store.patch(new.id, &all, at(5)).await.unwrap(), Patched::Done);
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.role.as_deref(), row.tier), ("other", Some("role"), 1));
        assert_eq!((row.parent_id, row.runtime.as_str()), (Some(parent.id), "hermes"));
        assert_eq!((row.workspace_dir.as_deref(), row.updated_at), (Some("/srv"), at(5)));
        assert_eq!((row.x, row.y, row.collapsed, row.hibernation_idle_minutes), (1.5, -2.0, false, Some(30)));
        let none = RowPatch {
            role: Some(None),
            parent_id: Some(None),
            workspace_dir: Some(None),
            hibernation_idle_minutes: Some(None),
            collapsed: Some(true),
            ..RowPatch::default()
        };
        assert_eq!(store.patch(new.id, &none, at(6)).await.unwrap(), Patched::Done);
        let row = store.workspace(new.id).await.unwrap().unwrap();
        assert_eq!((row.role, row.parent_id, row.workspace_dir), (None, None, None));
        assert_eq!((row.x, row.y, row.collapsed, row.hibernation_idle_minutes), (1.5, -2.0, true, None));
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

    /// Of ancestors so many are looked at and no more
    async fn a_line_has_an_end(store: Store) {
        let mut line = vec![workspace()];
        for _ in 0..40 {
            let below = NewWorkspace { parent_id: line.last().map(|above| above.id), ..workspace() };
            line.push(below);
        }
        for new in &line {
            insert(&store, new).await;
        }
        let (top, last) = (line[0].id, line[40].id);
        let talk = async |one, other| identity::can_communicate(one, other, &store.kin(one, other).await.unwrap());
        assert!(talk(line[8].id, last).await && talk(last, line[8].id).await);
        assert!(talk(top, line[32].id).await);
        for (one, other) in [(line[7].id, last), (top, last), (top, line[33].id)] {
            assert!(!talk(one, other).await && !talk(other, one).await);
        }
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
        store.insert_workspace(&one, Some(&token(one.id)), &[]).await.unwrap();
        insert(&store, &two).await;
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
}
