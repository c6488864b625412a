//! The server dies without a word, and comes back.

use std::collections::BTreeMap;

use crate::{
    process,
    server::{Server, Setup, until},
    support,
};

#[tokio::test]
async fn the_fleet_survives_the_server_on_sqlite() {
    survives(None).await;
}

#[tokio::test]
async fn the_fleet_survives_the_server_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        survives(Some(database.url())).await;
    }
}

async fn survives(database: Option<&str>) {
    let mut server = Setup::process().database(database).start().await;
    let mut ids = Vec::new();
    for name in ["one", "two", "three"] {
        ids.push(server.create(name).await);
    }
    for id in &ids {
        server.until_status(id, "online").await;
    }
    let pids = pids(&server, &ids);

    server.kill9();
    server.start_again().await;
    let fleet = server.fleet().await;
    assert_eq!(fleet.len(), ids.len());
    for id in &ids {
        assert_eq!(fleet[id]["status"], "online");
        server.assert_answers(id, &format!("to {id}")).await;
    }
    assert_eq!(self::pids(&server, &ids), pids);
    assert_eq!(server.agents().len(), ids.len());

    server.kill9();
    let (lost, others) = ids.split_first().expect("there are three");
    process::kill(pids[lost]);
    server.start_again().await;
    until("the lost one is brought up again", async || server.pid(lost).filter(|pid| *pid != pids[lost])).await;
    server.until_status(lost, "online").await;
    server.assert_answers(lost, "Welcome back").await;
    for id in others {
        assert_eq!(server.pid(id), Some(pids[id]), "what was not lost is left alone");
        server.assert_answers(id, "And you?").await;
    }
    assert_eq!(server.agents().len(), ids.len());
    let kinds: Vec<String> = server.events(lost).await.into_iter().map(|(kind, _)| kind).collect();
    let expected =
        ["PROVISIONING", "ONLINE", "OFFLINE", "PROVISIONING", "ONLINE"].map(|kind| format!("WORKSPACE_{kind}"));
    assert_eq!(kinds, expected);
}

fn pids(server: &Server, ids: &[String]) -> BTreeMap<String, i32> {
    ids.iter().map(|id| (id.clone(), server.pid(id).expect("it runs"))).collect()
}
