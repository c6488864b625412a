//! What agents did, and the log of events.

use super::{StoreCase, at, cases, event, id, insert, newest, workspace};
use chrono::DateTime;
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    a2a::NewItem,
    activity::{NewActivity, Page, Source},
    clock::{SystemEntropy, random_uuid},
    events::{Event, Which},
    id::{ActivityId, MemoryId, QueueId, WorkspaceId},
    memory::{Memory, Scope},
    store::{NewWorkspace, Store, suite_access as gate},
    workspace::Status,
};

cases! {
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
        assert_eq!(kept[0].response_body, Some(Value::Null), "a null that was said is not what nobody said");
        assert_eq!((kept[0].duration_ms, kept[0].status.as_str()), (Some(7), "error"));
        assert_eq!(store.activity_time(new.id, row.id).await.unwrap(), Some(at(5)));
        assert_eq!(store.activity_time(other, row.id).await.unwrap(), None);
        let nowhere = store.insert_activity(&activity(other, "error", 1)).await.unwrap_err();
        assert_eq!(nowhere.kind(), crate::ErrorKind::NotFound);
    }

    /// Whoever leaves while they write holds nobody up, and takes nothing of what others write along
    async fn who_leaves_holds_nobody_up(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        for step in 0..100 {
            let row = activity(new.id, "a2a_receive", step);
            let mut writing = Box::pin(store.insert_activity(&row));
            for _ in 0..step {
                // Where it was done in time it is just another row.
                if futures_util::poll!(&mut writing).is_ready() {
                    break;
                }
                // As often as it takes for what came over the network to be looked at.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }
            drop(writing);
            store.touch_outbound(new.id, at(step)).await.unwrap();
            for seen in join_all((0..4).map(|_| store.workspace(new.id))).await {
                assert_eq!(seen.unwrap().unwrap().last_outbound_at, Some(at(step)), "what was written is seen");
            }
        }
    }

    /// Whoever holds a delegation says that it is carried out, and whoever held it before cannot
    async fn delegations_are_held(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let row = NewActivity {
            method: Some("delegate".to_owned()),
            delegation_id: Some("d".to_owned()),
            status: "pending".to_owned(),
            ..activity(new.id, "delegation", 0)
        };
        let (first, second) = (random_uuid(&SystemEntropy), random_uuid(&SystemEntropy));
        store.begin_delegation(&row, &event(new.id, 0), Some(first)).await.unwrap();
        let orphans = async |before| store.orphaned_delegations(at(before), 10).await.unwrap();
        store.renew_delegation(new.id, "d", first, at(10)).await.unwrap();
        assert!(orphans(10).await.is_empty());
        let orphan = orphans(11).await.remove(0);
        assert!(store.take_delegation(&orphan, second, at(20)).await.unwrap());
        assert!(!store.take_delegation(&orphan, first, at(20)).await.unwrap(), "one takes it");
        store.renew_delegation(new.id, "d", first, at(30)).await.unwrap();
        assert_eq!(orphans(21).await.len(), 1, "it is no more the first one's");
        store.renew_delegation(new.id, "d", second, at(30)).await.unwrap();
        assert!(orphans(30).await.is_empty());
    }

    /// Messages are claimed by their urgency, then by their age, and those that expired not at all
    async fn messages_have_priorities(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let mut expected = Vec::new();
        for (n, (priority, expires)) in
            [(50, None), (10, None), (100, None), (50, None), (100, Some(at(9))), (100, None)].into_iter().enumerate()
        {
            let item = NewItem {
                id: QueueId::from_uuid(random_uuid(&SystemEntropy)),
                workspace_id: new.id,
                caller_id: None,
                sender: None,
                protocol: None,
                priority,
                body: json!({"n": n}),
                method: "message/send".to_owned(),
                idempotency_key: None,
                enqueued_at: at(i64::try_from(n).unwrap()),
                expires_at: expires,
                claim: None,
            };
            let row = activity(new.id, "a2a_receive", 0);
            store.enqueue(&item, &row).await.unwrap();
            expected.push(item.id);
        }
        let mut claimed = Vec::new();
        while let Some(item) = store.claim_item(new.id, random_uuid(&SystemEntropy), at(10)).await.unwrap() {
            claimed.push(item.id);
        }
        assert_eq!(claimed, [2, 5, 0, 3, 1].map(|n: usize| expected[n]));
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
        let other = workspace();
        insert(&store, &other).await;
        for (n, of, content) in [(1, new.id, "remember to DEPLOY"), (2, other.id, "deploy elsewhere")] {
            let memory = Memory {
                id: MemoryId::from_uuid(Uuid::from_u128(n)),
                workspace_id: of,
                content: content.to_owned(),
                scope: Scope::Local,
                namespace: "general".to_owned(),
                created_at: at(9),
            };
            store.insert_memory(&memory).await.unwrap();
        }
        let found = store.search_session(new.id, "deploy", 10).await.unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!((found[0].kind.as_str(), found[0].label.as_str()), ("memory", "LOCAL"));
        assert_eq!((found[0].content.as_str(), found[0].created_at), ("remember to DEPLOY", at(9)));
        assert_eq!((&found[0].request_body, &found[0].response_body), (&None, &None));
        assert_eq!(found[1].kind, "activity");
        let found = store.search_session(new.id, "agent_log", 1).await.unwrap();
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

pub(super) fn activity(workspace_id: WorkspaceId, activity_type: &str, seconds: i64) -> NewActivity {
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
