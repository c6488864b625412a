//! What a try needs before the backend is asked for anything.

use std::{fs, sync::Arc, time::Duration};

use molecule_core::{
    ControlPlane, ErrorKind,
    config::Config,
    provisioner::AgentCommand,
    registry::{Heartbeat, Register},
    store::{Store, gate},
    templates::Templates,
    testing::{Operation, ScriptedProvisioner, Sweep, sweep},
    workspace::{CreateWorkspace, Restart, Status},
};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::fleet::{Fleet, PATIENCE};

/// A fleet with these templates, by id: each a `config.yaml`.
async fn with_templates(templates: &[(&str, &str)]) -> (Fleet, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (id, yaml) in templates {
        fs::create_dir_all(dir.path().join(id)).unwrap();
        fs::write(dir.path().join(id).join("config.yaml"), yaml).unwrap();
    }
    let templates = Templates::open(Some(dir.path().to_owned()), None);
    (Fleet::with(Config { templates, ..Config::default() }).await, dir)
}

/// What the `config.yaml` of the start `n` says; none where it was left alone.
fn config(fleet: &Fleet, n: usize) -> Option<String> {
    let starts = fleet.backend.starts();
    let file = starts[n].files.iter().find(|file| file.path == "config.yaml")?;
    Some(String::from_utf8(file.contents.clone()).unwrap())
}

#[tokio::test]
async fn what_is_fetched_first_does_not_count_as_part_of_the_start() {
    let timeout = Duration::from_millis(400);
    let fleet = Fleet::with(Config { provision_timeout: Some(timeout), ..Config::default() }).await;
    fleet.backend.when(Operation::Prepare).late(timeout * 2);
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn fetching_has_a_budget_of_its_own_and_is_told_apart() {
    let fleet = Fleet::with(Config { prepare_timeout: Duration::from_secs(1), ..Config::default() }).await;
    fleet.backend.when(Operation::Prepare).hang();
    let id = fleet.create("a").await;
    let row = fleet.until(id, Status::Failed).await;
    let said = row.last_sample_error.unwrap();
    assert_eq!(said, "workspace start failed: it took longer than 1 s to fetch what it needs");
    assert_eq!(fleet.backend.count(Operation::Start), 0);
    fleet.down().await;
}

#[tokio::test]
async fn the_sweep_counts_from_the_moment_that_the_backend_is_asked() {
    let fleet = Fleet::new().await;
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let release = fleet.backend.when(Operation::Prepare).hang_until_released();
    let slow = fleet.create("slow").await;
    fleet.backend.called(Operation::Prepare, 1).await;
    fleet.clock.advance(minutes(14));
    sweep(&fleet.control_plane, Sweep::Timeouts).await.unwrap();
    assert_eq!(fleet.row(slow).await.status, Status::Provisioning, "its image is being fetched");
    release.release();
    fleet.backend.called(Operation::Start, 1).await;
    fleet.clock.advance(minutes(9));
    sweep(&fleet.control_plane, Sweep::Timeouts).await.unwrap();
    fleet.come_online(slow).await;

    fleet.backend.behave();
    let prepare = fleet.backend.when(Operation::Prepare).hang_until_released();
    let stuck = fleet.create("stuck").await;
    fleet.backend.called(Operation::Prepare, 2).await;
    fleet.clock.advance(minutes(26));
    sweep(&fleet.control_plane, Sweep::Timeouts).await.unwrap();
    let row = fleet.row(stuck).await;
    assert_eq!(row.status, Status::Failed);
    let said = row.last_sample_error.unwrap();
    assert!(said.contains("was not fetched in time") && !said.contains("container started"), "{said}");

    fleet.backend.behave();
    let start = fleet.backend.when(Operation::Start).hang_until_released();
    let silent = fleet.create("silent").await;
    fleet.backend.called(Operation::Start, 2).await;
    fleet.clock.advance(minutes(11));
    sweep(&fleet.control_plane, Sweep::Timeouts).await.unwrap();
    let said = fleet.row(silent).await.last_sample_error.unwrap();
    assert!(said.contains("did not say that it started"), "{said}");
    prepare.release();
    start.release();
    fleet.down().await;
}

#[tokio::test]
async fn a_restart_that_cannot_be_prepared_leaves_alone_what_runs() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let (token, url) = (fleet.token(id), fleet.row(id).await.url);
    fleet.backend.when(Operation::Prepare).times(1).fail(ErrorKind::Unavailable, "no image");
    fleet.control_plane.restart(id, false).await.unwrap();
    let row = fleet.until(id, Status::Failed).await;
    assert_eq!((row.last_sample_error.as_deref(), row.url), (Some("workspace start failed: no image"), url));
    assert_eq!(fleet.backend.count(Operation::Stop), 0);
    // It works on, and what it says of itself does not hide what went wrong.
    fleet.beat(id, &token).await.unwrap();
    fleet.beat(id, &token).await.unwrap();
    assert_eq!(fleet.row(id).await.last_sample_error.as_deref(), Some("workspace start failed: no image"));
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    let register = Register { id, url: String::new(), agent_card: json!({}), delivery_mode: None };
    fleet.control_plane.register(&register, credential).await.unwrap();
    assert_eq!(fleet.row(id).await.status, Status::Online);
    fleet.down().await;
}

#[tokio::test]
async fn a_backend_that_cannot_tell_whether_there_is_a_configuration_starts_all_the_same() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    fleet.backend.when(Operation::VolumeHasFile).fail(ErrorKind::Unavailable, "no image to look through");
    fleet.control_plane.restart(id, false).await.unwrap();
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    assert_eq!(config(&fleet, 1), None, "what is there is not written over");
    fleet.down().await;
}

#[tokio::test]
async fn the_template_of_a_workspace_is_kept_until_it_was_started_once() {
    let (fleet, _dir) = with_templates(&[
        ("special", "name: special\nruntime: hermes\nruntime_config: {required_env: [SPECIAL_KEY]}\n"),
        ("hermes-default", "name: vanilla\nruntime: hermes\nruntime_config: {required_env: [VANILLA_KEY]}\n"),
    ])
    .await;
    let request =
        CreateWorkspace { name: "a".to_owned(), template: Some("special".to_owned()), ..CreateWorkspace::default() };
    let id = fleet.control_plane.create(request).await.unwrap().workspace.id;
    let row = fleet.until(id, Status::Failed).await;
    assert!(row.last_sample_error.unwrap().contains("\"SPECIAL_KEY\""));
    fleet.control_plane.set_secret(id, "SPECIAL_KEY", &"x".to_owned().into()).await.unwrap();
    fleet.come_online(id).await;
    assert!(config(&fleet, 0).unwrap().contains("name: special"));
    assert_eq!(fleet.row(id).await.template, None, "what its user makes of it counts from now on");

    // So is the wish for none.
    fleet.backend.when(Operation::Start).times(1).fail(ErrorKind::Unavailable, "no");
    let request =
        CreateWorkspace { name: "b".to_owned(), runtime: Some("hermes".to_owned()), ..CreateWorkspace::default() };
    let id = fleet.control_plane.create(request).await.unwrap().workspace.id;
    fleet.until(id, Status::Failed).await;
    let before = fleet.backend.starts().len();
    fleet.control_plane.restart(id, false).await.unwrap();
    fleet.come_online(id).await;
    assert!(config(&fleet, before).unwrap().starts_with("name: \"b\""));
    fleet.down().await;
}

#[tokio::test]
async fn a_restart_takes_the_first_template_that_is_there() {
    let (fleet, dir) = with_templates(&[
        ("named", "name: named\nruntime: hermes\n"),
        ("of-the-name", "name: Data Engineer\nruntime: hermes\n"),
        ("hermes-default", "name: vanilla\nruntime: hermes\n"),
    ])
    .await;
    let team = dir.path().join("org-templates/team");
    fs::create_dir_all(&team).unwrap();
    fs::write(team.join("config.yaml"), "name: Data Engineer\nruntime: hermes\n").unwrap();
    let mut ids = Vec::new();
    for name in ["Data Engineer", "nobody"] {
        let request =
            CreateWorkspace { name: name.to_owned(), runtime: Some("hermes".to_owned()), ..CreateWorkspace::default() };
        let id = fleet.control_plane.create(request).await.unwrap().workspace.id;
        fleet.come_online(id).await;
        ids.push(id);
    }
    let restart = |template: &str, apply_template, rebuild_config| Restart {
        template: template.to_owned(),
        apply_template,
        rebuild_config,
        ..Restart::default()
    };
    for (n, restart, label) in [
        (0, restart("named", true, true), "named"),
        (0, restart("missing", true, true), "of-the-name"),
        (0, restart("../named", true, false), "of-the-name"),
        (0, restart("", false, true), "org-templates/team"),
        (1, restart("", true, true), "hermes-default"),
        (1, restart("", false, true), "existing-volume"),
        (0, restart("", false, false), "existing-volume"),
    ] {
        let before = fleet.backend.starts().len();
        let (_, said) = fleet.control_plane.restart_from(ids[n], &restart).await.unwrap();
        assert_eq!(said, label, "{restart:?}");
        fleet.come_online(ids[n]).await;
        assert_eq!(config(&fleet, before).is_some(), label != "existing-volume", "{restart:?}");
    }
    fleet.down().await;
}

#[tokio::test]
async fn a_restart_that_died_with_its_server_is_done_as_it_was_asked_for() {
    let (before, dir) = with_templates(&[("special", "name: special\nruntime: claude-code\n")]).await;
    let id = before.create("a").await;
    before.come_online(id).await;
    before.backend.when(Operation::Stop).hang();
    let restart = Restart { reset_session: true, template: "special".to_owned(), ..Restart::default() };
    before.control_plane.restart_from(id, &restart).await.unwrap();
    before.backend.called(Operation::Stop, 1).await;
    let backend = ScriptedProvisioner::new();
    let control_plane = ControlPlane::builder(before.control_plane.store().clone())
        .config(Config { templates: Templates::open(Some(dir.path().to_owned()), None), ..Config::default() })
        .clock(Arc::new(before.clock.clone()))
        .local_backend(Arc::new(backend.clone()))
        .build()
        .unwrap();
    control_plane.start();
    let after = Fleet { control_plane, backend, clock: before.clock.clone() };
    after.backend.called(Operation::Start, 1).await;
    assert!(after.backend.starts()[0].reset_session);
    assert!(config(&after, 0).unwrap().starts_with("name: special"));
    after.come_online(id).await;
    // What was done is not done again.
    after.control_plane.restart(id, false).await.unwrap();
    after.backend.called(Operation::Start, 2).await;
    assert!(!after.backend.starts()[1].reset_session);
    assert_eq!(config(&after, 1), None);
    after.down().await;
}

#[tokio::test]
async fn without_a_backend_what_was_asked_for_is_noted() {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let control_plane = ControlPlane::builder(store).build().unwrap();
    let request =
        CreateWorkspace { name: "a".to_owned(), template: Some("special".to_owned()), ..CreateWorkspace::default() };
    let id = control_plane.create(request).await.unwrap().workspace.id;
    assert!(control_plane.shut_down(PATIENCE).await);
    let pool = gate::sqlite(control_plane.store()).unwrap();
    let data: serde_json::Value = sqlx::query_scalar("SELECT data FROM workspace_config WHERE workspace_id = $1")
        .bind(id)
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(data, json!({"name": "a", "runtime": "claude-code", "tier": 3, "template": "special"}));
}

/// Another server on the same database and the same backend.
fn beside(fleet: &Fleet) -> Fleet {
    let control_plane = ControlPlane::builder(fleet.control_plane.store().clone())
        .clock(Arc::new(fleet.clock.clone()))
        .local_backend(Arc::new(fleet.backend.clone()))
        .build()
        .unwrap();
    Fleet { control_plane, backend: fleet.backend.clone(), clock: fleet.clock.clone() }
}

#[tokio::test]
async fn a_try_that_another_server_has_overtaken_takes_nothing_from_the_newer_one() {
    for held in [Operation::Prepare, Operation::Start] {
        let one = Fleet::with(Config::default()).await;
        let other = beside(&one);
        let release = one.backend.when(held).times(1).hang_until_released();
        let id = one.create("a").await;
        one.backend.called(held, 1).await;
        other.control_plane.restart(id, false).await.unwrap();
        other.come_online(id).await;
        let token = other.token(id);
        let stops = other.backend.count(Operation::Stop);
        release.release();
        assert!(one.control_plane.shut_down(PATIENCE).await);
        assert_eq!(other.backend.count(Operation::Stop), stops, "held at {held:?}");
        other.beat(id, &token).await.unwrap_or_else(|error| panic!("held at {held:?}: {error}"));
        assert!(other.control_plane.shut_down(PATIENCE).await);
    }
}

#[tokio::test]
async fn what_is_stopped_works_on_nothing() {
    let fleet = Fleet::new().await;
    for how in ["restart", "pause", "hibernate"] {
        let id = fleet.create(how).await;
        fleet.come_online(id).await;
        let token = fleet.token(id);
        let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
        let beat = Heartbeat { active_tasks: 3, current_task: "a report".to_owned(), ..Heartbeat::default() };
        fleet.control_plane.heartbeat(id, &beat, credential).await.unwrap();
        assert_eq!(fleet.row(id).await.active_tasks, 3);
        match how {
            "restart" => drop(fleet.control_plane.restart(id, false).await.unwrap()),
            "pause" => drop(fleet.control_plane.pause(id).await.unwrap()),
            _ => fleet.control_plane.hibernate(id, true).await.unwrap(),
        }
        let row = fleet.row(id).await;
        assert_eq!((row.active_tasks, row.current_task.as_deref()), (0, Some("")), "{how}");
    }
    fleet.down().await;
}

#[tokio::test]
async fn an_agent_that_comes_after_its_try_had_failed_is_called_where_it_is() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let (token, url) = (fleet.token(id), fleet.row(id).await.url);
    let pool = gate::sqlite(fleet.control_plane.store()).unwrap();
    let lost = async || {
        let lose = sqlx::query("UPDATE workspaces SET url = '', status = 'failed' WHERE id = $1").bind(id);
        lose.execute(pool).await.unwrap();
    };
    let register = async || {
        let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
        let register = Register { id, url: String::new(), agent_card: json!({}), delivery_mode: None };
        fleet.control_plane.register(&register, credential).await.unwrap();
        fleet.row(id).await
    };
    lost().await;
    fleet.backend.when(Operation::Address).times(1).fail(ErrorKind::Unavailable, "no answer");
    let row = register().await;
    assert_eq!((row.status, row.url.as_str()), (Status::Online, ""), "that it lives matters more");
    let row = register().await;
    assert_eq!((row.status, row.url), (Status::Online, url.clone()));
    lost().await;
    assert_eq!(register().await.url, url);
    fleet.down().await;
}

#[tokio::test]
async fn only_a_template_says_which_program_the_agent_is() {
    let yaml = "name: own\nruntime: hermes\nruntime_config: {command: own-agent, args: [-v]}\n";
    let (fleet, _dir) = with_templates(&[("own", yaml)]).await;
    let request =
        CreateWorkspace { name: "a".to_owned(), template: Some("own".to_owned()), ..CreateWorkspace::default() };
    let id = fleet.control_plane.create(request).await.unwrap().workspace.id;
    fleet.come_online(id).await;
    // What its agent makes of its configuration says nothing of it.
    fleet.control_plane.restart(id, false).await.unwrap();
    fleet.backend.called(Operation::Start, 2).await;
    fleet.come_online(id).await;
    let plain = fleet.create("b").await;
    fleet.come_online(plain).await;
    let commands: Vec<AgentCommand> = fleet.backend.starts().into_iter().map(|spec| spec.command).collect();
    let named = AgentCommand::Named(vec!["own-agent".to_owned(), "-v".to_owned()]);
    assert_eq!(commands, [named, AgentCommand::Kept, AgentCommand::Own]);
    fleet.down().await;
}

#[tokio::test]
async fn half_of_a_team_is_taken_back() {
    let team = "name: Lead\nsub_workspaces: [{name: First}, {name: Second}, {name: Third}]\n";
    let (fleet, _dir) = with_templates(&[("lead", team)]).await;
    let lead = fleet.create("Lead").await;
    fleet.come_online(lead).await;
    let pool = gate::sqlite(fleet.control_plane.store()).unwrap();
    let trigger = "CREATE TRIGGER broken BEFORE INSERT ON workspaces WHEN NEW.name = 'Third' \
                   BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(trigger).execute(pool).await.unwrap();
    fleet.control_plane.expand(lead).await.unwrap_err();
    let names: Vec<String> = fleet.control_plane.workspaces().await.unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["Lead"]);
    let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM workspaces").fetch_one(pool).await.unwrap();
    assert_eq!(rows, 1, "not even their rows are left");
    assert!(!fleet.events(lead).await.contains(&"WORKSPACE_EXPANDED".to_owned()));
    sqlx::query("DROP TRIGGER broken").execute(pool).await.unwrap();
    // Two who ask at once are both given one.
    let (one, other) = tokio::join!(fleet.control_plane.expand(lead), fleet.control_plane.expand(lead));
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (3, 3));
    fleet.down().await;
}
