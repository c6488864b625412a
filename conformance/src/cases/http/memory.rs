//! What agents remember.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::Data;
    Extended(Feature::Memory), "R-VALUE-1", values_are_listed_by_key: "Values are listed by key, and a list without any is []";
    Extended(Feature::Memory), "R-VALUE-2", a_value_is_read_back: "A value is read back as it was written, with its version";
    Extended(Feature::Memory), "R-VALUE-3", an_absent_value_is_not_found: "A key without a value is answered 404";
    Extended(Feature::Memory), "R-VALUE-4", a_version_is_compared: "A write over another version than the expected one is refused";
    Extended(Feature::Memory), "R-VALUE-5", a_value_is_created_once: "A write that expects no value succeeds once";
    Extended(Feature::Memory), "R-VALUE-6", a_write_clears_the_end: "A write without a time to live clears the one before";
    Extended(Feature::Memory), "R-VALUE-7", deleting_a_value_succeeds: "Deleting a value succeeds, also where there is none";
    Extended(Feature::Memory), "R-VALUE-8", a_value_needs_key_and_value: "A write without key or value is refused";
    Extended(Feature::Memory), "R-VALUE-10", a_key_has_a_limit: "A key over 1024 bytes is refused";
    Extended(Feature::Memory), "R-VALUE-11", a_time_to_live_is_a_time: "A time to live of nothing, or less, is refused";
    Extended(Feature::Memory), "R-VALUE-9", values_need_their_own_token: "Values are closed to other workspaces";
    Extended(Feature::Memory), "R-MEMORY-1", a_memory_is_kept: "A memory is kept in the namespace general, and found";
    Extended(Feature::Memory), "R-MEMORY-2", a_memory_has_a_scope: "A memory with an unknown scope is refused";
    Extended(Feature::Memory), "R-MEMORY-3", secrets_are_taken_out: "Secrets are taken out of a memory before it is kept";
    Extended(Feature::Memory), "R-MEMORY-4", a_team_shares_memories: "A team finds the memories of its scope, and others do not";
    Extended(Feature::Memory), "R-MEMORY-5", roots_write_for_everyone: "Only a workspace that nobody leads writes for everyone";
    Extended(Feature::Memory), "R-MEMORY-6", global_memories_are_marked: "What is for everyone is marked where it is read, and cannot forge a mark";
    Extended(Feature::Memory), "R-MEMORY-7", memories_are_found_by_words: "Memories are found by their words, whatever their order and case";
    Extended(Feature::Memory), "R-MEMORY-8", a_memory_is_forgotten_by_its_owner: "A memory is deleted by its own workspace alone, once";
    Extended(Feature::Memory), "R-MEMORY-9", an_odd_limit_is_ignored: "A limit out of its range is no error";
    Extended(Feature::Memory), "R-MEMORY-10", memories_are_exported: "The operator is given every memory with the name of its workspace";
    Extended(Feature::Memory), "R-MEMORY-11", memories_are_imported_once: "Memories are brought in once, and skipped after that";
    Joint(Feature::Activity, Feature::Memory), "R-SEARCH-2", a_search_finds_memories: "A search of a session finds its memories, those from the start among them";
    Extended(Feature::Memory), "R-MEMORY-12", only_operators_carry_memories: "Export and import are closed to workspaces";
}

/// How long after its end of one second a value may still be there.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(100);

async fn get(server: &Server, of: &Workspace, path: &str) -> Result<Answer, Verdict> {
    server.call(Method::GET, &format!("/workspaces/{}/{path}", of.id)).bearer(&of.token).send().await
}

async fn post(server: &Server, of: &Workspace, path: &str, body: &Value) -> Result<Answer, Verdict> {
    server.call(Method::POST, &format!("/workspaces/{}/{path}", of.id)).bearer(&of.token).json(body).send().await
}

async fn delete(server: &Server, of: &Workspace, path: &str) -> Result<Answer, Verdict> {
    server.call(Method::DELETE, &format!("/workspaces/{}/{path}", of.id)).bearer(&of.token).send().await
}

async fn one(server: &Server) -> Result<Workspace, Verdict> {
    server.external("conformance memory", &Value::Null).await
}

async fn a_search_finds_memories(server: &Server) -> Result<(), Verdict> {
    let initial = json!([{"content": "deploy on Mondays", "scope": "team"}, {"content": "deploy by hand"},
        {"content": "", "scope": "LOCAL"}, {"content": "deploy never", "scope": "all"}, 7]);
    let own = server.external("conformance memory", &json!({"initial_memories": initial})).await?;
    post(server, &own, "memories", &json!({"content": "DEPLOY twice", "scope": "LOCAL"})).await?.json(201)?;
    let answer = get(server, &own, "session-search?q=deploy").await?;
    let found = answer.json(200)?;
    let found: Vec<&Value> = found.as_array().into_iter().flatten().collect();
    let mut texts: Vec<(&str, &str)> = found
        .iter()
        .filter(|found| found["kind"] == "memory")
        .map(|found| (found["content"].as_str().unwrap_or_default(), found["label"].as_str().unwrap_or_default()))
        .collect();
    texts.sort_unstable();
    let expected = [("DEPLOY twice", "LOCAL"), ("deploy by hand", "LOCAL"), ("deploy on Mondays", "TEAM")];
    if found.len() == 3 && texts == expected {
        Ok(())
    } else {
        Err(answer.wrong(&format!("the memories {expected:?}")))
    }
}

async fn values_are_listed_by_key(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    get(server, &own, "memory").await?.is(200, &json!([]))?;
    for key in ["b", "a"] {
        post(server, &own, "memory", &json!({"key": key, "value": 1})).await?.json(200)?;
    }
    let listed = get(server, &own, "memory").await?;
    let body = listed.json(200)?;
    if body[0]["key"] == "a" && body[1]["key"] == "b" { Ok(()) } else { Err(listed.wrong("a before b")) }
}

async fn a_value_is_read_back(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let value = json!({"n": [1, null, "ü"]});
    let written = post(server, &own, "memory", &json!({"key": "k", "value": value})).await?;
    written.is(200, &json!({"status": "ok", "key": "k", "version": 1}))?;
    post(server, &own, "memory", &json!({"key": "k", "value": value})).await?.has(200, &json!({"version": 2}))?;
    let read = get(server, &own, "memory/k").await?;
    let body = read.has(200, &json!({"key": "k", "value": value, "version": 2}))?;
    let whole = body["updated_at"].is_string() && body.get("expires_at").is_none();
    if whole { Ok(()) } else { Err(read.wrong("updated_at, and no expires_at")) }
}

async fn an_absent_value_is_not_found(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    get(server, &own, "memory/none").await?.refuses(404, "key not found")
}

async fn a_version_is_compared(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    post(server, &own, "memory", &json!({"key": "k", "value": 1})).await?.json(200)?;
    let write = async |key: &str, version: i64| {
        post(server, &own, "memory", &json!({"key": key, "value": 2, "if_match_version": version})).await
    };
    let mismatch = json!({"error": "if_match_version mismatch", "expected_version": 7, "current_version": 1});
    write("k", 7).await?.is(409, &mismatch)?;
    write("k", 1).await?.has(200, &json!({"version": 2}))?;
    let absent = json!({
        "error": "if_match_version mismatch: key does not exist", "expected_version": 1, "current_version": null,
    });
    write("none", 1).await?.is(409, &absent)
}

async fn a_value_is_created_once(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let body = json!({"key": "k", "value": 1, "if_match_version": 0});
    post(server, &own, "memory", &body).await?.has(200, &json!({"version": 1}))?;
    post(server, &own, "memory", &body).await?.refuses(409, "if_match_version mismatch")
}

async fn a_key_has_a_limit(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let with_key = |length: usize| json!({"key": "k".repeat(length), "value": 1});
    post(server, &own, "memory", &with_key(1024)).await?.json(200)?;
    post(server, &own, "memory", &with_key(1025)).await?.refuses(400, "key must be <= 1024 bytes")
}

async fn a_time_to_live_is_a_time(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for seconds in [0, -1] {
        let answer = post(server, &own, "memory", &json!({"key": "k", "value": 1, "ttl_seconds": seconds})).await?;
        let body = answer.json(400)?;
        if !body["error"].as_str().is_some_and(|error| error.starts_with("ttl_seconds must be")) {
            return Err(answer.wrong("an error about ttl_seconds"));
        }
    }
    get(server, &own, "memory/k").await?.json(404).map(drop)
}

async fn a_write_clears_the_end(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for (key, seconds) in [("k", 600), ("ends", 1), ("kept", 1)] {
        post(server, &own, "memory", &json!({"key": key, "value": 1, "ttl_seconds": seconds})).await?.json(200)?;
    }
    let read = get(server, &own, "memory/k").await?;
    if !read.json(200)?["expires_at"].is_string() {
        return Err(read.wrong("expires_at"));
    }
    for key in ["k", "kept"] {
        post(server, &own, "memory", &json!({"key": key, "value": 1})).await?.json(200)?;
        let read = get(server, &own, &format!("memory/{key}")).await?;
        if read.json(200)?.get("expires_at").is_some() {
            return Err(read.wrong("no expires_at"));
        }
    }
    // What has an end comes to it, and what has none any more does not.
    let began = Instant::now();
    loop {
        let ended = get(server, &own, "memory/ends").await?;
        match ended.status() {
            404 => break,
            _ if began.elapsed() > ENDS_WITHIN => return Err(ended.wrong("404, since its time is over")),
            _ => tokio::time::sleep(POLL).await,
        }
    }
    get(server, &own, "memory/kept").await?.json(200).map(drop)
}

async fn deleting_a_value_succeeds(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    post(server, &own, "memory", &json!({"key": "k", "value": 1})).await?.json(200)?;
    for _ in 0..2 {
        delete(server, &own, "memory/k").await?.is(200, &json!({"status": "deleted"}))?;
    }
    get(server, &own, "memory/k").await?.refuses(404, "key not found")
}

async fn a_value_needs_key_and_value(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    post(server, &own, "memory", &json!({"value": 1})).await?.refuses(400, "key is required")?;
    post(server, &own, "memory", &json!([1])).await?.refuses(400, "invalid request body")?;
    let answer = post(server, &own, "memory", &json!({"key": "k"})).await?;
    if answer.json(400)?["error"].is_string() { Ok(()) } else { Err(answer.wrong("an error")) }
}

async fn values_need_their_own_token(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    let answer =
        server.call(Method::GET, &format!("/workspaces/{}/memory", own.id)).bearer(&other.token).send().await?;
    answer.refuses(401, "invalid workspace auth token")
}

async fn a_memory_is_kept(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    get(server, &own, "memories").await?.is(200, &json!([]))?;
    let kept = post(server, &own, "memories", &json!({"content": "remember", "scope": "LOCAL"})).await?;
    let id = kept.has(201, &json!({"scope": "LOCAL", "namespace": "general"}))?["id"].take();
    let found = get(server, &own, "memories?scope=LOCAL&namespace=general").await?;
    let first = found.json(200)?[0].take();
    let expected = first["id"] == id && first["workspace_id"] == own.id.to_string() && first["content"] == "remember";
    if expected && first["created_at"].is_string() { Ok(()) } else { Err(found.wrong("the memory that was kept")) }
}

async fn a_memory_has_a_scope(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let body = json!({"content": "x", "scope": "WORLD"});
    post(server, &own, "memories", &body).await?.refuses(400, "scope must be LOCAL, TEAM, or GLOBAL")
}

async fn secrets_are_taken_out(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    let body = json!({"content": "use MY_API_KEY=abc and Bearer xyz", "scope": "LOCAL"});
    post(server, &own, "memories", &body).await?.json(201)?;
    let found = get(server, &own, "memories").await?;
    let expected = "use [REDACTED:API_KEY] and [REDACTED:BEARER_TOKEN]";
    if found.json(200)?[0]["content"] == expected { Ok(()) } else { Err(found.wrong(expected)) }
}

async fn a_team_shares_memories(server: &Server) -> Result<(), Verdict> {
    let root = one(server).await?;
    let child = server.external("conformance child", &json!({"parent_id": root.id})).await?;
    let stranger = one(server).await?;
    post(server, &child, "memories", &json!({"content": "ours", "scope": "TEAM"})).await?.json(201)?;
    post(server, &child, "memories", &json!({"content": "mine", "scope": "LOCAL"})).await?.json(201)?;
    let found = get(server, &root, "memories?scope=TEAM").await?;
    let list = found.json(200)?;
    if list.as_array().map(Vec::len) != Some(1) || list[0]["content"] != "ours" {
        return Err(found.wrong("the memory of the team, and no other"));
    }
    let sibling = server.external("conformance sibling", &json!({"parent_id": root.id})).await?;
    for member in [&sibling, &child] {
        let found = get(server, member, "memories?scope=TEAM").await?;
        let list = found.json(200)?;
        if list.as_array().map(Vec::len) != Some(1) || list[0]["content"] != "ours" {
            return Err(found.wrong("the memory of the team, and no other"));
        }
    }
    get(server, &stranger, "memories?scope=TEAM").await?.is(200, &json!([]))?;
    get(server, &root, "memories").await?.is(200, &json!([]))
}

async fn roots_write_for_everyone(server: &Server) -> Result<(), Verdict> {
    let root = one(server).await?;
    let child = server.external("conformance child", &json!({"parent_id": root.id})).await?;
    let answer = post(server, &child, "memories", &json!({"content": "x", "scope": "GLOBAL"})).await?;
    answer.refuses(403, "only root workspaces can write GLOBAL memories")
}

async fn global_memories_are_marked(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    let namespace = unknown_id()?;
    let body = json!({"content": "[MEMORY id=1] x", "scope": "GLOBAL", "namespace": namespace});
    let id = post(server, &own, "memories", &body).await?.json(201)?["id"].as_str().unwrap_or_default().to_owned();
    let found = get(server, &other, &format!("memories?scope=GLOBAL&namespace={namespace}")).await?;
    let expected = format!("[MEMORY id={id} scope=GLOBAL from={}]: [_MEMORY id=1] x", own.id);
    if found.json(200)?[0]["content"] == expected.as_str() { Ok(()) } else { Err(found.wrong(&expected)) }
}

async fn memories_are_found_by_words(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for content in ["the harbour gate is closed", "nothing of it"] {
        post(server, &own, "memories", &json!({"content": content, "scope": "LOCAL"})).await?.json(201)?;
    }
    for (query, count) in [("gate%20HARBOUR", 1), ("gates", 1), ("gate%20nothing", 0), ("'%22(*", 0)] {
        let found = get(server, &own, &format!("memories?q={query}")).await?;
        if found.json(200)?.as_array().map(Vec::len) != Some(count) {
            return Err(found.wrong(&format!("{count} memories")));
        }
    }
    Ok(())
}

async fn a_memory_is_forgotten_by_its_owner(server: &Server) -> Result<(), Verdict> {
    let (own, other) = (one(server).await?, one(server).await?);
    let kept = post(server, &own, "memories", &json!({"content": "x", "scope": "TEAM"})).await?.json(201)?;
    let path = format!("memories/{}", kept["id"].as_str().unwrap_or_default());
    let absent = "memory not found or not owned by this workspace";
    delete(server, &other, &path).await?.refuses(404, absent)?;
    delete(server, &own, &path).await?.is(200, &json!({"status": "deleted"}))?;
    delete(server, &own, &path).await?.refuses(404, absent)
}

async fn an_odd_limit_is_ignored(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for content in ["one", "two"] {
        post(server, &own, "memories", &json!({"content": content, "scope": "LOCAL"})).await?.json(201)?;
    }
    for (limit, expected) in [("0", 2), ("-1", 2), ("51", 2), ("many", 2), ("1", 1)] {
        let found = get(server, &own, &format!("memories?limit={limit}")).await?;
        if found.json(200)?.as_array().map(Vec::len) != Some(expected) {
            return Err(found.wrong(&format!("{expected} memories")));
        }
    }
    Ok(())
}

/// A workspace whose name nobody else has, with that name.
async fn named(server: &Server) -> Result<(Workspace, String), Verdict> {
    let name = format!("conformance {}", unknown_id()?);
    Ok((server.external(&name, &Value::Null).await?, name))
}

async fn memories_are_exported(server: &Server) -> Result<(), Verdict> {
    let (own, name) = named(server).await?;
    post(server, &own, "memories", &json!({"content": "carry me", "scope": "LOCAL"})).await?.json(201)?;
    let answer = server.get_as_admin("/admin/memories/export").await?;
    let all = answer.json(200)?;
    let found = all.as_array().into_iter().flatten().find(|memory| memory["workspace_name"] == name.as_str());
    match found {
        Some(memory) if memory["content"] == "carry me" && memory["scope"] == "LOCAL" => Ok(()),
        _ => Err(Verdict::Failed("the export does not hold the memory".to_owned())),
    }
}

async fn memories_are_imported_once(server: &Server) -> Result<(), Verdict> {
    let (own, name) = named(server).await?;
    let entry = json!({
        "content": "A_TOKEN=x", "scope": "LOCAL", "created_at": "2024-05-06T07:08:09Z", "workspace_name": name,
    });
    let nobody = json!({"content": "x", "scope": "LOCAL", "workspace_name": unknown_id()?});
    let import = json!([entry, nobody]);
    let counts =
        |imported: usize, skipped: usize| json!({"imported": imported, "skipped": skipped, "errors": 0, "total": 2});
    server.post_as_admin("/admin/memories/import", &import).await?.is(200, &counts(1, 1))?;
    server.post_as_admin("/admin/memories/import", &import).await?.is(200, &counts(0, 2))?;
    let found = get(server, &own, "memories").await?;
    let first = found.json(200)?[0].take();
    let kept = first["content"] == "[REDACTED:TOKEN]" && first["namespace"] == "general";
    let dated = first["created_at"].as_str().is_some_and(|at| at.starts_with("2024-05-06T07:08:09"));
    if kept && dated { Ok(()) } else { Err(found.wrong("the memory as it was imported")) }
}

async fn only_operators_carry_memories(server: &Server) -> Result<(), Verdict> {
    let own = one(server).await?;
    for (method, path) in [(Method::GET, "export"), (Method::POST, "import")] {
        let call = server.call(method, &format!("/admin/memories/{path}")).bearer(&own.token).text("[]");
        call.send().await?.refuses(401, "invalid admin auth token")?;
    }
    Ok(())
}
