//! What agents say about themselves, and whom they find.

use reqwest::Method;
use serde_json::{Value, json};

use super::joining::status;
use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::Registry;
    Core, "R-REGISTER-3", a_register_call_is_whole: "A register call without an id or a card is answered 400";
    Core, "R-REGISTER-4", there_are_two_delivery_modes: "A delivery mode that is neither push nor poll is answered 400";
    Core, "R-REGISTER-5", who_is_pushed_to_has_a_url: "An agent that is pushed to and names no URL is answered 400";
    Core, "R-REGISTER-6", no_agent_is_at_a_link_local_address: "An agent that names a link-local address as its own is answered 400";
    Core, "R-REGISTER-7", a_register_call_brings_its_token: "A register call without the token that its workspace has is answered 401";
    Core, "R-REGISTER-8", who_has_a_token_is_given_no_other: "An agent that registers with a token is given no other, however often it does";
    Core, "R-CARD-9", a_card_has_a_depth: "A card that is nested too deep is refused";
    Core, "R-CARD-1", a_card_is_replaced: "An agent replaces its card";
    Core, "R-CARD-2", a_card_is_its_own: "The card of an agent is not replaced by another";
    Core, "R-CARD-3", a_card_names_no_link_local_address: "A card that names a link-local address is answered 400";
    Core, "R-DISCOVER-1", who_discovers_says_who_it_is: "Discovery without X-Workspace-ID is answered 400";
    Core, "R-DISCOVER-2", strangers_are_not_discovered: "Discovery of a workspace that may not be talked to, or is none, is answered 403";
    Core, "R-PEERS-1", peers_are_those_beside_above_and_below: "An agent lists those beside, above and below it, and no others";
    Core, "R-PEERS-2", peers_are_searched_by_name: "Peers are searched by a part of their name, whatever its case";
    Core, "R-TALK-1", who_may_talk_to_whom: "Siblings and whoever is above or below one another may talk, and cousins may not";
}

async fn a_card_has_a_depth(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance card", &Value::Null).await?;
    let deep = |depth| (0..depth).fold(json!("x"), |card, _| json!({"a": card}));
    let body = |depth| json!({"id": own.id, "url": "", "delivery_mode": "poll", "agent_card": deep(depth)});
    let register = async |depth| {
        server.call(Method::POST, "/registry/register").bearer(&own.token).json(&body(depth)).send().await
    };
    register(70).await?.refuses(400, "invalid request body")?;
    register(60).await?.json(200)?;
    server.get(&format!("/workspaces/{}", own.id)).await?.has(200, &json!({"agent_card": deep(60)})).map(drop)
}

async fn register(server: &Server, agent: &Workspace, said: &Value) -> Result<Answer, Verdict> {
    let mut body = json!({"id": agent.id, "agent_card": {"name": "conformance"}});
    if let (Some(body), Some(said)) = (body.as_object_mut(), said.as_object()) {
        body.extend(said.clone());
    }
    server.call(Method::POST, "/registry/register").bearer(&agent.token).json(&body).send().await
}

async fn a_register_call_is_whole(server: &Server) -> Result<(), Verdict> {
    let id = unknown_id()?;
    for body in [json!({"id": id}), json!({"agent_card": {}}), json!({"id": "x", "agent_card": {}}), json!([])] {
        let call = server.call(Method::POST, "/registry/register").json(&body);
        call.send().await?.refuses(400, "invalid request body")?;
    }
    Ok(())
}

async fn there_are_two_delivery_modes(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance mode", &Value::Null).await?;
    let answer = register(server, &agent, &json!({"url": "", "delivery_mode": "pigeon"})).await?;
    answer.refuses(400, "delivery_mode must be 'push' or 'poll'")
}

async fn who_is_pushed_to_has_a_url(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance push", &Value::Null).await?;
    let answer = register(server, &agent, &json!({"url": "", "delivery_mode": "push"})).await?;
    answer.refuses(400, "url is required for push-mode workspaces")
}

async fn no_agent_is_at_a_link_local_address(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance local", &Value::Null).await?;
    for url in ["http://169.254.169.254/", "http://[fe80::1]/", "ftp://8.8.8.8/"] {
        let answer = register(server, &agent, &json!({"url": url, "delivery_mode": "push"})).await?;
        if !answer.json(400)?["error"].is_string() {
            return Err(answer.wrong("an error"));
        }
    }
    match status(server, agent.id).await? {
        status if status == "awaiting_agent" => Ok(()),
        status => Err(Verdict::Failed(format!("a call that was refused made it {status}"))),
    }
}

async fn a_register_call_brings_its_token(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance mute", &Value::Null).await?;
    let body = json!({"id": agent.id, "url": "", "delivery_mode": "poll", "agent_card": {}});
    let call = server.call(Method::POST, "/registry/register").json(&body);
    call.send().await?.refuses(401, "missing workspace auth token")
}

async fn who_has_a_token_is_given_no_other(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance again", &Value::Null).await?;
    for _ in 0..2 {
        let answer = register(server, &agent, &json!({"url": "", "delivery_mode": "poll"})).await?;
        let registered = answer.json(200)?;
        if registered["status"] != "registered" || registered.get("auth_token").is_some() {
            return Err(answer.wrong("the status registered, and no auth_token"));
        }
    }
    Ok(())
}

async fn update_card(server: &Server, of: &Workspace, by: &Workspace, card: &Value) -> Result<Answer, Verdict> {
    let call = server.call(Method::POST, "/registry/update-card").bearer(&by.token);
    call.json(&json!({"workspace_id": of.id, "agent_card": card})).send().await
}

async fn a_card_is_replaced(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance card", &Value::Null).await?;
    let card = json!({"name": "new", "skills": [{"id": "s", "tags": ["ü", ""]}], "n": null});
    update_card(server, &agent, &agent, &card).await?.is(200, &json!({"status": "updated"}))?;
    let answer = server.get_as_admin(&format!("/workspaces/{}", agent.id)).await?;
    if answer.json(200)?["agent_card"] == card { Ok(()) } else { Err(answer.wrong("the new card, verbatim")) }
}

async fn a_card_is_its_own(server: &Server) -> Result<(), Verdict> {
    let one = server.member("conformance one", &Value::Null).await?;
    let other = server.member("conformance other", &Value::Null).await?;
    let answer = update_card(server, &one, &other, &json!({"name": "mine"})).await?;
    answer.refuses(401, "invalid workspace auth token")?;
    has_card(server, &one, &json!({"name": "conformance one", "skills": []})).await
}

async fn has_card(server: &Server, agent: &Workspace, card: &Value) -> Result<(), Verdict> {
    server.get_as_admin(&format!("/workspaces/{}", agent.id)).await?.has(200, &json!({"agent_card": card})).map(drop)
}

async fn a_card_names_no_link_local_address(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance card", &Value::Null).await?;
    let answer = update_card(server, &agent, &agent, &json!({"url": "http://169.254.169.254/"})).await?;
    answer.refuses(400, "workspace agent_card URL not allowed")?;
    has_card(server, &agent, &json!({"name": "conformance card", "skills": []})).await
}

async fn who_discovers_says_who_it_is(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance nobody", &Value::Null).await?;
    let call = server.call(Method::GET, &format!("/registry/discover/{}", agent.id)).bearer(&agent.token);
    call.send().await?.refuses(400, "X-Workspace-ID header is required")
}

async fn strangers_are_not_discovered(server: &Server) -> Result<(), Verdict> {
    let agent = server.member("conformance alone", &Value::Null).await?;
    let lead = server.member("conformance lead", &Value::Null).await?;
    let below = server.member("conformance below", &json!({"parent_id": lead.id})).await?;
    for stranger in [unknown_id()?, below.id] {
        let call = server.call(Method::GET, &format!("/registry/discover/{stranger}")).bearer(&agent.token);
        let answer = call.header("X-Workspace-ID", &agent.id.to_string()).send().await?;
        answer.refuses(403, "not authorized to discover this workspace")?;
    }
    Ok(())
}

/// The ids that an agent is told are its peers.
async fn peers(server: &Server, agent: &Workspace, query: &str) -> Result<Vec<String>, Verdict> {
    let call = server.call(Method::GET, &format!("/registry/{}/peers{query}", agent.id)).bearer(&agent.token);
    let answer = call.send().await?;
    let listed = answer.json(200)?;
    let listed = listed.as_array().ok_or_else(|| answer.wrong("an array"))?.iter();
    Ok(listed.filter_map(|peer| peer["id"].as_str().map(str::to_owned)).collect())
}

async fn peers_are_those_beside_above_and_below(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let one = server.member("conformance one", &json!({"parent_id": lead.id})).await?;
    let other = server.member("conformance other", &json!({"parent_id": lead.id})).await?;
    let below = server.member("conformance below", &json!({"parent_id": one.id})).await?;
    let expected = [&other, &below, &lead].map(|agent| agent.id.to_string());
    match peers(server, &one, "").await? {
        found if found == expected => Ok(()),
        found => Err(Verdict::Failed(format!("expected {expected:?}, got {found:?}"))),
    }
}

async fn peers_are_searched_by_name(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let one = server.member("conformance one", &json!({"parent_id": lead.id})).await?;
    let other = server.member("conformance Zwei", &json!({"parent_id": lead.id})).await?;
    for (query, expected) in [("?q=zWEI", vec![other.id.to_string()]), ("?q=nobody-is-called-that", vec![])] {
        let found = peers(server, &one, query).await?;
        if found != expected {
            return Err(Verdict::Failed(format!("expected {expected:?} for {query}, got {found:?}")));
        }
    }
    Ok(())
}

async fn who_may_talk_to_whom(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let one = server.member("conformance one", &json!({"parent_id": lead.id})).await?;
    let other = server.member("conformance other", &json!({"parent_id": lead.id})).await?;
    let below = server.member("conformance below", &json!({"parent_id": one.id})).await?;
    let rows = [
        (&one, one.id, true),
        (&one, other.id, true),
        (&lead, below.id, true),
        (&below, lead.id, true),
        (&below, other.id, false),
        (&other, below.id, false),
        (&one, unknown_id()?, false),
    ];
    for (caller, target, allowed) in rows {
        let call = server.call(Method::POST, "/registry/check-access").bearer(&caller.token);
        let answer = call.json(&json!({"caller_id": caller.id, "target_id": target})).send().await?;
        answer.is(200, &json!({"allowed": allowed}))?;
    }
    Ok(())
}
