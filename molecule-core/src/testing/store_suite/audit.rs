//! What agents answer for, and what the operator tells them.

use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::{StoreCase, at, cases, id, insert, workspace};
use crate::{
    audit::{AuditEvent, AuditKey, Operation, Window, judge},
    clock::{SystemEntropy, random_uuid},
    id::{InstructionId, WorkspaceId},
    records::Instruction,
    store::{NewWorkspace, Store, suite_access as behind},
    workspace::Status,
};

cases! {
    /// A step reads back as it was kept, without what a database refuses, and whatever it holds its signature is right
    async fn keeps_steps(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        let odd = AuditEvent {
            session_id: "s\0 <ünï> 🦀".to_owned(),
            model_used: Some("m\0".to_owned()),
            risk_flag: true,
            ..step(new.id, "a\0", 7)
        };
        let kept = store.append_audit(odd, Some(&key())).await.unwrap();
        assert_eq!((kept.session_id.as_str(), kept.timestamp), ("s\u{fffd} <ünï> 🦀", at(7)));
        let (rows, total) = store.audit(new.id, &window()).await.unwrap();
        assert_eq!((&rows[0].event, total), (&kept, 1));
        assert_eq!(judge(&key(), &rows), Some(true));
        let nowhere = store.append_audit(step(id(), "a", 1), Some(&key())).await.unwrap_err();
        assert_eq!(nowhere.kind(), crate::ErrorKind::NotFound);
    }

    /// The steps of an agent stand behind one another, however many write at once, and those of others beside them
    async fn one_stands_behind_another(store: Store) {
        let (new, other) = (workspace(), workspace());
        insert(&store, &new).await;
        insert(&store, &other).await;
        let key = key();
        let wrote = join_all((0..24).map(|n: usize| {
            let (store, key) = (store.clone(), key.clone());
            let of = if n.is_multiple_of(4) { other.id } else { new.id };
            async move { store.append_audit(step(of, ["a", "b"][n % 2], 5), Some(&key)).await.unwrap() }
        }));
        assert_eq!(wrote.await.len(), 24);
        for (of, agents, count) in [(new.id, &["a", "b"][..], 18), (other.id, &["a"][..], 6)] {
            let (rows, total) = store.audit(of, &window()).await.unwrap();
            assert_eq!((rows.len(), total), (count, count as i64));
            assert_eq!(judge(&key, &rows), Some(true));
            for agent in agents {
                let chain: Vec<_> = rows.iter().map(|row| &row.event).filter(|event| event.agent_id == *agent).collect();
                assert_eq!(chain[0].prev_hmac, None);
                for pair in chain.windows(2) {
                    assert_eq!(pair[1].prev_hmac, pair[0].hmac);
                    assert!(pair[0].timestamp < pair[1].timestamp);
                }
            }
        }
    }

    /// A ledger is read by agent, session and time, page by page, and what is seen of a chain is checked with what is not
    async fn ledgers_have_windows(store: Store) {
        let new = workspace();
        insert(&store, &new).await;
        for n in 0..12_usize {
            let session_id = ["s", "t", "u"][n % 3].to_owned();
            let step = AuditEvent { session_id, ..step(new.id, ["a", "b"][n / 2 % 2], n as i64) };
            store.append_audit(step, Some(&key())).await.unwrap();
        }
        let seen = async |window: Window| {
            let (rows, total) = store.audit(new.id, &window).await.unwrap();
            assert_eq!(judge(&key(), &rows), Some(true), "{window:?}");
            (rows.iter().map(|row| (row.event.timestamp - at(0)).num_seconds()).collect::<Vec<_>>(), total)
        };
        assert_eq!(seen(Window { agent_id: "a".into(), ..window() }).await, (vec![0, 1, 4, 5, 8, 9], 6));
        assert_eq!(seen(Window { session_id: "t".into(), ..window() }).await, (vec![1, 4, 7, 10], 4));
        let both = Window { agent_id: "a".into(), session_id: "t".into(), ..window() };
        assert_eq!(seen(both).await, (vec![1, 4], 2));
        assert_eq!(seen(Window { from: at(3), to: at(6), ..window() }).await, (vec![3, 4, 5], 3));
        assert_eq!(seen(Window { from: at(3), limit: 2, offset: 1, ..window() }).await, (vec![4, 5], 9));
        assert_eq!(seen(Window { agent_id: "' OR 1=1".into(), ..window() }).await, (vec![], 0));
    }

    /// A ledger that was changed behind the back of the server is noticed, whatever was changed
    async fn changed_ledgers_are_noticed(store: Store) {
        let changes = [
            "UPDATE audit_events SET id = 'another'",
            "UPDATE audit_events SET agent_id = 'another'",
            "UPDATE audit_events SET session_id = 'another'",
            "UPDATE audit_events SET operation = 'llm_call'",
            "UPDATE audit_events SET input_hash = 'another'",
            "UPDATE audit_events SET output_hash = 'another'",
            "UPDATE audit_events SET model_used = 'another'",
            "UPDATE audit_events SET human_oversight_flag = TRUE",
            "UPDATE audit_events SET risk_flag = TRUE",
            "UPDATE audit_events SET prev_hmac = NULL",
            "UPDATE audit_events SET hmac = 'another'",
            "UPDATE audit_events SET timestamp = (SELECT MAX(timestamp) FROM audit_events)",
            "DELETE FROM audit_events",
        ];
        for change in changes {
            let new = workspace();
            insert(&store, &new).await;
            let mut second = String::new();
            for n in 0..3 {
                let kept = store.append_audit(step(new.id, "a", n), Some(&key())).await.unwrap();
                if n == 1 {
                    second = kept.id;
                }
            }
            let judged = async || judge(&key(), &store.audit(new.id, &window()).await.unwrap().0);
            assert_eq!(judged().await, Some(true));
            behind::run(&store, &format!("{change} WHERE id = '{second}'")).await;
            assert_eq!(judged().await, Some(false), "{change}");
            store.append_audit(step(new.id, "a", 9), Some(&key())).await.unwrap();
            assert_eq!(judged().await, Some(false), "what is added later hides nothing: {change}");
            behind::run(&store, "DELETE FROM audit_events").await;
        }
    }

    /// Without a key steps are kept unsigned, a chain begins with the first that is signed, and a purge takes all
    async fn steps_may_be_unsigned(store: Store) {
        let new = NewWorkspace { status: Status::Removed, ..workspace() };
        insert(&store, &new).await;
        let unsigned = store.append_audit(step(new.id, "a", 1), None).await.unwrap();
        assert_eq!((unsigned.hmac, unsigned.prev_hmac), (None, None));
        let first = store.append_audit(step(new.id, "a", 1), Some(&key())).await.unwrap();
        assert!(first.prev_hmac.is_none() && first.timestamp > at(1));
        store.append_audit(step(new.id, "a", 2), None).await.unwrap();
        let second = store.append_audit(step(new.id, "a", 2), Some(&key())).await.unwrap();
        assert_eq!(second.prev_hmac, first.hmac);
        let rows = store.audit(new.id, &window()).await.unwrap().0;
        assert_eq!((rows.len(), judge(&key(), &rows)), (4, None));
        let signed: Vec<_> = rows.into_iter().filter(|row| row.event.hmac.is_some()).collect();
        assert_eq!(judge(&key(), &signed), Some(true));
        store.purge(&[new.id]).await.unwrap();
        assert_eq!(store.audit(new.id, &window()).await.unwrap().1, 0);
    }

    /// A workspace is told what is for everyone, then what is for those above it, from the top down to its own, in order
    async fn instructions_apply(store: Store) {
        let top = workspace();
        let child = NewWorkspace { parent_id: Some(top.id), ..workspace() };
        let beside = NewWorkspace { parent_id: Some(top.id), ..workspace() };
        for new in [&top, &child, &beside] {
            insert(&store, new).await;
        }
        let made = [
            instruction(Some(child.id), "own\0", 0, 1),
            instruction(Some(top.id), "above, later", 5, 2),
            instruction(Some(top.id), "above", -5, 3),
            instruction(None, "all, made later", 0, 5),
            instruction(None, "all", 0, 4),
            instruction(Some(beside.id), "beside", -9, 1),
        ];
        for instruction in &made {
            store.insert_instruction(instruction).await.unwrap();
        }
        let told = async |of: WorkspaceId| {
            let told = store.instructions_for(of).await.unwrap();
            told.into_iter().map(|instruction| instruction.content).collect::<Vec<_>>()
        };
        let above = ["all", "all, made later", "above", "above, later"];
        assert_eq!(told(top.id).await, above);
        assert_eq!(told(child.id).await, [&above[..], &["own\u{fffd}"]].concat());
        assert_eq!(told(id()).await, above[..2]);
        assert_eq!(store.instructions().await.unwrap().len(), made.len());
        let moved = Instruction { updated_at: at(9), content: "moved".into(), ..instruction(None, "", -1, 9) };
        let moved = Instruction { id: made[1].id, ..moved };
        assert_eq!(store.replace_instruction(&moved).await.unwrap(), Some(at(2)));
        let expected = Instruction { created_at: at(2), ..moved.clone() };
        assert_eq!(store.instruction(moved.id).await.unwrap(), Some(expected));
        assert_eq!(told(top.id).await, ["moved", "all", "all, made later", "above"]);
        let nowhere = store.insert_instruction(&instruction(Some(id()), "x", 0, 1)).await.unwrap_err();
        assert_eq!(nowhere.kind(), crate::ErrorKind::NotFound);
        assert!(store.delete_instruction(moved.id).await.unwrap());
        assert!(!store.delete_instruction(moved.id).await.unwrap());
        assert_eq!(store.replace_instruction(&moved).await.unwrap(), None);
        assert_eq!(store.instruction(moved.id).await.unwrap(), None);
    }
}

fn key() -> AuditKey {
    static KEY: std::sync::LazyLock<AuditKey> = std::sync::LazyLock::new(|| AuditKey::derive(&"suite".into()));
    KEY.clone()
}

fn step(workspace_id: WorkspaceId, agent_id: &str, seconds: i64) -> AuditEvent {
    AuditEvent {
        id: random_uuid(&SystemEntropy).to_string(),
        timestamp: at(seconds),
        agent_id: agent_id.to_owned(),
        session_id: "s".to_owned(),
        operation: Operation::ToolCall,
        input_hash: None,
        output_hash: None,
        model_used: None,
        human_oversight_flag: false,
        risk_flag: false,
        prev_hmac: None,
        hmac: None,
        workspace_id,
    }
}

fn window() -> Window {
    let (from, to) = (DateTime::<Utc>::UNIX_EPOCH, at(1_000_000));
    Window { agent_id: String::new(), session_id: String::new(), from, to, limit: 100, offset: 0 }
}

fn instruction(workspace_id: Option<WorkspaceId>, content: &str, position: i32, seconds: i64) -> Instruction {
    Instruction {
        id: InstructionId::from_uuid(random_uuid(&SystemEntropy)),
        workspace_id,
        content: content.to_owned(),
        position,
        created_at: at(seconds),
        updated_at: at(seconds),
    }
}
