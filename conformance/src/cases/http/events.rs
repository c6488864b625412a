//! What happened: the log, and who may hear.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::Events;
    Core, "R-EVENTS-1", the_log_tells_how_a_workspace_came_and_went:
        "The log of a workspace tells how it was made, came online and was removed, newest first";
    Core, "R-EVENTS-2", an_event_has_its_members: "An event has an id, a kind, a workspace, a payload and a time";
    Core, "R-EVENTS-3", the_log_is_for_the_operator: "The log is not shown for a wrong token or that of a workspace";
    Core, "R-EVENTS-4", the_log_is_cut_to_its_limit: "The log shows as many events as are asked for";
    Core, "R-EVENTS-5", the_log_is_found_by_kind: "The log shows one kind of events where that is asked for";
    Core, "R-EVENTS-6", the_log_is_paged_by_time: "The log shows what happened before a time";
    Core, "R-EVENTS-7", a_time_that_is_none_is_refused: "A time that is none is answered 400";
    Core, "R-EVENTS-8", an_unknown_workspace_has_no_events: "An unknown workspace has an empty log";
    Core, "R-EVENTS-9", an_id_that_is_none_has_no_log: "The log of an id that is no UUID is answered 400";
    Core, "R-EVENTS-10", a_nul_suppresses_no_event: "A NUL in a card keeps no event out of the log";
    Core, "R-EVENTS-11", an_unpaired_surrogate_is_refused: "A body with an unpaired surrogate is answered 400";
    Extended(Feature::Streams), "R-STREAM-1", a_stream_needs_a_token_of_its_workspace:
        "The stream of a workspace is not opened for a wrong token or that of another";
    Extended(Feature::Streams), "R-STREAM-2", an_unknown_workspace_has_no_stream: "An unknown or removed workspace has no stream";
    Extended(Feature::Streams), "R-STREAM-3", an_id_that_is_none_has_no_stream: "The stream of an id that is no UUID is answered 400";
    Core, "R-WS-1", the_feed_needs_a_token: "The feed is not opened for a wrong token";
    Core, "R-WS-2", the_feed_of_an_agent_needs_its_own_token:
        "The feed of an agent is not opened for the token of another, nor without one";
    Core, "R-WS-3", the_feed_takes_websockets_only: "The feed answers 400 to what is no WebSocket handshake";
}

async fn online(server: &Server, name: &str) -> Result<Workspace, Verdict> {
    let agent = server.external(name, &Value::Null).await?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    beat.json(&json!({"workspace_id": agent.id})).send().await?.json(200)?;
    Ok(agent)
}

fn events(answer: &Answer) -> Result<Vec<Value>, Verdict> {
    match answer.json(200)? {
        Value::Array(events) => Ok(events),
        _ => Err(answer.wrong("an array")),
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event_type"].as_str()).collect()
}

async fn the_log_tells_how_a_workspace_came_and_went(server: &Server) -> Result<(), Verdict> {
    let agent = online(server, "conformance log").await?;
    let path = format!("/workspaces/{}?confirm=true", agent.id);
    server.call(Method::DELETE, &path).admin().send().await?.json(200)?;
    let answer = server.get_as_admin(&format!("/events/{}", agent.id)).await?;
    let log = events(&answer)?;
    let told: Vec<Value> = log.iter().map(|event| json!([event["event_type"], event["payload"]])).collect();
    let expected = [
        json!(["WORKSPACE_REMOVED", {"cascade_deleted": 0}]),
        json!(["WORKSPACE_ONLINE", {"recovered_from": "awaiting_agent"}]),
        json!(["WORKSPACE_AWAITING_AGENT", {"name": "conformance log", "external": true}]),
    ];
    if told == expected { Ok(()) } else { Err(answer.wrong(&format!("{expected:?}"))) }
}

async fn an_event_has_its_members(server: &Server) -> Result<(), Verdict> {
    let agent = online(server, "conformance members").await?;
    let answer = server.get_as_admin(&format!("/events/{}", agent.id)).await?;
    let id = agent.id.to_string();
    let complete = |event: &Value| {
        event["id"].as_str().is_some_and(|id| id.len() == 36)
            && event["event_type"].is_string()
            && event["workspace_id"] == id.as_str()
            && event["payload"].is_object()
            && event["created_at"].as_str().is_some_and(|at| at.contains('T'))
    };
    let log = events(&answer)?;
    if log.len() == 2 && log.iter().all(complete) { Ok(()) } else { Err(answer.wrong("two events, each complete")) }
}

async fn the_log_is_for_the_operator(server: &Server) -> Result<(), Verdict> {
    let agent = online(server, "conformance reader").await?;
    for path in ["/events".to_owned(), format!("/events/{}", agent.id)] {
        for token in ["wrong", &agent.token] {
            server.call(Method::GET, &path).bearer(token).send().await?.refuses(401, "invalid admin auth token")?;
        }
    }
    Ok(())
}

async fn the_log_is_cut_to_its_limit(server: &Server) -> Result<(), Verdict> {
    let agent = online(server, "conformance limit").await?;
    for path in [format!("/events/{}?limit=1", agent.id), "/events?limit=1".to_owned()] {
        let answer = server.get_as_admin(&path).await?;
        if events(&answer)?.len() != 1 {
            return Err(answer.wrong("one event"));
        }
    }
    Ok(())
}

async fn the_log_is_found_by_kind(server: &Server) -> Result<(), Verdict> {
    let agent = online(server, "conformance kind").await?;
    for (kind, expected) in [("WORKSPACE_ONLINE", &["WORKSPACE_ONLINE"][..]), ("NO_SUCH_KIND", &[])] {
        let answer = server.get_as_admin(&format!("/events/{}?type={kind}", agent.id)).await?;
        let log = events(&answer)?;
        if kinds(&log) != expected {
            return Err(answer.wrong(&format!("{expected:?}")));
        }
    }
    Ok(())
}

async fn the_log_is_paged_by_time(server: &Server) -> Result<(), Verdict> {
    let agent = online(server, "conformance time").await?;
    let path = format!("/events/{}", agent.id);
    let newest = server.get_as_admin(&format!("{path}?limit=1")).await?;
    let log = events(&newest)?;
    let at = log.first().and_then(|event| event["created_at"].as_str()).ok_or_else(|| newest.wrong("an event"))?;
    let answer = server.get_as_admin(&format!("{path}?before={}", at.replace('+', "%2B"))).await?;
    let log = events(&answer)?;
    if kinds(&log) == ["WORKSPACE_AWAITING_AGENT"] { Ok(()) } else { Err(answer.wrong("the event before the newest")) }
}

async fn a_time_that_is_none_is_refused(server: &Server) -> Result<(), Verdict> {
    let answer = server.get_as_admin("/events?before=yesterday").await?;
    if answer.status() == 400 { Ok(()) } else { Err(answer.wrong("the status 400")) }
}

async fn an_unknown_workspace_has_no_events(server: &Server) -> Result<(), Verdict> {
    server.get_as_admin(&format!("/events/{}", unknown_id()?)).await?.is(200, &json!([]))
}

async fn an_id_that_is_none_has_no_log(server: &Server) -> Result<(), Verdict> {
    server.get_as_admin("/events/nonsense").await?.refuses(400, "invalid workspace ID")
}

async fn a_nul_suppresses_no_event(server: &Server) -> Result<(), Verdict> {
    let agent = online(server, "conformance nul").await?;
    let update = server.call(Method::POST, "/registry/update-card").bearer(&agent.token);
    update.json(&json!({"workspace_id": agent.id, "agent_card": {"name": "a\0b"}})).send().await?.json(200)?;
    let answer = server.get_as_admin(&format!("/events/{}?type=AGENT_CARD_UPDATED", agent.id)).await?;
    let log = events(&answer)?;
    let kept = log.first().map(|event| &event["payload"]["agent_card"]["name"]);
    if kept == Some(&json!("a\u{fffd}b")) { Ok(()) } else { Err(answer.wrong("the card with U+FFFD for the NUL")) }
}

async fn an_unpaired_surrogate_is_refused(server: &Server) -> Result<(), Verdict> {
    let agent = online(server, "conformance surrogate").await?;
    let body = format!(r#"{{"workspace_id":"{}","current_task":"\ud800"}}"#, agent.id);
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token).text(body);
    beat.send().await?.refuses(400, "invalid request body")
}

async fn a_stream_needs_a_token_of_its_workspace(server: &Server) -> Result<(), Verdict> {
    let (one, other) = (online(server, "conformance one").await?, online(server, "conformance other").await?);
    let path = format!("/workspaces/{}/events/stream", one.id);
    for token in ["wrong", &other.token] {
        let answer = server.call(Method::GET, &path).bearer(token).send().await?;
        answer.refuses(401, "invalid workspace auth token")?;
    }
    Ok(())
}

async fn an_unknown_workspace_has_no_stream(server: &Server) -> Result<(), Verdict> {
    let path = format!("/workspaces/{}/events/stream", unknown_id()?);
    server.get_as_admin(&path).await?.refuses(404, "workspace not found")?;
    let agent = online(server, "conformance gone").await?;
    let removed = format!("/workspaces/{}?confirm=true", agent.id);
    server.call(Method::DELETE, &removed).admin().send().await?.json(200)?;
    let path = format!("/workspaces/{}/events/stream", agent.id);
    server.get_as_admin(&path).await?.refuses(404, "workspace not found")
}

async fn an_id_that_is_none_has_no_stream(server: &Server) -> Result<(), Verdict> {
    server.get_as_admin("/workspaces/nonsense/events/stream").await?.refuses(400, "invalid workspace ID")
}

async fn the_feed_needs_a_token(server: &Server) -> Result<(), Verdict> {
    server.call(Method::GET, "/ws").bearer("wrong").send().await?.refuses(401, "invalid admin auth token")
}

async fn the_feed_of_an_agent_needs_its_own_token(server: &Server) -> Result<(), Verdict> {
    let (one, other) = (online(server, "conformance one").await?, online(server, "conformance other").await?);
    let id = one.id.to_string();
    let claims = || server.call(Method::GET, "/ws").header("x-workspace-id", &id);
    claims().bearer(&other.token).send().await?.refuses(401, "invalid workspace auth token")?;
    claims().send().await?.refuses(401, "missing workspace auth token")
}

async fn the_feed_takes_websockets_only(server: &Server) -> Result<(), Verdict> {
    let answer = server.get_as_admin("/ws").await?;
    if answer.status() == 400 { Ok(()) } else { Err(answer.wrong("the status 400")) }
}
