//! What agents remember, ask for and leave behind.

use super::{StoreCase, activity::activity, at, cases, event, events, id, insert, tokens::org_token, workspace};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    activity::NewActivity,
    clock::{SystemEntropy, random_uuid},
    id::{ApprovalId, MemoryId, ScheduleId, WorkspaceId},
    memory::{Memory, Scope, Search},
    records::{Approval, ApprovalStatus},
    schedules::{RunStatus, Schedule, ScheduleSource},
    store::{MemoryQuery, NewValue, NewWorkspace, ScheduleChange, ScheduleWritten, Store, Verdict},
    workspace::Status,
};

cases! {
    /// Values are kept by key, each with a version that grows
    async fn keeps_values(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let odd = json!({"a\0": ["ü🦀\0", null, 1.5]});
        assert_eq!(store.set_value(&value(new.id, "b", &odd, None, 0), &SystemEntropy).await.unwrap(), 1);
        assert_eq!(store.set_value(&value(new.id, "a\0", &Value::Null, None, 1), &SystemEntropy).await.unwrap(), 1);
        assert_eq!(store.set_value(&value(new.id, "b", &odd, None, 2), &SystemEntropy).await.unwrap(), 2);
        let kept = store.values(new.id, at(3)).await.unwrap();
        let seen: Vec<_> = kept.iter().map(|kept| (kept.key.as_str(), kept.version, kept.updated_at)).collect();
        assert_eq!(seen, [("a\u{fffd}", 1, at(1)), ("b", 2, at(2))]);
        assert_eq!(kept[0].value, Value::Null);
        assert_eq!(kept[1].value, json!({"a\u{fffd}": ["ü🦀\u{fffd}", null, 1.5]}));
        assert_eq!(store.value(new.id, "b", at(3)).await.unwrap().as_ref(), Some(&kept[1]));
        assert_eq!(store.value(id(), "b", at(3)).await.unwrap(), None);
        store.delete_value(new.id, "b").await.unwrap();
        store.delete_value(new.id, "b").await.unwrap();
        assert_eq!(store.value(new.id, "b", at(3)).await.unwrap(), None);
    }

    /// A value whose time is over counts as absent
    async fn values_expire(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let json = json!(1);
        let brief = |seconds| value(new.id, "k", &json, Some(at(seconds + 10)), seconds);
        let lasting = |seconds| value(new.id, "k", &json, None, seconds);
        assert_eq!(store.set_value(&brief(0), &SystemEntropy).await.unwrap(), 1);
        assert_eq!(store.set_value(&brief(5), &SystemEntropy).await.unwrap(), 2);
        assert!(store.value(new.id, "k", at(14)).await.unwrap().is_some());
        assert_eq!(store.value(new.id, "k", at(15)).await.unwrap(), None);
        assert!(store.values(new.id, at(15)).await.unwrap().is_empty());
        assert_eq!(store.replace_value(&lasting(15), 2).await.unwrap(), None, "there is nothing to replace");
        assert_eq!(store.create_value(&brief(15), &SystemEntropy).await.unwrap(), Some(1), "there is none in the way");
        assert_eq!(store.set_value(&brief(40), &SystemEntropy).await.unwrap(), 1, "it begins anew");
        assert_eq!(store.set_value(&lasting(41), &SystemEntropy).await.unwrap(), 2);
        assert_eq!(store.value(new.id, "k", at(99)).await.unwrap().unwrap().expires_at, None);
        assert_eq!(store.set_value(&value(new.id, "l", &json, Some(at(50)), 49), &SystemEntropy).await.unwrap(), 1);
        assert_eq!(store.purge_values(at(50)).await.unwrap(), 1);
        assert_eq!(store.purge_values(at(99)).await.unwrap(), 0);
    }

    /// Of writers who race for one version, or for a key that is free, exactly one wins
    async fn one_writes_a_version(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let values: Vec<Value> = (0..8).map(Value::from).collect();
        let created = join_all(values.iter().map(|json| {
            let store = store.clone();
            async move { store.create_value(&value(new.id, "k", json, None, 1), &SystemEntropy).await.unwrap() }
        }));
        assert_eq!(created.await.into_iter().flatten().collect::<Vec<_>>(), [1]);
        let replaced = join_all(values.iter().map(|json| {
            let store = store.clone();
            async move { store.replace_value(&value(new.id, "k", json, None, 2), 1).await.unwrap() }
        }));
        assert_eq!(replaced.await.into_iter().flatten().collect::<Vec<_>>(), [2]);
    }

    /// Memories are found as far as their scope says
    async fn memories_have_scopes(store: Store) {
        let root = workspace();
        let child = NewWorkspace { parent_id: Some(root.id), ..workspace() };
        let sibling = NewWorkspace { parent_id: Some(root.id), ..workspace() };
        let gone = NewWorkspace { parent_id: Some(root.id), status: Status::Removed, ..workspace() };
        let stranger = workspace();
        for (n, new) in [&root, &child, &sibling, &gone, &stranger].into_iter().enumerate() {
            insert(&store, new).await;
            for scope in Scope::ALL {
                let text = format!("{n} {scope}");
                store.insert_memory(&memory(new.id, &text, *scope, i64::try_from(n).unwrap())).await.unwrap();
            }
        }
        let seen = async |asker: &NewWorkspace, scope| {
            let query = MemoryQuery { team: asker.parent_id.unwrap_or(asker.id), ..query(asker.id, scope, "") };
            texts(&store, &query).await
        };
        assert_eq!(seen(&child, Some(Scope::Local)).await, ["1 LOCAL"]);
        assert_eq!(seen(&child, Some(Scope::Team)).await, ["2 TEAM", "1 TEAM", "0 TEAM"]);
        assert_eq!(seen(&root, Some(Scope::Team)).await, ["2 TEAM", "1 TEAM", "0 TEAM"]);
        assert_eq!(seen(&stranger, Some(Scope::Team)).await, ["4 TEAM"]);
        assert_eq!(seen(&stranger, Some(Scope::Global)).await.len(), 5);
        assert_eq!(seen(&child, None).await, ["1 GLOBAL", "1 TEAM", "1 LOCAL"]);
    }

    /// A team is a workspace and those right below it; whoever led one that is removed is in it no more
    async fn teams_are_one_level(store: Store) {
        let root = NewWorkspace { status: Status::Removed, ..workspace() };
        let child = NewWorkspace { parent_id: Some(root.id), ..workspace() };
        let grandchild = NewWorkspace { parent_id: Some(child.id), ..workspace() };
        for (n, new) in [&root, &child, &grandchild].into_iter().enumerate() {
            insert(&store, new).await;
            let text = format!("{n}");
            store.insert_memory(&memory(new.id, &text, Scope::Team, i64::try_from(n).unwrap())).await.unwrap();
        }
        let seen = async |asker: &NewWorkspace| {
            let team = asker.parent_id.unwrap_or(asker.id);
            texts(&store, &MemoryQuery { team, ..query(asker.id, Some(Scope::Team), "") }).await
        };
        assert_eq!(seen(&grandchild).await, ["2", "1"]);
        assert_eq!(seen(&child).await, ["1"], "neither what is gone nor what is two levels below its leader");
    }

    /// What all may read stays within an organisation that a token was bound to, for good; others share theirs
    async fn global_memories_stay_within_organisations(store: Store) {
        let org = workspace();
        let below = NewWorkspace { parent_id: Some(org.id), ..workspace() };
        // It was on top when it made its memory, and was moved.
        let moved = NewWorkspace { parent_id: Some(below.id), ..workspace() };
        let (one, other) = (workspace(), workspace());
        let all = [&org, &below, &moved, &one, &other];
        for (n, new) in all.into_iter().enumerate() {
            insert(&store, new).await;
            if new.id != below.id {
                let text = format!("word {n}");
                store.insert_memory(&memory(new.id, &text, Scope::Global, i64::try_from(n).unwrap())).await.unwrap();
            }
        }
        let seen = async |new: &NewWorkspace, text| texts(&store, &query(new.id, Some(Scope::Global), text)).await;
        let unbound = org_token(0, None);
        store.add_org_token(&unbound).await.unwrap();
        for new in all {
            assert_eq!(seen(new, "").await, ["word 4", "word 3", "word 2", "word 0"], "without an organisation all share");
        }
        let bound = org_token(1, Some(org.id));
        store.add_org_token(&bound).await.unwrap();
        for text in ["", "word", "w"] {
            for new in [&org, &below, &moved] {
                assert_eq!(seen(new, text).await, ["word 2", "word 0"], "{text:?}");
            }
            for new in [&one, &other] {
                assert_eq!(seen(new, text).await, ["word 4", "word 3"], "{text:?}");
            }
        }
        assert!(store.revoke_org_token(bound.id, at(2)).await.unwrap());
        assert_eq!(seen(&one, "").await, ["word 4", "word 3"], "a border does not fall with a token");
        store.add_org_token(&org_token(3, Some(one.id))).await.unwrap();
        assert_eq!(seen(&one, "").await, ["word 3"]);
        assert_eq!(seen(&other, "").await, ["word 4"]);
    }

    /// Memories are found by words in any form, in any order, and by nothing that would be an operator
    async fn memories_are_searched(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let contents =
            ["the Berlin office deployed and failed", "Größe: a 100% deploy_key", "deploying twice: deploy, deploy", "x"];
        for (n, content) in contents.iter().enumerate() {
            store.insert_memory(&memory(new.id, content, Scope::Local, i64::try_from(n).unwrap())).await.unwrap();
        }
        let found = async |text: &str| texts(&store, &query(new.id, None, text)).await;
        assert_eq!(found("").await.len(), 4);
        let mut deployed = found("deploy").await;
        assert_eq!(deployed.remove(0), contents[2], "the best comes first");
        assert!(deployed.contains(&contents[0].to_owned()), "{deployed:?}");
        assert_eq!(found("failed the BERLIN").await, [contents[0]]);
        assert_eq!(found("berlin twice").await, [] as [&str; 0], "all of the words");
        assert_eq!(found("größe").await, [contents[1]]);
        assert_eq!(found("%").await, [contents[1]]);
        assert_eq!(found("X").await, [contents[3]], "a single character, in whatever case");
        for odd in ["\"", "NEAR(", "a' OR '1'='1", "* ^ -", "deploy AND", "content:deploy", "\0\0"] {
            found(odd).await;
        }
        let few = MemoryQuery { limit: 1, ..query(new.id, None, "deploy") };
        assert_eq!(texts(&store, &few).await, [contents[2]]);
        let elsewhere = MemoryQuery { namespace: Some("other"), ..query(new.id, None, "deploy") };
        assert!(texts(&store, &elsewhere).await.is_empty());
    }

    /// A memory is deleted by its own workspace alone, and found no more
    async fn memories_are_forgotten(store: Store) {
        let (one, other) = (workspace(), NewWorkspace { status: Status::Removed, ..workspace() });
        insert(&store, &one).await;
        insert(&store, &other).await;
        let kept = memory(one.id, "a\0 secret plan", Scope::Global, 1);
        store.insert_memory(&kept).await.unwrap();
        store.insert_memory(&memory(other.id, "another plan", Scope::Global, 2)).await.unwrap();
        let seen = store.memories(&query(one.id, None, "plan")).await.unwrap();
        assert_eq!(seen, [Memory { content: "a\u{fffd} secret plan".to_owned(), ..kept.clone() }]);
        assert!(!store.delete_memory(other.id, kept.id).await.unwrap());
        assert!(store.delete_memory(one.id, kept.id).await.unwrap());
        assert!(!store.delete_memory(one.id, kept.id).await.unwrap());
        assert_eq!(texts(&store, &query(one.id, Some(Scope::Global), "plan")).await, ["another plan"]);
        store.purge(&[other.id]).await.unwrap();
        assert!(texts(&store, &query(one.id, Some(Scope::Global), "plan")).await.is_empty());
    }

    /// Memories are brought in once, however often and by however many
    async fn memories_are_imported_once(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let tries = join_all((0..6).map(|_| {
            let (store, memory) = (store.clone(), memory(new.id, "same", Scope::Team, 7));
            async move { store.import_memory(&memory).await.unwrap() }
        }));
        assert_eq!(tries.await.into_iter().filter(|kept| *kept).count(), 1);
        assert!(store.import_memory(&memory(new.id, "same", Scope::Local, 6)).await.unwrap());
        let all = store.all_memories().await.unwrap();
        let all: Vec<_> = all.iter().map(|memory| (memory.scope, memory.workspace_name.as_str())).collect();
        assert_eq!(all, [(Scope::Local, "näme"), (Scope::Team, "näme")]);
        assert_eq!(store.workspace_named("näme").await.unwrap(), Some(new.id));
        assert_eq!(store.workspace_named("\0").await.unwrap(), None);
    }

    /// Of verdicts on one request one is taken, and its event is recorded only with it
    async fn one_verdict(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let asked = Approval {
            id: ApprovalId::from_uuid(random_uuid(&SystemEntropy)),
            workspace_id: new.id,
            task_id: Some("t\0".to_owned()),
            action: "deploy".to_owned(),
            reason: None,
            status: ApprovalStatus::Pending,
            decided_by: None,
            decided_at: None,
            created_at: at(10),
        };
        store.insert_approval(&asked, Some(&json!({"a\0": 1})), &[event(new.id, 10)]).await.unwrap();
        let kept = store.approvals(new.id, 50).await.unwrap();
        assert_eq!(kept, [Approval { task_id: Some("t\u{fffd}".to_owned()), ..asked.clone() }]);
        assert_eq!(store.pending_approvals(50).await.unwrap()[0].workspace_name, new.name);
        let verdict = Verdict {
            id: asked.id,
            workspace_id: new.id,
            status: ApprovalStatus::Approved,
            decided_by: "human",
            at: at(20),
        };
        let late = store.decide_approval(&verdict, Some(at(10)), &event(new.id, 20)).await.unwrap();
        assert!(!late, "it was made too long ago");
        assert!(store.late_approvals(at(9), 50).await.unwrap().is_empty());
        assert_eq!(store.late_approvals(at(10), 50).await.unwrap().len(), 1);
        let tries = join_all((0..6).map(|n| {
            let (store, event) = (store.clone(), event(new.id, 30 + n));
            async move { store.decide_approval(&verdict, Some(at(9)), &event).await.unwrap() }
        }));
        assert_eq!(tries.await.into_iter().filter(|taken| *taken).count(), 1);
        assert_eq!(events(&store, new.id).await, 2);
        assert!(store.pending_approvals(50).await.unwrap().is_empty());
    }

    /// Of those who find a schedule due one takes the run
    async fn one_takes_a_run(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let schedule = Schedule {
            id: ScheduleId::from_uuid(random_uuid(&SystemEntropy)),
            workspace_id: new.id,
            name: "n".to_owned(),
            cron_expr: "* * * * *".to_owned(),
            timezone: "UTC".to_owned(),
            prompt: "x".to_owned(),
            enabled: true,
            last_run_at: None,
            next_run_at: Some(at(60)),
            run_count: 0,
            last_status: None,
            last_error: None,
            consecutive_empty_runs: 0,
            source: ScheduleSource::Runtime,
            created_at: at(0),
            updated_at: at(0),
        };
        assert!(store.insert_schedule(&schedule).await.unwrap());
        let twin = Schedule { id: ScheduleId::from_uuid(random_uuid(&SystemEntropy)), ..schedule.clone() };
        assert!(!store.insert_schedule(&twin).await.unwrap(), "its name is taken");
        assert!(store.due_schedules(at(59), 50, true).await.unwrap().is_empty());
        assert_eq!(store.due_schedules(at(60), 50, true).await.unwrap(), std::slice::from_ref(&schedule));
        assert!(store.due_schedules(at(60), 50, false).await.unwrap().is_empty(), "its workspace is managed");
        let tries = join_all((0..6).map(|_| {
            let store = store.clone();
            async move { store.claim_run(schedule.id, at(60), at(61), Some(at(120)), true).await.unwrap() }
        }));
        assert_eq!(tries.await.into_iter().filter(|taken| *taken).count(), 1);
        assert!(store.due_schedules(at(61), 50, true).await.unwrap().is_empty());
        let renamed = Schedule { name: "m".to_owned(), updated_at: at(62), ..schedule.clone() };
        let change = ScheduleChange { schedule: renamed, retimed: false };
        assert_eq!(store.update_schedule(&schedule, &change).await.unwrap(), ScheduleWritten::Done);
        let row = store.schedule(new.id, schedule.id).await.unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.next_run_at), ("m", Some(at(120))), "the run that was taken stays taken");
        assert_eq!(store.update_schedule(&schedule, &change).await.unwrap(), ScheduleWritten::Overtaken);
        assert!(store.claim_run(schedule.id, at(120), at(121), Some(at(180)), false).await.unwrap());
        let row = store.schedule(new.id, schedule.id).await.unwrap().unwrap();
        assert_eq!((row.last_run_at, row.next_run_at), (Some(at(61)), Some(at(180))), "it was let go by");
        let told = event(new.id, 62);
        store.finish_run(schedule.id, RunStatus::Error, Some("no\0"), 2, &told).await.unwrap();
        let row = store.schedule(new.id, schedule.id).await.unwrap().unwrap();
        assert_eq!((row.run_count, row.last_status, row.consecutive_empty_runs), (1, Some(RunStatus::Error), 2));
        assert_eq!((row.last_error.as_deref(), row.last_run_at), (Some("no\u{fffd}"), Some(at(61))));
        store.disable_schedule(schedule.id, "bad").await.unwrap();
        assert!(store.due_schedules(at(999), 50, true).await.unwrap().is_empty());
        assert!(!store.claim_run(schedule.id, at(180), at(181), None, true).await.unwrap(), "it is switched off");
        assert!(!store.delete_schedule(id(), schedule.id).await.unwrap());
        assert!(store.delete_schedule(new.id, schedule.id).await.unwrap());
    }

    /// The runs of a schedule are found among any number of others
    async fn finds_runs(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let [often, rarely] = [(); 2].map(|()| ScheduleId::from_uuid(random_uuid(&SystemEntropy)));
        for n in 0..30 {
            let id = if n == 0 { rarely } else { often };
            let row = NewActivity {
                request_body: Some(json!({"schedule_id": id, "n": n})),
                ..activity(new.id, "cron_run", n)
            };
            store.insert_activity(&row).await.unwrap();
        }
        let found = async |id| {
            let runs = store.cron_runs(new.id, id, 20).await.unwrap();
            runs.iter().map(|run| run.request_body.as_ref().unwrap()["n"].as_i64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found(rarely).await, [0]);
        assert_eq!(found(often).await, (10..30).rev().collect::<Vec<_>>());
    }
}

fn value<'a>(
    workspace_id: WorkspaceId,
    key: &'a str,
    value: &'a Value,
    expires_at: Option<DateTime<Utc>>,
    seconds: i64,
) -> NewValue<'a> {
    NewValue { workspace_id, key, value, expires_at, now: at(seconds) }
}

fn memory(workspace_id: WorkspaceId, content: &str, scope: Scope, seconds: i64) -> Memory {
    Memory {
        id: MemoryId::from_uuid(random_uuid(&SystemEntropy)),
        workspace_id,
        content: content.to_owned(),
        scope,
        namespace: "general".to_owned(),
        created_at: at(seconds),
    }
}

fn query(asker: WorkspaceId, scope: Option<Scope>, text: &str) -> MemoryQuery<'static> {
    MemoryQuery { scope, asker, team: asker, namespace: None, search: Search::of(text), limit: 50 }
}

async fn texts(store: &Store, query: &MemoryQuery<'_>) -> Vec<String> {
    store.memories(query).await.unwrap().into_iter().map(|memory| memory.content).collect()
}
