//! What agents ask leave for and are asked for at set times, by a clock that is moved by hand.

#[allow(dead_code, reason = "the tests of calls use all of it")]
#[path = "support/agent.rs"]
mod scripted;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use molecule_core::{
    ControlPlane, ErrorKind,
    activity::ActivityQuery,
    clock::{Clock, Entropy, SystemEntropy},
    config::Config,
    control_plane::Builder,
    id::WorkspaceId,
    net::Policy,
    records::{ApprovalStatus, AskApproval},
    registry::{Heartbeat, RuntimeMetadata},
    schedules::{NewSchedule, RunStatus, Schedule, SchedulePatch},
    store::{Store, gate},
    testing::{Logged, ManualClock},
    workspace::{CreateWorkspace, DeliveryMode},
};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

use self::scripted::{Act, Agent};

const PATIENCE: Duration = Duration::from_secs(30);

fn noon() -> DateTime<Utc> {
    "2027-03-01T12:00:00Z".parse().unwrap()
}

fn builder(store: Store, clock: &ManualClock) -> Builder {
    let config = Config {
        schedule_tick: Duration::from_millis(10),
        approval_tick: Duration::from_millis(10),
        address_policy: Policy::Development,
        ..Config::default()
    };
    ControlPlane::builder(store).config(config).clock(Arc::new(clock.clone()))
}

fn replica(store: Store, clock: &ManualClock) -> ControlPlane {
    builder(store, clock).build().unwrap()
}

async fn in_memory(clock: &ManualClock) -> ControlPlane {
    replica(Store::connect("sqlite::memory:").await.unwrap(), clock)
}

async fn three(database: &str, clock: &ManualClock) -> [ControlPlane; 3] {
    let store = async || Store::connect(database).await.unwrap();
    [store().await, store().await, store().await].map(|store| replica(store, clock))
}

async fn external(plane: &ControlPlane, url: Option<&str>, parent_id: Option<WorkspaceId>) -> WorkspaceId {
    let request = CreateWorkspace {
        name: "e".to_owned(),
        external: true,
        url: url.map(str::to_owned),
        delivery_mode: url.map(|_| DeliveryMode::Push),
        parent_id,
        ..CreateWorkspace::default()
    };
    plane.create(request).await.unwrap().workspace.id
}

#[expect(clippy::future_not_send, reason = "it is awaited where it is made")]
async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    seen.await.unwrap_or_else(|_| panic!("it did not happen that {what}"))
}

async fn told(plane: &ControlPlane, id: WorkspaceId) -> Vec<(String, serde_json::Value)> {
    let events = plane.events(Some(id), 100).await.unwrap();
    events.into_iter().rev().map(|event| (event.event_type, event.payload.unwrap_or_default())).collect()
}

fn ask(action: &str) -> AskApproval {
    AskApproval { action: action.to_owned(), reason: Some("because".to_owned()), ..AskApproval::default() }
}

#[tokio::test]
async fn a_request_is_told_to_the_parent_and_decided_once() {
    let clock = ManualClock::new(noon());
    let plane = in_memory(&clock).await;
    let parent = external(&plane, None, None).await;
    let child = external(&plane, None, Some(parent)).await;
    let asked = plane.ask_approval(child, ask("delete it")).await.unwrap();
    let above = told(&plane, parent).await.pop().unwrap();
    assert_eq!((above.0.as_str(), &above.1["from_workspace_id"]), ("APPROVAL_ESCALATED", &child.to_string().into()));
    let own = told(&plane, child).await.pop().unwrap();
    assert_eq!((own.0.as_str(), &own.1["approval_id"]), ("APPROVAL_REQUESTED", &asked.id.to_string().into()));

    let wrong = plane.decide_approval(parent, asked.id, "approved", "human").await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::NotFound, "it is another workspace's");
    for odd in ["", "pending", "escalated", "Approved"] {
        let error = plane.decide_approval(child, asked.id, odd, "human").await.unwrap_err();
        assert_eq!(error.message(), "decision must be 'approved' or 'denied'");
    }
    let tries = futures_util::future::join_all(
        ["approved", "denied", "approved"].map(|decision| plane.decide_approval(child, asked.id, decision, "human")),
    );
    let taken: Vec<_> = tries.await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(taken.len(), 1);
    let decisions = told(&plane, child).await;
    assert_eq!(decisions.iter().filter(|(kind, _)| kind.starts_with("APPROVAL_") && kind.ends_with("ED")).count(), 2);
    assert_eq!(plane.approvals(child).await.unwrap()[0].status, taken[0]);
    assert!(plane.pending_approvals().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_request_that_nobody_answers_is_denied_by_time_and_told() {
    let clock = ManualClock::new(noon());
    let plane = in_memory(&clock).await;
    let id = external(&plane, None, None).await;
    let late = plane.ask_approval(id, ask("a")).await.unwrap();
    clock.advance(Duration::from_secs(9 * 60));
    let fresh = plane.ask_approval(id, ask("b")).await.unwrap();
    assert_eq!(plane.pending_approvals().await.unwrap().len(), 2);
    clock.advance(Duration::from_secs(60));
    let error = plane.decide_approval(id, late.id, "approved", "human").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "approval not found or already decided"));
    let rows = plane.approvals(id).await.unwrap();
    assert_eq!((rows[0].id, rows[0].status), (fresh.id, ApprovalStatus::Pending));
    assert_eq!((rows[1].status, rows[1].decided_by.as_deref()), (ApprovalStatus::Denied, Some("auto-expired")));
    let (kind, payload) = told(&plane, id).await.pop().unwrap();
    assert_eq!((kind.as_str(), &payload["decided_by"]), ("APPROVAL_DENIED", &"auto-expired".into()));

    // Nobody asks: the sweep finds the other one.
    plane.start();
    clock.advance(Duration::from_secs(10 * 60));
    until("the second is denied", async || {
        (plane.approvals(id).await.unwrap()[0].status == ApprovalStatus::Denied).then_some(())
    })
    .await;
    assert!(plane.shut_down(PATIENCE).await);
}

/// An agent that answers every request with `reply` and counts them.
async fn agent(reply: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            asked.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 64 * 1024];
            let _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ";
            let _ = stream.write_all(format!("{head}{}\r\n\r\n{reply}", reply.len()).as_bytes()).await;
        }
    });
    (url, count)
}

fn hourly(prompt: &str) -> NewSchedule {
    NewSchedule {
        name: "hourly".to_owned(),
        cron_expr: "0 * * * *".to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        prompt: prompt.to_owned(),
        enabled: true,
    }
}

async fn ran(plane: &ControlPlane, id: WorkspaceId, count: i64) -> Schedule {
    until(&format!("it ran {count} times"), async || {
        plane.schedules(id).await.unwrap().pop().filter(|schedule| schedule.run_count == count)
    })
    .await
}

#[tokio::test]
async fn what_is_due_runs_once_and_what_was_missed_runs_late_once() {
    let clock = ManualClock::new(noon() + TimeDelta::minutes(1));
    let plane = in_memory(&clock).await;
    let (url, asked) = agent(r#"{"jsonrpc":"2.0","id":"1","result":{"parts":[{"kind":"text","text":"done"}]}}"#).await;
    let id = external(&plane, Some(&url), None).await;
    let made = plane.create_schedule(id, hourly("look\r\n around")).await.unwrap();
    assert_eq!(made.next_run_at, Some(noon() + TimeDelta::hours(1)));
    plane.start();
    clock.advance(Duration::from_secs(59 * 60));
    let row = ran(&plane, id, 1).await;
    assert_eq!((row.last_status, row.last_error), (Some(RunStatus::Ok), None));
    assert_eq!(row.next_run_at, Some(noon() + TimeDelta::hours(2)));
    clock.advance(Duration::from_secs(5 * 3600));
    let row = ran(&plane, id, 2).await;
    assert_eq!(row.next_run_at, Some(noon() + TimeDelta::hours(7)), "five were missed, one is made up for");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let (kind, payload) = told(&plane, id).await.pop().unwrap();
    assert_eq!(
        (kind.as_str(), &payload["schedule_name"], &payload["status"]),
        ("CRON_EXECUTED", &"hourly".into(), &"ok".into())
    );
    let history = plane.schedule_history(id, row.id).await.unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(history[0].request_body.as_ref().unwrap()["prompt"], "look\n around");
    assert_eq!((history[0].method.as_deref(), history[0].source_id), (Some("cron"), None));
    let asked_by = until("the call is in the log", async || {
        let log = plane.activity(id, &ActivityQuery::default()).await.unwrap();
        log.into_iter().find(|row| row.activity_type == "a2a_receive").and_then(|row| row.summary)
    });
    let asked_by = asked_by.await;
    assert!(asked_by.ends_with("(system:scheduler)"), "{asked_by}");

    plane.patch_schedule(id, row.id, SchedulePatch { enabled: Some(false), ..SchedulePatch::default() }).await.unwrap();
    clock.advance(Duration::from_secs(5 * 3600));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2, "one that is switched off is not run");
    let on = SchedulePatch { enabled: Some(true), ..SchedulePatch::default() };
    plane.patch_schedule(id, row.id, on).await.unwrap();
    let row = plane.schedule(id, row.id).await.unwrap();
    assert_eq!(row.next_run_at, Some(noon() + TimeDelta::hours(12)), "nothing is made up for");
    assert!(plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn an_agent_that_cannot_be_reached_and_one_without_a_word() {
    let clock = ManualClock::new(noon());
    let plane = in_memory(&clock).await;
    let (url, _) = agent(r#"{"jsonrpc":"2.0","id":"1","result":{"parts":[]}}"#).await;
    let silent = external(&plane, Some(&url), None).await;
    let away = external(&plane, Some("http://127.0.0.1:9/"), None).await;
    for id in [silent, away] {
        plane.create_schedule(id, hourly("x")).await.unwrap();
    }
    plane.start();
    for run in 1..=3 {
        clock.advance(Duration::from_secs(3600));
        let row = ran(&plane, silent, run).await;
        let status = if run < 3 { RunStatus::Ok } else { RunStatus::Stale };
        assert_eq!((row.last_status, row.consecutive_empty_runs), (Some(status), i32::try_from(run).unwrap()));
        let row = ran(&plane, away, run).await;
        assert_eq!(row.last_status, Some(RunStatus::Error));
        assert!(row.last_error.is_some());
    }
    let health = plane.schedules_health().await.unwrap();
    assert!(health.iter().all(|health| health.status == "ok" && health.stale_threshold_seconds == 7200));
    assert!(plane.shut_down(PATIENCE).await);
    clock.advance(Duration::from_secs(3 * 3600));
    assert!(plane.schedules_health().await.unwrap().iter().all(|health| health.status == "stale"));
}

#[tokio::test]
async fn an_agent_that_keeps_its_own_times_is_not_asked_and_its_next_time_moves_on() {
    let clock = ManualClock::new(noon() + TimeDelta::minutes(1));
    let plane = in_memory(&clock).await;
    let (url, asked) = agent(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#).await;
    let id = external(&plane, Some(&url), None).await;
    let made = plane.create_schedule(id, hourly("look")).await.unwrap();
    let token = plane.issue_token(id).await.unwrap().token;
    let beat = async |keeps: bool| {
        let credential = plane.authenticate(Some(token.expose_secret())).await.unwrap();
        let capabilities = [("scheduler".to_owned(), keeps)].into();
        let runtime_metadata = Some(RuntimeMetadata { capabilities, idle_timeout_seconds: None });
        let beat = Heartbeat { runtime_metadata, ..Heartbeat::default() };
        plane.heartbeat(id, &beat, credential).await.unwrap();
    };
    beat(true).await;
    plane.start();
    clock.advance(Duration::from_secs(3600));
    let moved = until("its next time moves on", async || {
        let row = plane.schedule(id, made.id).await.unwrap();
        (row.next_run_at == Some(noon() + TimeDelta::hours(2))).then_some(row)
    })
    .await;
    assert_eq!((moved.run_count, moved.last_run_at, asked.load(Ordering::SeqCst)), (0, None, 0));
    beat(false).await;
    clock.advance(Duration::from_secs(3600));
    ran(&plane, id, 1).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn an_agent_that_never_has_time_is_not_asked_and_that_is_told() {
    let clock = ManualClock::new(noon() + TimeDelta::minutes(1));
    let plane = in_memory(&clock).await;
    let (url, asked) = agent(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#).await;
    let id = external(&plane, Some(&url), None).await;
    let made = plane.create_schedule(id, hourly("look")).await.unwrap();
    let token = plane.issue_token(id).await.unwrap().token;
    let credential = plane.authenticate(Some(token.expose_secret())).await.unwrap();
    plane.heartbeat(id, &Heartbeat { active_tasks: 1, ..Heartbeat::default() }, credential).await.unwrap();
    plane.start();
    clock.advance(Duration::from_secs(3600));
    until("the run waits for the agent", async || {
        let row = plane.schedule(id, made.id).await.unwrap();
        (row.next_run_at == Some(noon() + TimeDelta::hours(2))).then_some(())
    })
    .await;
    // Nobody waits on the way down.
    assert!(plane.shut_down(PATIENCE).await);
    let (kind, payload) = told(&plane, id).await.pop().unwrap();
    let expected = json!({"schedule_id": made.id, "schedule_name": "hourly", "reason": "the workspace was busy"});
    assert_eq!((kind.as_str(), payload), ("CRON_SKIPPED", expected));
    let row = plane.schedule(id, made.id).await.unwrap();
    assert_eq!((row.last_status, asked.load(Ordering::SeqCst)), (Some(RunStatus::Skipped), 0));
}

#[tokio::test]
async fn old_events_are_deleted_and_how_workspaces_came_and_went_is_kept() {
    let clock = ManualClock::new(noon());
    let day = Duration::from_secs(24 * 60 * 60);
    let config = Config {
        event_retention: Some(day),
        event_tick: Duration::from_millis(5),
        // Nobody is to be found lost meanwhile.
        external_silence: 365 * day,
        approval_tick: day,
        ..Config::default()
    };
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let plane = ControlPlane::builder(store).config(config).clock(Arc::new(clock.clone())).build().unwrap();
    let id = external(&plane, None, None).await;
    plane.ask_approval(id, ask("first")).await.unwrap();
    plane.start();
    clock.advance(day - Duration::from_secs(1));
    plane.ask_approval(id, ask("second")).await.unwrap();
    let actions = async || {
        let asked = told(&plane, id).await;
        asked.iter().filter_map(|(_, payload)| payload["action"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(actions().await, ["first", "second"]);
    clock.advance(Duration::from_secs(2));
    until("the first is forgotten", async || (actions().await == ["second"]).then_some(())).await;
    assert_eq!(told(&plane, id).await[0].0, "WORKSPACE_AWAITING_AGENT");
    assert!(plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn of_several_replicas_one_runs_what_is_due() {
    let Some(database) = support::postgres_database().await else { return };
    let clock = ManualClock::new(noon());
    let replicas = three(database.url(), &clock).await;
    let plane = &replicas[0];
    let (url, asked) = agent(r#"{"jsonrpc":"2.0","id":"1","result":{"parts":[{"text":"done"}]}}"#).await;
    let id = external(plane, Some(&url), None).await;
    for n in 0..8 {
        let new = NewSchedule { name: format!("{n}"), ..hourly("x") };
        plane.create_schedule(id, new).await.unwrap();
    }
    replicas.iter().for_each(ControlPlane::start);
    for run in 1..=3 {
        clock.advance(Duration::from_secs(3600));
        until("all ran", async || {
            let all = plane.schedules(id).await.unwrap();
            all.iter().all(|schedule| schedule.run_count == run).then_some(())
        })
        .await;
    }
    for replica in &replicas {
        assert!(replica.shut_down(PATIENCE).await);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 24);
    for replica in &replicas {
        replica.store().close().await;
    }
}

#[tokio::test]
async fn names_and_times_of_schedules_are_checked() {
    let clock = ManualClock::new(noon());
    let plane = in_memory(&clock).await;
    let id = external(&plane, None, None).await;
    let first = plane.create_schedule(id, hourly("x")).await.unwrap();
    let twice = plane.create_schedule(id, hourly("y")).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    let second = plane.create_schedule(id, NewSchedule { name: String::new(), ..hourly("y") }).await.unwrap();
    assert!(!second.name.is_empty());
    let rename = SchedulePatch { name: Some("hourly".to_owned()), ..SchedulePatch::default() };
    assert_eq!(plane.patch_schedule(id, second.id, rename.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
    plane.patch_schedule(id, first.id, rename).await.unwrap();
    let bad = SchedulePatch { cron_expr: Some("61 * * * *".to_owned()), ..SchedulePatch::default() };
    let error = plane.patch_schedule(id, first.id, bad).await.unwrap_err();
    assert!(error.message().starts_with("invalid cron_expr: "), "{error}");
    assert_eq!(plane.schedule(id, first.id).await.unwrap().cron_expr, "0 * * * *");
    let pool = gate::sqlite(plane.store()).expect("it is SQLite");
    let spoil = sqlx::query("UPDATE workspace_schedules SET cron_expr = 'x' WHERE id = $1").bind(second.id);
    spoil.execute(pool).await.unwrap();
    let health = plane.schedules_health().await.unwrap();
    let mut shown: Vec<_> = health.iter().map(|health| health.stale_threshold_seconds).collect();
    shown.sort_unstable();
    assert_eq!(shown, [0, 7200], "the one that cannot run above all");
    let nowhere = SchedulePatch { timezone: Some(String::new()), ..SchedulePatch::default() };
    plane.patch_schedule(id, first.id, nowhere).await.unwrap();
    assert_eq!(plane.schedule(id, first.id).await.unwrap().timezone, "UTC");
    let elsewhere = SchedulePatch { timezone: Some("Asia/Kolkata".to_owned()), ..SchedulePatch::default() };
    plane.patch_schedule(id, first.id, elsewhere).await.unwrap();
    assert_eq!(plane.schedule(id, first.id).await.unwrap().next_run_at, Some(noon() + TimeDelta::minutes(30)));
    let other = external(&plane, None, None).await;
    let foreign = plane.patch_schedule(other, first.id, SchedulePatch::default()).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::NotFound);
    assert_eq!(plane.delete_schedule(other, first.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    plane.delete_schedule(id, first.id).await.unwrap();
    assert_eq!(plane.delete_schedule(id, first.id).await.unwrap_err().message(), "schedule not found");
}

#[tokio::test]
async fn a_schedule_without_a_next_time_is_given_one_and_one_that_cannot_be_read_is_switched_off() {
    let clock = ManualClock::new(noon() + TimeDelta::minutes(1));
    let plane = in_memory(&clock).await;
    let id = external(&plane, None, None).await;
    let lost = plane.create_schedule(id, hourly("x")).await.unwrap();
    let odd = plane.create_schedule(id, NewSchedule { name: "odd".to_owned(), ..hourly("x") }).await.unwrap();
    let pool = gate::sqlite(plane.store()).expect("it is SQLite");
    for (sql, id) in [
        ("UPDATE workspace_schedules SET next_run_at = NULL WHERE id = $1", lost.id),
        ("UPDATE workspace_schedules SET cron_expr = 'whenever' WHERE id = $1", odd.id),
    ] {
        sqlx::query(sql).bind(id).execute(pool).await.unwrap();
    }
    plane.start();
    until("it has a next time", async || {
        let row = plane.schedule(id, lost.id).await.unwrap();
        (row.next_run_at == Some(noon() + TimeDelta::hours(1))).then_some(())
    })
    .await;
    clock.advance(Duration::from_secs(3600));
    let row = until("it is switched off", async || {
        Some(plane.schedule(id, odd.id).await.unwrap()).filter(|schedule| !schedule.enabled)
    })
    .await;
    assert!(row.last_error.is_some_and(|error| error.contains("cron_expr")));
    assert_eq!(row.run_count, 0);
    assert!(plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn of_several_replicas_one_denies_what_waited_too_long_and_the_newest_are_listed() {
    let Some(database) = support::postgres_database().await else { return };
    let clock = ManualClock::new(noon());
    let replicas = three(database.url(), &clock).await;
    let plane = &replicas[0];
    let id = external(plane, None, None).await;
    for n in 0..52 {
        plane.ask_approval(id, ask(&format!("{n}"))).await.unwrap();
        clock.advance(Duration::from_millis(1));
    }
    let listed = plane.approvals(id).await.unwrap();
    assert_eq!((listed.len(), listed[0].action.as_str(), listed[49].action.as_str()), (50, "51", "2"));
    let pending = plane.pending_approvals().await.unwrap();
    assert_eq!((pending.len(), pending[0].action.as_str()), (50, "51"));
    clock.advance(Duration::from_secs(10 * 60));
    replicas.iter().for_each(ControlPlane::start);
    until("all are denied", async || plane.pending_approvals().await.unwrap().is_empty().then_some(())).await;
    for replica in &replicas {
        assert!(replica.shut_down(PATIENCE).await);
    }
    let events = plane.events(Some(id), 500).await.unwrap();
    let denied = events.iter().filter(|event| event.event_type == "APPROVAL_DENIED").count();
    assert_eq!(denied, 52, "each is told once");
    for replica in &replicas {
        replica.store().close().await;
    }
}

#[tokio::test]
async fn ten_runs_are_under_way_at_once_and_the_others_follow() {
    let clock = ManualClock::new(noon());
    let plane = in_memory(&clock).await;
    let go_on = Arc::new(Notify::new());
    let answer = r#"{"result":{"parts":[{"text":"done"}]}}"#.to_owned();
    let slow = Agent::start([], Act::WhenTold(Arc::clone(&go_on), answer)).await;
    let id = external(&plane, Some(&slow.url()), None).await;
    for n in 0..12 {
        plane.create_schedule(id, NewSchedule { name: format!("{n}"), ..hourly("x") }).await.unwrap();
    }
    plane.start();
    clock.advance(Duration::from_secs(3600));
    until("ten are asked for", async || (slow.seen().len() == 10).then_some(())).await;
    // Some looks later the others still wait for their place.
    for _ in 0..3 {
        clock.advance(Duration::from_secs(1));
        let now = clock.now();
        until("the schedules are looked at", async || {
            plane.liveness().get("scheduler").is_some_and(|tick| tick.at == now).then_some(())
        })
        .await;
    }
    assert_eq!(slow.seen().len(), 10);
    until("all ran", async || {
        go_on.notify_waiters();
        let all = plane.schedules(id).await.unwrap();
        all.iter().all(|schedule| schedule.run_count == 1).then_some(())
    })
    .await;
    assert_eq!(slow.seen().len(), 12);
    assert!(plane.shut_down(PATIENCE).await);
}

#[tokio::test]
async fn a_removed_workspace_is_asked_for_nothing_any_more() {
    let clock = ManualClock::new(noon());
    let plane = in_memory(&clock).await;
    let (answer, mut asked) = (r#"{"result":{"parts":[{"text":"done"}]}}"#, Vec::new());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (url, count) = agent(answer).await;
        let id = external(&plane, Some(&url), None).await;
        plane.create_schedule(id, hourly("x")).await.unwrap();
        ids.push(id);
        asked.push(count);
    }
    plane.delete(ids[0], true, false).await.unwrap();
    plane.start();
    for hours in 1..=3 {
        clock.advance(Duration::from_secs(3600));
        ran(&plane, ids[1], hours).await;
    }
    assert!(plane.shut_down(PATIENCE).await);
    let asked: Vec<usize> = asked.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    assert_eq!(asked, [0, 3]);
}

/// Gives no randomness while it is broken.
#[derive(Debug, Default)]
struct Fragile {
    broken: AtomicBool,
}

impl Entropy for Fragile {
    fn fill(&self, bytes: &mut [u8]) {
        assert!(!self.broken.load(Ordering::SeqCst), "in the middle of it");
        SystemEntropy.fill(bytes);
    }
}

#[tokio::test]
async fn a_run_that_panics_is_contained_and_the_next_one_comes() {
    let clock = ManualClock::new(noon());
    let entropy = Arc::new(Fragile::default());
    let plane = builder(Store::connect("sqlite::memory:").await.unwrap(), &clock)
        .entropy(Arc::clone(&entropy) as Arc<dyn Entropy>)
        .build()
        .unwrap();
    let (url, asked) = agent(r#"{"result":{"parts":[{"text":"done"}]}}"#).await;
    let id = external(&plane, Some(&url), None).await;
    // As many as there are places for, which those that panic must give back.
    for n in 0..10 {
        plane.create_schedule(id, NewSchedule { name: format!("{n}"), ..hourly("x") }).await.unwrap();
    }
    let (logged, _guard) = Logged::here();
    plane.start();
    entropy.broken.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(3600));
    until("all broke off", async || (logged.with("a run panicked").len() == 10).then_some(())).await;
    entropy.broken.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(3600));
    until("all ran", async || {
        let all = plane.schedules(id).await.unwrap();
        all.iter().all(|schedule| schedule.run_count == 1).then_some(())
    })
    .await;
    assert_eq!(asked.load(Ordering::SeqCst), 10);
    assert!(plane.shut_down(PATIENCE).await);
}
