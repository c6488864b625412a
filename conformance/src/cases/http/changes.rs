//! What is changed about workspaces, their agents and their budgets.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::Workspaces;
    Core, "R-CONNECTION-1", an_external_agent_is_told_how_to_join:
        "A new external workspace comes with texts to paste, which leave its token out";
    Core, "R-PATCH-1", a_patch_changes_what_it_names: "PATCH changes the members that it names and no others";
    Core, "R-PATCH-2", a_patch_keeps_the_rules_of_text: "PATCH refuses text that breaks a rule, and says which";
    Core, "R-PATCH-3", a_patch_needs_the_right_types: "PATCH refuses members of another type";
    Core, "R-PATCH-4", an_agent_cannot_promote_itself:
        "An agent cannot change its tier, its parent, its runtime or its folder";
    Core, "R-PATCH-5", nothing_is_put_below_itself: "A workspace cannot be put below itself or what is below it";
    Core, "R-PATCH-6", a_patch_needs_a_workspace: "PATCH of an unknown workspace answers 404";
    Core, "R-PATCH-7", a_place_needs_both_members: "A place on the canvas is taken with both members or not at all";
    Core, "R-PATCH-8", a_folder_of_the_host_is_not_given_away: "A folder outside of every allowed root is refused";
    Core, "R-PATCH-9", the_operator_says_when_it_hibernates:
        "After how many minutes without work a workspace hibernates is the operator's to say";
    Core, "R-AGENT-1", an_agent_is_assigned_once: "A workspace is given an agent once";
    Core, "R-AGENT-2", an_agent_is_replaced: "An agent is replaced by another, and what was before is told";
    Core, "R-AGENT-3", an_agent_is_removed: "An agent is taken away, once";
    Core, "R-AGENT-4", an_agent_moves: "An agent moves to a workspace that has none";
    Core, "R-BUDGET-1", a_budget_is_set_and_read: "A budget is set by the operator and read by the agent";
    Core, "R-BUDGET-2", a_budget_is_an_integer_or_null: "A budget is an integer of at least 0 or null, and required";
    Core, "R-BUDGET-3", an_agent_cannot_raise_its_budget: "An agent cannot change its budget";
    Core, "R-BUDGET-4", who_spent_its_budget_is_not_called: "A workspace that spent its budget is not called";
    Core, "R-BOOTSTRAP-1", a_failed_bootstrap_counts_while_it_is_awaited:
        "That a machine did not come up changes nothing about a workspace that is not being brought up";
}

async fn an_external_agent_is_told_how_to_join(server: &Server) -> Result<(), Verdict> {
    let answer = server.post_as_admin("/workspaces", &json!({"name": "conformance join", "external": true})).await?;
    let created = answer.json(201)?;
    let id = created["id"].as_str().ok_or_else(|| answer.wrong("an id"))?;
    let connection = &created["connection"];
    let text = |member: &str| connection[member].as_str().ok_or_else(|| answer.wrong(member));
    let (url, token) = (text("platform_url")?, text("auth_token")?);
    if text("registry_endpoint")? != format!("{url}/registry/register")
        || text("heartbeat_endpoint")? != format!("{url}/registry/heartbeat")
    {
        return Err(answer.wrong("endpoints below platform_url"));
    }
    for (member, needed) in [
        ("curl_register_template", "Origin: "),
        ("python_snippet", "molecule_agent"),
        ("claude_code_channel_snippet", "MOLECULE_WORKSPACE_TOKENS"),
        ("universal_mcp_snippet", "molecule-mcp"),
    ] {
        let snippet = text(member)?;
        let told = snippet.contains(needed) && snippet.contains(url) && snippet.contains(id);
        if !told || snippet.contains(token) || snippet.contains("{{") || snippet.contains("MOLECULE_ORG_ID") {
            return Err(answer.wrong(member));
        }
    }
    Ok(())
}

async fn patch(server: &Server, id: impl std::fmt::Display, body: &Value) -> Result<Answer, Verdict> {
    server.call(Method::PATCH, &format!("/workspaces/{id}")).admin().json(body).send().await
}

async fn view(server: &Server, workspace: &Workspace, members: &Value) -> Result<(), Verdict> {
    server.get(&format!("/workspaces/{}", workspace.id)).await?.has(200, members).map(drop)
}

async fn a_patch_changes_what_it_names(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance patch", &json!({"role": "one"})).await?;
    patch(server, workspace.id, &json!({"name": "conformance other"})).await?.is(200, &json!({"status": "updated"}))?;
    view(server, &workspace, &json!({"name": "conformance other", "role": "one", "collapsed": false})).await?;
    let path = format!("/workspaces/{}", workspace.id);
    let body = json!({"role": "", "collapsed": true, "budget_limit": 5, "unknown": 1});
    let answer = server.call(Method::PATCH, &path).bearer(&workspace.token).json(&body).send().await?;
    answer.is(200, &json!({"status": "updated"}))?;
    view(server, &workspace, &json!({"name": "conformance other", "role": null, "collapsed": true})).await
}

async fn a_patch_keeps_the_rules_of_text(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance patch", &Value::Null).await?;
    for (body, error) in [
        (json!({"name": "a\nb"}), "name must not contain newline characters"),
        (json!({"name": "a{b"}), "name contains invalid characters"),
        (json!({"name": "é".repeat(256)}), "name must be at most 255 characters"),
        (json!({"role": "a\rb"}), "role must not contain newline characters"),
        (json!({"role": "a!"}), "role contains invalid characters"),
        (json!({"role": "a".repeat(1001)}), "role must be at most 1000 characters"),
        (json!({"runtime": "a".repeat(101)}), "runtime must be at most 100 characters"),
    ] {
        patch(server, workspace.id, &body).await?.refuses(400, error)?;
    }
    patch(server, workspace.id, &json!({"name": "é".repeat(255)})).await?.json(200).map(drop)
}

async fn a_patch_needs_the_right_types(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance patch", &Value::Null).await?;
    for body in [
        json!({"tier": "two"}),
        json!({"tier": 1.5}),
        json!({"parent_id": 7}),
        json!({"parent_id": "no-uuid"}),
        json!({"name": 1}),
        json!({"collapsed": "yes"}),
        json!([]),
    ] {
        patch(server, workspace.id, &body).await?.refuses(400, "invalid request body")?;
    }
    patch(server, "no-uuid", &json!({})).await?.refuses(400, "invalid workspace ID")
}

async fn an_agent_cannot_promote_itself(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance patch", &Value::Null).await?;
    let other = server.member("conformance other", &Value::Null).await?;
    for body in [
        json!({"tier": 4}),
        json!({"parent_id": other.id}),
        json!({"parent_id": null}),
        json!({"runtime": "hermes"}),
        json!({"workspace_dir": "/"}),
        json!({"workspace_dir": null}),
    ] {
        let path = format!("/workspaces/{}", workspace.id);
        let answer = server.call(Method::PATCH, &path).bearer(&workspace.token).json(&body).send().await?;
        if !matches!(answer.status(), 401 | 403) {
            return Err(answer.wrong("a refusal"));
        }
    }
    view(server, &workspace, &json!({"tier": 3, "parent_id": null})).await
}

async fn nothing_is_put_below_itself(server: &Server) -> Result<(), Verdict> {
    let lead = server.external("conformance lead", &Value::Null).await?;
    let child = server.external("conformance child", &json!({"parent_id": lead.id})).await?;
    let below = server.external("conformance below", &json!({"parent_id": child.id})).await?;
    for parent in [lead.id, child.id, below.id] {
        patch(server, lead.id, &json!({"parent_id": parent})).await?.json(400)?;
    }
    patch(server, lead.id, &json!({"parent_id": unknown_id()?})).await?.json(400)?;
    patch(server, below.id, &json!({"parent_id": lead.id})).await?.json(200)?;
    view(server, &below, &json!({"parent_id": lead.id})).await?;
    patch(server, below.id, &json!({"parent_id": null})).await?.json(200)?;
    view(server, &below, &json!({"parent_id": null})).await
}

async fn a_patch_needs_a_workspace(server: &Server) -> Result<(), Verdict> {
    patch(server, unknown_id()?, &json!({"name": "a"})).await?.refuses(404, "workspace not found")
}

async fn a_place_needs_both_members(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance place", &Value::Null).await?;
    patch(server, workspace.id, &json!({"x": 7.0})).await?.json(200)?;
    view(server, &workspace, &json!({"x": 0.0, "y": 0.0})).await?;
    patch(server, workspace.id, &json!({"x": 7.5, "y": -3.0})).await?.json(200)?;
    view(server, &workspace, &json!({"x": 7.5, "y": -3.0})).await
}

async fn a_folder_of_the_host_is_not_given_away(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance folder", &Value::Null).await?;
    for dir in ["/etc", "/", "/root", "/proc/self", "relative", "/tmp/../etc"] {
        let answer = patch(server, workspace.id, &json!({"workspace_dir": dir})).await?;
        answer.refuses(400, "invalid workspace directory")?;
    }
    let answer = patch(server, workspace.id, &json!({"workspace_dir": null})).await?;
    answer.is(200, &json!({"status": "updated", "needs_restart": true}))
}

async fn agent(server: &Server, method: Method, workspace: &Workspace, body: &Value) -> Result<Answer, Verdict> {
    let path = format!("/workspaces/{}/agent", workspace.id);
    server.call(method, &path).bearer(&workspace.token).json(body).send().await
}

async fn an_agent_is_assigned_once(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance agent", &Value::Null).await?;
    let answer = agent(server, Method::POST, &workspace, &json!({"model": "one"})).await?;
    let body = answer.has(201, &json!({"model": "one"}))?;
    if !body["agent_id"].is_string() {
        return Err(answer.wrong("an agent_id"));
    }
    let again = agent(server, Method::POST, &workspace, &json!({"model": "two"})).await?;
    again.refuses(409, "workspace already has an active agent, use PATCH to replace")?;
    agent(server, Method::POST, &workspace, &json!({})).await?.json(400).map(drop)
}

async fn an_agent_is_replaced(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance agent", &Value::Null).await?;
    let none = agent(server, Method::PATCH, &workspace, &json!({"model": "two"})).await?;
    none.refuses(404, "no active agent to replace")?;
    agent(server, Method::POST, &workspace, &json!({"model": "one"})).await?.json(201)?;
    let answer = agent(server, Method::PATCH, &workspace, &json!({"model": "two"})).await?;
    answer.has(200, &json!({"model": "two", "old_model": "one"})).map(drop)
}

async fn an_agent_is_removed(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance agent", &Value::Null).await?;
    agent(server, Method::POST, &workspace, &json!({"model": "one"})).await?.json(201)?;
    agent(server, Method::DELETE, &workspace, &json!({})).await?.has(200, &json!({"status": "removed"}))?;
    let again = agent(server, Method::DELETE, &workspace, &json!({})).await?;
    again.refuses(404, "no active agent to remove")
}

async fn an_agent_moves(server: &Server) -> Result<(), Verdict> {
    let from = server.external("conformance from", &Value::Null).await?;
    let to = server.external("conformance to", &Value::Null).await?;
    let path = format!("/workspaces/{}/agent/move", from.id);
    let body = json!({"target_workspace_id": to.id});
    server.post_as_admin(&path, &body).await?.refuses(404, "no active agent in source workspace")?;
    let nowhere = json!({"target_workspace_id": unknown_id()?});
    server.post_as_admin(&path, &nowhere).await?.refuses(404, "target workspace not found")?;
    let assigned = agent(server, Method::POST, &from, &json!({"model": "one"})).await?.json(201)?;
    let expected = json!({
        "agent_id": assigned["agent_id"], "model": "one", "from_workspace": from.id, "to_workspace": to.id,
    });
    server.post_as_admin(&path, &body).await?.is(200, &expected)?;
    agent(server, Method::POST, &from, &json!({"model": "two"})).await?.json(201)?;
    server.post_as_admin(&path, &body).await?.refuses(409, "target workspace already has an active agent")
}

async fn a_budget_is_set_and_read(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance budget", &Value::Null).await?;
    let path = format!("/workspaces/{}/budget", workspace.id);
    let none = json!({"budget_limit": null, "monthly_spend": 0, "budget_remaining": null});
    server.call(Method::GET, &path).bearer(&workspace.token).send().await?.is(200, &none)?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&workspace.token);
    beat.json(&json!({"workspace_id": workspace.id, "monthly_spend": 700})).send().await?.json(200)?;
    let body = json!({"budget_limit": 500});
    let set = json!({"budget_limit": 500, "monthly_spend": 700, "budget_remaining": -200});
    server.call(Method::PATCH, &path).admin().json(&body).send().await?.is(200, &set)?;
    server.call(Method::GET, &path).bearer(&workspace.token).send().await?.is(200, &set)
}

async fn a_budget_is_an_integer_or_null(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance budget", &Value::Null).await?;
    let path = format!("/workspaces/{}/budget", workspace.id);
    let integer = "budget_limit must be an integer (USD cents) or null";
    for (body, error) in [
        (json!({}), "budget_limit field is required"),
        (json!({"budget_limit": -1}), "budget_limit must be >= 0 (USD cents)"),
        (json!({"budget_limit": 1.5}), integer),
        (json!({"budget_limit": "5"}), integer),
    ] {
        server.call(Method::PATCH, &path).admin().json(&body).send().await?.refuses(400, error)?;
    }
    let body = json!({"budget_limit": null});
    server.call(Method::PATCH, &path).admin().json(&body).send().await?.json(200)?;
    let unknown = format!("/workspaces/{}/budget", unknown_id()?);
    server.call(Method::PATCH, &unknown).admin().json(&body).send().await?.refuses(404, "workspace not found")?;
    server.get_as_admin("/workspaces/no-uuid/budget").await?.refuses(400, "invalid workspace ID")
}

async fn an_agent_cannot_raise_its_budget(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance budget", &json!({"budget_limit": 5})).await?;
    let path = format!("/workspaces/{}/budget", workspace.id);
    for limit in [json!(null), json!(500)] {
        let body = json!({"budget_limit": limit});
        let answer = server.call(Method::PATCH, &path).bearer(&workspace.token).json(&body).send().await?;
        if !matches!(answer.status(), 401 | 403) {
            return Err(answer.wrong("a refusal"));
        }
    }
    server.get_as_admin(&path).await?.has(200, &json!({"budget_limit": 5})).map(drop)
}

async fn who_spent_its_budget_is_not_called(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance spent", &json!({"budget_limit": 5})).await?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(&workspace.token);
    beat.json(&json!({"workspace_id": workspace.id, "monthly_spend": 5})).send().await?.json(200)?;
    let message = json!({"role": "user", "parts": [{"kind": "text", "text": "hello"}]});
    let body = json!({"method": "message/send", "params": {"message": message}});
    let answer = server.post_as_admin(&format!("/workspaces/{}/a2a", workspace.id), &body).await?;
    answer.refuses(402, "workspace budget limit exceeded")
}

async fn a_failed_bootstrap_counts_while_it_is_awaited(server: &Server) -> Result<(), Verdict> {
    let workspace = server.member("conformance machine", &Value::Null).await?;
    let path = format!("/admin/workspaces/{}/bootstrap-failed", workspace.id);
    let body = json!({"error": "no", "log_tail": "line"});
    server.post_as_admin(&path, &body).await?.is(200, &json!({"ok": true, "no_change": true}))?;
    view(server, &workspace, &json!({"status": "online"})).await
}

async fn the_operator_says_when_it_hibernates(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("conformance idle", &Value::Null).await?;
    let path = format!("/workspaces/{}", workspace.id);
    for (minutes, status) in
        [(json!(30), 200), (Value::Null, 200), (json!(-1), 400), (json!(525_601), 400), (json!("1"), 400)]
    {
        let body = json!({"hibernation_idle_minutes": minutes});
        server.call(Method::PATCH, &path).admin().json(&body).send().await?.json(status)?;
        if status == 200 && server.row(workspace.id).await?.unwrap_or_default()["hibernation_idle_minutes"] != minutes {
            return Err(Verdict::Failed(format!("{minutes} minutes were taken and are not shown")));
        }
    }
    let body = json!({"hibernation_idle_minutes": null});
    let answer = server.call(Method::PATCH, &path).bearer(&workspace.token).json(&body).send().await?;
    if matches!(answer.status(), 401 | 403) { Ok(()) } else { Err(answer.wrong("a refusal")) }
}
