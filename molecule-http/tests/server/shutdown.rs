//! Going down in good order.

use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    server::{Setup, until},
    socket::Feed,
    stub::Stub,
};

#[tokio::test]
async fn what_is_under_way_is_finished_and_nothing_is_lost() {
    let agent = Stub::start().await;
    let mut server = Setup::none().start().await;
    let created = server.post("/workspaces", &json!({"name": "slow", "external": true, "url": agent.url()})).await;
    assert_eq!(created.status, 201, "{created:?}");
    let slow = created.json()["id"].as_str().expect("it has an id").to_owned();
    let (beating, token) = server.create_external("beating", None).await;
    let mut feed = Feed::open(&server, None, Some(&server.token())).await;

    let request = json!({"method": "tasks/get", "params": {"id": "t"}});
    let path = format!("/workspaces/{slow}/a2a");
    let answer = server.post(&path, &request);
    let meanwhile = async {
        until("the agent is called", async || (!agent.seen().is_empty()).then_some(())).await;
        let beat = json!({"workspace_id": beating, "uptime_seconds": 4242, "current_task": "counting"}).to_string();
        let beat = server.send(reqwest::Method::POST, "/registry/heartbeat", Some(&token), beat).await;
        assert_eq!(beat.status, 200, "{beat:?}");
        server.terminate();
        assert_eq!(feed.close_code().await, Some(1001));
        let address = server.url().replace("http://", "");
        until("nothing new is taken", async || TcpStream::connect(&address).await.err()).await;
        agent.answer_one();
    };
    let (answer, ()) = tokio::join!(answer, meanwhile);
    assert_eq!((answer.status, answer.json()["result"].clone()), (200, json!({"late": true})));
    assert_eq!(server.ended().await, Some(0), "{}", server.log());

    server.start_again().await;
    let row = server.fleet().await.remove(&beating).expect("it is still there");
    assert_eq!((&row["uptime_seconds"], &row["current_task"]), (&json!(4242), &json!("counting")));
}

#[tokio::test]
async fn an_interrupt_ends_an_idle_server_and_leaves_its_workspaces_running() {
    let mut server = Setup::process().start().await;
    let id = server.create("stays").await;
    server.until_status(&id, "online").await;
    let pid = server.pid(&id);
    server.interrupt();
    assert_eq!(server.ended().await, Some(0), "{}", server.log());
    assert_eq!(server.agents().len(), 1);
    server.start_again().await;
    server.assert_answers(&id, "Still here").await;
    assert_eq!(server.pid(&id), pid);
}
