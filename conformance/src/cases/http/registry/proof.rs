//! Whom the registry believes, and what is kept of what it is told.

use reqwest::Method;
use serde_json::{Value, json};

use super::joining::status;
use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace},
};

cases! {
    Area::Registry;
    Core, "R-REGISTER-11", nobody_registers_for_an_agent: "The operator does not register for an agent";
    Core, "R-REGISTER-12", an_agent_that_is_pushed_to_is_found_where_it_said:
        "An agent that is pushed to is discovered where it said it is";
    Core, "R-REGISTER-13", a_card_that_is_pushed_names_no_link_local_address:
        "A register call whose card names a link-local address is answered 400";
    Core, "R-HEARTBEAT-16", nobody_beats_for_an_agent: "The operator does not beat for an agent";
    Core, "R-HEARTBEAT-17", what_passes_is_not_in_the_log: "Heartbeats, and that a task changed, are not kept in the log";
    Core, "R-CARD-5", a_change_of_a_card_is_whole: "A change of a card without an ID or a card is answered 400";
    Core, "R-PEERS-9", peers_are_shown_to_their_own: "The peers of a workspace are shown to its own agent and to no other";
}

async fn send(server: &Server, path: &str, bearer: Option<&str>, body: &Value) -> Result<Answer, Verdict> {
    let call = server.call(Method::POST, path).json(body);
    match bearer {
        Some(bearer) => call.bearer(bearer).send().await,
        None => call.admin().send().await,
    }
}

fn pushed(agent: &Workspace, card: &Value) -> Value {
    json!({"id": agent.id, "url": "http://8.8.8.8:8000/agent", "delivery_mode": "push", "agent_card": card})
}

async fn nobody_registers_for_an_agent(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance own", &Value::Null).await?;
    let answer = send(server, "/registry/register", None, &pushed(&agent, &json!({}))).await?;
    answer.refuses(401, "invalid workspace auth token")?;
    match status(server, agent.id).await? {
        status if status == "awaiting_agent" => Ok(()),
        status => Err(Verdict::Failed(format!("a call that was refused made it {status}"))),
    }
}

async fn an_agent_that_is_pushed_to_is_found_where_it_said(server: &Server) -> Result<(), Verdict> {
    let asker = server.member("conformance asker", &Value::Null).await?;
    let agent = server.external("conformance pushed", &Value::Null).await?;
    let said = pushed(&agent, &json!({"name": "pushed"}));
    let answer = send(server, "/registry/register", Some(&agent.token), &said).await?;
    answer.has(200, &json!({"status": "registered", "delivery_mode": "push"}))?;
    let call = server.call(Method::GET, &format!("/registry/discover/{}", agent.id)).bearer(&asker.token);
    let found = call.header("X-Workspace-ID", &asker.id.to_string()).send().await?;
    found.is(200, &json!({"id": agent.id, "name": "conformance pushed", "url": "http://8.8.8.8:8000/agent"}))
}

async fn a_card_that_is_pushed_names_no_link_local_address(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance card", &Value::Null).await?;
    let said = pushed(&agent, &json!({"url": "http://169.254.169.254/latest"}));
    let answer = send(server, "/registry/register", Some(&agent.token), &said).await?;
    answer.refuses(400, "workspace agent_card URL not allowed")
}

async fn nobody_beats_for_an_agent(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance own", &Value::Null).await?;
    let answer = send(server, "/registry/heartbeat", None, &json!({"workspace_id": agent.id})).await?;
    answer.refuses(401, "invalid workspace auth token")?;
    server.get(&format!("/workspaces/{}", agent.id)).await?.has(200, &json!({"status": "awaiting_agent"})).map(drop)
}

async fn what_passes_is_not_in_the_log(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance beats", &Value::Null).await?;
    let mut feed = server.call(Method::GET, "/ws").admin().feed().await?;
    for task in ["one", "two", ""] {
        let said = json!({"workspace_id": agent.id, "current_task": task, "active_tasks": 1});
        send(server, "/registry/heartbeat", Some(&agent.token), &said).await?.has(200, &json!({"status": "ok"}))?;
        let heard = feed.event_of("TASK_UPDATED", agent.id).await?;
        if heard["payload"]["current_task"] != task {
            return Err(Verdict::Failed(format!("expected the task {task:?} to be told, got {heard}")));
        }
    }
    let answer = server.get_as_admin(&format!("/events/{}", agent.id)).await?;
    let Value::Array(log) = answer.json(200)? else { return Err(answer.wrong("an array")) };
    let passing = ["WORKSPACE_HEARTBEAT", "TASK_UPDATED"];
    if log.iter().any(|event| passing.iter().any(|kind| event["event_type"] == *kind)) {
        Err(answer.wrong("nothing that passes"))
    } else {
        Ok(())
    }
}

async fn a_change_of_a_card_is_whole(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance card", &Value::Null).await?;
    for body in
        [json!({"workspace_id": agent.id}), json!({"agent_card": {}}), json!({"workspace_id": "x", "agent_card": {}})]
    {
        let answer = send(server, "/registry/update-card", Some(&agent.token), &body).await?;
        answer.refuses(400, "invalid request body")?;
    }
    Ok(())
}

async fn peers_are_shown_to_their_own(server: &Server) -> Result<(), Verdict> {
    let (one, other) = (
        server.member("conformance one", &Value::Null).await?,
        server.member("conformance other", &Value::Null).await?,
    );
    let path = format!("/registry/{}/peers", one.id);
    server.get(&path).await?.refuses(401, "missing workspace auth token")?;
    let answer = server.call(Method::GET, &path).bearer(&other.token).send().await?;
    answer.refuses(401, "invalid workspace auth token")?;
    server.call(Method::GET, &path).bearer(&one.token).send().await?.json(200).map(drop)
}
