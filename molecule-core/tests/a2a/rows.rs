//! What else is promised of calls, of what waits, and of what is kept of both.

use molecule_core::{
    a2a::{Sender, System},
    activity::Report,
    registry::Register,
    store::{Engine, gate},
    workspace::DeliveryMode,
};

use super::{delegating::task, *};

async fn execute(store: &Store, sql: &'static str) {
    match store.engine() {
        Engine::Sqlite => drop(sqlx::query(sql).execute(gate::sqlite(store).unwrap()).await.unwrap()),
        Engine::Postgres => drop(sqlx::query(sql).execute(gate::postgres(store).unwrap()).await.unwrap()),
    }
}

/// An answer with what it says to have used.
fn used(input: i64, output: i64) -> Act {
    let answer = json!({"result": {"parts": [], "usage": {"input_tokens": input, "output_tokens": output}}});
    Act::Answer(200, answer.to_string())
}

impl Bench {
    async fn call_as(&self, target: &Member, sender: Sender, body: &Value) -> Result<Answer, Error> {
        let body = Bytes::from(body.to_string());
        self.control_plane.call(Call { target: target.id, sender, body, protocol: None, deadline: None }).await
    }
}

#[tokio::test]
async fn an_answer_may_have_its_limit_and_not_a_byte_more() {
    const LIMIT: usize = 10 * 1024 * 1024;
    let bench = Bench::over(
        Store::connect("sqlite::memory:").await.unwrap(),
        Config { a2a_idle: Duration::from_secs(60), ..config() },
    );
    let answer = |size: usize| {
        let empty = r#"{"result":""}"#.len();
        format!(r#"{{"result":"{}"}}"#, "x".repeat(size - empty))
    };
    let agent = Agent::start([Act::Answer(200, answer(LIMIT))], Act::Answer(200, answer(LIMIT + 1))).await;
    let target = bench.member("target", Some(agent.url())).await;
    let whole = bench.call(&target, Caller::Operator, &message("m")).await.unwrap();
    assert_eq!((whole.status, whole.body.len()), (200, LIMIT));
    let over = bench.call(&target, Caller::Operator, &message("n")).await.unwrap_err();
    assert_eq!(over.message(), "failed to read agent response");
    bench.down().await;
}

#[tokio::test]
async fn an_agent_that_moves_is_called_where_it_is_from_then_on() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let (before, after) = (Agent::start([], ok()).await, Agent::start([], ok()).await);
        // An address by number is taken for one that a backend assigned, and stays.
        let url = |agent: &Agent| agent.url().replace("127.0.0.1", "localhost");
        let target = bench.member("target", Some(url(&before))).await;
        bench.call(&target, Caller::Operator, &message("one")).await.unwrap();
        let register = Register {
            id: target.id,
            url: url(&after),
            agent_card: json!({"name": "target"}),
            delivery_mode: Some(DeliveryMode::Push),
        };
        let credential = bench.control_plane.authenticate(Some(target.token.expose_secret())).await.unwrap();
        bench.control_plane.register(&register, credential).await.unwrap();
        bench.call(&target, Caller::Operator, &message("two")).await.unwrap();
        assert_eq!((before.seen().len(), after.seen().len()), (1, 1));
        // Gone is gone, whatever was known of it.
        bench.control_plane.delete(target.id, false, false).await.unwrap();
        let error = bench.call(&target, Caller::Operator, &message("three")).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "workspace not found"));
        assert_eq!(after.seen().len(), 1);
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn the_canvas_is_told_what_it_asked_for_and_who_called_in_vain_is_not_noted() {
    let bench = Bench::new().await;
    let agent = Agent::start([ok(), ok()], Act::Answer(500, r#"{"error":"no"}"#.to_owned())).await;
    let (target, caller) = (bench.member("target", Some(agent.url())).await, bench.member("caller", None).await);
    let called_at = async || {
        let row = bench.control_plane.workspace(caller.id).await.unwrap().unwrap();
        row.last_outbound_at
    };
    let mut told = bench.control_plane.listen();
    let as_caller = Caller::Workspace(caller.id);
    bench.call(&target, as_caller, &message("one")).await.unwrap();
    bench.newest(&target, 1).await;
    let noted = until("the call is noted", async || called_at().await).await;
    bench.call(&target, Caller::Operator, &message("two")).await.unwrap();
    bench.newest(&target, 2).await;
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.call(&target, as_caller, &message("three")).await.unwrap().status, 500);
    bench.newest(&target, 3).await;
    bench.down().await;
    assert_eq!(called_at().await, Some(noted), "it was in vain");
    let mut responses = Vec::new();
    while let Ok(Some(next)) = tokio::time::timeout(Duration::from_millis(50), told.next()).await.map(Result::ok) {
        if next.event.kind.as_str() == "A2A_RESPONSE" {
            responses.push(next.event.payload.clone());
        }
    }
    assert_eq!(responses.len(), 1, "of three calls the canvas made one: {responses:?}");
    assert_eq!(responses[0]["method"], "message/send");
    assert_eq!(responses[0]["response_body"]["result"]["parts"][0]["text"], "done");
    assert!(responses[0]["duration_ms"].is_u64());
}

#[tokio::test]
async fn what_an_answer_says_to_have_used_has_bounds() {
    let bench = Bench::new().await;
    let agent = Agent::start([used(99_999_999_999, -5), used(-1, 7)], used(0, 0)).await;
    let target = bench.member("target", Some(agent.url())).await;
    for n in 0..3 {
        bench.call(&target, Caller::Operator, &message(&format!("m{n}"))).await.unwrap();
    }
    bench.newest(&target, 3).await;
    bench.down().await;
    let usage = bench.control_plane.usage_today(target.id).await.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_calls), (10_000_000, 7, 2));
    bench.clock.advance(Duration::from_secs(24 * 60 * 60));
    let next = bench.control_plane.usage_today(target.id).await.unwrap();
    assert_eq!((next.total_calls, next.period_start), (0, usage.period_end), "each day begins at nothing");
}

#[tokio::test]
async fn names_and_methods_may_be_in_any_script() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([], Act::Close).await;
        let name = "ä🦀".repeat(60);
        let (busy, poller) = (bench.member(&name, Some(agent.url())).await, bench.member(&name, None).await);
        let method = format!("sénd/{}", "ü".repeat(200));
        let mut request = message("m");
        request["method"] = method.as_str().into();
        bench.call(&busy, Caller::Operator, &request).await.unwrap();
        bench.call(&poller, Caller::Operator, &request).await.unwrap();
        for (of, ending) in [(&busy, " (queued)"), (&poller, " (queued for poll)")] {
            let row = bench.newest(of, 1).await;
            assert_eq!(row.summary, Some(format!("{method} → {name}{ending}")));
        }
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn what_the_platform_asks_by_itself_waits_as_well() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([Act::Close], ok()).await;
        let target = bench.member("target", Some(agent.url())).await;
        let scheduler = Sender::System(System::Scheduler);
        let id = queue_id(&bench.call_as(&target, scheduler, &message("m")).await.unwrap());
        let row = bench.newest(&target, 1).await;
        assert_eq!((row.source_id, row.status.as_str()), (None, "queued"));
        assert_eq!(row.summary.as_deref(), Some("message/send → target (system:scheduler) (queued)"));
        bench.beat(&target).await;
        bench.until_item(&target, id, QueueStatus::Completed).await;
        let row = bench.newest(&target, 1).await;
        assert_eq!(row.summary.as_deref(), Some("message/send → target (system:scheduler)"));
        assert_eq!((row.source_id, row.status.as_str()), (None, "ok"));
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_cannot_be_kept_is_for_its_sender_to_send_again() {
    on_both(async |store| {
        let bench = Bench::over(store.clone(), config());
        let agent = Agent::start([], Act::Close).await;
        let target = bench.member("target", Some(agent.url())).await;
        execute(&store, "ALTER TABLE a2a_queue RENAME COLUMN priority TO urgency").await;
        let error = bench.call(&target, Caller::Operator, &message("m")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Unavailable, "workspace agent busy — retry after a short backoff")
        );
        assert_eq!(error.members(), [("busy", json!(true)), ("retry_after", json!(30))]);
        execute(&store, "ALTER TABLE a2a_queue RENAME COLUMN urgency TO priority").await;
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn why_a_message_was_dropped_is_added_to_why_it_waited() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([], Act::Close).await;
        let target = bench.member("target", Some(agent.url())).await;
        let id = queue_id(&bench.call(&target, Caller::Operator, &message("m")).await.unwrap());
        until("it was tried in vain", async || {
            bench.beat(&target).await;
            bench.item(&target, id).await.last_error.map(drop)
        })
        .await;
        let waited = bench.until_item(&target, id, QueueStatus::Queued).await.last_error.unwrap();
        bench.clock.advance(Duration::from_secs(3601));
        // The last beats may have it tried once more.
        until("it is dropped", async || {
            let dropped = bench.control_plane.drop_stale_messages(Duration::from_secs(3600), None).await.unwrap();
            (dropped == 1).then_some(())
        })
        .await;
        let item = bench.item(&target, id).await;
        assert_eq!(item.last_error, Some(format!("{waited}; it waited too long")));
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn what_becomes_of_a_task_is_told_with_whom_it_was_for() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([Act::Close], Act::Answer(500, r#"{"error":"broken"}"#.to_owned())).await;
        let (source, target) = (bench.member("lead", None).await, bench.member("target", Some(agent.url())).await);
        let begun = bench.control_plane.delegate(source.id, task(&target, "count", None)).await.unwrap();
        bench.until_delegation(&source, "queued").await;
        let told = bench.told(&source).await;
        let expected = json!({"delegation_id": begun.id, "target_id": target.id, "status": "queued"});
        assert_eq!(told.last().unwrap(), &("DELEGATION_STATUS".to_owned(), expected));
        let begun = bench.control_plane.delegate(source.id, task(&target, "sing", None)).await.unwrap();
        bench.until_delegation(&source, "failed").await;
        let told = bench.told(&source).await;
        let (kind, payload) = told.last().unwrap();
        assert_eq!(kind, "DELEGATION_FAILED");
        assert_eq!((&payload["delegation_id"], &payload["target_id"]), (&json!(begun.id), &json!(target.id)));
        assert_eq!(payload["error"], "broken");
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_old_is_forgotten() {
    on_both(async |store| {
        const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
        let config = Config { activity_tick: Duration::from_millis(5), external_silence: 9 * KEPT, ..config() };
        let bench = Bench::over(store, config);
        let agent = Agent::start([Act::Close], ok()).await;
        let (done, waits) = (bench.member("done", Some(agent.url())).await, bench.member("waits", None).await);
        let id = queue_id(&bench.call(&done, Caller::Operator, &message("m")).await.unwrap());
        bench.beat(&done).await;
        bench.until_item(&done, id, QueueStatus::Completed).await;
        bench.call(&waits, Caller::Operator, &message("m")).await.unwrap();
        bench.clock.advance(KEPT / 2);
        let report = Report { activity_type: "agent_log".to_owned(), ..Report::default() };
        bench.control_plane.report(waits.id, report).await.unwrap();
        bench.clock.advance(KEPT / 2 + Duration::from_secs(1));
        bench.control_plane.start();
        until("the message is forgotten", async || {
            let item = bench.control_plane.queue_item(done.id, id, Credential::Operator, Exposure::Network).await;
            item.is_err_and(|error| error.kind() == ErrorKind::NotFound).then_some(())
        })
        .await;
        until("the log is", async || {
            let kept = (bench.log(&done).await.len(), bench.log(&waits).await.len());
            (kept == (0, 1)).then_some(())
        })
        .await;
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_beat_at_another_server_is_a_sign_of_life() {
    const IDLE: Duration = Duration::from_secs(2);
    let Some(database) = support::postgres_database().await else { return };
    let store = async || Store::connect(database.url()).await.unwrap();
    let here = Bench::over(store().await, Config { a2a_idle: IDLE, ..config() });
    let there = Bench::at(store().await, config(), here.clock.clone());
    here.control_plane.start();
    there.control_plane.start();
    let go_on = Arc::new(tokio::sync::Notify::new());
    let agent = Agent::start([], Act::WhenTold(Arc::clone(&go_on), r#"{"result":"done"}"#.to_owned())).await;
    let target = here.member("target", Some(agent.url())).await;
    let beats = async {
        let began = std::time::Instant::now();
        let mut n = 0;
        while began.elapsed() < 2 * IDLE {
            n += 1;
            there.beat_with(&target, Heartbeat { current_task: format!("step {n}"), ..Heartbeat::default() }).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        go_on.notify_one();
    };
    let request = message("m");
    let (answer, ()) = tokio::join!(here.call(&target, Caller::Operator, &request), beats);
    assert_eq!(answer.unwrap().status, 200);
    here.down().await;
    there.down().await;
    here.control_plane.store().close().await;
    there.control_plane.store().close().await;
}
