//! Workspaces as clients make, read and remove them.

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
        "GET /workspaces answers the operator with an array, empty where there are none";
    Core, "R-WORKSPACE-4", a_removed_workspace_is_gone: "A removed workspace is answered 410 with what became of it";
    Core, "R-WORKSPACE-5", a_removed_workspace_can_be_asked_for:
        "With include_removed=true a removed workspace is answered as before";
    Core, "R-WORKSPACE-6", a_parent_is_removed_on_confirmation_only:
        "A workspace with children is removed, with them, only when that is confirmed";
    Core, "R-WORKSPACE-7", an_external_workspace_has_no_restart: "The restart of an external workspace changes nothing";
}

async fn unknown_workspace_is_not_found(server: &Server) -> Result<(), Verdict> {
    let answer = server.get(&format!("/workspaces/{}", unknown_id()?)).await?;
    answer.is(404, &json!({"error": "workspace not found"}))
}

async fn malformed_workspace_id_is_refused(server: &Server) -> Result<(), Verdict> {
    server.get("/workspaces/not-a-uuid").await?.is(400, &json!({"error": "invalid workspace ID"}))
}

async fn workspaces_are_an_array(server: &Server) -> Result<(), Verdict> {
    let answer = server.get_as_admin("/workspaces").await?;
    if answer.json(200)?.is_array() { Ok(()) } else { Err(answer.wrong("an array")) }
}

async fn remove(server: &Server, id: impl std::fmt::Display) -> Result<(), Verdict> {
    server.call(Method::DELETE, &format!("/workspaces/{id}?confirm=true")).admin().send().await?.json(200).map(drop)
}

async fn a_removed_workspace_is_gone(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance gone", &Value::Null).await?;
    remove(server, workspace.id).await?;
    let answer = server.get(&format!("/workspaces/{}", workspace.id)).await?;
    let body = answer.has(410, &json!({"error": "workspace removed", "id": workspace.id}))?;
    let when = &body["removed_at"];
    let dated = when.is_null() || when.as_str().is_some_and(|when| when.contains('T') && !when.starts_with("0001"));
    if dated && body["hint"].is_string() { Ok(()) } else { Err(answer.wrong("removed_at and a hint")) }
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
    let asked = server.call(Method::DELETE, &path).admin().send().await?;
    let body = asked.has(409, &json!({"status": "confirmation_required", "children_count": 1}))?;
    if body["children"][0]["id"] != child.id.to_string() {
        return Err(asked.wrong("the child in children"));
    }
    let removed = server.call(Method::DELETE, &format!("{path}?confirm=true")).admin().send().await?;
    removed.has(200, &json!({"status": "removed", "cascade_deleted": 1}))?;
    server.get(&format!("/workspaces/{}", child.id)).await?.refuses(410, "workspace removed")
}

async fn an_external_workspace_has_no_restart(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance restart", &Value::Null).await?;
    let path = format!("/workspaces/{}/restart", agent.id);
    server.post_as_admin(&path, &json!({})).await?.has(200, &json!({"status": "noop", "runtime": "external"}))?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    beat.json(&json!({"workspace_id": agent.id})).send().await?.has(200, &json!({"status": "ok"})).map(drop)
}
