//! The server with workspaces in containers, held against the contract on either database.

use std::fs;

use molecule_conformance::{cases, http, run};

use crate::{engine::Engine, results::compare, server::Server, support};

#[tokio::test]
async fn the_server_keeps_the_contract_with_containers_on_sqlite() {
    keeps_the_contract("SQLite, containers", &[]).await;
}

#[tokio::test]
async fn the_server_keeps_the_contract_with_containers_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        keeps_the_contract("Postgres, containers", &[("DATABASE_URL", database.url())]).await;
    }
}

/// What workspaces may be made from.
const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/templates");

async fn keeps_the_contract(name: &str, env: &[(&str, &str)]) {
    let Some(engine) = Engine::of_the_tests() else { return };
    // With all that some cases try only where it is switched on.
    let on = [("CONFIGS_DIR", TEMPLATES), ("AUDIT_LEDGER_SALT", "salt"), ("MOLECULE_ENABLE_TEST_TOKENS", "1")];
    let server = Server::start_with(&engine, &["--provisioner", "docker"], &[env, &on].concat());
    let token = fs::read_to_string(server.data_dir().join("operator-token")).expect("the server left a token");
    let url = format!("http://127.0.0.1:{}", server.port);
    let target = http::Server::new(&url, Some(token.trim().to_owned())).expect("a client can be made");
    compare(name, &run("molecule serve", &target, &cases::http::all()).await);
}
