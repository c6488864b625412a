//! The server of one organisation, as others find it: not at all.

use reqwest::Method;
use serde_json::json;

use crate::{
    case::{Area, Verdict, cases},
    http::{Call, Server, unknown_id},
};

cases! {
    Area::Access;
    Extended(Feature::Organisation), "R-ORG-1", others_find_nothing:
        "Who names no organisation, or another, is answered 404 without a word";
    Extended(Feature::Organisation), "R-ORG-2", some_things_are_for_everyone:
        "What tells of the server itself, and what agents report to, is there for everyone";
    Extended(Feature::Organisation), "R-ORG-3", a_router_names_the_organisation_in_its_way:
        "The state of a replayed request names the organisation as well";
}

/// Demands 404 and no body.
async fn finds_nothing(call: Call<'_>) -> Result<(), Verdict> {
    let answer = call.admin().send().await?;
    if answer.status() == 404 && answer.body().is_empty() { Ok(()) } else { Err(answer.wrong("404 and no body")) }
}

async fn others_find_nothing(server: &Server) -> Result<(), Verdict> {
    server.organisation()?;
    let peers = format!("/registry/{}/peers", unknown_id()?);
    for path in ["/workspaces", &peers, "/events", "/no-such-route"] {
        finds_nothing(server.stray(Method::GET, path)).await?;
        let other = unknown_id()?.to_string();
        finds_nothing(server.stray(Method::GET, path).header("x-molecule-org-id", &other)).await?;
    }
    Ok(())
}

async fn some_things_are_for_everyone(server: &Server) -> Result<(), Verdict> {
    server.organisation()?;
    for path in ["/health", "/buildinfo", "/metrics"] {
        let answer = server.stray(Method::GET, path).send().await?;
        if answer.status() != 200 {
            return Err(answer.wrong("the status 200"));
        }
    }
    for path in ["/registry/register", "/registry/heartbeat"] {
        let answer = server.stray(Method::POST, path).json(&json!({})).send().await?;
        answer.refuses(400, "invalid request body")?;
    }
    Ok(())
}

async fn a_router_names_the_organisation_in_its_way(server: &Server) -> Result<(), Verdict> {
    let id = server.organisation()?;
    let replayed = |state: &str| {
        let call = server.stray(Method::GET, "/workspaces");
        call.header("fly-replay-src", &format!("instance=i;region=r;t=1;state={state}"))
    };
    replayed(id).admin().send().await?.json(200)?;
    finds_nothing(replayed("another")).await
}
