//! The secret by which an agent knows calls of its platform.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace},
};

cases! {
    Area::Registry;
    Core, "R-INBOUND-1", a_heartbeat_delivers_the_inbound_secret:
        "The heartbeat of an agent that proves who it is is answered with the inbound secret";
    Core, "R-INBOUND-2", the_inbound_secret_stays_the_same: "Register and heartbeat tell the same secret, however often";
    Core, "R-INBOUND-3", each_workspace_has_its_own_inbound_secret:
        "Two workspaces have two secrets, and neither is their token";
    Core, "R-INBOUND-4", the_inbound_secret_is_shown_nowhere_else: "The view of a workspace does not show its secret";
    Core, "R-INBOUND-5", a_refused_heartbeat_tells_no_secret: "A refused heartbeat tells no secret";
}

async fn beat(server: &Server, id: impl serde::Serialize, token: &str) -> Result<Answer, Verdict> {
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(token);
    beat.json(&json!({"workspace_id": id})).send().await
}

fn secret(answer: &Answer) -> Result<String, Verdict> {
    let told = answer.json(200)?["platform_inbound_secret"].take();
    let is_token =
        |text: &str| text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    match told {
        Value::String(text) if is_token(&text) => Ok(text),
        _ => Err(answer.wrong("platform_inbound_secret of 43 characters of base64url")),
    }
}

async fn agent(server: &Server) -> Result<(Workspace, String), Verdict> {
    let agent = server.external("conformance inbound", &Value::Null).await?;
    let secret = secret(&beat(server, agent.id, &agent.token).await?)?;
    Ok((agent, secret))
}

async fn a_heartbeat_delivers_the_inbound_secret(server: &Server) -> Result<(), Verdict> {
    agent(server).await.map(drop)
}

async fn the_inbound_secret_stays_the_same(server: &Server) -> Result<(), Verdict> {
    let (agent, first) = agent(server).await?;
    let body = json!({"id": agent.id, "url": "", "delivery_mode": "poll", "agent_card": {"name": "inbound"}});
    for _ in 0..2 {
        let register = server.call(Method::POST, "/registry/register").bearer(&agent.token).json(&body);
        for answer in [register.send().await?, beat(server, agent.id, &agent.token).await?] {
            if secret(&answer)? != first {
                return Err(answer.wrong("the secret that was told before"));
            }
        }
    }
    Ok(())
}

async fn each_workspace_has_its_own_inbound_secret(server: &Server) -> Result<(), Verdict> {
    let (one, other) = (agent(server).await?, agent(server).await?);
    let all = [&one.1, &other.1, &one.0.token, &other.0.token];
    let distinct: std::collections::BTreeSet<_> = all.into_iter().collect();
    if distinct.len() == 4 {
        Ok(())
    } else {
        Err(Verdict::Failed("secrets and tokens are not all different".to_owned()))
    }
}

async fn the_inbound_secret_is_shown_nowhere_else(server: &Server) -> Result<(), Verdict> {
    let (agent, secret) = agent(server).await?;
    for path in [format!("/workspaces/{}", agent.id), "/workspaces".to_owned(), format!("/events/{}", agent.id)] {
        let answer = server.get_as_admin(&path).await?;
        if answer.status() != 200 || answer.body().contains(&secret) || answer.body().contains("inbound_secret") {
            return Err(Verdict::Failed(format!("{path} is refused or shows the inbound secret")));
        }
    }
    Ok(())
}

async fn a_refused_heartbeat_tells_no_secret(server: &Server) -> Result<(), Verdict> {
    let (agent, _) = agent(server).await?;
    let without = server.call(Method::POST, "/registry/heartbeat").json(&json!({"workspace_id": agent.id}));
    for answer in [without.send().await?, beat(server, agent.id, "wrong").await?] {
        if answer.status() != 401 || answer.body().contains("inbound") {
            return Err(answer.wrong("401 and no secret"));
        }
    }
    Ok(())
}
