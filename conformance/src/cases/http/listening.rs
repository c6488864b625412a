//! What happens, as those hear it who listen.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Call, Server, Workspace},
    listen::Frame,
};

cases! {
    Area::Events;
    Core, "R-WS-4", an_event_is_a_frame: "The operator's feed has one text frame for each event, a JSON object";
    Core, "R-WS-5", an_agent_hears_of_those_it_may_talk_to:
        "The feed of an agent has the events of those it may talk to, and no others";
    Core, "R-WS-6", the_feed_of_a_removed_workspace_ends:
        "The feed of an agent tells that its workspace was removed, and closes with 1008";
    Core, "R-WS-7", the_feed_of_a_revoked_token_ends: "The feed closes with 1008 once its token is worth nothing";
    Core, "R-WS-8", listeners_say_little: "What a listener says is passed over, and too much of it ends the feed";
    Core, "R-WS-9", both_sides_ping: "The feed pings, and answers pings";
    Core, "R-WS-10", a_token_may_be_among_the_protocols: "A browser shows its token among the protocols it offers";
    Core, "R-WS-11", listeners_of_one_workspace_are_few: "A workspace has sixteen listeners at once and no more";
    Extended(Feature::Streams), "R-STREAM-4", a_stream_says_at_once_that_it_is_there:
        "A stream is one of server-sent events, and begins with a comment";
    Extended(Feature::Streams), "R-STREAM-5", an_event_of_a_stream_is_a_line:
        "An event of the stream is a line of JSON, after its id where it is recorded";
    Extended(Feature::Streams), "R-STREAM-6", a_stream_is_of_one_workspace: "A stream tells of no other workspace";
    Extended(Feature::Streams), "R-STREAM-7", a_stream_goes_on_where_it_was:
        "A listener that comes again hears first what it missed";
    Extended(Feature::Streams), "R-STREAM-8", a_stream_ends_with_its_workspace:
        "A stream tells that its workspace was removed, and ends";
    Extended(Feature::Activity), "R-WS-12", words_to_the_user_are_told: "What an agent says to its user is told to listeners";
    Extended(Feature::Activity), "R-WS-13", rows_of_the_log_are_told: "A row of the activity log is told to listeners";
    Extended(Feature::Delegation), "R-WS-14", delegations_are_told: "A delegation is told to listeners, and kept in the log of events";
}

async fn beat(server: &Server, agent: &Workspace) -> Result<Answer, Verdict> {
    let call = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    call.json(&json!({"workspace_id": agent.id})).send().await
}

async fn remove(server: &Server, agent: &Workspace) -> Result<(), Verdict> {
    let path = format!("/workspaces/{}?confirm=true", agent.id);
    server.call(Method::DELETE, &path).admin().send().await?.json(200).map(drop)
}

/// The feed of an agent, so far not asked for.
fn own_feed<'a>(server: &'a Server, agent: &Workspace) -> Call<'a> {
    let call = server.call(Method::GET, "/ws").bearer(&agent.token);
    call.header("x-workspace-id", &agent.id.to_string())
}

fn stream<'a>(server: &'a Server, agent: &Workspace) -> Call<'a> {
    server.call(Method::GET, &format!("/workspaces/{}/events/stream", agent.id)).bearer(&agent.token)
}

fn wrong(what: &str, got: impl std::fmt::Debug) -> Verdict {
    Verdict::Failed(format!("expected {what}, got {got:?}"))
}

async fn an_event_is_a_frame(server: &Server) -> Result<(), Verdict> {
    let mut feed = server.call(Method::GET, "/ws").admin().feed().await?;
    let agent = server.external("conformance frame", &Value::Null).await?;
    let event = feed.event_of("WORKSPACE_AWAITING_AGENT", agent.id).await?;
    let mut members: Vec<&str> = event.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    members.sort_unstable();
    let at = event["timestamp"].as_str().is_some_and(|at| at.contains('T') && at.ends_with('Z'));
    if members != ["event", "payload", "timestamp", "workspace_id"]
        || !at
        || event["payload"] != json!({"name": "conformance frame", "external": true})
    {
        return Err(wrong("an event with its four members", event));
    }
    Ok(())
}

async fn an_agent_hears_of_those_it_may_talk_to(server: &Server) -> Result<(), Verdict> {
    let lead = server.external("conformance lead", &Value::Null).await?;
    let below = server.external("conformance below", &json!({"parent_id": lead.id})).await?;
    let other = server.external("conformance other", &Value::Null).await?;
    let stranger = server.external("conformance stranger", &json!({"parent_id": other.id})).await?;
    let mut feed = own_feed(server, &below).feed().await?;
    for agent in [&stranger, &lead, &below] {
        beat(server, agent).await?.json(200)?;
    }
    feed.event_of("WORKSPACE_ONLINE", lead.id).await?;
    loop {
        let event = feed.event().await?;
        if event["workspace_id"] == stranger.id.to_string() {
            return Err(wrong("no word of a stranger", event));
        }
        if event["event"] == "WORKSPACE_ONLINE" && event["workspace_id"] == below.id.to_string() {
            return Ok(());
        }
    }
}

async fn the_feed_of_a_removed_workspace_ends(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance removed", &Value::Null).await?;
    let mut feed = own_feed(server, &agent).feed().await?;
    remove(server, &agent).await?;
    feed.event_of("WORKSPACE_REMOVED", agent.id).await?;
    match feed.close_code().await? {
        Some(1008) => Ok(()),
        code => Err(wrong("the close code 1008", code)),
    }
}

async fn the_feed_of_a_revoked_token_ends(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance revoked", &Value::Null).await?;
    let mut feed = own_feed(server, &agent).feed().await?;
    let path = format!("/workspaces/{}/tokens", agent.id);
    let listed = server.get_as_admin(&path).await?;
    let token = listed.json(200)?["tokens"][0]["id"].as_str().ok_or_else(|| listed.wrong("a token"))?.to_owned();
    server.call(Method::DELETE, &format!("{path}/{token}")).admin().send().await?.json(200)?;
    match feed.close_code().await? {
        Some(1008) => Ok(()),
        code => Err(wrong("the close code 1008", code)),
    }
}

async fn listeners_say_little(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance talks", &Value::Null).await?;
    let mut feed = own_feed(server, &agent).feed().await?;
    feed.say("{\"event\":\"WORKSPACE_REMOVED\"}").await;
    beat(server, &agent).await?.json(200)?;
    feed.event_of("WORKSPACE_ONLINE", agent.id).await?;
    feed.say(&"x".repeat(5000)).await;
    // Broken off, or closed with 1009, whichever comes through.
    match feed.close_code().await? {
        None | Some(1009) => Ok(()),
        code => Err(wrong("the close code 1009", code)),
    }
}

async fn both_sides_ping(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance pings", &Value::Null).await?;
    let mut feed = own_feed(server, &agent).feed().await?;
    match feed.frame().await? {
        Frame::Ping => {}
        frame => return Err(wrong("a ping", frame)),
    }
    feed.ping(b"anyone?").await;
    loop {
        match feed.frame().await? {
            Frame::Pong(bytes) if bytes == b"anyone?" => return Ok(()),
            Frame::Text(_) | Frame::Ping => {}
            frame => return Err(wrong("a pong with the bytes of the ping", frame)),
        }
    }
}

async fn a_token_may_be_among_the_protocols(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance browser", &Value::Null).await?;
    let offered = |token: &str| format!("molecule, molecule.bearer.{token}");
    let call = |token: &str| {
        let call = server.call(Method::GET, "/ws").header("x-workspace-id", &agent.id.to_string());
        call.header("sec-websocket-protocol", &offered(token))
    };
    let feed = call(&agent.token).feed().await?;
    if feed.protocol.as_deref() != Some("molecule") {
        return Err(wrong("the protocol molecule", feed.protocol));
    }
    match call("nobody-issued-this").refused_feed().await? {
        401 => Ok(()),
        status => Err(wrong("the status 401", status)),
    }
}

async fn listeners_of_one_workspace_are_few(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance crowd", &Value::Null).await?;
    let mut feeds = Vec::new();
    for _ in 0..16 {
        feeds.push(own_feed(server, &agent).feed().await?);
    }
    match own_feed(server, &agent).refused_feed().await? {
        429 => Ok(()),
        status => Err(wrong("the status 429", status)),
    }
}

async fn a_stream_says_at_once_that_it_is_there(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance stream", &Value::Null).await?;
    let mut stream = stream(server, &agent).stream().await?;
    let kind = stream.header("content-type").unwrap_or_default().to_owned();
    let first = stream.piece().await?;
    match kind.starts_with("text/event-stream") && first.as_deref() == Some(": ping") {
        true => Ok(()),
        false => Err(wrong("text/event-stream that begins with \": ping\" and a blank line", (kind, first))),
    }
}

async fn an_event_of_a_stream_is_a_line(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance line", &Value::Null).await?;
    let mut stream = stream(server, &agent).stream().await?;
    beat(server, &agent).await?.json(200)?;
    let log = server.get_as_admin(&format!("/events/{}?type=WORKSPACE_ONLINE", agent.id)).await?;
    let logged = log.json(200)?[0]["id"].as_str().ok_or_else(|| log.wrong("the event that it came online"))?.to_owned();
    let mut kinds = Vec::new();
    while let Some((id, event)) = stream.event().await? {
        let (kind, recorded) = (event["type"].as_str().unwrap_or_default().to_owned(), id.is_some());
        let complete = event["timestamp"].is_i64() && event["data"].is_object();
        // Of what is not recorded there is no id to come back to.
        if !complete || recorded != (kind != "WORKSPACE_HEARTBEAT") || recorded && id.as_deref() != Some(&logged) {
            return Err(wrong("type, timestamp and data, after its id where it is recorded", (id, event)));
        }
        kinds.push(kind);
        if kinds.contains(&"WORKSPACE_ONLINE".to_owned()) && kinds.contains(&"WORKSPACE_HEARTBEAT".to_owned()) {
            return Ok(());
        }
    }
    Err(wrong("WORKSPACE_ONLINE and WORKSPACE_HEARTBEAT", kinds))
}

async fn a_stream_is_of_one_workspace(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance one", &Value::Null).await?;
    let other = server.external("conformance two", &Value::Null).await?;
    let mut stream = stream(server, &agent).stream().await?;
    let card = |agent: &Workspace, name: &str| {
        let call = server.call(Method::POST, "/registry/update-card").bearer(&agent.token);
        call.json(&json!({"workspace_id": agent.id, "agent_card": {"name": name}}))
    };
    card(&other, "the other's").send().await?.json(200)?;
    card(&agent, "its own").send().await?.json(200)?;
    match stream.event().await? {
        Some((_, event)) if event["data"]["agent_card"]["name"] == "its own" => Ok(()),
        event => Err(wrong("the event of its own card first", event)),
    }
}

async fn a_stream_goes_on_where_it_was(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance replay", &Value::Null).await?;
    beat(server, &agent).await?.json(200)?;
    let log = server.get_as_admin(&format!("/events/{}", agent.id)).await?;
    let events = log.json(200)?;
    let (Some(online), Some(awaiting)) = (events[0]["id"].as_str(), events[1]["id"].as_str()) else {
        return Err(log.wrong("two events"));
    };
    let mut stream = stream(server, &agent).header("last-event-id", awaiting).stream().await?;
    match stream.event().await? {
        Some((Some(id), event)) if id == online && event["type"] == "WORKSPACE_ONLINE" => Ok(()),
        event => Err(wrong("the event after the last that was heard", event)),
    }
}

async fn a_stream_ends_with_its_workspace(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance ends", &Value::Null).await?;
    let mut stream = stream(server, &agent).stream().await?;
    remove(server, &agent).await?;
    match stream.event().await? {
        Some((_, event)) if event["type"] == "WORKSPACE_REMOVED" => {}
        event => return Err(wrong("WORKSPACE_REMOVED", event)),
    }
    match stream.event().await? {
        None => Ok(()),
        event => Err(wrong("the end", event)),
    }
}

async fn words_to_the_user_are_told(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance speaks", &Value::Null).await?;
    let mut feed = server.call(Method::GET, "/ws").admin().feed().await?;
    let call = server.call(Method::POST, &format!("/workspaces/{}/notify", agent.id)).bearer(&agent.token);
    call.json(&json!({"message": "done"})).send().await?.json(200)?;
    let told = feed.event_of("AGENT_MESSAGE", agent.id).await?;
    let expected = told["payload"]["message"] == "done" && told["payload"]["name"] == "conformance speaks";
    if expected { Ok(()) } else { Err(wrong("the message and who says it", told)) }
}

async fn rows_of_the_log_are_told(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance reports", &Value::Null).await?;
    let mut feed = server.call(Method::GET, "/ws").admin().feed().await?;
    let call = server.call(Method::POST, &format!("/workspaces/{}/activity", agent.id)).bearer(&agent.token);
    call.json(&json!({"activity_type": "agent_log", "summary": "one step"})).send().await?.json(200)?;
    let told = feed.event_of("ACTIVITY_LOGGED", agent.id).await?;
    let payload = &told["payload"];
    let expected =
        payload["activity_type"] == "agent_log" && payload["summary"] == "one step" && payload["status"] == "ok";
    if expected { Ok(()) } else { Err(wrong("the row that was written", told)) }
}

async fn delegations_are_told(server: &Server) -> Result<(), Verdict> {
    let from = server.member("conformance gives", &Value::Null).await?;
    let to = server.member("conformance takes", &Value::Null).await?;
    let mut feed = server.call(Method::GET, "/ws").admin().feed().await?;
    let call = server.call(Method::POST, &format!("/workspaces/{}/delegate", from.id)).bearer(&from.token);
    let given = call.json(&json!({"target_id": to.id, "task": "count"})).send().await?.json(202)?;
    let told = feed.event_of("DELEGATION_SENT", from.id).await?;
    let payload = &told["payload"];
    if payload["delegation_id"] != given["delegation_id"] || payload["target_id"] != json!(to.id) {
        return Err(wrong("the delegation and whom it is for", told));
    }
    let kept = server.get_as_admin(&format!("/events/{}?type=DELEGATION_SENT", from.id)).await?;
    if kept.json(200)?[0]["payload"] == *payload { Ok(()) } else { Err(kept.wrong("the same in the log")) }
}
