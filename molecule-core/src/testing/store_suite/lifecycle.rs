//! What stops and wakes a workspace, and who works in it.

use super::{StoreCase, at, attempt, cases, event, events, insert, workspace};
use futures_util::future::join_all;

use crate::{
    clock::{SystemEntropy, random_uuid},
    events::Event,
    id::{EventId, WorkspaceId},
    store::{Abandoned, Asked, Cause, Condition, NewAgent, NewWorkspace, Store, machines::LeftMachine},
    workspace::Status,
};

cases! {
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
        runtime: crate::registry::Runtime::default(),
        };
        assert!(store.heartbeat(new.id, &busy).await.unwrap());
        assert!(!store.claim_for_hibernation(new.id, step, false, at(2)).await.unwrap());
        assert!(store.claim_for_hibernation(new.id, step, true, at(2)).await.unwrap());
        assert!(!store.claim_for_hibernation(new.id, step, true, at(3)).await.unwrap());
        let other = NewWorkspace { status: Status::Online, ..workspace() };
        insert(&store, &other).await;
        assert!(store.claim_for_hibernation(other.id, step, false, at(2)).await.unwrap());
    }

    /// Machines that were not given back are left until they are, those of removed workspaces after a while
    async fn remembers_left_machines(store: Store) {
        let (kept, removed) = (workspace(), workspace());
        for (new, instance) in [(&kept, "i-new"), (&removed, "i-removed")] {
            insert(&store, new).await;
            assert!(store.assign(new.id, new.provision_attempt.unwrap(), None, Some(instance), at(0)).await.unwrap());
        }
        let gone = Status::Provisioning.to(Status::Removed).unwrap();
        assert!(store.remove(&[(removed.id, gone, event(removed.id, 0))], None).await.unwrap());
        assert!(store.left_machines(at(0)).await.unwrap().is_empty(), "it was removed just now");
        let machine = |id, instance: &str| LeftMachine { workspace_id: id, instance_id: instance.to_owned() };
        let of_removed = machine(removed.id, "i-removed");
        assert_eq!(store.left_machines(at(1)).await.unwrap(), std::slice::from_ref(&of_removed));
        for _ in 0..2 {
            store.note_left_machine(kept.id, "i-old", at(1)).await.unwrap();
        }
        store.forget_left_machine(&of_removed).await.unwrap();
        let left = machine(kept.id, "i-old");
        assert_eq!(store.left_machines(at(9)).await.unwrap(), std::slice::from_ref(&left));
        store.forget_left_machine(&left).await.unwrap();
        assert!(store.left_machines(at(9)).await.unwrap().is_empty());
        assert_eq!(store.workspace(kept.id).await.unwrap().unwrap().instance_id.as_deref(), Some("i-new"));
        assert_eq!(store.workspace(removed.id).await.unwrap().unwrap().instance_id, None);
    }

    /// A try that nobody carries out is taken over once, unless somebody spoke of it since
    async fn takes_over_what_is_abandoned(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let again = Status::Provisioning.to(Status::Provisioning).unwrap();
        let seen = async |attempt| {
            let renewed_at = store.provisioning().await.unwrap()[0].provision_renewed_at;
            renewed_at.map(|renewed_at| Abandoned { attempt, renewed_at })
        };
        let begin = async |attempt, cause| store.begin_attempt(new.id, again, attempt, &cause, &event(new.id, 9)).await;
        let take = async |attempt, abandoned: Option<Abandoned>| {
            let cause = abandoned.map_or_else(|| Cause::Asked(Asked::default()), Cause::Abandoned);
            begin(attempt, cause).await.unwrap().is_some()
        };
        let first = new.provision_attempt.unwrap();
        let abandoned = seen(first).await.expect("it is under way from the start");
        assert_eq!(abandoned.renewed_at, at(0));
        assert!(store.renew_attempt(new.id, first, at(5)).await.unwrap());
        let (second, third) = (attempt(), attempt());
        assert!(!take(second, Some(abandoned)).await, "somebody spoke of it");
        let abandoned = seen(first).await;
        assert!(take(second, abandoned).await);
        assert!(!take(third, abandoned).await && !store.renew_attempt(new.id, first, at(10)).await.unwrap());
        assert!(store.assign(new.id, second, Some("http://there"), None, at(11)).await.unwrap());
        assert_eq!(seen(second).await, None, "the backend has answered");
        assert!(!store.renew_attempt(new.id, second, at(12)).await.unwrap());
        // Whoever asks for another try gets it.
        assert!(take(third, None).await);
        assert_eq!(seen(third).await.map(|abandoned| abandoned.renewed_at), Some(at(9)));
    }

    /// Who goes on with a try does what it was asked for; any other try is asked anew
    async fn keeps_what_a_try_was_asked_for(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let again = Status::Provisioning.to(Status::Provisioning).unwrap();
        let begin = async |cause| {
            let id = attempt();
            let begun = store.begin_attempt(new.id, again, id, &cause, &event(new.id, 9)).await.unwrap();
            (id, begun.expect("it is the first to"))
        };
        let go_on = async |attempt| {
            let renewed_at = store.provisioning().await.unwrap()[0].provision_renewed_at.expect("it is under way");
            begin(Cause::Abandoned(Abandoned { attempt, renewed_at })).await
        };
        let (_, asked) = go_on(new.provision_attempt.unwrap()).await;
        assert_eq!(asked, Asked::default(), "a create asks for nothing else");
        let wish = Asked { provision_config: Some("org-templates/team".to_owned()), provision_reset: true };
        let (first, asked) = begin(Cause::Asked(wish.clone())).await;
        assert_eq!(asked, wish);
        let (second, asked) = go_on(first).await;
        assert_eq!(asked, wish);
        let (_, asked) = go_on(second).await;
        assert_eq!(asked, wish, "however often");
        let (fourth, asked) = begin(Cause::Asked(Asked::default())).await;
        assert_eq!(asked, Asked::default(), "the newest restart wins");
        assert_eq!(go_on(fourth).await.1, Asked::default());
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
}

fn agent(workspace_id: WorkspaceId, n: u32) -> NewAgent {
    NewAgent {
        id: crate::id::AgentId::from_uuid(random_uuid(&SystemEntropy)),
        workspace_id,
        model: format!("model {n}"),
    }
}
