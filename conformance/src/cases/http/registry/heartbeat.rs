//! What a heartbeat changes, and what it says.

use reqwest::Method;
use serde_json::{Value, json};

use super::joining::status;
use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::Registry;
    Core, "R-HEARTBEAT-5", an_unknown_workspace_has_no_heart: "A heartbeat for a workspace that nobody created is answered 404";
    Core, "R-HEARTBEAT-6", a_heartbeat_names_a_workspace: "A heartbeat without a UUID for its workspace is answered 400";
    Core, "R-HEARTBEAT-7", a_heartbeat_brings_its_token: "A heartbeat without the token that its workspace has is answered 401";
    Core, "R-HEARTBEAT-8", a_wedged_agent_is_degraded: "An agent that says it is wedged is degraded until it says otherwise";
    Core, "R-HEARTBEAT-9", half_of_all_calls_failing_is_degraded: "An agent is degraded from an error rate of 0.5 to one below 0.1";
    Core, "R-HEARTBEAT-10", who_judges_itself_is_degraded_only_when_wedged:
        "The error rate of an agent with the capability status_mgmt changes nothing";
    Core, "R-HEARTBEAT-11", uptime_may_have_a_fraction: "An uptime with a fraction is taken, and the fraction cut off";
    Core, "R-HEARTBEAT-12", unknown_members_say_nothing: "Members that are not known are ignored, a status among them";
    Core, "R-HEARTBEAT-13", the_operator_sees_what_was_said: "What a heartbeat says last is what the operator sees";
    Core, "R-HEARTBEAT-14", spending_is_kept_and_bounded: "Spending of 0 keeps what is known, and no spending is without bounds";
    Core, "R-HEARTBEAT-15", a_heartbeat_has_a_limit: "A heartbeat of more than a mebibyte is answered 413";
}

async fn beat(server: &Server, agent: &Workspace, said: &Value) -> Result<Answer, Verdict> {
    let mut body = json!({"workspace_id": agent.id});
    if let (Some(body), Some(said)) = (body.as_object_mut(), said.as_object()) {
        body.extend(said.clone());
    }
    server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token).json(&body).send().await
}

/// Beats once for each row and expects its status after it.
async fn moves(server: &Server, rows: &[(Value, &str)]) -> Result<(), Verdict> {
    let agent = server.external("conformance beats", &Value::Null).await?;
    for (said, expected) in rows {
        beat(server, &agent, said).await?.has(200, &json!({"status": "ok"}))?;
        let found = status(server, agent.id).await?;
        if found != *expected {
            return Err(Verdict::Failed(format!("expected the status {expected} after {said}, got {found}")));
        }
    }
    Ok(())
}

/// The row of an agent, as the operator sees it.
async fn row(server: &Server, agent: &Workspace) -> Result<Value, Verdict> {
    let answer = server.get_as_admin("/workspaces").await?;
    let listed = answer.json(200)?;
    let id = agent.id.to_string();
    let found = listed.as_array().and_then(|rows| rows.iter().find(|row| row["id"] == id));
    found.cloned().ok_or_else(|| answer.wrong("the workspace in the list"))
}

async fn an_unknown_workspace_has_no_heart(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance other", &Value::Null).await?;
    let call = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    call.json(&json!({"workspace_id": unknown_id()?})).send().await?.refuses(404, "workspace not found")
}

async fn a_heartbeat_names_a_workspace(server: &Server) -> Result<(), Verdict> {
    for body in
        [json!({}), json!({"workspace_id": ""}), json!({"workspace_id": "not-a-uuid"}), json!({"workspace_id": 1})]
    {
        let call = server.call(Method::POST, "/registry/heartbeat").json(&body);
        call.send().await?.refuses(400, "invalid request body")?;
    }
    Ok(())
}

async fn a_heartbeat_brings_its_token(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance mute", &Value::Null).await?;
    let call = server.call(Method::POST, "/registry/heartbeat").json(&json!({"workspace_id": agent.id}));
    call.send().await?.refuses(401, "missing workspace auth token")
}

async fn a_wedged_agent_is_degraded(server: &Server) -> Result<(), Verdict> {
    let rows = [
        (json!({}), "online"),
        (json!({"runtime_state": "wedged"}), "degraded"),
        (json!({"runtime_state": "wedged"}), "degraded"),
        (json!({"runtime_state": "ok"}), "online"),
    ];
    moves(server, &rows).await
}

async fn half_of_all_calls_failing_is_degraded(server: &Server) -> Result<(), Verdict> {
    let rows = [
        (json!({}), "online"),
        (json!({"error_rate": 0.49}), "online"),
        (json!({"error_rate": 0.5, "sample_error": "e"}), "degraded"),
        (json!({"error_rate": 0.1}), "degraded"),
        (json!({"error_rate": 0.09}), "online"),
    ];
    moves(server, &rows).await
}

async fn who_judges_itself_is_degraded_only_when_wedged(server: &Server) -> Result<(), Verdict> {
    let itself = json!({"capabilities": {"status_mgmt": true}});
    let rows = [
        (json!({"runtime_metadata": itself}), "online"),
        (json!({"error_rate": 1.0, "runtime_metadata": itself}), "online"),
        (json!({"runtime_state": "wedged", "runtime_metadata": itself}), "degraded"),
        (json!({"error_rate": 0.0, "runtime_metadata": itself}), "degraded"),
        (json!({"error_rate": 0.0}), "online"),
    ];
    moves(server, &rows).await
}

async fn uptime_may_have_a_fraction(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance uptime", &Value::Null).await?;
    beat(server, &agent, &json!({"uptime_seconds": 41.9})).await?.has(200, &json!({"status": "ok"}))?;
    match row(server, &agent).await?["uptime_seconds"].take() {
        uptime if uptime == 41 => Ok(()),
        uptime => Err(Verdict::Failed(format!("expected an uptime of 41 seconds, got {uptime}"))),
    }
}

async fn unknown_members_say_nothing(server: &Server) -> Result<(), Verdict> {
    moves(server, &[(json!({"status": "failed", "whatever": {"a": [1]}}), "online")]).await
}

async fn the_operator_sees_what_was_said(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance seen", &Value::Null).await?;
    for task in ["first", "second", ""] {
        let tasks = i32::from(!task.is_empty());
        let said = json!({"current_task": task, "active_tasks": tasks, "error_rate": 0.25});
        beat(server, &agent, &said).await?.has(200, &json!({"status": "ok"}))?;
        let seen = row(server, &agent).await?;
        if seen["current_task"] != task || seen["active_tasks"] != tasks || seen["last_error_rate"] != 0.25 {
            return Err(Verdict::Failed(format!("expected {said} to be seen, got {seen}")));
        }
    }
    Ok(())
}

async fn spending_is_kept_and_bounded(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance spends", &Value::Null).await?;
    for (said, expected) in [(250_i64, 250_i64), (0, 250), (-7, 250), (300, 300), (i64::MAX, 1_000_000_000_000)] {
        // Agents say it with every beat, since a server that forgets one hears of it in the next.
        let mut seen = Value::Null;
        for _ in 0..3 {
            beat(server, &agent, &json!({"monthly_spend": said})).await?.has(200, &json!({"status": "ok"}))?;
            seen = row(server, &agent).await?["monthly_spend"].take();
            if seen == expected {
                break;
            }
        }
        if seen != expected {
            return Err(Verdict::Failed(format!("expected spending of {expected} after {said}, got {seen}")));
        }
    }
    Ok(())
}

async fn a_heartbeat_has_a_limit(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance large", &Value::Null).await?;
    let answer = beat(server, &agent, &json!({"sample_error": "x".repeat(1024 * 1024)})).await?;
    if answer.status() == 413 { Ok(()) } else { Err(answer.wrong("413")) }
}
