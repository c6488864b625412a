//! What is recorded of each kind of event.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Server, Workspace, unknown_id},
};

cases! {
    Area::Events;
    Core, "R-EVENTS-12", a_limit_that_makes_no_sense_is_mended: "A limit beyond what there is counts as the nearest that makes sense";
    Core, "R-EVENTS-13", a_register_call_is_recorded: "WORKSPACE_ONLINE of a register call tells the card, the address and the mode";
    Core, "R-EVENTS-14", a_stop_of_failures_is_recorded: "WORKSPACE_DEGRADED tells why, and WORKSPACE_ONLINE after it nothing";
    Core, "R-EVENTS-15", a_card_is_recorded: "AGENT_CARD_UPDATED tells the card and nothing else";
    Core, "R-EVENTS-16", an_address_from_the_start_is_recorded: "WORKSPACE_ONLINE of an external workspace with an address tells its name";
    Core, "R-EVENTS-17", agents_are_recorded: "The agent of a workspace that comes, changes, moves and goes is recorded with its model";
    Core, "R-EVENTS-18", removals_are_recorded: "WORKSPACE_REMOVED tells of the topmost how many went with it, of the others nothing";
    Extended(Feature::Lifecycle), "R-EVENTS-19", a_collapse_is_recorded: "WORKSPACE_COLLAPSED names the children that went";
    Core, "R-REGISTER-9", a_card_is_any_json: "A card is any JSON, kept verbatim";
    Core, "R-REGISTER-10", the_mode_stays_until_it_is_changed: "A register call without a mode keeps the one before";
    Core, "R-CARD-4", nobody_has_no_card: "The card of a workspace that nobody created is answered 404";
    Core, "R-ACCESS-8", anyone_sees_little: "What anyone may see of a workspace has no money, task, error or folder in it";
    Core, "R-ACCESS-9", operator_routes_are_for_the_operator: "Routes of the operator refuse the token of a workspace and no token at all";
}

/// What was recorded of a workspace, oldest first, each as its kind and payload.
async fn recorded(server: &Server, of: &Workspace) -> Result<Vec<Value>, Verdict> {
    let answer = server.get_as_admin(&format!("/events/{}?limit=100", of.id)).await?;
    let Value::Array(log) = answer.json(200)? else { return Err(answer.wrong("an array")) };
    Ok(log.iter().rev().map(|event| json!([event["event_type"], event["payload"]])).collect())
}

/// Demands that the newest of what was recorded is this.
async fn ends_with(server: &Server, of: &Workspace, expected: &[Value]) -> Result<(), Verdict> {
    let log = recorded(server, of).await?;
    if log.ends_with(expected) {
        Ok(())
    } else {
        Err(Verdict::Failed(format!("expected {expected:?} at the end of {log:?}")))
    }
}

async fn beat(server: &Server, agent: &Workspace, mut said: Value) -> Result<(), Verdict> {
    said["workspace_id"] = json!(agent.id);
    let call = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    call.json(&said).send().await?.has(200, &json!({"status": "ok"})).map(drop)
}

async fn a_limit_that_makes_no_sense_is_mended(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance limits", &Value::Null).await?;
    for (limit, expected) in [("0", 1), ("501", 2), ("4294967295", 2)] {
        let answer = server.get_as_admin(&format!("/events/{}?limit={limit}", agent.id)).await?;
        if answer.json(200)?.as_array().map(Vec::len) != Some(expected) {
            return Err(answer.wrong(&format!("{expected} events for the limit {limit}")));
        }
    }
    let answer = server.get_as_admin("/events?limit=many").await?;
    if answer.status() == 400 { Ok(()) } else { Err(answer.wrong("the status 400")) }
}

async fn a_register_call_is_recorded(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance told", &Value::Null).await?;
    let card = json!({"name": "conformance told", "skills": []});
    let online = json!(["WORKSPACE_ONLINE", {"url": "", "agent_card": card, "delivery_mode": "poll"}]);
    ends_with(server, &agent, &[online]).await
}

async fn a_stop_of_failures_is_recorded(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance fails", &Value::Null).await?;
    beat(server, &agent, json!({"error_rate": 0.75, "sample_error": "no quota"})).await?;
    beat(server, &agent, json!({"error_rate": 0})).await?;
    beat(server, &agent, json!({"runtime_state": "wedged", "sample_error": "stuck"})).await?;
    let expected = [
        json!(["WORKSPACE_DEGRADED", {"error_rate": 0.75, "sample_error": "no quota"}]),
        json!(["WORKSPACE_ONLINE", {}]),
        json!(["WORKSPACE_DEGRADED", {"runtime_state": "wedged", "sample_error": "stuck"}]),
    ];
    ends_with(server, &agent, &expected).await
}

async fn a_card_is_recorded(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance card", &Value::Null).await?;
    let card = json!({"name": "another"});
    let call = server.call(Method::POST, "/registry/update-card").bearer(&agent.token);
    call.json(&json!({"workspace_id": agent.id, "agent_card": card})).send().await?.json(200)?;
    ends_with(server, &agent, &[json!(["AGENT_CARD_UPDATED", {"agent_card": card}])]).await
}

async fn an_address_from_the_start_is_recorded(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance there", &json!({"url": "http://8.8.8.8/"})).await?;
    let online = json!(["WORKSPACE_ONLINE", {"name": "conformance there", "external": true}]);
    ends_with(server, &agent, &[online]).await
}

async fn agents_are_recorded(server: &Server) -> Result<(), Verdict> {
    let from = server.external("conformance from", &Value::Null).await?;
    let to = server.external("conformance to", &Value::Null).await?;
    let path = format!("/workspaces/{}/agent", from.id);
    let call = |method, path: &str, body: Value| server.call(method, path).admin().json(&body).send();
    let first = call(Method::POST, &path, json!({"model": "one"})).await?.json(201)?["agent_id"].take();
    let second = call(Method::PATCH, &path, json!({"model": "two"})).await?.json(200)?["agent_id"].take();
    call(Method::POST, &format!("{path}/move"), json!({"target_workspace_id": to.id})).await?.json(200)?;
    let target = format!("/workspaces/{}/agent", to.id);
    call(Method::DELETE, &target, json!({})).await?.json(200)?;
    let of_source = [
        json!(["AGENT_ASSIGNED", {"agent_id": first, "model": "one"}]),
        json!(["AGENT_REPLACED", {"agent_id": second, "model": "two", "old_model": "one"}]),
        json!(["AGENT_MOVED", {"agent_id": second, "model": "two", "target_workspace_id": to.id}]),
    ];
    ends_with(server, &from, &of_source).await?;
    let of_target = [
        json!(["AGENT_MOVED", {"agent_id": second, "model": "two", "source_workspace_id": from.id}]),
        json!(["AGENT_REMOVED", {"agent_id": second, "model": "two"}]),
    ];
    ends_with(server, &to, &of_target).await
}

async fn removals_are_recorded(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let below = server.member("conformance below", &json!({"parent_id": lead.id})).await?;
    let path = format!("/workspaces/{}?confirm=true", lead.id);
    server.call(Method::DELETE, &path).admin().send().await?.json(200)?;
    ends_with(server, &lead, &[json!(["WORKSPACE_REMOVED", {"cascade_deleted": 1}])]).await?;
    ends_with(server, &below, &[json!(["WORKSPACE_REMOVED", {}])]).await
}

async fn a_collapse_is_recorded(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let child = server.member("conformance child", &json!({"parent_id": lead.id})).await?;
    server.post_as_admin(&format!("/workspaces/{}/collapse", lead.id), &json!({})).await?.json(200)?;
    ends_with(server, &lead, &[json!(["WORKSPACE_COLLAPSED", {"removed_children": ["conformance child"]}])]).await?;
    ends_with(server, &child, &[json!(["WORKSPACE_REMOVED", {}])]).await
}

async fn register(server: &Server, agent: &Workspace, said: &Value) -> Result<Value, Verdict> {
    server.call(Method::POST, "/registry/register").bearer(&agent.token).json(said).send().await?.json(200)
}

async fn a_card_is_any_json(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance any", &Value::Null).await?;
    for card in [json!("text"), json!(7), json!([1, null]), json!(true), json!({"ü": [{}]})] {
        let said = json!({"id": agent.id, "url": "", "delivery_mode": "poll", "agent_card": card});
        register(server, &agent, &said).await?;
        let answer = server.get_as_admin(&format!("/workspaces/{}", agent.id)).await?;
        if answer.json(200)?["agent_card"] != card {
            return Err(answer.wrong(&format!("the card {card}")));
        }
    }
    Ok(())
}

async fn the_mode_stays_until_it_is_changed(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance modes", &json!({"url": "http://8.8.8.8/"})).await?;
    for (mode, expected) in [
        (json!("push"), "push"),
        (json!(""), "push"),
        (Value::Null, "push"),
        (json!("poll"), "poll"),
        (json!(""), "poll"),
        (Value::Null, "poll"),
        (json!("push"), "push"),
    ] {
        let mut said = json!({"id": agent.id, "url": "http://8.8.8.8/", "agent_card": {}});
        if mode.is_string() {
            said["delivery_mode"] = mode.clone();
        }
        let found = register(server, &agent, &said).await?;
        if found["delivery_mode"] != expected {
            return Err(Verdict::Failed(format!("expected the mode {expected} after {mode}, got {found}")));
        }
    }
    Ok(())
}

async fn nobody_has_no_card(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance other", &Value::Null).await?;
    let call = server.call(Method::POST, "/registry/update-card").bearer(&agent.token);
    let answer = call.json(&json!({"workspace_id": unknown_id()?, "agent_card": {}})).send().await?;
    answer.refuses(404, "workspace not found")
}

async fn anyone_sees_little(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance seen", &Value::Null).await?;
    beat(server, &agent, json!({"current_task": "a secret", "sample_error": "a secret", "monthly_spend": 700})).await?;
    let answer = server.get(&format!("/workspaces/{}", agent.id)).await?;
    let seen = answer.has(200, &json!({"id": agent.id, "status": "online"}))?;
    for hidden in ["budget_limit", "monthly_spend", "current_task", "last_sample_error", "workspace_dir"] {
        if seen.get(hidden).is_some() {
            return Err(answer.wrong(&format!("no {hidden}")));
        }
    }
    if answer.body().contains("a secret") { Err(answer.wrong("nothing of what the agent said")) } else { Ok(()) }
}

async fn operator_routes_are_for_the_operator(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance curious", &Value::Null).await?;
    let own = format!("/workspaces/{}", agent.id);
    let routes = [
        (Method::GET, "/workspaces"),
        (Method::POST, "/workspaces"),
        (Method::GET, "/events"),
        (Method::GET, "/admin/liveness"),
        (Method::DELETE, &own),
    ];
    for (method, path) in routes {
        let call = || server.call(method.clone(), path).json(&json!({}));
        call().bearer(&agent.token).send().await?.refuses(401, "invalid admin auth token")?;
        call().send().await?.refuses(401, "admin auth required")?;
    }
    server.get(&own).await?.json(200).map(drop)
}
