//! The server, held against the contract.

use molecule_conformance::{cases, http, run};

use crate::{server::Setup, support};

#[tokio::test]
async fn the_server_keeps_the_contract_on_sqlite() {
    keeps_the_contract(None).await;
}

#[tokio::test]
async fn the_server_keeps_the_contract_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        keeps_the_contract(Some(database.url())).await;
    }
}

async fn keeps_the_contract(database: Option<&str>) {
    let server = Setup::none().database(database).start().await;
    let target = http::Server::new(&server.url(), Some(server.token())).expect("a client can be made");
    let report = run("molecule serve", &target, &cases::http::all()).await;
    assert!(report.succeeded() && report.skipped() == 0, "{report}");
}
