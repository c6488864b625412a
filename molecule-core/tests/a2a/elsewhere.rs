//! Agents that the backend of one control plane runs, where another without a backend serves the same fleet.

use std::{sync::Arc, time::Duration};

use molecule_core::identity::Credential;
use molecule_core::{
    ControlPlane, ErrorKind,
    a2a::QueueStatus,
    config::Config,
    identity::Caller,
    net::Policy,
    registry::Register,
    schedules::NewSchedule,
    store::{Store, gate},
    testing::ScriptedProvisioner,
    workspace::{CreateWorkspace, Status},
};
use serde_json::json;

use crate::{Bench, Member, agent::Agent, config, message, ok, queue_id, until};

const TICK: Duration = Duration::from_millis(10);

/// One that runs workspaces, and one beside it that does not.
async fn pair() -> (Bench, Bench) {
    let config = || Config { queue_tick: TICK, schedule_tick: TICK, address_policy: Policy::Strict, ..config() };
    let helpless = Bench::over(Store::connect("sqlite::memory:").await.unwrap(), config());
    let control_plane = ControlPlane::builder(helpless.control_plane.store().clone())
        .config(config())
        .clock(Arc::new(helpless.clock.clone()))
        .local_backend(Arc::new(ScriptedProvisioner::new()))
        .build()
        .unwrap();
    let runs = Bench { control_plane, clock: helpless.clock.clone() };
    (runs, helpless)
}

/// A workspace that `runs` brought up, whose agent is `agent`.
pub(crate) async fn managed(runs: &Bench, agent: &Agent) -> Member {
    let request = CreateWorkspace { name: "managed".to_owned(), ..CreateWorkspace::default() };
    let id = runs.control_plane.create(request).await.unwrap().workspace.id;
    until("it is started", async || {
        let row = runs.control_plane.workspace(id).await.unwrap().unwrap();
        (!row.url.is_empty()).then_some(())
    })
    .await;
    let pool = gate::sqlite(runs.control_plane.store()).expect("it is SQLite");
    let moved = sqlx::query("UPDATE workspaces SET url = $2 WHERE id = $1").bind(id).bind(agent.url());
    moved.execute(pool).await.unwrap();
    Member { id, token: runs.control_plane.issue_token(id).await.unwrap().token }
}

/// Waits until the loop came round twice more.
async fn came_round(bench: &Bench, name: &str) {
    for _ in 0..2 {
        let tick = || bench.control_plane.liveness().get(name).map(|tick| tick.at);
        let before = tick();
        bench.clock.advance(Duration::from_millis(1));
        until("the loop comes round", async || (tick() != before).then_some(())).await;
    }
}

#[tokio::test]
async fn whoever_cannot_call_an_agent_leaves_that_to_those_who_can() {
    let (runs, helpless) = pair().await;
    let agent = Agent::start([], ok()).await;
    let member = managed(&runs, &agent).await;
    helpless.beat(&member).await;
    let row = helpless.control_plane.workspace(member.id).await.unwrap().unwrap();
    assert_eq!(row.status, Status::Online);
    let found = helpless.control_plane.discover(member.id, member.id).await.unwrap();
    assert_eq!(found.url, format!("http://127.0.0.1:8080/workspaces/{}/a2a", member.id));
    let new = NewSchedule {
        name: "hourly".to_owned(),
        cron_expr: "0 * * * *".to_owned(),
        timezone: "UTC".to_owned(),
        prompt: "look".to_owned(),
        enabled: true,
    };
    let schedule = helpless.control_plane.create_schedule(member.id, new).await.unwrap();
    let id = queue_id(&helpless.call(&member, Caller::Operator, &message("m")).await.unwrap());

    helpless.control_plane.start();
    helpless.clock.advance(Duration::from_secs(3600));
    helpless.beat(&member).await;
    came_round(&helpless, "queue").await;
    helpless.beat(&member).await;
    came_round(&helpless, "scheduler").await;
    let item = helpless.item(&member, id).await;
    assert_eq!((item.status, item.attempts, agent.seen().len()), (QueueStatus::Queued, 0, 0));
    let row = helpless.control_plane.schedule(member.id, schedule.id).await.unwrap();
    assert_eq!((row.run_count, row.next_run_at), (0, schedule.next_run_at));

    // The agent beats at the one, and is called by the other.
    runs.control_plane.start();
    runs.until_item(&member, id, QueueStatus::Completed).await;
    until("the run is over", async || {
        let row = runs.control_plane.schedule(member.id, schedule.id).await.unwrap();
        (row.run_count == 1).then_some(())
    })
    .await;
    assert_eq!(agent.seen().len(), 2);
    helpless.down().await;
    runs.down().await;
}

#[tokio::test]
async fn nobody_is_given_the_first_token_of_what_another_brings_up() {
    let (runs, helpless) = pair().await;
    let request = CreateWorkspace { name: "managed".to_owned(), ..CreateWorkspace::default() };
    let id = runs.control_plane.create(request).await.unwrap().workspace.id;
    let register = Register { id, url: "http://8.8.8.8/".to_owned(), agent_card: json!({}), delivery_mode: None };
    for bench in [&helpless, &runs] {
        let error = bench.control_plane.register(&register, Credential::Absent).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unauthenticated, "missing workspace auth token"));
    }
    helpless.down().await;
    runs.down().await;
}
