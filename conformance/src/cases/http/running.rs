//! Workspaces that the server brings up by itself, as their operator sees them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server},
};

cases! {
    Area::Workspaces;
    Extended(Feature::Backend), "R-RUN-1", a_workspace_comes_up: "A workspace that is created comes online by itself";
    Extended(Feature::Backend), "R-RUN-2", the_log_tells_how_it_came_up:
        "The log tells that a workspace was being brought up, and that it came online";
    Extended(Feature::Backend), "R-RUN-3", a_running_agent_is_called: "The agent of a running workspace is called, and its result is the answer";
    Extended(Feature::Backend), "R-RUN-4", a_restart_brings_it_back: "A restart is answered at once, and the workspace comes back";
    Extended(Feature::Backend), "R-RUN-5", a_paused_workspace_is_brought_back:
        "A paused workspace is stopped, and comes back where it is resumed";
    Extended(Feature::Backend), "R-RUN-6", a_message_wakes_a_hibernated_workspace:
        "A message to a hibernated workspace wakes it";
    Core, "R-RUN-7", a_create_call_tells_what_was_made:
        "The answer to a create call tells the namespace and the access of the workspace";
    Extended(Feature::Backend), "R-RUN-9", a_restart_says_where_its_configuration_comes_from:
        "A restart tells where the configuration comes from, and whether the conversation is forgotten";
    Extended(Feature::Backend), "R-RUN-10", nothing_starts_below_a_paused_workspace:
        "What is below a paused workspace is neither restarted nor resumed nor woken";
    Extended(Feature::Backend), "R-RUN-11", who_works_hibernates_by_force: "An agent that works hibernates only by force";
    Extended(Feature::Backend), "R-RUN-12", a_start_is_paused: "A workspace that is being brought up is paused, and resumed";
    Extended(Feature::Backend), "R-RUN-13", a_deleted_workspace_stays_away: "A workspace that was brought up and deleted is gone";
    Core, "R-RUN-14", every_try_leaves_its_trace:
        "A workspace that the server is to bring up leaves one trace of its beginning, and one of its end";
    Core, "R-RUN-8", an_unknown_runtime_is_the_usual_one: "An unknown runtime, or none, is claude-code";
    Joint(Feature::Backend, Feature::Secrets), "R-RUN-15", a_restart_keeps_the_choice:
        "The model and the provider of a first deploy survive a restart";
    Joint(Feature::Backend, Feature::Files), "R-RUN-16", a_file_goes_in_and_comes_back:
        "A file of the configuration is written, listed, read and deleted, and none is where one is refused";
    Joint(Feature::Backend, Feature::Delegation), "R-RUN-17", a_delegation_is_completed:
        "A task for a running agent is completed, with its reply";
    Joint(Feature::Backend, Feature::Secrets), "R-RUN-18", what_is_kept_already_restarts_nothing:
        "Saving the model, the provider or the secret that is kept already restarts nothing, and another one does once";
}

/// How long a workspace may take to come up; a little less than a case may.
const PATIENCE: Duration = Duration::from_secs(25);

const POLL: Duration = Duration::from_millis(100);

/// Within what a restart is answered, whatever it takes: the quickest of some, since hosts are busy.
const AT_ONCE: Duration = Duration::from_millis(500);

/// What is told of a workspace where there is nothing to run it.
const NO_BACKEND: &str = "no provisioning backend available";

/// Creates a workspace that the server brings up, with the members of `more` besides.
async fn create_with(server: &Server, name: &str, more: &Value) -> Result<Uuid, Verdict> {
    let mut body = json!({"name": name});
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    let answer = server.post_as_admin("/workspaces", &body).await?;
    let created = answer.has(201, &json!({"status": "provisioning"}))?;
    let id = created["id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| answer.wrong("an id"))?;
    Ok(id)
}

/// Creates a workspace that the server brings up.
async fn create(server: &Server, name: &str) -> Result<Uuid, Verdict> {
    create_with(server, name, &Value::Null).await
}

/// Waits until the workspace came online `times` times, and is.
async fn comes_online(server: &Server, id: Uuid, times: usize) -> Result<(), Verdict> {
    let came = tokio::time::timeout(PATIENCE, async {
        loop {
            let log = server.get_as_admin(&format!("/events/{id}?type=WORKSPACE_ONLINE")).await?;
            let seen = server.get_as_admin("/workspaces").await?;
            let fleet = seen.json(200)?;
            let row = fleet.as_array().into_iter().flatten().find(|row| row["id"] == id.to_string());
            let row = row.ok_or_else(|| seen.wrong("the workspace that was made"))?;
            match row["status"].as_str() {
                Some("online") if log.json(200)?.as_array().is_some_and(|events| events.len() >= times) => {
                    return Ok(());
                }
                Some("failed") => return Err(why_not(&row["last_sample_error"])),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    });
    let late = || Verdict::Failed(format!("{id} did not come online within {} s", PATIENCE.as_secs()));
    came.await.unwrap_or_else(|_| Err(late()))
}

fn why_not(error: &Value) -> Verdict {
    match error.as_str().unwrap_or_default() {
        error if error.starts_with(NO_BACKEND) => {
            Verdict::Unsupported("the server has nothing to run workspaces on".into())
        }
        error => Verdict::Failed(format!("the workspace did not come up: {error}")),
    }
}

async fn online(server: &Server, name: &str) -> Result<Uuid, Verdict> {
    let id = create(server, name).await?;
    comes_online(server, id, 1).await?;
    Ok(id)
}

async fn verb(server: &Server, id: Uuid, verb: &str) -> Result<Answer, Verdict> {
    server.post_as_admin(&format!("/workspaces/{id}/{verb}"), &json!({})).await
}

async fn say(server: &Server, id: Uuid) -> Result<Answer, Verdict> {
    let message = json!({"role": "user", "parts": [{"kind": "text", "text": "are you there?"}]});
    let call = json!({"method": "message/send", "params": {"message": message}});
    server.post_as_admin(&format!("/workspaces/{id}/a2a"), &call).await
}

async fn a_workspace_comes_up(server: &Server) -> Result<(), Verdict> {
    online(server, "conformance runs").await.map(drop)
}

async fn the_log_tells_how_it_came_up(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance told").await?;
    let answer = server.get_as_admin(&format!("/events/{id}")).await?;
    let log = answer.json(200)?;
    let kinds: Vec<&str> = log.as_array().into_iter().flatten().filter_map(|it| it["event_type"].as_str()).collect();
    let [.., first] = &log.as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(answer.wrong("two events"));
    };
    let told = &first["payload"];
    let complete = told["name"] == "conformance told" && told["tier"].is_number() && told["runtime"].is_string();
    match kinds[..] {
        ["WORKSPACE_ONLINE", "WORKSPACE_PROVISIONING"] if complete => Ok(()),
        _ => Err(answer.wrong("WORKSPACE_PROVISIONING with name, tier and runtime, and then WORKSPACE_ONLINE")),
    }
}

async fn a_running_agent_is_called(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance called").await?;
    let message = json!({"role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "are you there?"}]});
    let call =
        json!({"jsonrpc": "2.0", "id": "conformance-7", "method": "message/send", "params": {"message": message}});
    let answer = server.post_as_admin(&format!("/workspaces/{id}/a2a"), &call).await?;
    let body = answer.has(200, &json!({"jsonrpc": "2.0", "id": "conformance-7"}))?;
    if body["result"].is_object() { Ok(()) } else { Err(answer.wrong("a result")) }
}

async fn a_restart_brings_it_back(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance again").await?;
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        verb(server, id, "restart").await?.has(200, &json!({"status": "provisioning"}))?;
        quickest = quickest.min(began.elapsed());
    }
    if quickest > AT_ONCE {
        return Err(Verdict::Failed(format!("a restart was answered after {} ms only", quickest.as_millis())));
    }
    comes_online(server, id, 2).await
}

async fn a_paused_workspace_is_brought_back(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance paused").await?;
    verb(server, id, "pause").await?.has(200, &json!({"status": "paused"}))?;
    let called = say(server, id).await?;
    if called.status() < 400 {
        return Err(called.wrong("a refusal, since it is paused"));
    }
    verb(server, id, "resume").await?.is(200, &json!({"status": "provisioning", "resumed_count": 1}))?;
    comes_online(server, id, 2).await
}

async fn a_message_wakes_a_hibernated_workspace(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance sleeps").await?;
    verb(server, id, "hibernate").await?.has(200, &json!({"status": "hibernated"}))?;
    let waking = say(server, id).await?;
    waking.has(503, &json!({"waking": true}))?;
    if waking.header("retry-after").is_none_or(|seconds| seconds.parse::<u32>().is_err()) {
        return Err(waking.wrong("Retry-After in seconds"));
    }
    comes_online(server, id, 2).await
}

/// The row of a workspace in the list of the operator.
async fn listed(server: &Server, id: Uuid) -> Result<Value, Verdict> {
    let answer = server.get_as_admin("/workspaces").await?;
    let list = answer.json(200)?;
    let row = list.as_array().into_iter().flatten().find(|row| row["id"] == id.to_string());
    row.cloned().ok_or_else(|| answer.wrong("the workspace that was made"))
}

async fn a_create_call_tells_what_was_made(server: &Server) -> Result<(), Verdict> {
    let answer = server.post_as_admin("/workspaces", &json!({"name": "conformance made"})).await?;
    let created = answer.has(201, &json!({"status": "provisioning", "workspace_access": "none"}))?;
    let id: Uuid = created["id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| answer.wrong("an id"))?;
    answer.has(201, &json!({"awareness_namespace": format!("workspace:{id}")})).map(drop)
}

async fn a_restart_says_where_its_configuration_comes_from(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance restarts").await?;
    let path = format!("/workspaces/{id}/restart");
    for (query, body, forgets) in [
        ("", "", false),
        ("", r#"{"template": "../elsewhere"}"#, false),
        ("?reset=true", "{}", true),
        ("", r#"{"reset": true}"#, true),
    ] {
        let call = server.call(Method::POST, &format!("{path}{query}")).admin().text(body).send().await?;
        let expected = json!({"status": "provisioning", "config_dir": "existing-volume", "reset_session": forgets});
        call.is(200, &expected)?;
    }
    for body in ["{", "[]", r#"{"reset": "yes"}"#] {
        let call = server.call(Method::POST, &path).admin().text(body).send().await?;
        call.refuses(400, "invalid JSON body")?;
    }
    Ok(())
}

async fn nothing_starts_below_a_paused_workspace(server: &Server) -> Result<(), Verdict> {
    let lead = server.member("conformance lead", &Value::Null).await?;
    let below = create_with(server, "conformance below", &json!({"parent_id": lead.id})).await?;
    let sleeps = create_with(server, "conformance sleeps", &json!({})).await?;
    comes_online(server, sleeps, 1).await?;
    verb(server, sleeps, "hibernate").await?.has(200, &json!({"status": "hibernated"}))?;
    verb(server, lead.id, "pause").await?.has(200, &json!({"status": "paused"}))?;
    // Below it only now: a pause takes those below along, and what is paused is not woken anyway.
    let moved = server.call(Method::PATCH, &format!("/workspaces/{sleeps}")).admin();
    moved.json(&json!({"parent_id": lead.id})).send().await?.json(200)?;
    let refusal = "parent workspace \"conformance lead\" is paused — resume it first";
    for (id, asked) in [(below, "restart"), (below, "resume"), (sleeps, "restart")] {
        verb(server, id, asked).await?.refuses(409, refusal)?;
    }
    let said = say(server, sleeps).await?;
    if said.status() < 400 {
        return Err(said.wrong("a refusal"));
    }
    for (id, status) in [(below, "paused"), (sleeps, "hibernated")] {
        let row = listed(server, id).await?;
        if row["status"] != status || row["url"] != "" {
            return Err(Verdict::Failed(format!("expected a {status} workspace without an address, got {row}")));
        }
    }
    Ok(())
}

async fn who_works_hibernates_by_force(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance works").await?;
    let issued = server.post_as_admin(&format!("/workspaces/{id}/tokens"), &json!({})).await?;
    let token = issued.json(201)?["auth_token"].as_str().map(str::to_owned);
    let token = token.ok_or_else(|| issued.wrong("a token"))?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&token);
    beat.json(&json!({"workspace_id": id, "active_tasks": 2, "current_task": "reads"})).send().await?.json(200)?;
    let busy = verb(server, id, "hibernate").await?;
    busy.refuses(409, "workspace has active tasks; use ?force=true to terminate them")?;
    busy.has(409, &json!({"active_tasks": 2}))?;
    verb(server, id, "hibernate?force=true").await?.has(200, &json!({"status": "hibernated"}))?;
    let row = listed(server, id).await?;
    if row["active_tasks"] == 0 && row["current_task"] == "" && row["url"] == "" {
        Ok(())
    } else {
        Err(Verdict::Failed(format!("expected nothing to do for who sleeps, got {row}")))
    }
}

async fn a_start_is_paused(server: &Server) -> Result<(), Verdict> {
    let id = create(server, "conformance begins").await?;
    verb(server, id, "pause").await?.is(200, &json!({"status": "paused", "paused_count": 1}))?;
    let row = listed(server, id).await?;
    if row["status"] != "paused" || row["url"] != "" {
        return Err(Verdict::Failed(format!("expected a paused workspace without an address, got {row}")));
    }
    let resumed = verb(server, id, "resume").await?;
    if resumed.status() == 503 {
        resumed.refuses(503, "provisioner not available")?;
        return Err(why_not(&json!(NO_BACKEND)));
    }
    resumed.is(200, &json!({"status": "provisioning", "resumed_count": 1}))?;
    let came = tokio::time::timeout(PATIENCE, async {
        loop {
            match listed(server, id).await?["status"].as_str() {
                Some("online") => return Ok(()),
                Some("failed") => return Err(why_not(&listed(server, id).await?["last_sample_error"])),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    });
    came.await.unwrap_or_else(|_| Err(Verdict::Failed(format!("{id} was resumed and did not come online"))))
}

async fn a_deleted_workspace_stays_away(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance goes").await?;
    let deleted = server.call(Method::DELETE, &format!("/workspaces/{id}")).admin().send().await?;
    deleted.is(200, &json!({"status": "removed", "cascade_deleted": 0}))?;
    server.get(&format!("/workspaces/{id}")).await?.refuses(410, "workspace removed")?;
    let said = say(server, id).await?;
    if said.status() < 400 {
        return Err(said.wrong("a refusal"));
    }
    verb(server, id, "restart").await?.refuses(404, "workspace not found")?;
    verb(server, id, "pause").await?.refuses(404, "workspace not found or already paused")
}

/// The events of a workspace of one kind.
async fn count(server: &Server, id: Uuid, kind: &str) -> Result<usize, Verdict> {
    let answer = server.get_as_admin(&format!("/events/{id}?type={kind}&limit=500")).await?;
    answer.json(200)?.as_array().map(Vec::len).ok_or_else(|| answer.wrong("an array"))
}

async fn every_try_leaves_its_trace(server: &Server) -> Result<(), Verdict> {
    let mut ids = Vec::new();
    for n in 0..SEVEN {
        ids.push(create(server, &format!("conformance traced {n}")).await?);
    }
    let began = Instant::now();
    for id in ids {
        loop {
            let ends =
                (count(server, id, "WORKSPACE_ONLINE").await?, count(server, id, "WORKSPACE_PROVISION_FAILED").await?);
            match ends {
                (0, 0) if began.elapsed() < PATIENCE => tokio::time::sleep(POLL).await,
                (1, 0) | (0, 1) if count(server, id, "WORKSPACE_PROVISIONING").await? == 1 => break,
                _ => return Err(Verdict::Failed(format!("expected one end of one try of {id}, got {ends:?}"))),
            }
        }
        let failed = server.get_as_admin(&format!("/events/{id}?type=WORKSPACE_PROVISION_FAILED")).await?;
        let why = |event: &Value| event["payload"]["error"].as_str().is_some_and(|error| !error.is_empty());
        if !failed.json(200)?.as_array().into_iter().flatten().all(why) {
            return Err(failed.wrong("why it failed"));
        }
    }
    Ok(())
}

/// So many at once were lost without a trace, once.
const SEVEN: usize = 7;

async fn an_unknown_runtime_is_the_usual_one(server: &Server) -> Result<(), Verdict> {
    for said in [json!({"runtime": "no-such-runtime"}), json!({"runtime": ""}), json!({})] {
        let mut body = json!({"name": "conformance runtime"});
        if let (Some(body), Some(said)) = (body.as_object_mut(), said.as_object()) {
            body.extend(said.clone());
        }
        let answer = server.post_as_admin("/workspaces", &body).await?;
        let id =
            answer.json(201)?["id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| answer.wrong("an id"))?;
        match server.row(id).await? {
            Some(row) if row["runtime"] == "claude-code" => {}
            row => return Err(Verdict::Failed(format!("expected the runtime claude-code for {said}, got {row:?}"))),
        }
    }
    Ok(())
}

async fn a_restart_keeps_the_choice(server: &Server) -> Result<(), Verdict> {
    let answer =
        server.post_as_admin("/workspaces", &json!({"name": "conformance model", "model": "grok/grok-2"})).await?;
    let id = answer.json(201)?["id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| answer.wrong("an id"))?;
    comes_online(server, id, 1).await?;
    verb(server, id, "restart").await?.json(200)?;
    comes_online(server, id, 2).await?;
    let kept = |name: &str, value: &str| {
        let mut kept = json!({"source": "workspace_secrets"});
        kept[name] = value.into();
        kept
    };
    for (name, value) in [("model", "grok/grok-2"), ("provider", "xai")] {
        server.get_as_admin(&format!("/workspaces/{id}/{name}")).await?.is(200, &kept(name, value))?;
    }
    Ok(())
}

async fn what_is_kept_already_restarts_nothing(server: &Server) -> Result<(), Verdict> {
    let body = json!({"name": "conformance kept", "model": "grok/grok-2", "secrets": {"KEPT": "1"}});
    let answer = server.post_as_admin("/workspaces", &body).await?;
    let id = answer.json(201)?["id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| answer.wrong("an id"))?;
    comes_online(server, id, 1).await?;
    let put = async |path: &str, body: &Value| {
        server.call(Method::PUT, &format!("/workspaces/{id}/{path}")).admin().json(body).send().await?.json(200)?;
        Ok::<(), Verdict>(())
    };
    put("model", &json!({"model": "grok/grok-2"})).await?;
    put("provider", &json!({"provider": "xai"})).await?;
    put("secrets", &json!({"key": "KEPT", "value": "1"})).await?;
    put("model", &json!({"model": "grok/grok-3"})).await?;
    comes_online(server, id, 2).await?;
    match count(server, id, "WORKSPACE_PROVISIONING").await? {
        2 => Ok(()),
        tries => Err(Verdict::Failed(format!("expected the first try and one for the other model, got {tries}"))),
    }
}

async fn a_file_goes_in_and_comes_back(server: &Server) -> Result<(), Verdict> {
    let id = online(server, "conformance files").await?;
    let files = format!("/workspaces/{id}/files");
    let call = |method: Method, path: &str| server.call(method, &format!("{files}{path}")).admin();
    let content = "one\ntwo \u{fc}\n";
    let written = call(Method::PUT, "/notes/a.md").json(&json!({"content": content})).send().await?;
    if written.status() == 501 {
        return Err(Verdict::Unsupported("the files of a workspace are elsewhere".to_owned()));
    }
    written.json(200)?;
    call(Method::GET, "/notes/a.md").send().await?.has(200, &json!({"content": content}))?;
    let listed = call(Method::GET, "?depth=2").send().await?;
    if !listed.json(200)?.as_array().into_iter().flatten().any(|file| file["path"] == "notes/a.md") {
        return Err(listed.wrong("the file among those two folders deep"));
    }
    let deleted = call(Method::DELETE, "/notes/a.md").send().await?;
    if deleted.status() == 501 {
        return Err(Verdict::Unsupported("the image of a workspace has nothing to delete files with".to_owned()));
    }
    deleted.json(200)?;
    call(Method::GET, "/notes/a.md").send().await?.json(404)?;
    let bad = json!({"files": {"good.md": "x", "../bad.md": "x"}});
    call(Method::PUT, "").json(&bad).send().await?.refuses(400, "invalid path")?;
    call(Method::GET, "/good.md").send().await?.json(404).map(drop)
}

async fn a_delegation_is_completed(server: &Server) -> Result<(), Verdict> {
    let to = online(server, "conformance tasked").await?;
    let from = server.member("conformance asks", &Value::Null).await?;
    let call = |method: Method, verb: &str| {
        server.call(method, &format!("/workspaces/{}/{verb}", from.id)).bearer(&from.token)
    };
    let given =
        call(Method::POST, "delegate").json(&json!({"target_id": to, "task": "say conformance"})).send().await?;
    let id = given.json(202)?["delegation_id"].clone();
    let began = Instant::now();
    loop {
        let listed = call(Method::GET, "delegations").send().await?;
        let rows = listed.json(200)?;
        let done = rows
            .as_array()
            .into_iter()
            .flatten()
            .find(|row| row["delegation_id"] == id && row["status"] == "completed");
        match done {
            Some(row) if row["response_preview"].as_str().is_some_and(|reply| reply.contains("conformance")) => {
                return Ok(());
            }
            _ if began.elapsed() > PATIENCE => return Err(listed.wrong("the task as completed, with its reply")),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}
