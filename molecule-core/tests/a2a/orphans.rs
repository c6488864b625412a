//! Delegations whose server died, and those whose message will not be answered any more.

use molecule_core::store::{Engine, gate};

use super::{delegating::task, *};

const LEASE: Duration = Duration::from_secs(121);

fn sweeping() -> Config {
    Config { queue_tick: Duration::from_millis(20), ..config() }
}

/// Changes one row of the workspace `of`.
async fn execute(store: &Store, sql: &'static str, of: WorkspaceId, with: &str) {
    let changed = match store.engine() {
        Engine::Sqlite => {
            let changed = sqlx::query(sql).bind(of).bind(with).execute(gate::sqlite(store).unwrap()).await;
            changed.unwrap().rows_affected()
        }
        Engine::Postgres => {
            let changed = sqlx::query(sql).bind(of).bind(with).execute(gate::postgres(store).unwrap()).await;
            changed.unwrap().rows_affected()
        }
    };
    assert_eq!(changed, 1, "{sql}");
}

/// As if the server had died before it kept the outcome of the only delegation of `source`, which had `status` then.
async fn forget_outcome(store: &Store, source: &Member, status: &str) {
    let outcome = "DELETE FROM activity_logs WHERE workspace_id = $1 AND method = $2";
    execute(store, outcome, source.id, "delegate_result").await;
    let set_back = "UPDATE activity_logs SET status = $2 WHERE workspace_id = $1";
    let claim = "INSERT INTO delegation_claims (workspace_id, delegation_id, claim, renewed_at) \
                 SELECT workspace_id, delegation_id, id, created_at FROM activity_logs \
                 WHERE workspace_id = $1 AND status = $2";
    for sql in [set_back, claim] {
        execute(store, sql, source.id, status).await;
    }
}

/// One server dies while an agent has a task. Of those that go on one says so, and none hands it over again.
#[tokio::test]
async fn a_task_whose_server_died_is_not_done_twice() {
    on_both(async |store| {
        let dying = Bench::over(store.clone(), Config { a2a_idle: Duration::from_secs(3600), ..config() });
        let agent = Agent::start([Act::Hang], ok()).await;
        let (source, target) = (dying.member("lead", None).await, dying.member("target", Some(agent.url())).await);
        let begun = dying.control_plane.delegate(source.id, task(&target, "count", Some("k"))).await.unwrap();
        until("the agent has it", async || (agent.seen().len() == 1).then_some(())).await;

        let others = [(); 3].map(|()| Bench::at(store.clone(), sweeping(), dying.clock.clone()));
        for other in &others {
            other.control_plane.start();
        }
        dying.clock.advance(Duration::from_secs(119));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let rows = others[0].control_plane.delegations(source.id).await.unwrap();
        assert_eq!((rows.len(), rows[0].status.as_str()), (1, "dispatched"), "its server may live");

        dying.clock.advance(LEASE);
        let rows = others[0].until_delegation(&source, "failed").await;
        let said = "the server died while the agent had the task; it may have been done";
        assert_eq!(rows[1].error_detail.as_deref(), Some(said));
        assert_eq!(rows[1].response_body, Some(json!({"delegation_id": begun.id})));
        dying.clock.advance(2 * LEASE);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let told = others[1].told(&source).await;
        assert_eq!(told.iter().filter(|(kind, _)| kind == "DELEGATION_FAILED").count(), 1, "{told:?}");
        assert_eq!(others[2].control_plane.delegations(source.id).await.unwrap().len(), 2);
        assert_eq!(agent.seen().len(), 1);
        // Whoever wants it done all the same asks again.
        let again = others[0].control_plane.delegate(source.id, task(&target, "count", Some("k"))).await.unwrap();
        assert!(!again.is_repeat);
        others[0].until_delegation(&source, "completed").await;
        for other in others {
            other.down().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_that_was_answered_before_its_server_died_is_completed() {
    on_both(async |store| {
        let bench = Bench::over(store.clone(), sweeping());
        let agent = Agent::start([], ok()).await;
        let (source, target) = (bench.member("lead", None).await, bench.member("target", Some(agent.url())).await);
        let begun = bench.control_plane.delegate(source.id, task(&target, "count", None)).await.unwrap();
        bench.until_delegation(&source, "completed").await;
        bench.newest(&target, 1).await;

        // As if the server had died before it kept the outcome.
        forget_outcome(&store, &source, "dispatched").await;
        bench.clock.advance(LEASE);
        bench.control_plane.start();
        let rows = bench.until_delegation(&source, "completed").await;
        assert_eq!(rows[1].response_body, Some(json!({"text": "done", "delegation_id": begun.id})));
        assert_eq!((rows.len(), agent.seen().len()), (2, 1));
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_task_that_was_not_sent_before_its_server_died_is_sent() {
    on_both(async |store| {
        let bench = Bench::over(store.clone(), sweeping());
        let agent = Agent::start([Act::Close], ok()).await;
        let (source, target) = (bench.member("lead", None).await, bench.member("target", Some(agent.url())).await);
        bench.control_plane.delegate(source.id, task(&target, "count", None)).await.unwrap();
        bench.until_delegation(&source, "queued").await;
        // As if the server had died before all of that.
        forget_outcome(&store, &source, "pending").await;
        execute(&store, "DELETE FROM a2a_queue WHERE workspace_id = $1 AND method = $2", target.id, "message/send")
            .await;
        bench.clock.advance(LEASE);
        bench.control_plane.start();
        let rows = bench.until_delegation(&source, "completed").await;
        assert_eq!((rows.len(), agent.seen().len()), (2, 2));
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_task_whose_message_is_dropped_has_failed() {
    on_both(async |store| {
        let bench = Bench::over(store, sweeping());
        let agent = Agent::start([], Act::Close).await;
        let (source, target) = (bench.member("lead", None).await, bench.member("target", Some(agent.url())).await);
        bench.control_plane.delegate(source.id, task(&target, "count", None)).await.unwrap();
        bench.until_delegation(&source, "queued").await;
        bench.control_plane.delete(target.id, false, false).await.unwrap();
        bench.control_plane.start();
        let rows = bench.until_delegation(&source, "failed").await;
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert!(rows[1].error_detail.as_deref().unwrap_or_default().contains("its workspace is gone"), "{rows:?}");
        bench.down().await;
    })
    .await;
}
