//! How agents join, and that only they speak for themselves.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Server, unknown_id},
};

cases! {
    Area::Registry;
    Core, "R-HEARTBEAT-1", malformed_heartbeat_is_refused: "A heartbeat that is no JSON is answered 400";
    Core, "R-HEARTBEAT-2", a_heartbeat_brings_an_external_agent_online:
        "The heartbeat of an external agent that is waited for brings its workspace online";
    Core, "R-HEARTBEAT-3", a_heartbeat_needs_its_own_token: "A heartbeat with the token of another workspace is answered 401";
    Core, "R-HEARTBEAT-4", a_heartbeat_of_a_removed_workspace_is_refused:
        "After its workspace was removed the token of an agent is worth nothing";
    Core, "R-REGISTER-1", an_unknown_workspace_cannot_register: "An agent of a workspace that nobody created cannot register";
    Core, "R-REGISTER-2", an_external_agent_registers_and_is_online: "An external agent that registers is online";
}

async fn malformed_heartbeat_is_refused(server: &Server) -> Result<(), Verdict> {
    server.post("/registry/heartbeat", "{").await?.refuses(400, "invalid request body")
}

pub(super) async fn status(server: &Server, id: impl std::fmt::Display) -> Result<Value, Verdict> {
    Ok(server.get(&format!("/workspaces/{id}")).await?.json(200)?["status"].take())
}

async fn a_heartbeat_brings_an_external_agent_online(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance heartbeat", &Value::Null).await?;
    if status(server, agent.id).await? != "awaiting_agent" {
        return Err(Verdict::Failed("an external workspace does not begin as awaiting_agent".to_owned()));
    }
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    beat.json(&json!({"workspace_id": agent.id})).send().await?.has(200, &json!({"status": "ok"}))?;
    match status(server, agent.id).await? {
        status if status == "online" => Ok(()),
        status => Err(Verdict::Failed(format!("expected the status online after a heartbeat, got {status}"))),
    }
}

async fn a_heartbeat_needs_its_own_token(server: &Server) -> Result<(), Verdict> {
    let one = server.external("conformance one", &Value::Null).await?;
    let other = server.external("conformance other", &Value::Null).await?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&other.token);
    beat.json(&json!({"workspace_id": one.id})).send().await?.refuses(401, "invalid workspace auth token")
}

async fn a_heartbeat_of_a_removed_workspace_is_refused(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance removed", &Value::Null).await?;
    server.call(Method::DELETE, &format!("/workspaces/{}?confirm=true", agent.id)).admin().send().await?.json(200)?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    beat.json(&json!({"workspace_id": agent.id})).send().await?.refuses(401, "invalid workspace auth token")
}

async fn an_unknown_workspace_cannot_register(server: &Server) -> Result<(), Verdict> {
    let id = unknown_id()?;
    let register = server.call(Method::POST, "/registry/register");
    let body = json!({"id": id, "url": "http://8.8.8.8/", "agent_card": {"name": "nobody"}});
    register.json(&body).send().await?.refuses(404, "workspace not found")
}

async fn an_external_agent_registers_and_is_online(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance member", &Value::Null).await?;
    match status(server, agent.id).await? {
        status if status == "online" => Ok(()),
        status => Err(Verdict::Failed(format!("expected the status online after a register call, got {status}"))),
    }
}
