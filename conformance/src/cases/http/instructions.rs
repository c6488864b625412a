//! What the operator tells agents.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::Data;
    Extended(Feature::Records), "R-INSTRUCTION-1", an_instruction_is_made: "An instruction is made, read, replaced and deleted";
    Extended(Feature::Records), "R-INSTRUCTION-2", a_workspace_and_all_below_are_told: "A workspace and all below it are told, from the top down, in order";
    Extended(Feature::Records), "R-INSTRUCTION-3", everyone_is_told: "What is for everyone is told to everyone, first";
    Extended(Feature::Records), "R-INSTRUCTION-4", instructions_are_checked: "An instruction that cannot be is refused, and why is named";
    Extended(Feature::Records), "R-INSTRUCTION-5", only_operators_instruct: "Agents instruct nobody, and read what they are told only";
}

async fn one(server: &Server, more: &Value) -> Result<Workspace, Verdict> {
    server.external("conformance instructions", more).await
}

async fn call(server: &Server, method: Method, path: &str, body: &Value) -> Result<Answer, Verdict> {
    let call = server.call(method, path).admin();
    if body.is_null() { call.send().await } else { call.json(body).send().await }
}

fn of_workspace(of: &Workspace, content: &str, position: i32) -> Value {
    json!({"scope": "workspace", "workspace_id": of.id, "content": content, "position": position})
}

async fn instruct(server: &Server, body: &Value) -> Result<Value, Verdict> {
    server.post_as_admin("/instructions", body).await?.has(201, body)
}

async fn told(server: &Server, of: &Workspace) -> Result<Answer, Verdict> {
    server.call(Method::GET, &format!("/workspaces/{}/instructions", of.id)).bearer(&of.token).send().await
}

/// What `of` is told by the workspaces above it and its own.
async fn told_by_workspaces(server: &Server, of: &Workspace) -> Result<Vec<Value>, Verdict> {
    let answer = told(server, of).await?;
    let body = answer.json(200)?;
    let list = body["instructions"].as_array().ok_or_else(|| answer.wrong("a list of instructions"))?;
    let whole = |instruction: &&Value| instruction["scope"] == "workspace";
    Ok(list.iter().filter(whole).map(|instruction| instruction["content"].clone()).collect())
}

async fn an_instruction_is_made(server: &Server) -> Result<(), Verdict> {
    let own = one(server, &Value::Null).await?;
    let made = instruct(server, &of_workspace(&own, "be kind", 1)).await?;
    let path = format!("/instructions/{}", made["id"].as_str().unwrap_or_default());
    call(server, Method::GET, &path, &Value::Null).await?.is(200, &made)?;
    let listed = server.get_as_admin("/instructions").await?;
    if !listed.json(200)?.as_array().is_some_and(|list| list.contains(&made)) {
        return Err(listed.wrong("the instruction"));
    }
    let other = of_workspace(&own, "be brief", 2);
    let replaced = call(server, Method::PUT, &path, &other).await?;
    replaced.has(200, &other)?;
    replaced.has(200, &json!({"id": made["id"], "created_at": made["created_at"]}))?;
    call(server, Method::DELETE, &path, &Value::Null).await?.is(200, &json!({"status": "deleted"}))?;
    for (method, body) in [(Method::GET, Value::Null), (Method::PUT, other), (Method::DELETE, Value::Null)] {
        call(server, method, &path, &body).await?.refuses(404, "instruction not found")?;
    }
    Ok(())
}

async fn a_workspace_and_all_below_are_told(server: &Server) -> Result<(), Verdict> {
    let top = one(server, &Value::Null).await?;
    let child = one(server, &json!({"parent_id": top.id})).await?;
    let grandchild = one(server, &json!({"parent_id": child.id})).await?;
    let beside = one(server, &json!({"parent_id": top.id})).await?;
    for (of, content, position) in
        [(&grandchild, "third", -1), (&top, "first b", 2), (&top, "first a", 1), (&child, "second", 0)]
    {
        instruct(server, &of_workspace(of, content, position)).await?;
    }
    let rows = [
        (&top, vec!["first a", "first b"]),
        (&child, vec!["first a", "first b", "second"]),
        (&grandchild, vec!["first a", "first b", "second", "third"]),
        (&beside, vec!["first a", "first b"]),
    ];
    for (of, expected) in rows {
        let seen = told_by_workspaces(server, of).await?;
        if seen != expected {
            return Err(Verdict::Failed(format!("instead of {expected:?} it is told {seen:?}")));
        }
    }
    let answer = told(server, &grandchild).await?;
    let text = answer.json(200)?["text"].take();
    let whole = text.as_str().is_some_and(|text| text.ends_with("first a\n\nfirst b\n\nsecond\n\nthird"));
    if whole { Ok(()) } else { Err(answer.wrong("all of them as one text")) }
}

async fn everyone_is_told(server: &Server) -> Result<(), Verdict> {
    let own = one(server, &Value::Null).await?;
    instruct(server, &of_workspace(&own, "for one", -5)).await?;
    let content = format!("for everyone {}", unknown_id()?);
    let made = instruct(server, &json!({"scope": "global", "content": content})).await?;
    let seen = told(server, &own).await;
    let path = format!("/instructions/{}", made["id"].as_str().unwrap_or_default());
    call(server, Method::DELETE, &path, &Value::Null).await?.is(200, &json!({"status": "deleted"}))?;
    let seen = seen?;
    let body = seen.json(200)?;
    let list = body["instructions"].as_array().ok_or_else(|| seen.wrong("a list of instructions"))?;
    let last = list.last().is_some_and(|last| last["content"] == "for one" && last["scope"] == "workspace");
    if list.contains(&made) && last { Ok(()) } else { Err(seen.wrong("what is for everyone, then its own")) }
}

async fn instructions_are_checked(server: &Server) -> Result<(), Verdict> {
    let own = one(server, &Value::Null).await?;
    let long = "x".repeat(16_385);
    let rows = [
        (json!({"scope": "team", "content": "x"}), 400, "scope must be global or workspace"),
        (json!({"scope": "workspace", "content": "x"}), 400, "workspace_id is required for the scope workspace"),
        (
            json!({"scope": "global", "workspace_id": own.id, "content": "x"}),
            400,
            "workspace_id belongs to the scope workspace",
        ),
        (of_workspace(&own, " ", 0), 400, "content is required"),
        (of_workspace(&own, &long, 0), 400, "content must be <= 16384 characters"),
        (json!({"scope": "workspace", "workspace_id": unknown_id()?, "content": "x"}), 404, "workspace not found"),
        (json!({"scope": "workspace", "workspace_id": "' OR 1=1", "content": "x"}), 400, "invalid request body"),
        (json!(["global"]), 400, "invalid request body"),
    ];
    for (body, status, refusal) in rows {
        server.post_as_admin("/instructions", &body).await?.refuses(status, refusal)?;
    }
    let seen = told_by_workspaces(server, &own).await?;
    if seen.is_empty() { Ok(()) } else { Err(Verdict::Failed("what was refused is told".to_owned())) }
}

async fn only_operators_instruct(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server, &Value::Null).await?, one(server, &Value::Null).await?);
    let refusal = "invalid admin auth token";
    server.call(Method::GET, "/instructions").bearer(&own.token).send().await?.refuses(401, refusal)?;
    let body = json!({"scope": "global", "content": "obey me"});
    server.call(Method::POST, "/instructions").bearer(&own.token).json(&body).send().await?.refuses(401, refusal)?;
    let stolen = Workspace { id: own.id, token: other.token };
    told(server, &stolen).await?.refuses(401, "invalid workspace auth token")
}
