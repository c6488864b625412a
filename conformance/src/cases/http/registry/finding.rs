//! Whom agents find, where, and whom they may talk to.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::Registry;
    Core, "R-DISCOVER-3", who_is_there_is_discovered: "An agent that is online is discovered with its name and where to call it";
    Core, "R-DISCOVER-4", discovery_needs_the_callers_token: "Discovery needs the token of the workspace that it says calls";
    Core, "R-DISCOVER-5", who_is_not_there_is_not_discovered: "Discovery of an agent that is waited for is answered 503 with its status";
    Core, "R-DISCOVER-6", nobody_discovers_nothing: "An unknown workspace that asks for itself is answered 404";
    Core, "R-PEERS-3", a_peer_is_whole: "A peer has every member, null or empty where there is nothing";
    Core, "R-PEERS-4", roots_are_beside_one_another: "At the top all others at the top are peers";
    Core, "R-PEERS-5", without_peers_the_list_is_empty: "Without anybody to list the answer is an empty array";
    Core, "R-PEERS-6", nobody_has_no_peers: "The peers of an unknown workspace are answered 404";
    Core, "R-PEERS-7", peers_are_searched_by_role: "Peers are searched by a part of their role, beside those that have none";
    Core, "R-PEERS-8", the_removed_are_no_peers: "A removed workspace is nobody's peer";
    Core, "R-TALK-2", asking_needs_the_callers_token: "Who may talk is told to the caller and the operator alone";
    Core, "R-TALK-3", both_are_to_be_named: "A question that names only one of the two is answered 400";
    Core, "R-TALK-4", what_is_no_id_may_not_talk: "What is no UUID may not talk";
    Core, "R-TALK-5", roots_may_talk_and_the_removed_may_not: "Two at the top may talk, until one is removed";
}

async fn discover(server: &Server, caller: &str, bearer: Option<&str>, target: &str) -> Result<Answer, Verdict> {
    let call = server.call(Method::GET, &format!("/registry/discover/{target}")).header("X-Workspace-ID", caller);
    match bearer {
        Some(bearer) => call.bearer(bearer).send().await,
        None => call.send().await,
    }
}

async fn who_is_there_is_discovered(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let member = server.member("conformance member", &json!({"parent_id": lead.id})).await?;
    let answer = discover(server, &lead.id.to_string(), Some(&lead.token), &member.id.to_string()).await?;
    let found = answer.has(200, &json!({"id": member.id, "name": "conformance member"}))?;
    let is_address = found["url"].as_str().is_some_and(|url| url.starts_with("http"));
    if is_address && found.as_object().is_some_and(|found| found.len() == 3) {
        Ok(())
    } else {
        Err(answer.wrong("id, name and url, which is an address"))
    }
}

async fn discovery_needs_the_callers_token(server: &Server) -> Result<(), Verdict> {
    let one = server.member("conformance one", &Value::Null).await?;
    let other = server.member("conformance other", &Value::Null).await?;
    let (id, target) = (one.id.to_string(), other.id.to_string());
    discover(server, &id, None, &target).await?.refuses(401, "missing workspace auth token")?;
    for wrong in ["wrong", &other.token] {
        discover(server, &id, Some(wrong), &target).await?.refuses(401, "invalid workspace auth token")?;
    }
    Ok(())
}

async fn who_is_not_there_is_not_discovered(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let awaited = server.external("conformance awaited", &json!({"parent_id": lead.id})).await?;
    let answer = discover(server, &lead.id.to_string(), Some(&lead.token), &awaited.id.to_string()).await?;
    answer.has(503, &json!({"error": "workspace not available", "status": "awaiting_agent"})).map(drop)
}

async fn nobody_discovers_nothing(server: &Server) -> Result<(), Verdict> {
    let id = unknown_id()?.to_string();
    let call = server.call(Method::GET, &format!("/registry/discover/{id}")).admin();
    call.header("X-Workspace-ID", &id).send().await?.refuses(404, "workspace not found")
}

async fn peers(server: &Server, agent: &Workspace, query: &str) -> Result<(Answer, Vec<Value>), Verdict> {
    let call = server.call(Method::GET, &format!("/registry/{}/peers{query}", agent.id)).bearer(&agent.token);
    let answer = call.send().await?;
    match answer.json(200)? {
        Value::Array(peers) => Ok((answer, peers)),
        _ => Err(answer.wrong("an array")),
    }
}

async fn a_peer_is_whole(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &json!({"role": "leads"})).await?;
    let child = server.external("conformance child", &json!({"parent_id": lead.id})).await?;
    let (answer, of_lead) = peers(server, &lead, "?q=conformance child").await?;
    let bare = json!({
        "id": child.id, "name": "conformance child", "role": null, "status": "awaiting_agent", "agent_card": null,
        "url": "", "parent_id": lead.id, "active_tasks": 0, "tier": of_lead.first().map(|peer| &peer["tier"]),
    });
    if of_lead != [bare] || !of_lead[0]["tier"].is_i64() {
        return Err(answer.wrong("the child with every member"));
    }
    let (answer, of_child) = peers(server, &child, "?q=leads").await?;
    let card = json!({"name": "conformance lead", "skills": []});
    match &of_child[..] {
        [peer] if peer["role"] == "leads" && peer["agent_card"] == card && peer["parent_id"].is_null() => Ok(()),
        _ => Err(answer.wrong("the lead with its role and card, and no parent")),
    }
}

async fn roots_are_beside_one_another(server: &Server) -> Result<(), Verdict> {
    let one = server.member("conformance one", &Value::Null).await?;
    let other = server.member("conformance other", &Value::Null).await?;
    let below = server.member("conformance below", &json!({"parent_id": other.id})).await?;
    let (answer, listed) = peers(server, &one, "").await?;
    let lists = |agent: &Workspace| listed.iter().any(|peer| peer["id"] == agent.id.to_string());
    if lists(&other) && !lists(&below) && !lists(&one) {
        Ok(())
    } else {
        Err(answer.wrong("the other at the top, and not the one below it"))
    }
}

async fn without_peers_the_list_is_empty(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance alone", &Value::Null).await?;
    let (answer, _) = peers(server, &agent, "?q=nobody is called that").await?;
    if answer.body() == "[]" { Ok(()) } else { Err(answer.wrong("[]")) }
}

async fn nobody_has_no_peers(server: &Server) -> Result<(), Verdict> {
    server.get_as_admin(&format!("/registry/{}/peers", unknown_id()?)).await?.refuses(404, "workspace not found")
}

async fn peers_are_searched_by_role(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let with = server.member("conformance a", &json!({"parent_id": lead.id, "role": "Code Reviewer"})).await?;
    server.member("conformance b", &json!({"parent_id": lead.id})).await?;
    let (answer, found) = peers(server, &lead, "?q=%20REVIEW%20").await?;
    match &found[..] {
        [peer] if peer["id"] == with.id.to_string() => Ok(()),
        _ => Err(answer.wrong("the one with that role")),
    }
}

async fn remove(server: &Server, agent: &Workspace) -> Result<(), Verdict> {
    let path = format!("/workspaces/{}?confirm=true", agent.id);
    server.call(Method::DELETE, &path).admin().send().await?.json(200).map(drop)
}

async fn the_removed_are_no_peers(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let gone = server.member("conformance gone", &json!({"parent_id": lead.id})).await?;
    remove(server, &gone).await?;
    let (answer, listed) = peers(server, &lead, "").await?;
    let is_listed = listed.iter().any(|peer| peer["id"] == gone.id.to_string());
    if is_listed { Err(answer.wrong("nobody who was removed")) } else { Ok(()) }
}

fn asked(caller: impl Into<Value>, target: impl Into<Value>) -> Value {
    json!({"caller_id": caller.into(), "target_id": target.into()})
}

async fn asking_needs_the_callers_token(server: &Server) -> Result<(), Verdict> {
    let one = server.member("conformance one", &Value::Null).await?;
    let other = server.member("conformance other", &Value::Null).await?;
    let body = asked(one.id.to_string(), other.id.to_string());
    let ask = || server.call(Method::POST, "/registry/check-access").json(&body);
    ask().send().await?.refuses(401, "missing workspace auth token")?;
    ask().bearer(&other.token).send().await?.refuses(401, "invalid workspace auth token")?;
    ask().admin().send().await?.is(200, &json!({"allowed": true}))
}

async fn both_are_to_be_named(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance one", &Value::Null).await?;
    for body in [json!({"caller_id": agent.id}), json!({"target_id": agent.id}), json!({})] {
        let call = server.call(Method::POST, "/registry/check-access").bearer(&agent.token).json(&body);
        call.send().await?.refuses(400, "invalid request body")?;
    }
    Ok(())
}

async fn what_is_no_id_may_not_talk(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance one", &Value::Null).await?;
    let call = server.call(Method::POST, "/registry/check-access").bearer(&agent.token);
    call.json(&asked(agent.id.to_string(), "nobody")).send().await?.is(200, &json!({"allowed": false}))?;
    let body = asked("nobody", agent.id.to_string());
    server.post_as_admin("/registry/check-access", &body).await?.is(200, &json!({"allowed": false}))?;
    let call = server.call(Method::POST, "/registry/check-access").bearer(&agent.token).json(&body);
    if call.send().await?.status() == 401 {
        Ok(())
    } else {
        Err(Verdict::Failed("an agent may ask on behalf of what is no ID".to_owned()))
    }
}

async fn roots_may_talk_and_the_removed_may_not(server: &Server) -> Result<(), Verdict> {
    let one = server.member("conformance one", &Value::Null).await?;
    let other = server.member("conformance other", &Value::Null).await?;
    let ask = async |allowed: bool| {
        let call = server.call(Method::POST, "/registry/check-access").bearer(&one.token);
        let answer = call.json(&asked(one.id.to_string(), other.id.to_string())).send().await?;
        answer.is(200, &json!({"allowed": allowed}))
    };
    ask(true).await?;
    remove(server, &other).await?;
    ask(false).await
}
