//! Tasks that agents hand to one another, and what becomes of them.

use molecule_core::delegation::{DelegationUpdate, Recorded};

use super::*;

pub(crate) fn task(target: &Member, task: &str, key: Option<&str>) -> Delegate {
    Delegate { target_id: target.id.to_string(), task: task.to_owned(), idempotency_key: key.map(str::to_owned) }
}

impl Bench {
    /// The rows of delegations, once the newest has this status: status and method of each, oldest first.
    pub(crate) async fn until_delegation(&self, of: &Member, status: &str) -> Vec<Activity> {
        until(&format!("the newest row is {status}"), async || {
            let mut rows = self.control_plane.delegations(of.id).await.unwrap();
            rows.reverse();
            rows.last().is_some_and(|row| row.status == status).then_some(rows)
        })
        .await
    }

    pub(crate) async fn told(&self, of: &Member) -> Vec<(String, Value)> {
        let events = self.control_plane.events(Some(of.id), 100).await.unwrap();
        let told = events.into_iter().rev().filter(|event| event.event_type.starts_with("DELEGATION"));
        told.map(|event| (event.event_type, event.payload.unwrap())).collect()
    }
}

#[tokio::test]
async fn a_task_is_handed_over_and_its_reply_is_kept() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([], ok()).await;
        let (source, target) = (bench.member("lead", None).await, bench.member("target", Some(agent.url())).await);
        let begun = bench.control_plane.delegate(source.id, task(&target, "count", Some("k"))).await.unwrap();
        assert_eq!((begun.status.as_str(), begun.target, begun.is_repeat), ("delegated", target.id, false));
        let rows = bench.until_delegation(&source, "completed").await;
        assert_eq!(rows.len(), 2);
        let id = begun.id.as_str();
        assert_eq!((rows[0].method.as_deref(), rows[0].status.as_str()), (Some("delegate"), "completed"));
        assert_eq!(rows[0].request_body, Some(json!({"task": "count", "delegation_id": id})));
        assert_eq!(rows[1].method.as_deref(), Some("delegate_result"));
        assert_eq!(rows[1].response_body, Some(json!({"text": "done", "delegation_id": id})));
        assert_eq!(rows[1].summary.as_deref(), Some("Delegation completed (done)"));
        let message = &agent.seen()[0]["params"]["message"];
        let expected = json!({"role": "user", "messageId": id, "parts": [{"type": "text", "text": "count"}],
            "metadata": {"delegation_id": id}});
        assert_eq!(message, &expected);
        let target_id = target.id;
        let expected = [
            ("SENT", json!({"delegation_id": id, "target_id": target_id, "task_preview": "count"})),
            ("STATUS", json!({"delegation_id": id, "target_id": target_id, "status": "dispatched"})),
            ("COMPLETE", json!({"delegation_id": id, "target_id": target_id, "response_preview": "done"})),
        ];
        assert_eq!(bench.told(&source).await, expected.map(|(kind, payload)| (format!("DELEGATION_{kind}"), payload)));

        let again = bench.control_plane.delegate(source.id, task(&target, "count", Some("k"))).await.unwrap();
        assert_eq!((again.id.as_str(), again.status.as_str(), again.is_repeat), (id, "completed", true));
        for other in [task(&target, "sing", Some("k")), task(&bench.member("o", None).await, "count", Some("k"))] {
            let error = bench.control_plane.delegate(source.id, other).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
        assert_eq!(agent.seen().len(), 1);
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn of_repeats_that_race_one_delegates() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([], ok()).await;
        let (source, target) = (bench.member("lead", None).await, bench.member("target", Some(agent.url())).await);
        let tries = (0..8).map(|_| bench.control_plane.delegate(source.id, task(&target, "count", Some("k"))));
        let begun: Vec<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(begun.iter().filter(|begun| !begun.is_repeat).count(), 1, "{begun:?}");
        assert!(begun.iter().all(|other| other.id == begun[0].id));
        bench.until_delegation(&source, "completed").await;
        assert_eq!(agent.seen().len(), 1);
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn what_fails_is_tried_once_more_only_where_it_did_not_arrive() {
    let bench = Bench::over(
        Store::connect("sqlite::memory:").await.unwrap(),
        Config { delegation_retry: Duration::from_millis(20), ..config() },
    );
    let source = bench.member("lead", None).await;
    let failing = Agent::start([Act::CloseAfterHead(200)], ok()).await;
    let target = bench.member("target", Some(failing.url())).await;
    let first = bench.control_plane.delegate(source.id, task(&target, "count", Some("k"))).await.unwrap();
    let rows = bench.until_delegation(&source, "failed").await;
    assert_eq!(rows[1].error_detail.as_deref(), Some("failed to read agent response"));
    assert_eq!(rows[1].response_body, Some(json!({"delegation_id": first.id})));
    assert_eq!(failing.seen().len(), 1, "it has the task");
    assert_eq!(bench.told(&source).await[2].0, "DELEGATION_FAILED");

    // One that failed does not stand in the way of another try.
    let second = bench.control_plane.delegate(source.id, task(&target, "count", Some("k"))).await.unwrap();
    assert!(!second.is_repeat && second.id != first.id);
    bench.until_delegation(&source, "completed").await;

    // Nobody listens at first; before the second try somebody does.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let absent = bench.member("absent", Some(format!("http://127.0.0.1:{port}/"))).await;
    bench.control_plane.delegate(source.id, task(&absent, "count", None)).await.unwrap();
    let rows = bench.until_delegation(&source, "failed").await;
    assert_eq!(rows.last().unwrap().error_detail.as_deref(), Some("failed to reach workspace agent"));
    assert_eq!(bench.log(&absent).await.len(), 2, "it was called twice");
    bench.down().await;
}

#[tokio::test]
async fn a_task_for_a_busy_agent_is_done_when_it_has_time() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([Act::Close], ok()).await;
        let (source, target) = (bench.member("lead", None).await, bench.member("target", Some(agent.url())).await);
        let begun = bench.control_plane.delegate(source.id, task(&target, "count", None)).await.unwrap();
        let rows = bench.until_delegation(&source, "queued").await;
        assert_eq!(rows[1].response_body, Some(json!({"delegation_id": begun.id, "queued": true})));
        bench.beat(&target).await;
        let rows = bench.until_delegation(&source, "completed").await;
        assert_eq!(rows.len(), 2, "the outcome takes the place of the wait");
        assert_eq!(rows[0].status, "completed");
        assert_eq!(rows[1].response_body, Some(json!({"text": "done", "delegation_id": begun.id})));
        let (kind, payload) = bench.told(&source).await.pop().unwrap();
        assert_eq!((kind.as_str(), &payload["via"]), ("DELEGATION_COMPLETE", &json!("queue_drain")));
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn delegations_are_refused_recorded_and_updated() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let (source, target) = (bench.member("lead", None).await, bench.member("target", None).await);
        let below = CreateWorkspace {
            name: "below".to_owned(),
            external: true,
            parent_id: Some(target.id),
            ..CreateWorkspace::default()
        };
        let below = bench.control_plane.create(below).await.unwrap().workspace.id;
        let request = |target_id: &str, task: &str| Delegate {
            target_id: target_id.to_owned(),
            task: task.to_owned(),
            idempotency_key: None,
        };
        let own = source.id.to_string();
        for (refused, kind, said) in [
            (request("x", "t"), ErrorKind::InvalidInput, "target_id must be a valid UUID"),
            (request("", "t"), ErrorKind::InvalidInput, "invalid delegation request"),
            (request(&own, ""), ErrorKind::InvalidInput, "invalid delegation request"),
            (request(&own, "t"), ErrorKind::InvalidInput, "self-delegation not permitted"),
            (
                request(&below.to_string(), "t"),
                ErrorKind::PermissionDenied,
                "access denied: workspaces cannot communicate per hierarchy rules",
            ),
        ] {
            let error = bench.control_plane.delegate(source.id, refused).await.unwrap_err();
            assert_eq!((error.kind(), error.message()), (kind, said));
        }
        assert!(bench.control_plane.delegations(source.id).await.unwrap().is_empty());
        // No key and no id is too long for an index.
        let long = "k".repeat(100_000);
        let taken = bench.control_plane.delegate(source.id, task(&target, "t", Some(&long))).await.unwrap();
        let again = bench.control_plane.delegate(source.id, task(&target, "t", Some(&long))).await.unwrap();
        assert_eq!((taken.id, true), (again.id, again.is_repeat));
        let recorded = Recorded { target_id: target.id.to_string(), task: "t".to_owned(), delegation_id: long };
        let error = bench.control_plane.record_delegation(source.id, &recorded).await.unwrap_err();
        assert_eq!(error.message(), "delegation_id must be <= 200 characters");
        let rows = bench.until_delegation(&source, "queued").await;
        assert_eq!(rows.len(), 2);

        let recorded =
            Recorded { target_id: target.id.to_string(), task: "t\0".to_owned(), delegation_id: "own-1".to_owned() };
        bench.control_plane.record_delegation(source.id, &recorded).await.unwrap();
        let update = |status: &str| DelegationUpdate {
            status: status.to_owned(),
            response_preview: "fine".to_owned(),
            ..DelegationUpdate::default()
        };
        let update_as =
            async |id: &str, status: &str| bench.control_plane.update_delegation(source.id, id, &update(status)).await;
        let error = update_as("own-1", "half").await.unwrap_err();
        assert_eq!(error.message(), "status must be 'completed' or 'failed'");
        assert_eq!(update_as("own-2", "completed").await.unwrap_err().kind(), ErrorKind::NotFound);
        for _ in 0..2 {
            update_as("own-1", "completed").await.unwrap();
        }
        let rows = bench.until_delegation(&source, "completed").await;
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[3].response_body, Some(json!({"text": "fine", "delegation_id": "own-1"})));
        let told = bench.told(&source).await;
        let (kind, payload) = told.last().unwrap();
        assert_eq!(kind, "DELEGATION_COMPLETE");
        assert_eq!(payload, &json!({"delegation_id": "own-1", "response_preview": "fine"}));
        assert_eq!(told.len(), 5);
        bench.down().await;
    })
    .await;
}
