//! The tools that the server serves itself, over the Model Context Protocol.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::A2a;
    Extended(Feature::Mcp), "R-MCP-1", a_client_is_greeted: "A client that initializes is told the revision, the capabilities and the name of the server";
    Extended(Feature::Mcp), "R-MCP-2", a_notification_has_no_answer: "A notification is answered 202 without a body";
    Extended(Feature::Mcp), "R-MCP-3", the_tools_are_listed: "The tools are listed with their schemas";
    Extended(Feature::Mcp), "R-MCP-4", what_cannot_be_parsed_is_refused: "What is no JSON object is answered 400 and -32700";
    Extended(Feature::Mcp), "R-MCP-5", an_unknown_method_is_told: "An unknown method is answered -32601";
    Extended(Feature::Mcp), "R-MCP-6", wrong_params_are_told: "A call that names no tool is answered -32602";
    Extended(Feature::Mcp), "R-MCP-7", an_unknown_tool_is_told: "An unknown tool is answered -32000";
    Extended(Feature::Mcp), "R-MCP-8", a_ping_is_answered: "A ping is answered with nothing";
    Extended(Feature::Mcp), "R-MCP-9", tools_need_their_own_token: "The tools of a workspace are closed without its token";
    Extended(Feature::Mcp), "R-MCP-10", a_token_is_metered: "Every answer tells how often the token may still be used, on both routes together";
    Extended(Feature::Mcp), "R-MCP-11", a_workspace_learns_of_itself: "A workspace learns its id, name, status and tier";
    Extended(Feature::Mcp), "R-MCP-12", peers_are_listed: "Peers are listed as JSON";
    Extended(Feature::Mcp), "R-MCP-13", a_task_needs_a_target_and_a_text: "A task without a target or a text is refused";
    Extended(Feature::Mcp), "R-MCP-14", tools_give_strangers_no_tasks: "A workspace that may not be talked to is given no task";
    Joint(Feature::Mcp, Feature::Activity), "R-MCP-15", a_task_for_one_who_polls_is_kept: "A task for an agent that asks for its messages is kept, which is no failure";
    Joint(Feature::Mcp, Feature::Delegation), "R-MCP-16", a_dispatched_task_is_a_delegation: "A dispatched task is among the delegations, and its status is known";
    Extended(Feature::Mcp), "R-MCP-17", an_unknown_task_is_not_found: "A task that was never given is not_found, with a note";
    Joint(Feature::Mcp, Feature::Memory), "R-MCP-18", a_tool_keeps_a_memory: "A memory is kept in the namespace general, without secrets, and found again";
    Extended(Feature::Mcp), "R-MCP-19", nothing_global_is_kept: "A memory for everyone is neither kept nor looked for";
    Joint(Feature::Mcp, Feature::Memory), "R-MCP-20", a_root_finds_what_its_team_keeps: "A root finds what those it leads keep for the team";
    Extended(Feature::Mcp), "R-MCP-21", the_stream_needs_a_token_and_a_workspace: "The stream is not opened without a token, nor for an unknown workspace";
    Extended(Feature::Mcp), "R-MCP-22", streamable_clients_are_served: "A client of streamable HTTP is answered in the revision that it asks for";
    Extended(Feature::Mcp), "R-MCP-23", streamable_clients_read_failures: "A client of streamable HTTP reads of a failed tool in its result";
}

const STREAMABLE: &str = "application/json, text/event-stream";
const REVISION: &str = "2025-06-18";

async fn one(server: &Server) -> Result<Workspace, Verdict> {
    server.external("conformance mcp", &Value::Null).await
}

/// A workspace that `lead` leads.
async fn led_by(server: &Server, lead: &Workspace) -> Result<Workspace, Verdict> {
    server.member("conformance mcp led", &json!({"parent_id": lead.id})).await
}

async fn post(server: &Server, of: &Workspace, body: &Value) -> Result<Answer, Verdict> {
    server.call(Method::POST, &format!("/workspaces/{}/mcp", of.id)).bearer(&of.token).json(body).send().await
}

async fn ask(server: &Server, of: &Workspace, method: &str, params: Value) -> Result<Answer, Verdict> {
    post(server, of, &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).await
}

async fn call(server: &Server, of: &Workspace, tool: &str, arguments: Value) -> Result<Answer, Verdict> {
    ask(server, of, "tools/call", json!({"name": tool, "arguments": arguments})).await
}

/// The text that a tool answered.
fn text(answer: &Answer) -> Result<String, Verdict> {
    let body = answer.json(200)?;
    let text = body["result"]["content"][0]["text"].as_str().map(str::to_owned);
    text.ok_or_else(|| answer.wrong("a result with a text"))
}

/// The text that a tool answered, as JSON.
fn parsed(answer: &Answer) -> Result<Value, Verdict> {
    serde_json::from_str(&text(answer)?).map_err(|_| answer.wrong("a text in JSON"))
}

/// Demands an error with this code, whose message begins so.
fn fails(answer: &Answer, code: i64, message: &str) -> Result<(), Verdict> {
    let body = answer.json(200)?;
    let begins = body["error"]["message"].as_str().is_some_and(|text| text.starts_with(message));
    let holds = body["jsonrpc"] == "2.0" && body["id"] == 1 && body["error"]["code"] == code && begins;
    if holds { Ok(()) } else { Err(answer.wrong(&format!("the error {code} {message:?}"))) }
}

async fn a_client_is_greeted(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let params =
        json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    let result = json!({
        "protocolVersion": "2024-11-05",
        "capabilities": {"tools": {"listChanged": false}},
        "serverInfo": {"name": "molecule-a2a", "version": "1.0.0"},
    });
    let answer = ask(server, &own, "initialize", params).await?;
    answer.is(200, &json!({"jsonrpc": "2.0", "id": 1, "result": result}))
}

async fn a_notification_has_no_answer(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let answer = post(server, &own, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
    if answer.status() == 202 && answer.body().is_empty() { Ok(()) } else { Err(answer.wrong("202 and no body")) }
}

async fn the_tools_are_listed(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let answer = ask(server, &own, "tools/list", Value::Null).await?;
    let body = answer.json(200)?;
    let tools = body["result"]["tools"].as_array().ok_or_else(|| answer.wrong("a list of tools"))?;
    for name in [
        "delegate_task",
        "delegate_task_async",
        "check_task_status",
        "list_peers",
        "get_workspace_info",
        "commit_memory",
        "recall_memory",
    ] {
        let described = tools.iter().any(|tool| {
            tool["name"] == name && tool["description"].is_string() && tool["inputSchema"]["type"] == "object"
        });
        if !described {
            return Err(answer.wrong(&format!("{name} with a description and a schema")));
        }
    }
    Ok(())
}

async fn what_cannot_be_parsed_is_refused(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for body in ["{", "[]", ""] {
        let path = format!("/workspaces/{}/mcp", own.id);
        let answer = server.call(Method::POST, &path).bearer(&own.token).text(body).send().await?;
        let said = answer.json(400)?;
        if said["error"]["code"] != -32700 || !said["id"].is_null() {
            return Err(answer.wrong("the error -32700 without an id"));
        }
    }
    Ok(())
}

async fn an_unknown_method_is_told(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    fails(&ask(server, &own, "no/such", json!({})).await?, -32601, "method not found: no/such")
}

async fn wrong_params_are_told(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for params in [json!([]), json!({}), json!({"name": 5}), json!({"name": "list_peers", "arguments": "none"})] {
        let answer = ask(server, &own, "tools/call", params).await?;
        fails(&answer, -32602, "")?;
        if answer.json(200)?["error"]["message"].as_str().is_none_or(str::is_empty) {
            return Err(answer.wrong("a message"));
        }
    }
    Ok(())
}

async fn an_unknown_tool_is_told(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    fails(&call(server, &own, "no_such", json!({})).await?, -32000, "unknown tool: no_such")
}

async fn a_ping_is_answered(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    ask(server, &own, "ping", json!({})).await?.is(200, &json!({"jsonrpc": "2.0", "id": 1, "result": {}}))
}

async fn tools_need_their_own_token(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    let path = format!("/workspaces/{}/mcp", own.id);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    server.call(Method::POST, &path).json(&ping).send().await?.refuses(401, "missing workspace auth token")?;
    let wrong = server.call(Method::POST, &path).bearer(&other.token).json(&ping).send().await?;
    wrong.refuses(401, "invalid workspace auth token")
}

async fn a_token_is_metered(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let first = post(server, &own, &ping).await?;
    let second = post(server, &own, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
    for (answer, remaining) in [(&first, "119"), (&second, "118")] {
        let told = [("x-ratelimit-limit", "120"), ("x-ratelimit-remaining", remaining)];
        if told.iter().any(|(name, value)| answer.header(name) != Some(value))
            || answer.header("x-ratelimit-reset").is_none()
        {
            return Err(answer.wrong(&format!("a limit of 120 with {remaining} remaining")));
        }
    }
    // The other route counts as well, and after the last there is no more.
    let path = format!("/workspaces/{}/mcp/stream", own.id);
    let opened = server.call(Method::GET, &path).bearer(&own.token).open().await?;
    if opened.headers().get("x-ratelimit-remaining").and_then(|left| left.to_str().ok()) != Some("117") {
        return Err(Verdict::Failed(format!("expected 117 remaining after the stream, got {:?}", opened.headers())));
    }
    drop(opened);
    for _ in 0..117 {
        post(server, &own, &ping).await?.json(200)?;
    }
    let path = format!("/workspaces/{}/mcp", own.id);
    let refused = server.call(Method::POST, &path).bearer(&own.token).json(&ping).open().await?;
    if refused.status().as_u16() == 429 {
        Ok(())
    } else {
        Err(Verdict::Failed(format!("expected 429 for the 121st call of a minute, got {}", refused.status())))
    }
}

async fn a_workspace_learns_of_itself(server: &Server) -> Result<(), Verdict> {
    let lead = one(server).await?;
    let own = led_by(server, &lead).await?;
    let answer = call(server, &own, "get_workspace_info", json!({})).await?;
    let info = parsed(&answer)?;
    let holds = info["id"] == own.id.to_string()
        && info["name"] == "conformance mcp led"
        && info["status"] == "online"
        && info["tier"].is_i64()
        && info["parent_id"] == lead.id.to_string();
    if holds { Ok(()) } else { Err(answer.wrong("id, name, status, tier and parent_id")) }
}

async fn peers_are_listed(server: &Server) -> Result<(), Verdict> {
    let lead = one(server).await?;
    let own = led_by(server, &lead).await?;
    let answer = call(server, &own, "list_peers", json!({})).await?;
    let peers = parsed(&answer)?;
    let found = peers.as_array().into_iter().flatten().find(|peer| peer["id"] == lead.id.to_string());
    let whole = |peer: &Value| {
        peer["name"] == "conformance mcp"
            && peer["status"] == "awaiting_agent"
            && peer["tier"].is_i64()
            && peer["role"].is_string()
    };
    if found.is_some_and(whole) { Ok(()) } else { Err(answer.wrong("the workspace that leads this one")) }
}

async fn a_task_needs_a_target_and_a_text(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for tool in ["delegate_task", "delegate_task_async"] {
        fails(&call(server, &own, tool, json!({"task": "t"})).await?, -32000, "workspace_id is required")?;
        let target = json!({"workspace_id": unknown_id()?});
        fails(&call(server, &own, tool, target).await?, -32000, "task is required")?;
    }
    Ok(())
}

async fn tools_give_strangers_no_tasks(server: &Server) -> Result<(), Verdict> {
    let (lead, stranger) = (one(server).await?, one(server).await?);
    let own = led_by(server, &lead).await?;
    for tool in ["delegate_task", "delegate_task_async"] {
        let answer = call(server, &own, tool, json!({"workspace_id": stranger.id, "task": "t"})).await?;
        let text = format!("workspace {} is not authorised to communicate with {}", own.id, stranger.id);
        fails(&answer, -32000, &text)?;
    }
    Ok(())
}

async fn a_task_for_one_who_polls_is_kept(server: &Server) -> Result<(), Verdict> {
    let lead = one(server).await?;
    let led = led_by(server, &lead).await?;
    let answer =
        call(server, &lead, "delegate_task", json!({"workspace_id": led.id, "task": "conformance task"})).await?;
    text(&answer)?;
    let path = format!("/workspaces/{}/activity?type=a2a_receive", led.id);
    let kept = server.call(Method::GET, &path).bearer(&led.token).send().await?;
    if kept.body().contains("conformance task") {
        Ok(())
    } else {
        Err(kept.wrong("the task in the log of its receiver"))
    }
}

async fn a_dispatched_task_is_a_delegation(server: &Server) -> Result<(), Verdict> {
    let lead = one(server).await?;
    let led = led_by(server, &lead).await?;
    let answer = call(server, &lead, "delegate_task_async", json!({"workspace_id": led.id, "task": "t"})).await?;
    let dispatched = parsed(&answer)?;
    if dispatched["status"] != "dispatched" || dispatched["target_id"] != led.id.to_string() {
        return Err(answer.wrong("dispatched, and to whom"));
    }
    let task = dispatched["task_id"].as_str().ok_or_else(|| answer.wrong("task_id"))?;
    let path = format!("/workspaces/{}/delegations", lead.id);
    let listed = server.call(Method::GET, &path).bearer(&lead.token).send().await?;
    if !listed.json(200)?.as_array().into_iter().flatten().any(|row| row["delegation_id"] == task) {
        return Err(listed.wrong("the dispatched task"));
    }
    let answer = call(server, &lead, "check_task_status", json!({"workspace_id": led.id, "task_id": task})).await?;
    let status = parsed(&answer)?;
    let known = status["task_id"] == task && status["status"].is_string() && status["status"] != "not_found";
    if known { Ok(()) } else { Err(answer.wrong("a status that is known")) }
}

async fn an_unknown_task_is_not_found(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let answer =
        call(server, &own, "check_task_status", json!({"workspace_id": unknown_id()?, "task_id": "none"})).await?;
    let status = parsed(&answer)?;
    let holds = status["task_id"] == "none" && status["status"] == "not_found" && status["note"].is_string();
    if holds { Ok(()) } else { Err(answer.wrong("not_found with a note")) }
}

async fn a_tool_keeps_a_memory(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let answer = call(server, &own, "recall_memory", json!({})).await?;
    if text(&answer)? != "No memories found." {
        return Err(answer.wrong("no memories"));
    }
    let content = format!("the key is sk-{}", "a".repeat(40));
    let kept = call(server, &own, "commit_memory", json!({"content": content})).await?;
    if parsed(&kept)?["scope"] != "LOCAL" {
        return Err(kept.wrong("the scope LOCAL"));
    }
    let path = format!("/workspaces/{}/memories?namespace=general", own.id);
    let listed = server.call(Method::GET, &path).bearer(&own.token).send().await?;
    let found = listed.json(200)?;
    if found[0]["content"].as_str().is_none_or(|text| !text.starts_with("the key is [REDACTED")) {
        return Err(listed.wrong("the memory without its secret"));
    }
    let recalled = call(server, &own, "recall_memory", json!({"query": "key", "scope": "LOCAL"})).await?;
    if text(&recalled)?.starts_with("[LOCAL] the key is") { Ok(()) } else { Err(recalled.wrong("the memory")) }
}

async fn nothing_global_is_kept(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let kept = call(server, &own, "commit_memory", json!({"content": "c", "scope": "GLOBAL"})).await?;
    fails(&kept, -32000, "GLOBAL scope is not permitted via the MCP bridge — use LOCAL or TEAM")?;
    let recalled = call(server, &own, "recall_memory", json!({"scope": "GLOBAL"})).await?;
    fails(&recalled, -32000, "GLOBAL scope is not permitted via the MCP bridge — use LOCAL, TEAM, or empty")?;
    let nothing = call(server, &own, "commit_memory", json!({})).await?;
    fails(&nothing, -32000, "content is required")
}

async fn a_root_finds_what_its_team_keeps(server: &Server) -> Result<(), Verdict> {
    let lead = one(server).await?;
    let led = led_by(server, &lead).await?;
    text(&call(server, &led, "commit_memory", json!({"content": "for the team", "scope": "TEAM"})).await?)?;
    let answer = call(server, &lead, "recall_memory", json!({"scope": "TEAM"})).await?;
    if text(&answer)? == "[TEAM] for the team" { Ok(()) } else { Err(answer.wrong("the memory of the team")) }
}

async fn the_stream_needs_a_token_and_a_workspace(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let path = format!("/workspaces/{}/mcp/stream", own.id);
    server.get(&path).await?.refuses(401, "missing workspace auth token")?;
    let wrong = server.call(Method::GET, &path).bearer("wrong").send().await?;
    wrong.refuses(401, "invalid workspace auth token")?;
    server.get_as_admin(&format!("/workspaces/{}/mcp/stream", unknown_id()?)).await?.refuses(404, "workspace not found")
}

async fn streamable(server: &Server, of: &Workspace, revision: &str, body: &Value) -> Result<Answer, Verdict> {
    let call = server.call(Method::POST, &format!("/workspaces/{}/mcp", of.id)).bearer(&of.token);
    call.header("accept", STREAMABLE).header("mcp-protocol-version", revision).json(body).send().await
}

/// What a client of streamable HTTP was answered, as JSON or as the one event of a stream.
fn streamed(answer: &Answer) -> Result<Value, Verdict> {
    let body = answer.body().lines().find_map(|line| line.strip_prefix("data: {")).map(|rest| format!("{{{rest}"));
    serde_json::from_str(body.as_deref().unwrap_or(answer.body())).map_err(|_| answer.wrong("a message"))
}

async fn streamable_clients_are_served(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for revision in ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"] {
        let params =
            json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        let answer = streamable(server, &own, revision, &body).await?;
        if streamed(&answer)?["result"]["protocolVersion"] != revision {
            return Err(answer.wrong(&format!("the revision {revision}")));
        }
    }
    let answer =
        streamable(server, &own, REVISION, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
    if answer.status() == 202 { Ok(()) } else { Err(answer.wrong("202")) }
}

async fn streamable_clients_read_failures(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let params = json!({"name": "delegate_task", "arguments": {}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let answer = streamable(server, &own, REVISION, &body).await?;
    let result = streamed(&answer)?["result"].take();
    let told = result["isError"] == true && result["content"][0]["text"] == "workspace_id is required";
    if told { Ok(()) } else { Err(answer.wrong("a result that is an error")) }
}
