//! Workspaces that are stopped for a while, and where they are in their lives.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, unknown_id},
};

cases! {
    Area::Workspaces;
    Extended(Feature::Lifecycle), "R-LIFECYCLE-1", pausing_takes_all_below:
        "A workspace is paused together with all below it";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-2", what_is_paused_cannot_be_paused:
        "What is paused already, or unknown, cannot be paused";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-3", resuming_brings_all_back:
        "A paused workspace is resumed together with those that are paused below it";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-4", what_is_not_paused_cannot_be_resumed:
        "What is not paused cannot be resumed";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-5", nothing_is_resumed_below_a_paused_workspace:
        "What is below a paused workspace cannot be resumed by itself";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-6", a_heartbeat_does_not_resume:
        "A heartbeat of a paused workspace moves nothing";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-9", registering_does_not_resume:
        "A registration of a paused workspace does not resume it";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-7", an_external_workspace_does_not_hibernate:
        "An external workspace, or one that is not online, cannot hibernate";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-8", collapsing_removes_all_below:
        "A collapse removes all below a workspace and leaves it alone";
    Extended(Feature::Lifecycle), "R-LIFECYCLE-10", what_was_paused_before_is_not_counted:
        "A pause counts those that it paused, and a resume those that it brought back";
    Extended(Feature::Lifecycle), "R-EXPAND-1", a_team_needs_a_template:
        "A workspace whose name no template has cannot be given a team";
    Extended(Feature::Lifecycle), "R-EXPAND-2", nobody_has_no_team: "An unknown workspace cannot be given a team";
    Core, "R-STATE-1", an_agent_learns_its_state: "An agent learns where its workspace is in its life";
    Core, "R-STATE-2", a_state_needs_its_own_token: "The state of a workspace with a token needs that token";
    Core, "R-STATE-3", an_agent_learns_that_it_is_gone:
        "The agent of a removed workspace learns that it is gone, with the token it had";
}

async fn verb(server: &Server, id: impl std::fmt::Display, verb: &str) -> Result<Answer, Verdict> {
    server.call(Method::POST, &format!("/workspaces/{id}/{verb}")).admin().send().await
}

async fn status(server: &Server, id: impl std::fmt::Display) -> Result<Value, Verdict> {
    Ok(server.get(&format!("/workspaces/{id}?include_removed=true")).await?.json(200)?["status"].take())
}

async fn expect_status(server: &Server, id: impl std::fmt::Display, expected: &str) -> Result<(), Verdict> {
    match status(server, id).await? {
        status if status == expected => Ok(()),
        status => Err(Verdict::Failed(format!("expected the status {expected}, got {status}"))),
    }
}

async fn pausing_takes_all_below(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let below = server.member("conformance below", &json!({"parent_id": lead.id})).await?;
    verb(server, lead.id, "pause").await?.is(200, &json!({"status": "paused", "paused_count": 2}))?;
    expect_status(server, lead.id, "paused").await?;
    expect_status(server, below.id, "paused").await
}

async fn what_was_paused_before_is_not_counted(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let first = server.member("conformance first", &json!({"parent_id": lead.id})).await?;
    let waiting = server.external("conformance waiting", &json!({"parent_id": first.id})).await?;
    verb(server, first.id, "pause").await?.has(200, &json!({"paused_count": 2}))?;
    verb(server, lead.id, "pause").await?.has(200, &json!({"paused_count": 1}))?;
    verb(server, lead.id, "resume").await?.has(200, &json!({"resumed_count": 3}))?;
    for workspace in [lead, first, waiting] {
        expect_status(server, workspace.id, "awaiting_agent").await?;
    }
    Ok(())
}

async fn what_is_paused_cannot_be_paused(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance paused", &Value::Null).await?;
    verb(server, workspace.id, "pause").await?.json(200)?;
    let refusal = "workspace not found or already paused";
    verb(server, workspace.id, "pause").await?.refuses(404, refusal)?;
    verb(server, unknown_id()?, "pause").await?.refuses(404, refusal)
}

async fn resuming_brings_all_back(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let below = server.member("conformance below", &json!({"parent_id": lead.id})).await?;
    verb(server, lead.id, "pause").await?.json(200)?;
    verb(server, lead.id, "resume").await?.has(200, &json!({"resumed_count": 2}))?;
    for workspace in [lead, below] {
        let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&workspace.token);
        beat.json(&json!({"workspace_id": workspace.id})).send().await?.json(200)?;
        expect_status(server, workspace.id, "online").await?;
    }
    Ok(())
}

async fn what_is_not_paused_cannot_be_resumed(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance member", &Value::Null).await?;
    let refusal = "workspace not found or not paused";
    verb(server, workspace.id, "resume").await?.refuses(404, refusal)?;
    let waiting = server.external("conformance waiting", &Value::Null).await?;
    verb(server, waiting.id, "resume").await?.refuses(404, refusal)?;
    verb(server, unknown_id()?, "resume").await?.refuses(404, refusal)
}

async fn nothing_is_resumed_below_a_paused_workspace(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let below = server.member("conformance below", &json!({"parent_id": lead.id})).await?;
    verb(server, lead.id, "pause").await?.json(200)?;
    let answer = verb(server, below.id, "resume").await?;
    answer.refuses(409, "parent workspace \"conformance lead\" is paused — resume it first")
}

async fn a_heartbeat_does_not_resume(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance paused", &Value::Null).await?;
    verb(server, workspace.id, "pause").await?.json(200)?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&workspace.token);
    beat.json(&json!({"workspace_id": workspace.id})).send().await?.json(200)?;
    expect_status(server, workspace.id, "paused").await
}

async fn registering_does_not_resume(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance paused", &Value::Null).await?;
    verb(server, workspace.id, "pause").await?.json(200)?;
    let body = json!({"id": workspace.id, "url": "", "delivery_mode": "poll", "agent_card": {"name": "paused"}});
    let call = server.call(Method::POST, "/registry/register").bearer(&workspace.token);
    call.json(&body).send().await?.json(200)?;
    expect_status(server, workspace.id, "paused").await
}

async fn an_external_workspace_does_not_hibernate(server: &Server) -> Result<(), Verdict> {
    let refusal = "workspace not found or not in a hibernatable state (must be online or degraded)";
    let online = server.member("conformance online", &Value::Null).await?;
    verb(server, online.id, "hibernate?force=true").await?.refuses(404, refusal)?;
    expect_status(server, online.id, "online").await?;
    verb(server, unknown_id()?, "hibernate").await?.refuses(404, refusal)
}

async fn collapsing_removes_all_below(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let child = server.member("conformance child", &json!({"parent_id": lead.id})).await?;
    let below = server.member("conformance below", &json!({"parent_id": child.id})).await?;
    let answer = verb(server, lead.id, "collapse").await?;
    answer.is(200, &json!({"status": "collapsed", "removed": ["conformance child"]}))?;
    expect_status(server, child.id, "removed").await?;
    expect_status(server, below.id, "removed").await?;
    expect_status(server, lead.id, "online").await
}

async fn an_agent_learns_its_state(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance state", &Value::Null).await?;
    let path = format!("/workspaces/{}/state", workspace.id);
    let answer = server.call(Method::GET, &path).bearer(&workspace.token).send().await?;
    let expected = json!({"workspace_id": workspace.id, "status": "online", "paused": false, "deleted": false});
    answer.is(200, &expected)
}

async fn a_state_needs_its_own_token(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance state", &Value::Null).await?;
    let other = server.member("conformance other", &Value::Null).await?;
    let path = format!("/workspaces/{}/state", workspace.id);
    let answer = server.call(Method::GET, &path).bearer(&other.token).send().await?;
    answer.refuses(401, "invalid workspace auth token")?;
    server.get("/workspaces/no-uuid/state").await?.refuses(400, "invalid workspace ID")
}

async fn an_agent_learns_that_it_is_gone(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance gone", &Value::Null).await?;
    let path = format!("/workspaces/{}", workspace.id);
    server.call(Method::DELETE, &path).admin().send().await?.json(200)?;
    let answer = server.call(Method::GET, &format!("{path}/state")).bearer(&workspace.token).send().await?;
    answer.is(404, &json!({"workspace_id": workspace.id, "status": "removed", "deleted": true}))?;
    let unknown = unknown_id()?;
    let answer = server.get(&format!("/workspaces/{unknown}/state")).await?;
    answer.is(404, &json!({"workspace_id": unknown, "deleted": true}))
}

async fn a_team_needs_a_template(server: &Server) -> Result<(), Verdict> {
    let name = format!("conformance {}", unknown_id()?);
    let workspace = server.member(&name, &Value::Null).await?;
    verb(server, workspace.id, "expand").await?.refuses(400, "no config found for workspace")
}

async fn nobody_has_no_team(server: &Server) -> Result<(), Verdict> {
    verb(server, unknown_id()?, "expand").await?.refuses(404, "workspace not found")
}
