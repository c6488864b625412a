//! Workspaces as clients make, read and remove them.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Server, unknown_id},
};

cases! {
    Area::Workspaces;
    Core, "R-WORKSPACE-1", unknown_workspace_is_not_found: "An id that names no workspace is answered 404";
    Core, "R-WORKSPACE-2", malformed_workspace_id_is_refused: "An id that is no UUID is answered 400";
    Core, "R-WORKSPACE-3", workspaces_are_an_array:
        "GET /workspaces shows the operator every workspace with all of its members, and none that was removed";
    Core, "R-WORKSPACE-4", a_removed_workspace_is_gone: "A removed workspace is answered 410 with when that was, and what to do";
    Core, "R-WORKSPACE-5", a_removed_workspace_can_be_asked_for:
        "With include_removed=true a removed workspace is answered as before";
    Core, "R-WORKSPACE-6", a_parent_is_removed_on_confirmation_only:
        "A workspace with children is removed, with them, only when that is confirmed";
    Core, "R-WORKSPACE-7", an_external_workspace_has_no_restart: "The restart of an external workspace changes nothing";
    Core, "R-WORKSPACE-8", every_member_is_listed: "Every workspace is listed with every member, the oldest first";
    Core, "R-WORKSPACE-9", what_is_not_there_is_removed: "What was never there, or is gone, counts as removed";
    Core, "R-WORKSPACE-10", a_purge_leaves_nothing: "A purge takes a workspace away for good, also one that was removed";
    Core, "R-WORKSPACE-11", the_time_of_removal_stays: "When a workspace was removed stays what it was";
    Core, "R-WORKSPACE-12", nobody_is_not_restarted: "A workspace that is unknown or removed cannot be restarted";
}

async fn unknown_workspace_is_not_found(server: &Server) -> Result<(), Verdict> {
    let answer = server.get(&format!("/workspaces/{}", unknown_id()?)).await?;
    answer.is(404, &json!({"error": "workspace not found"}))
}

async fn malformed_workspace_id_is_refused(server: &Server) -> Result<(), Verdict> {
    server.get("/workspaces/not-a-uuid").await?.is(400, &json!({"error": "invalid workspace ID"}))
}

async fn workspaces_are_an_array(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance listed", &json!({"role": "worker"})).await?;
    let row = server.row(workspace.id).await?;
    let row =
        row.ok_or_else(|| Verdict::Failed("the fleet does not show a workspace that was just made".to_owned()))?;
    let expected = json!({
        "name": "conformance listed", "role": "worker", "tier": 3, "status": "awaiting_agent", "runtime": "external",
        "url": "", "parent_id": null, "agent_card": null, "active_tasks": 0, "max_concurrent_tasks": 1,
        "last_error_rate": 0.0, "last_sample_error": "", "uptime_seconds": 0, "current_task": "", "x": 0.0, "y": 0.0,
        "collapsed": false, "budget_limit": null, "monthly_spend": 0, "workspace_dir": null,
    });
    for (member, value) in expected.as_object().into_iter().flatten() {
        if row.get(member) != Some(value) {
            return Err(Verdict::Failed(format!("expected {member}: {value} of a workspace in the fleet, got {row}")));
        }
    }
    remove(server, workspace.id).await?;
    match server.row(workspace.id).await? {
        None => Ok(()),
        Some(row) => Err(Verdict::Failed(format!("the fleet shows a removed workspace: {row}"))),
    }
}

async fn remove(server: &Server, id: impl std::fmt::Display) -> Result<(), Verdict> {
    server.call(Method::DELETE, &format!("/workspaces/{id}?confirm=true")).admin().send().await?.json(200).map(drop)
}

async fn a_removed_workspace_is_gone(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance gone", &Value::Null).await?;
    remove(server, workspace.id).await?;
    let answer = server.get(&format!("/workspaces/{}", workspace.id)).await?;
    let body = answer.has(410, &json!({"error": "workspace removed", "id": workspace.id}))?;
    // By the server's own clock, where it tells.
    let now = answer.header("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    let now = now.map_or_else(clock, |now| now.to_utc());
    let when = body["removed_at"].as_str().and_then(|when| DateTime::parse_from_rfc3339(when).ok());
    let just_now = when.is_some_and(|when| (now - when.to_utc()).abs() < TimeDelta::minutes(1));
    let hint = body["hint"].as_str().is_some_and(|hint| !hint.is_empty());
    if just_now && hint { Ok(()) } else { Err(answer.wrong("removed_at within the last minute, and a hint")) }
}

#[expect(clippy::disallowed_methods, reason = "whoever looks at a server from outside has no clock but this")]
fn clock() -> DateTime<Utc> {
    Utc::now()
}

async fn a_removed_workspace_can_be_asked_for(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance gone", &Value::Null).await?;
    remove(server, workspace.id).await?;
    let path = format!("/workspaces/{}?include_removed=", workspace.id);
    server.get(&format!("{path}true")).await?.has(200, &json!({"status": "removed"}))?;
    server.get(&format!("{path}1")).await?.refuses(410, "workspace removed")
}

async fn a_parent_is_removed_on_confirmation_only(server: &Server) -> Result<(), Verdict> {
    let parent = server.external("conformance parent", &Value::Null).await?;
    let child = server.external("conformance child", &json!({"parent_id": parent.id})).await?;
    let path = format!("/workspaces/{}", parent.id);
    for unconfirmed in ["", "?confirm=1", "?confirm="] {
        let asked = server.call(Method::DELETE, &format!("{path}{unconfirmed}")).admin().send().await?;
        let body = asked.has(409, &json!({"status": "confirmation_required", "children_count": 1}))?;
        if body["children"][0]["id"] != child.id.to_string() {
            return Err(asked.wrong("the child in children"));
        }
        for id in [parent.id, child.id] {
            server.get(&format!("/workspaces/{id}")).await?.has(200, &json!({"status": "awaiting_agent"}))?;
        }
    }
    let removed = server.call(Method::DELETE, &format!("{path}?confirm=true")).admin().send().await?;
    removed.has(200, &json!({"status": "removed", "cascade_deleted": 1}))?;
    server.get(&format!("/workspaces/{}", child.id)).await?.refuses(410, "workspace removed")
}

async fn an_external_workspace_has_no_restart(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance restart", &Value::Null).await?;
    let before = server.kept(agent.id).await?;
    let path = format!("/workspaces/{}/restart", agent.id);
    server.post_as_admin(&path, &json!({})).await?.has(200, &json!({"status": "noop", "runtime": "external"}))?;
    let after = server.kept(agent.id).await?;
    if before != after {
        return Err(Verdict::Failed(format!("the restart made of {before} this: {after}")));
    }
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    beat.json(&json!({"workspace_id": agent.id})).send().await?.has(200, &json!({"status": "ok"})).map(drop)
}

/// What the operator is told of each.
const MEMBERS: [&str; 22] = [
    "id",
    "name",
    "role",
    "tier",
    "status",
    "url",
    "parent_id",
    "agent_card",
    "active_tasks",
    "max_concurrent_tasks",
    "last_error_rate",
    "last_sample_error",
    "uptime_seconds",
    "current_task",
    "runtime",
    "workspace_dir",
    "monthly_spend",
    "budget_limit",
    "x",
    "y",
    "collapsed",
    "last_heartbeat_at",
];

async fn every_member_is_listed(server: &Server) -> Result<(), Verdict> {
    let first = server.external("conformance first", &Value::Null).await?;
    let second = server.member("conformance second", &Value::Null).await?;
    let answer = server.get_as_admin("/workspaces").await?;
    let list = answer.json(200)?;
    let list = list.as_array().ok_or_else(|| answer.wrong("an array"))?;
    let mut places = Vec::new();
    for id in [first.id, second.id] {
        let place = list.iter().position(|row| row["id"] == id.to_string());
        let place = place.ok_or_else(|| answer.wrong("both workspaces"))?;
        if let Some(missing) = MEMBERS.iter().find(|member| list[place].get(**member).is_none()) {
            return Err(Verdict::Failed(format!("GET /workspaces: a workspace without {missing}: {}", list[place])));
        }
        places.push(place);
    }
    if places[0] < places[1] { Ok(()) } else { Err(answer.wrong("the oldest first")) }
}

async fn what_is_not_there_is_removed(server: &Server) -> Result<(), Verdict> {
    let delete = async |id: &str, query: &str| {
        server.call(Method::DELETE, &format!("/workspaces/{id}{query}")).admin().send().await
    };
    let unknown = unknown_id()?.to_string();
    delete(&unknown, "").await?.is(200, &json!({"status": "removed", "cascade_deleted": 0}))?;
    delete(&unknown, "?purge=true").await?.is(200, &json!({"status": "purged", "cascade_deleted": 0}))?;
    let gone = server.external("conformance gone", &Value::Null).await?;
    for _ in 0..2 {
        delete(&gone.id.to_string(), "").await?.is(200, &json!({"status": "removed", "cascade_deleted": 0}))?;
    }
    delete("no-uuid", "").await?.refuses(400, "invalid workspace ID")
}

async fn a_purge_leaves_nothing(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let below = server.member("conformance below", &json!({"parent_id": lead.id})).await?;
    let path = format!("/workspaces/{}?confirm=true", lead.id);
    for (query, status, count) in [("", "removed", 1), ("&purge=true", "purged", 1)] {
        let answer = server.call(Method::DELETE, &format!("{path}{query}")).admin().send().await?;
        answer.is(200, &json!({"status": status, "cascade_deleted": count}))?;
    }
    for workspace in [lead, below] {
        let shown = server.get(&format!("/workspaces/{}?include_removed=true", workspace.id)).await?;
        shown.refuses(404, "workspace not found")?;
        let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&workspace.token);
        let answer = beat.json(&json!({"workspace_id": workspace.id})).send().await?;
        if !matches!(answer.status(), 401 | 404) {
            return Err(answer.wrong("the status 401 or 404"));
        }
    }
    Ok(())
}

async fn the_time_of_removal_stays(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance gone", &Value::Null).await?;
    let path = format!("/workspaces/{}", workspace.id);
    remove(server, workspace.id).await?;
    let before = server.get(&path).await?.json(410)?["removed_at"].take();
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&workspace.token);
    beat.json(&json!({"workspace_id": workspace.id, "current_task": "late"})).send().await?;
    let patch = server.call(Method::PATCH, &path).admin().json(&json!({"name": "conformance other"})).send().await?;
    if patch.status() < 400 {
        return Err(patch.wrong("a refusal"));
    }
    remove(server, workspace.id).await?;
    server.get(&path).await?.has(410, &json!({"removed_at": before})).map(drop)
}

async fn nobody_is_not_restarted(server: &Server) -> Result<(), Verdict> {
    let gone = server.external("conformance gone", &Value::Null).await?;
    remove(server, gone.id).await?;
    for id in [gone.id, unknown_id()?] {
        let answer = server.post_as_admin(&format!("/workspaces/{id}/restart"), &json!({})).await?;
        answer.refuses(404, "workspace not found")?;
    }
    Ok(())
}
