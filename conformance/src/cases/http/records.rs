//! What agents ask leave for, keep, and are asked for at set times.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace},
};

cases! {
    Area::Data;
    Extended(Feature::Records), "R-APPROVAL-1", a_request_waits: "A request for leave waits, and the operator sees it";
    Extended(Feature::Records), "R-APPROVAL-2", a_request_is_decided_once: "The operator decides a request once";
    Extended(Feature::Records), "R-APPROVAL-3", agents_decide_nothing: "An agent decides nothing";
    Extended(Feature::Records), "R-APPROVAL-4", a_decision_is_yes_or_no: "A decision is approved or denied";
    Extended(Feature::Records), "R-APPROVAL-5", a_request_is_told: "A request and its decision are told, to the workspace above as well";
    Extended(Feature::Records), "R-CONFIG-1", configuration_is_merged: "A patch sets its members whole and leaves the others";
    Extended(Feature::Records), "R-CONFIG-2", configuration_is_an_object: "A patch that is no object is refused";
    Extended(Feature::Records), "R-CONFIG-3", configuration_has_a_limit: "A patch over its limit is refused";
    Extended(Feature::Records), "R-CHECKPOINT-1", checkpoints_are_kept: "Steps are kept, and the same step takes its own place";
    Extended(Feature::Records), "R-CHECKPOINT-2", the_latest_checkpoint_is_found: "The latest step is found, and none is 404";
    Extended(Feature::Records), "R-CHECKPOINT-4", names_of_steps_have_a_limit: "A step or workflow with a name over 1024 bytes is refused";
    Extended(Feature::Records), "R-CHECKPOINT-3", checkpoints_are_deleted: "The steps of a workflow are deleted together";
    Extended(Feature::Schedules), "R-SCHEDULE-1", a_schedule_is_made: "A schedule is made, and listed with its next time";
    Extended(Feature::Schedules), "R-SCHEDULE-2", a_schedule_is_checked: "A schedule that cannot be is refused, and why is named";
    Extended(Feature::Schedules), "R-SCHEDULE-3", names_of_schedules_differ: "No two schedules of a workspace have one name";
    Extended(Feature::Schedules), "R-SCHEDULE-4", a_schedule_is_patched: "A change of its times moves its next time";
    Extended(Feature::Schedules), "R-SCHEDULE-5", schedules_belong_to_their_workspace: "A schedule is out of reach of other workspaces";
    Extended(Feature::Schedules), "R-SCHEDULE-6", a_run_is_for_the_caller: "To run a schedule gives the prompt for the caller to send";
    Extended(Feature::Schedules), "R-SCHEDULE-7", peers_see_how_schedules_do: "Workspaces that may talk see how schedules do, and no prompt";
    Extended(Feature::Schedules), "R-SCHEDULE-8", watchers_prove_who_they_are: "Who looks at schedules proves to be who it says";
    Extended(Feature::Schedules), "R-SCHEDULE-9", operators_see_all_schedules: "The operator sees how every schedule does";
    Extended(Feature::Files), "R-CHATFILE-1", only_some_paths_are_read: "A path that may not be read is refused by name";
    Extended(Feature::Files), "R-CHATFILE-2", files_need_an_address: "Files of a workspace without an address are answered 503";
}

async fn call(server: &Server, of: &Workspace, method: Method, path: &str, body: &Value) -> Result<Answer, Verdict> {
    let call = server.call(method, &format!("/workspaces/{}/{path}", of.id)).bearer(&of.token);
    if body.is_null() { call.send().await } else { call.json(body).send().await }
}

async fn get(server: &Server, of: &Workspace, path: &str) -> Result<Answer, Verdict> {
    call(server, of, Method::GET, path, &Value::Null).await
}

async fn post(server: &Server, of: &Workspace, path: &str, body: &Value) -> Result<Answer, Verdict> {
    call(server, of, Method::POST, path, body).await
}

async fn one(server: &Server) -> Result<Workspace, Verdict> {
    server.external("conformance records", &Value::Null).await
}

async fn ask(server: &Server, of: &Workspace) -> Result<String, Verdict> {
    let asked = post(server, of, "approvals", &json!({"action": "deploy", "reason": "due", "task_id": "t"})).await?;
    let body = asked.has(201, &json!({"status": "pending"}))?;
    body["approval_id"].as_str().map(str::to_owned).ok_or_else(|| asked.wrong("approval_id"))
}

async fn decide(server: &Server, of: &Workspace, approval: &str, decision: &str) -> Result<Answer, Verdict> {
    let path = format!("/workspaces/{}/approvals/{approval}/decide", of.id);
    server.post_as_admin(&path, &json!({"decision": decision})).await
}

async fn a_request_waits(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    get(server, &own, "approvals").await?.is(200, &json!([]))?;
    let id = ask(server, &own).await?;
    let pending = server.get_as_admin("/approvals/pending").await?;
    let list = pending.json(200)?;
    let found = list.as_array().into_iter().flatten().find(|approval| approval["id"] == id.as_str());
    match found {
        Some(approval) if approval["workspace_name"] == "conformance records" => {}
        _ => return Err(pending.wrong("the request with the name of its workspace")),
    }
    post(server, &own, "approvals", &json!({"reason": "none"})).await?.refuses(400, "invalid request body")
}

async fn a_request_is_decided_once(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    let id = ask(server, &own).await?;
    let absent = "approval not found or already decided";
    decide(server, &other, &id, "approved").await?.refuses(404, absent)?;
    decide(server, &own, &id, "denied").await?.is(200, &json!({"status": "denied", "approval_id": id}))?;
    decide(server, &own, &id, "approved").await?.refuses(404, absent)?;
    let listed = get(server, &own, "approvals").await?;
    let first = listed.json(200)?[0].take();
    let whole = first["status"] == "denied" && first["decided_by"].is_string() && first["decided_at"].is_string();
    if whole { Ok(()) } else { Err(listed.wrong("the decision, by whom and when")) }
}

async fn agents_decide_nothing(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let id = ask(server, &own).await?;
    let body = json!({"decision": "approved", "decided_by": "human"});
    post(server, &own, &format!("approvals/{id}/decide"), &body).await?.json(403)?;
    let listed = get(server, &own, "approvals").await?;
    if listed.json(200)?[0]["status"] == "pending" { Ok(()) } else { Err(listed.wrong("a request that waits")) }
}

async fn a_decision_is_yes_or_no(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let id = ask(server, &own).await?;
    decide(server, &own, &id, "maybe").await?.refuses(400, "decision must be 'approved' or 'denied'")?;
    let listed = get(server, &own, "approvals").await?;
    if listed.json(200)?[0]["status"] == "pending" { Ok(()) } else { Err(listed.wrong("a request that waits")) }
}

async fn a_request_is_told(server: &Server) -> Result<(), Verdict> {
    let parent = one(server).await?;
    let child = server.external("conformance child", &json!({"parent_id": parent.id})).await?;
    let id = ask(server, &child).await?;
    decide(server, &child, &id, "approved").await?.json(200)?;
    for (workspace, kinds) in
        [(&parent, &["APPROVAL_ESCALATED"][..]), (&child, &["APPROVAL_REQUESTED", "APPROVAL_APPROVED"][..])]
    {
        let answer = server.get_as_admin(&format!("/events/{}", workspace.id)).await?;
        let events = answer.json(200)?;
        for kind in kinds {
            let is_told =
                |event: &Value| event["event_type"] == *kind && event["payload"]["approval_id"] == id.as_str();
            if !events.as_array().into_iter().flatten().any(is_told) {
                return Err(answer.wrong(kind));
            }
        }
    }
    Ok(())
}

async fn configuration_is_merged(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    get(server, &own, "config").await?.is(200, &json!({"data": {}}))?;
    for patch in [json!({"a": {"x": 1}, "b": 1}), json!({"a": {"y": 2}})] {
        call(server, &own, Method::PATCH, "config", &patch).await?.is(200, &json!({"status": "updated"}))?;
    }
    get(server, &own, "config").await?.is(200, &json!({"data": {"a": {"y": 2}, "b": 1}}))
}

async fn configuration_is_an_object(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for odd in [json!([1]), json!("text"), json!(7)] {
        call(server, &own, Method::PATCH, "config", &odd).await?.refuses(400, "invalid JSON")?;
    }
    get(server, &own, "config").await?.is(200, &json!({"data": {}}))
}

async fn configuration_has_a_limit(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let huge = json!({"k": "x".repeat(256 * 1024)});
    call(server, &own, Method::PATCH, "config", &huge).await?.refuses(413, "body too large or unreadable")
}

async fn keep(server: &Server, of: &Workspace, step: &str, index: i32) -> Result<Value, Verdict> {
    let body = json!({"workflow_id": "w", "step_name": step, "step_index": index, "payload": {"n": index}});
    let kept = post(server, of, "checkpoints", &body).await?;
    Ok(kept.has(201, &json!({"workspace_id": of.id, "workflow_id": "w", "step_name": step}))?["id"].take())
}

async fn names_of_steps_have_a_limit(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let long = "n".repeat(1025);
    for (workflow, step) in [("w", long.as_str()), (long.as_str(), "s")] {
        let body = json!({"workflow_id": workflow, "step_name": step, "step_index": 0, "payload": {}});
        let refusal = "workflow_id and step_name must be <= 1024 bytes";
        post(server, &own, "checkpoints", &body).await?.refuses(400, refusal)?;
    }
    Ok(())
}

async fn checkpoints_are_kept(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let first = keep(server, &own, "a", 1).await?;
    keep(server, &own, "b", 2).await?;
    if keep(server, &own, "a", 3).await? != first {
        return Err(Verdict::Failed("the same step was kept under another id".to_owned()));
    }
    let listed = get(server, &own, "checkpoints/w").await?;
    let list = listed.json(200)?;
    let order = list[0]["step_name"] == "a" && list[0]["payload"] == json!({"n": 3}) && list[1]["step_name"] == "b";
    if order && list.as_array().map(Vec::len) == Some(2) { Ok(()) } else { Err(listed.wrong("a before b")) }
}

async fn the_latest_checkpoint_is_found(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    get(server, &own, "checkpoints/latest").await?.refuses(404, "no checkpoints found for workspace")?;
    keep(server, &own, "a", 2).await?;
    keep(server, &own, "b", 1).await?;
    get(server, &own, "checkpoints/latest").await?.has(200, &json!({"step_name": "b", "step_index": 1})).map(drop)
}

async fn checkpoints_are_deleted(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    keep(server, &own, "a", 1).await?;
    keep(server, &own, "b", 2).await?;
    let delete = async || call(server, &own, Method::DELETE, "checkpoints/w", &Value::Null).await;
    delete().await?.is(200, &json!({"deleted": 2, "workflow_id": "w"}))?;
    delete().await?.refuses(404, "no checkpoints found for workflow")?;
    get(server, &own, "checkpoints/w").await?.refuses(404, "no checkpoints found for workflow")
}

/// A schedule that is due far from now.
async fn schedule(server: &Server, of: &Workspace) -> Result<String, Verdict> {
    let body = json!({"name": "yearly", "cron_expr": "0 0 29 2 *", "prompt": "look\r\naround"});
    let made = post(server, of, "schedules", &body).await?;
    let body = made.has(201, &json!({"status": "created"}))?;
    body["id"].as_str().map(str::to_owned).ok_or_else(|| made.wrong("an id"))
}

async fn a_schedule_is_made(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    get(server, &own, "schedules").await?.is(200, &json!([]))?;
    schedule(server, &own).await?;
    let listed = get(server, &own, "schedules").await?;
    let first = listed.json(200)?[0].take();
    let expected = json!({
        "name": "yearly", "timezone": "UTC", "prompt": "look\naround", "enabled": true, "run_count": 0,
        "source": "runtime", "last_run_at": null,
    });
    let same = expected.as_object().into_iter().flatten().all(|(name, value)| &first[name] == value);
    let next = first["next_run_at"].as_str().is_some_and(|next| next.contains("-02-29T00:00:00"));
    if same && next { Ok(()) } else { Err(listed.wrong(&expected.to_string())) }
}

async fn a_schedule_is_checked(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let make = async |body: Value| post(server, &own, "schedules", &body).await;
    make(json!({"prompt": "x"})).await?.refuses(400, "cron_expr and prompt are required")?;
    make(json!({"cron_expr": "0 0 1 1 *", "prompt": "x", "timezone": "Mars/Olympus"}))
        .await?
        .refuses(400, "invalid timezone: Mars/Olympus")?;
    for cron in ["@daily", "0 0 0 1 1 *", "61 * * * *", "often"] {
        let answer = make(json!({"cron_expr": cron, "prompt": "x"})).await?;
        if !answer.json(400)?["error"].as_str().is_some_and(|error| error.contains("cron_expr")) {
            return Err(answer.wrong("an error that names cron_expr"));
        }
    }
    Ok(())
}

async fn names_of_schedules_differ(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    schedule(server, &own).await?;
    let body = json!({"name": "yearly", "cron_expr": "0 0 29 2 *", "prompt": "x"});
    let answer = post(server, &own, "schedules", &body).await?;
    if !answer.json(409)?["error"].is_string() {
        return Err(answer.wrong("an error"));
    }
    let listed = get(server, &own, "schedules").await?;
    if listed.json(200)?.as_array().map(Vec::len) != Some(1) {
        return Err(listed.wrong("one schedule"));
    }
    schedule(server, &other).await.map(drop)
}

async fn a_schedule_is_patched(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let path = format!("schedules/{}", schedule(server, &own).await?);
    let patch = json!({"cron_expr": "30 1 29 2 *", "enabled": false});
    call(server, &own, Method::PATCH, &path, &patch).await?.is(200, &json!({"status": "updated"}))?;
    let listed = get(server, &own, "schedules").await?;
    let first = listed.json(200)?[0].take();
    let moved = first["next_run_at"].as_str().is_some_and(|next| next.contains("T01:30:00"));
    if moved && first["enabled"] == false { Ok(()) } else { Err(listed.wrong("another next_run_at")) }
}

async fn schedules_belong_to_their_workspace(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    let path = format!("schedules/{}", schedule(server, &own).await?);
    call(server, &other, Method::PATCH, &path, &json!({})).await?.refuses(404, "schedule not found")?;
    call(server, &other, Method::DELETE, &path, &Value::Null).await?.refuses(404, "schedule not found")?;
    call(server, &own, Method::DELETE, &path, &Value::Null).await?.is(200, &json!({"status": "deleted"}))?;
    call(server, &own, Method::DELETE, &path, &Value::Null).await?.refuses(404, "schedule not found")
}

async fn a_run_is_for_the_caller(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let path = format!("schedules/{}", schedule(server, &own).await?);
    let fired = json!({"status": "fired", "workspace_id": own.id, "prompt": "look\naround"});
    post(server, &own, &format!("{path}/run"), &Value::Null).await?.is(200, &fired)?;
    get(server, &own, &format!("{path}/history")).await?.is(200, &json!([]))
}

async fn look(server: &Server, at: &Workspace, claimed: &str, token: &str) -> Result<Answer, Verdict> {
    let call = server.call(Method::GET, &format!("/workspaces/{}/schedules/health", at.id));
    call.header("x-workspace-id", claimed).bearer(token).send().await
}

async fn peers_see_how_schedules_do(server: &Server) -> Result<(), Verdict> {
    let parent = one(server).await?;
    let child = server.external("conformance child", &json!({"parent_id": parent.id})).await?;
    let cousin = server.external("conformance cousin", &json!({"parent_id": one(server).await?.id})).await?;
    schedule(server, &child).await?;
    let seen = look(server, &child, &parent.id.to_string(), &parent.token).await?;
    let first = seen.json(200)?[0].take();
    if first["name"] != "yearly" || first.get("prompt").is_some() || first.get("cron_expr").is_some() {
        return Err(seen.wrong("the name, and neither prompt nor cron_expr"));
    }
    look(server, &child, &cousin.id.to_string(), &cousin.token).await?.refuses(403, "access denied")
}

async fn watchers_prove_who_they_are(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    let path = format!("/workspaces/{}/schedules/health", own.id);
    server.call(Method::GET, &path).bearer(&own.token).send().await?.refuses(401, "X-Workspace-ID header required")?;
    look(server, &own, &own.id.to_string(), &other.token).await?.refuses(401, "invalid workspace auth token")?;
    look(server, &own, "system:scheduler", &own.token).await?.json(403)?;
    look(server, &own, &own.id.to_string(), &own.token).await?.is(200, &json!([]))
}

async fn operators_see_all_schedules(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let id = schedule(server, &own).await?;
    let answer = server.get_as_admin("/admin/schedules/health").await?;
    let all = answer.json(200)?;
    let found = all.as_array().into_iter().flatten().find(|health| health["schedule_id"] == id.as_str());
    match found {
        Some(health) if health["status"] == "never_run" && health["workspace_id"] == own.id.to_string() => {}
        _ => return Err(answer.wrong("the schedule, which never ran")),
    }
    let call = server.call(Method::GET, "/admin/schedules/health").bearer(&own.token);
    call.send().await?.refuses(401, "invalid admin auth token")
}

async fn only_some_paths_are_read(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for (query, error) in [
        ("", "path query required"),
        ("?path=workspace/a", "path must be absolute"),
        ("?path=/etc/passwd", "path must be under /configs, /workspace, /home, or /plugins"),
        ("?path=/workspace/../etc/passwd", "invalid path"),
    ] {
        get(server, &own, &format!("chat/download{query}")).await?.refuses(400, error)?;
    }
    Ok(())
}

async fn files_need_an_address(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let refusal = "workspace url not registered yet";
    get(server, &own, "chat/download?path=/workspace/a").await?.refuses(503, refusal)?;
    let form = "--x\r\ncontent-disposition: form-data; name=\"files\"; filename=\"a\"\r\n\r\na\r\n--x--\r\n";
    let call = server.call(Method::POST, &format!("/workspaces/{}/chat/uploads", own.id)).bearer(&own.token);
    call.body("multipart/form-data; boundary=x", form).send().await?.refuses(503, refusal)
}
