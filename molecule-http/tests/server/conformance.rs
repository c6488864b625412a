//! The server, held against the contract on either database and with each way to run workspaces, and what came of it
//! against `docs/conformance.md`.

use std::{collections::BTreeMap, time::Instant};

use molecule_conformance::{Case, Feature, Report, cases, coverage, http, run, shuffle};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::{
    machines::Owner,
    process::{PATIENCE, POLL},
    results::compare,
    server::{Server, Setup},
    support,
};

#[tokio::test]
async fn the_server_keeps_the_contract_without_a_backend_on_sqlite() {
    keeps_the_contract("SQLite, no backend", Setup::none()).await;
}

#[tokio::test]
async fn the_server_keeps_the_contract_without_a_backend_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        keeps_the_contract("Postgres, no backend", Setup::none().database(Some(database.url()))).await;
    }
}

#[tokio::test]
async fn the_server_keeps_the_contract_with_processes_on_sqlite() {
    keeps_the_contract("SQLite, processes", Setup::process()).await;
}

#[tokio::test]
async fn the_server_keeps_the_contract_with_processes_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        keeps_the_contract("Postgres, processes", Setup::process().database(Some(database.url()))).await;
    }
}

#[tokio::test]
async fn the_server_keeps_the_contract_with_machines_on_sqlite() {
    let owner = Owner::start();
    keeps_the_contract("SQLite, machines", owner.server()).await;
}

#[tokio::test]
async fn the_server_keeps_the_contract_with_machines_on_postgres() {
    let owner = Owner::start();
    if let Some(database) = support::postgres_database().await {
        keeps_the_contract("Postgres, machines", owner.server().database(Some(database.url()))).await;
    }
}

/// With all that some cases try only where it is switched on.
fn complete(setup: Setup) -> Setup {
    let setup = setup.env("CONFIGS_DIR", TEMPLATES).env("AUDIT_LEDGER_SALT", "salt");
    setup.env("MOLECULE_ENABLE_TEST_TOKENS", "1")
}

/// What workspaces may be made from.
const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/templates");

/// Runs all of the suite against a server and compares what comes with what the page says of the run `name`.
async fn keeps_the_contract(name: &str, setup: Setup) {
    let server = complete(setup).start().await;
    compare(name, &whole_run(&server).await);
}

async fn whole_run(server: &Server) -> Report {
    let mut target = http::Server::new(&server.url(), Some(server.token())).expect("a client can be made");
    if let Some(id) = server.organisation() {
        target = target.of_organisation(id);
    }
    run("molecule serve", &target, &cases::http::all()).await
}

/// How many rows each table of a server has, but for those that are for good: the log of events, and which tokens of
/// organisations there were.
async fn rows(server: &Server) -> BTreeMap<String, i64> {
    const TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                          AND name NOT LIKE '%\\_fts%' ESCAPE '\\' AND name NOT IN ('structure_events', 'org_api_tokens', \
                          '_sqlx_migrations')";
    let url = format!("sqlite:{}?mode=ro", server.data().join("molecule.db").display());
    let mut database = SqliteConnection::connect(&url).await.expect("the database of the server can be read");
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut database).await.expect("it has tables");
    let mut rows = BTreeMap::new();
    for table in tables {
        let count = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        rows.insert(table, sqlx::query_scalar(count).fetch_one(&mut database).await.expect("it can be counted"));
    }
    database.close().await.expect("it lets go");
    rows
}

/// What others see of a fleet that takes no part in the cases.
async fn seen(server: &Server) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in ["/workspaces", "/settings/secrets", "/org/tokens", "/admin/schedules/health", "/templates"] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        seen.push(reply.json());
    }
    seen
}

#[tokio::test]
async fn each_case_leaves_the_server_as_it_found_it_and_passes_again() {
    let server = complete(Setup::process()).start().await;
    let (lead, token) = server.create_external("bystander", None).await;
    let (below, _) = server.create_external("bystander below", Some(&lead)).await;
    assert_eq!(server.beat(&lead, &token).await.status, 200);
    for (path, body) in [
        ("/settings/secrets".to_owned(), json!({"key": "BYSTANDER", "value": "1"})),
        (format!("/workspaces/{below}/secrets"), json!({"key": "BYSTANDER", "value": "2"})),
        ("/org/tokens".to_owned(), json!({"name": "bystander"})),
    ] {
        let reply = server.post(&path, &body).await;
        assert!(reply.status < 300, "{path}: {reply:?}");
    }
    let target = http::Server::new(&server.url(), Some(server.token())).expect("a client can be made");
    let (before, saw) = (rows(&server).await, seen(&server).await);
    assert!(before.len() > 10 && before["workspaces"] == 2, "{before:?}");

    // Whose server it is matters to some; the runs with machines have those.
    let for_all = |case: &Case<http::Server>| case.level.features().all(|feature| feature != Feature::Organisation);
    let all = || cases::http::all().into_iter().filter(for_all).collect::<Vec<_>>();
    for case in all() {
        let name = case.name;
        let report = run("molecule serve", &target, &[case]).await;
        assert!(report.succeeded(), "{report}");
        let mut after = rows(&server).await;
        // What a case began may end a moment after it.
        let deadline = Instant::now() + PATIENCE;
        while after != before && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
            after = rows(&server).await;
        }
        assert_eq!(after, before, "{name} leaves rows behind");
    }
    assert_eq!(seen(&server).await, saw);

    let document = serde_json::from_str(include_str!("../../openapi.json")).expect("the document is JSON");
    assert_eq!(coverage::uncalled(&document, &target.called()), [""; 0], "no case asks for these");

    let mut again = all();
    shuffle(&mut again, 7);
    let report = run("molecule serve", &target, &again).await;
    assert!(report.succeeded() && report.passed() == again.len(), "{report}");
}
