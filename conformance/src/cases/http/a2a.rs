//! Calls to agents, as far as they can be seen without one, and delegations.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Feature, Target, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::A2a;
    Core, "R-A2A-1", an_unknown_workspace_is_not_called: "A call to a workspace that nobody created is answered 404";
    Core, "R-A2A-2", what_is_no_object_is_not_sent: "A call whose body is no JSON object is refused";
    Core, "R-A2A-3", a_message_has_content: "A message without parts and content is refused with a hint";
    Core, "R-A2A-4", a_call_has_a_caller: "A call with a wrong token is answered 401";
    Core, "R-A2A-5", reserved_callers_are_refused: "Names of callers inside the server are refused";
    Core, "R-A2A-6", nobody_calls_as_another: "A workspace cannot call in the name of another";
    Core, "R-A2A-7", strangers_are_not_called: "Workspaces that may not talk cannot call one another";
    Extended(Feature::Activity), "R-A2A-8", messages_are_kept_for_who_polls: "A message to an agent that polls is in its log before the answer";
    Extended(Feature::Activity), "R-A2A-9", old_shapes_are_brought_to_the_new: "Older shapes of messages are kept in the newer one";
    Extended(Feature::Activity), "R-A2A-10", unknown_queue_items_are_not_found: "A kept message that is not there is answered 404, to anyone";
    Extended(Feature::Activity), "R-A2A-11", stale_messages_are_dropped_by_the_operator: "Only the operator drops stale messages";
    Extended(Feature::Activity), "R-A2A-12", usage_begins_at_nothing: "A new workspace has used nothing today";
    Core, "R-A2A-13", a_revoked_token_calls_nobody: "A token that was just revoked calls nobody";
    Extended(Feature::Delegation), "R-DELEGATION-1", a_delegation_is_taken_and_listed: "A delegation is answered 202 and listed";
    Joint(Feature::Delegation, Feature::Activity), "R-DELEGATION-8", a_delegation_comes_to_its_target: "A delegated task is in the log of whom it is for";
    Extended(Feature::Delegation), "R-DELEGATION-2", a_repeat_is_the_same_delegation: "A repeat with the same key is the same delegation";
    Extended(Feature::Delegation), "R-DELEGATION-3", a_key_is_for_one_task: "The key of another task is refused";
    Extended(Feature::Delegation), "R-DELEGATION-4", a_delegation_is_checked: "A delegation without a target, or to oneself, is refused";
    Extended(Feature::Delegation), "R-DELEGATION-5", strangers_are_given_no_tasks: "A delegation to whom one may not talk is answered 403";
    Extended(Feature::Delegation), "R-DELEGATION-6", agents_record_their_own: "What an agent delegates by itself is recorded and updated";
    Extended(Feature::Delegation), "R-DELEGATION-7", updates_are_checked: "An update of no known delegation, or to another status, is refused";
}

async fn call(
    server: &Server,
    target: impl std::fmt::Display,
    by: &Workspace,
    body: &Value,
) -> Result<Answer, Verdict> {
    server.call(Method::POST, &format!("/workspaces/{target}/a2a")).bearer(&by.token).json(body).send().await
}

async fn member(server: &Server) -> Result<Workspace, Verdict> {
    server.member("conformance member", &Value::Null).await
}

/// A workspace, and one that it may not talk to: a child of its sibling.
async fn strangers(server: &Server) -> Result<(Workspace, Workspace), Verdict> {
    let one = member(server).await?;
    let sibling = member(server).await?;
    let other = server.external("conformance stranger", &json!({"parent_id": sibling.id})).await?;
    Ok((one, other))
}

fn message() -> Value {
    json!({"method": "message/send", "params": {"message": {"role": "user", "messageId": "m1", "parts": []}}})
}

async fn an_unknown_workspace_is_not_called(server: &Server) -> Result<(), Verdict> {
    let path = format!("/workspaces/{}/a2a", unknown_id()?);
    server.post_as_admin(&path, &message()).await?.refuses(404, "workspace not found")
}

async fn what_is_no_object_is_not_sent(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    for body in ["", "{", "[]", "5"] {
        let sent = server.call(Method::POST, &format!("/workspaces/{}/a2a", own.id)).bearer(&own.token).text(body);
        sent.send().await?.refuses(400, "invalid JSON")?;
    }
    Ok(())
}

async fn a_message_has_content(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    for (message, text) in [
        (json!({"role": "user"}), "params.message must contain either 'parts' (v0.3) or 'content' (v0.2 compat)"),
        (json!({"content": 5}), "invalid params.message.content type"),
    ] {
        let answer = call(server, own.id, &own, &json!({"method": "m", "params": {"message": message}})).await?;
        answer.refuses(400, text)?;
        if !answer.json(400)?["hint"].is_string() {
            return Err(answer.wrong("a hint"));
        }
    }
    Ok(())
}

async fn a_call_has_a_caller(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    let wrong = Workspace { id: own.id, token: "x".repeat(43) };
    call(server, own.id, &wrong, &message()).await?.refuses(401, "invalid caller auth token")?;
    was_not_called(server, &own).await
}

/// Demands that nothing is in the log of who was not to be called, where there are logs.
async fn was_not_called(server: &Server, target: &Workspace) -> Result<(), Verdict> {
    if !server.features().contains(&Feature::Activity) {
        return Ok(());
    }
    let path = format!("/workspaces/{}/activity", target.id);
    server.call(Method::GET, &path).bearer(&target.token).send().await?.is(200, &json!([]))
}

async fn reserved_callers_are_refused(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    for caller in ["webhook:github", "system:x", "test:x", "channel:x"] {
        let sent = server.call(Method::POST, &format!("/workspaces/{}/a2a", own.id)).bearer(&own.token);
        sent.header("x-workspace-id", caller).json(&message()).send().await?.refuses(403, "invalid caller ID")?;
    }
    Ok(())
}

async fn a_revoked_token_calls_nobody(server: &Server) -> Result<(), Verdict> {
    let (own, target) = (member(server).await?, member(server).await?);
    let called = call(server, target.id, &own, &message()).await?;
    if called.status() == 401 {
        return Err(called.wrong("to be let in with a token that is good"));
    }
    let listed = server.call(Method::GET, &format!("/workspaces/{}/tokens", own.id)).admin().send().await?;
    let token = listed.json(200)?["tokens"][0]["id"].as_str().unwrap_or_default().to_owned();
    let path = format!("/workspaces/{}/tokens/{token}", own.id);
    server.call(Method::DELETE, &path).admin().send().await?.json(200)?;
    call(server, target.id, &own, &message()).await?.refuses(401, "invalid caller auth token")
}

async fn nobody_calls_as_another(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (member(server).await?, member(server).await?);
    // The target's own name is no way around its token.
    let sent = server.call(Method::POST, &format!("/workspaces/{}/a2a", own.id)).bearer(&other.token);
    let sent = sent.header("x-workspace-id", &own.id.to_string()).json(&message());
    sent.send().await?.refuses(401, "invalid caller auth token")?;
    was_not_called(server, &own).await
}

async fn strangers_are_not_called(server: &Server) -> Result<(), Verdict> {
    let (own, stranger) = strangers(server).await?;
    let text = "access denied: workspaces cannot communicate per hierarchy rules";
    call(server, stranger.id, &own, &message()).await?.refuses(403, text)?;
    was_not_called(server, &stranger).await
}

async fn newest(server: &Server, of: &Workspace) -> Result<Value, Verdict> {
    let path = format!("/workspaces/{}/activity?type=a2a_receive&limit=1", of.id);
    let answer = server.call(Method::GET, &path).bearer(&of.token).send().await?;
    match answer.json(200)?.as_array().and_then(|rows| rows.first()) {
        Some(row) => Ok(row.clone()),
        None => Err(answer.wrong("a row")),
    }
}

async fn messages_are_kept_for_who_polls(server: &Server) -> Result<(), Verdict> {
    let (target, caller) = (member(server).await?, member(server).await?);
    let expected = json!({"status": "queued", "delivery_mode": "poll", "method": "message/send"});
    call(server, target.id, &caller, &message()).await?.is(200, &expected)?;
    let row = newest(server, &target).await?;
    let is_kept = row["source_id"] == json!(caller.id)
        && row["target_id"] == json!(target.id)
        && row["status"] == "ok"
        && row["request_body"]["params"]["message"]["messageId"] == "m1"
        && row.get("response_body").is_none();
    if is_kept { Ok(()) } else { Err(Verdict::Failed(format!("the message is not kept as it was sent: {row}"))) }
}

async fn old_shapes_are_brought_to_the_new(server: &Server) -> Result<(), Verdict> {
    let target = member(server).await?;
    let old = json!({"method": "message/send", "params": {"message": {"role": "user", "content": "hi"}}});
    call(server, target.id, &target, &old).await?.json(200)?;
    let request = newest(server, &target).await?["request_body"].take();
    let message = &request["params"]["message"];
    let is_new = request["jsonrpc"] == "2.0"
        && request["id"].is_string()
        && message["messageId"].is_string()
        && message["parts"] == json!([{"kind": "text", "text": "hi"}])
        && message.get("content").is_none();
    if is_new { Ok(()) } else { Err(Verdict::Failed(format!("the request is kept as {request}"))) }
}

async fn unknown_queue_items_are_not_found(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    let path = format!("/workspaces/{}/a2a/queue/{}", own.id, unknown_id()?);
    server.get(&path).await?.refuses(404, "queue item not found")?;
    server.get_as_admin(&path).await?.refuses(404, "queue item not found")
}

async fn stale_messages_are_dropped_by_the_operator(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    let path = format!("/admin/a2a-queue/drop-stale?workspace_id={}", own.id);
    server.call(Method::POST, &path).bearer(&own.token).send().await?.json(401)?;
    server.call(Method::POST, &path).admin().send().await?.is(200, &json!({"dropped": 0}))?;
    let bad = server.call(Method::POST, &format!("{path}&max_age_minutes=0")).admin().send().await?;
    bad.refuses(400, "max_age_minutes must be a positive integer")
}

async fn usage_begins_at_nothing(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    let answer = server.call(Method::GET, &format!("/workspaces/{}/metrics", own.id)).bearer(&own.token).send().await?;
    let expected = json!({"input_tokens": 0, "output_tokens": 0, "total_calls": 0, "estimated_cost_usd": "0.000000"});
    answer.has(200, &expected).map(drop)
}

async fn post(server: &Server, of: &Workspace, verb: &str, body: &Value) -> Result<Answer, Verdict> {
    server.call(Method::POST, &format!("/workspaces/{}/{verb}", of.id)).bearer(&of.token).json(body).send().await
}

async fn delegations(server: &Server, of: &Workspace) -> Result<Vec<Value>, Verdict> {
    let path = format!("/workspaces/{}/delegations", of.id);
    let answer = server.call(Method::GET, &path).bearer(&of.token).send().await?;
    answer.json(200)?.as_array().cloned().ok_or_else(|| answer.wrong("an array"))
}

/// Delegates to an agent that polls, and gives the id.
async fn delegated(server: &Server, from: &Workspace, to: &Workspace, key: &str) -> Result<String, Verdict> {
    let body = json!({"target_id": to.id, "task": "count", "idempotency_key": key});
    let answer = post(server, from, "delegate", &body).await?;
    let taken = answer.has(202, &json!({"status": "delegated", "target_id": to.id}))?;
    taken["delegation_id"].as_str().map(str::to_owned).ok_or_else(|| answer.wrong("a delegation_id"))
}

async fn a_delegation_is_taken_and_listed(server: &Server) -> Result<(), Verdict> {
    let (from, to) = (member(server).await?, member(server).await?);
    let id = delegated(server, &from, &to, "k").await?;
    let listed = delegations(server, &from).await?;
    let is_it = |row: &Value| {
        row["delegation_id"] == id && row["source_id"] == json!(from.id) && row["target_id"] == json!(to.id)
    };
    if listed.iter().any(is_it) { Ok(()) } else { Err(Verdict::Failed(format!("it is not among {listed:?}"))) }
}

/// How long a task may be on its way to the log of whom it is for.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

async fn a_delegation_comes_to_its_target(server: &Server) -> Result<(), Verdict> {
    let (from, to) = (member(server).await?, member(server).await?);
    delegated(server, &from, &to, "k").await?;
    let path = format!("/workspaces/{}/activity?type=a2a_receive", to.id);
    let began = Instant::now();
    loop {
        let answer = server.call(Method::GET, &path).bearer(&to.token).send().await?;
        let rows = answer.json(200)?;
        let row = &rows[0];
        let parts = &row["request_body"]["params"]["message"]["parts"];
        if row["source_id"] == json!(from.id) && parts.to_string().contains("count") {
            return Ok(());
        }
        if began.elapsed() > ON_ITS_WAY {
            return Err(answer.wrong("the task, from who gave it"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn a_repeat_is_the_same_delegation(server: &Server) -> Result<(), Verdict> {
    let (from, to) = (member(server).await?, member(server).await?);
    let id = delegated(server, &from, &to, "k").await?;
    let body = json!({"target_id": to.id, "task": "count", "idempotency_key": "k"});
    let expected = json!({"delegation_id": id, "target_id": to.id, "idempotent_hit": true});
    post(server, &from, "delegate", &body).await?.has(200, &expected).map(drop)
}

async fn a_key_is_for_one_task(server: &Server) -> Result<(), Verdict> {
    let (from, to) = (member(server).await?, member(server).await?);
    delegated(server, &from, &to, "k").await?;
    let body = json!({"target_id": to.id, "task": "sing", "idempotency_key": "k"});
    post(server, &from, "delegate", &body).await?.json(409).map(drop)
}

async fn a_delegation_is_checked(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    for (body, text) in [
        (json!({"task": "x"}), "invalid delegation request"),
        (json!({"target_id": own.id}), "invalid delegation request"),
        (json!({"target_id": "x", "task": "x"}), "target_id must be a valid UUID"),
        (json!({"target_id": own.id, "task": "x"}), "self-delegation not permitted"),
    ] {
        post(server, &own, "delegate", &body).await?.refuses(400, text)?;
    }
    Ok(())
}

async fn strangers_are_given_no_tasks(server: &Server) -> Result<(), Verdict> {
    let (own, stranger) = strangers(server).await?;
    let text = "access denied: workspaces cannot communicate per hierarchy rules";
    post(server, &own, "delegate", &json!({"target_id": stranger.id, "task": "x"})).await?.refuses(403, text)
}

async fn agents_record_their_own(server: &Server) -> Result<(), Verdict> {
    let (from, to) = (member(server).await?, member(server).await?);
    let body = json!({"target_id": to.id, "task": "x", "delegation_id": "own-1"});
    let expected = json!({"delegation_id": "own-1", "status": "recorded"});
    post(server, &from, "delegations/record", &body).await?.is(202, &expected)?;
    let done = json!({"status": "completed", "response_preview": "fine"});
    let expected = json!({"delegation_id": "own-1", "status": "completed"});
    post(server, &from, "delegations/own-1/update", &done).await?.is(200, &expected)?;
    let rows = delegations(server, &from).await?;
    let is_done = rows.len() == 2
        && rows.iter().all(|row| row["delegation_id"] == "own-1" && row["status"] == "completed")
        && rows[0]["response_preview"] == "fine";
    if is_done { Ok(()) } else { Err(Verdict::Failed(format!("expected its request and its outcome, got {rows:?}"))) }
}

async fn updates_are_checked(server: &Server) -> Result<(), Verdict> {
    let own = member(server).await?;
    let update = "delegations/nothing/update";
    let text = "status must be 'completed' or 'failed'";
    post(server, &own, update, &json!({"status": "half"})).await?.refuses(400, text)?;
    post(server, &own, update, &json!({"status": "failed"})).await?.json(404).map(drop)
}
