//! Clients that hang up before they are answered.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::{
    server::{Server, Setup, until},
    socket::Feed,
};

/// Sends the request and leaves.
async fn send_and_leave(server: &Server, path: &str, token: &str, body: &Value) {
    let (address, body) = (server.url().replace("http://", ""), body.to_string());
    let mut stream = TcpStream::connect(&address).await.expect("the server listens");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.expect("it is sent");
}

#[tokio::test]
async fn what_was_recorded_is_told_though_its_client_hung_up() {
    let server = Setup::none().start().await;
    let (first, first_token) = server.create_external("first", None).await;
    let operator = server.token();
    let mut feed = Feed::open(&server, None, Some(&operator)).await;
    for number in 0..40 {
        let body = json!({"name": format!("e{number}"), "external": true});
        send_and_leave(&server, "/workspaces", &operator, &body).await;
        if number == 20 {
            send_and_leave(&server, "/registry/heartbeat", &first_token, &json!({"workspace_id": first})).await;
        }
    }
    let mut heard = BTreeSet::new();
    let mut number = 40;
    until("what the log holds was heard", async || {
        while let Ok(event) = timeout(Duration::from_millis(100), feed.event()).await {
            heard.insert((event["event"].to_string(), event["workspace_id"].to_string()));
        }
        let log: Vec<Value> = serde_json::from_str(&server.get("/events?limit=500").await.text).expect("a list");
        // What happened before anybody listened.
        let before =
            |event: &&Value| event["workspace_id"] == first && event["event_type"] == "WORKSPACE_AWAITING_AGENT";
        let logged = log.iter().filter(|event| !before(event));
        let missing = logged
            .filter(|event| !heard.contains(&(event["event_type"].to_string(), event["workspace_id"].to_string())))
            .count();
        if log.len() <= 20 {
            // Of most the server saw the end before the beginning.
            number += 1;
            let body = json!({"name": format!("e{number}"), "external": true});
            send_and_leave(&server, "/workspaces", &operator, &body).await;
        }
        (log.len() > 20 && missing == 0).then_some(())
    })
    .await;
}
