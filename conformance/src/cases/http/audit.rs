//! What agents answer for.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace},
};

cases! {
    Area::Data;
    Extended(Feature::Records), "R-AUDIT-1", a_step_is_kept: "A step of an agent is kept, and listed with all that it says";
    Extended(Feature::Records), "R-AUDIT-2", a_ledger_is_empty_at_first: "A ledger is an empty list at first";
    Extended(Feature::Records), "R-AUDIT-3", steps_stand_behind_one_another: "A step names the signature of the one before it, by agent";
    Extended(Feature::Records), "R-AUDIT-4", a_ledger_is_filtered: "A ledger is read by agent, session and time";
    Extended(Feature::Records), "R-AUDIT-5", times_of_a_ledger_are_checked: "A time that cannot be read is refused by name";
    Extended(Feature::Records), "R-AUDIT-6", a_ledger_has_pages: "A ledger is read page by page, and says how many there are";
    Extended(Feature::Records), "R-AUDIT-7", steps_are_checked: "A step that cannot be is refused, and why is named";
    Extended(Feature::Records), "R-AUDIT-8", ledgers_are_their_workspaces: "A ledger is out of reach of other workspaces";
}

async fn one(server: &Server) -> Result<Workspace, Verdict> {
    server.external("conformance audit", &Value::Null).await
}

async fn append(server: &Server, of: &Workspace, body: &Value) -> Result<Answer, Verdict> {
    server.call(Method::POST, &format!("/workspaces/{}/audit", of.id)).bearer(&of.token).json(body).send().await
}

async fn step(server: &Server, of: &Workspace, agent: &str, session: &str) -> Result<Value, Verdict> {
    let body = json!({"agent_id": agent, "session_id": session, "operation": "tool_call"});
    append(server, of, &body).await?.has(201, &body)
}

async fn read(server: &Server, of: &Workspace, query: &str) -> Result<Answer, Verdict> {
    server.call(Method::GET, &format!("/workspaces/{}/audit?{query}", of.id)).bearer(&of.token).send().await
}

/// The ids of the rows that `query` finds, with how many it is said to find.
async fn found(server: &Server, of: &Workspace, query: &str) -> Result<(Vec<Value>, Value), Verdict> {
    let answer = read(server, of, query).await?;
    let mut body = answer.json(200)?;
    if body["chain_valid"] == false {
        return Err(answer.wrong("a chain_valid that is not false"));
    }
    let events = body["events"].as_array_mut().ok_or_else(|| answer.wrong("a list of events"))?;
    Ok((events.iter_mut().map(|event| event["id"].take()).collect(), body["total"].take()))
}

async fn a_step_is_kept(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let said = json!({
        "session_id": "s", "operation": "llm_call", "input_hash": "ab", "output_hash": "cd", "model_used": "modèle",
        "human_oversight_flag": true, "risk_flag": true,
    });
    let kept = append(server, &own, &said).await?;
    let expected = json!({"agent_id": own.id, "workspace_id": own.id, "prev_hmac": null});
    kept.has(201, &said)?;
    let kept = kept.has(201, &expected)?;
    let listed = read(server, &own, "").await?;
    let body = listed.has(200, &json!({"total": 1, "events": [kept]}))?;
    if body["chain_valid"] == false { Err(listed.wrong("a chain that is whole")) } else { Ok(()) }
}

async fn a_ledger_is_empty_at_first(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    read(server, &own, "").await?.has(200, &json!({"total": 0, "events": []})).map(drop)
}

async fn steps_stand_behind_one_another(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let first = step(server, &own, "a", "s").await?;
    if first["hmac"].is_null() {
        return Err(Verdict::Skipped("the server signs nothing".to_owned()));
    }
    let other = step(server, &own, "b", "s").await?;
    let second = step(server, &own, "a", "t").await?;
    let behind = first["prev_hmac"].is_null() && other["prev_hmac"].is_null() && second["prev_hmac"] == first["hmac"];
    let answer = read(server, &own, "agent_id=a&session_id=t").await?;
    // The row before is looked at, though it is not shown.
    if behind && answer.json(200)?["chain_valid"] == true { Ok(()) } else { Err(answer.wrong("a whole chain of two")) }
}

async fn a_ledger_is_filtered(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let mut rows = Vec::new();
    for (agent, session) in [("a", "s"), ("a", "t"), ("b", "s")] {
        rows.push(step(server, &own, agent, session).await?);
    }
    let at = |row: usize| rows[row]["timestamp"].as_str().unwrap_or_default().replace('+', "%2B");
    let queries = [
        ("agent_id=a".to_owned(), vec![0, 1]),
        ("session_id=s".to_owned(), vec![0, 2]),
        ("agent_id=a&session_id=s".to_owned(), vec![0]),
        ("agent_id=c".to_owned(), vec![]),
        (format!("from={}", at(1)), vec![1, 2]),
        (format!("to={}", at(1)), vec![0]),
        (format!("from={}&to={}&agent_id=a", at(0), at(2)), vec![0, 1]),
        ("from=2199-01-01T00:00:00%2B01:00".to_owned(), vec![]),
    ];
    for (query, expected) in queries {
        let expected: Vec<Value> = expected.into_iter().map(|row: usize| rows[row]["id"].clone()).collect();
        let total = json!(expected.len());
        let seen = found(server, &own, &query).await?;
        if seen != (expected, total) {
            return Err(Verdict::Failed(format!("{query} finds {seen:?}")));
        }
    }
    Ok(())
}

async fn times_of_a_ledger_are_checked(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let from = "from must be RFC 3339 (e.g. 2026-04-17T00:00:00Z)";
    read(server, &own, "from=yesterday&to=x").await?.refuses(400, from)?;
    read(server, &own, "to=2026-04-17").await?.refuses(400, "to must be RFC 3339 (e.g. 2026-04-17T23:59:59Z)")
}

async fn a_ledger_has_pages(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for _ in 0..3 {
        step(server, &own, "a", "s").await?;
    }
    let (all, _) = found(server, &own, "limit=x&offset=x").await?;
    let (first, total) = found(server, &own, "limit=2").await?;
    let second = read(server, &own, "limit=2&offset=2").await?;
    let body = second.has(200, &json!({"total": 3, "chain_valid": null}))?;
    let whole = first == all[..2] && total == 3 && body["events"][0]["id"] == all[2] && all.len() == 3;
    if whole { Ok(()) } else { Err(second.wrong("the third row")) }
}

async fn steps_are_checked(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let operations = "operation must be one of: task_start, llm_call, tool_call, task_end";
    append(server, &own, &json!({"session_id": "s", "operation": "other"})).await?.refuses(400, operations)?;
    append(server, &own, &json!({"operation": "task_end"})).await?.refuses(400, "session_id is required")?;
    let long = json!({"session_id": "s", "operation": "task_end", "input_hash": "x".repeat(201)});
    append(server, &own, &long).await?.refuses(400, "input_hash must be <= 200 characters")?;
    append(server, &own, &json!([])).await?.refuses(400, "invalid request body")?;
    let (rows, _) = found(server, &own, "").await?;
    if rows.is_empty() { Ok(()) } else { Err(Verdict::Failed("what was refused is kept".to_owned())) }
}

async fn ledgers_are_their_workspaces(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    let refusal = "invalid workspace auth token";
    let stolen = Workspace { id: own.id, token: other.token };
    read(server, &stolen, "").await?.refuses(401, refusal)?;
    append(server, &stolen, &json!({"session_id": "s", "operation": "task_end"})).await?.refuses(401, refusal)
}
