//! What a workspace may be made of.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    case::{Area, Verdict, cases},
    http::{Server, unknown_id},
};

cases! {
    Area::Workspaces;
    Core, "R-CREATE-1", a_workspace_has_a_name: "A create call without a name is refused";
    Core, "R-CREATE-2", a_workspace_has_a_tier: "A tier is 1 to 4, and 3 where none is named; others are refused";
    Core, "R-CREATE-3", a_budget_is_not_below_nothing: "A create call with a budget below 0 is refused";
    Core, "R-CREATE-4", access_is_to_a_folder: "Access to a folder is refused where no folder is named";
    Core, "R-CREATE-5", text_of_a_new_workspace_has_rules: "Names and roles with lines, or too long, are refused";
    Core, "R-CREATE-6", a_parent_is_there: "A create call below a parent that is not there is refused";
    Core, "R-CREATE-7", a_mode_is_one_of_two: "A create call with another delivery mode than push and poll is refused";
    Core, "R-CREATE-8", a_folder_is_allowed: "A create call with a folder of the host that nobody allowed is refused";
    Core, "R-CREATE-9", what_is_asked_for_is_kept: "A workspace is what its create call says";
    Core, "R-CREATE-10", what_is_left_out_has_a_default: "What a create call leaves out, or says nothing with, has a default";
    Core, "R-CREATE-11", a_body_that_cannot_be_read_makes_nothing: "A create call whose body cannot be read is refused";
}

/// Demands that a create call of an external workspace with these members is refused, and makes nothing.
async fn refused(server: &Server, members: &Value, error: &str) -> Result<(), Verdict> {
    // Nothing else is called so, and what is made against the rules is found by it.
    let role = format!("conformance {}", unknown_id()?);
    let mut body = json!({"name": "conformance refused", "external": true, "role": role});
    if let (Some(body), Some(members)) = (body.as_object_mut(), members.as_object()) {
        body.extend(members.clone());
    }
    server.post_as_admin("/workspaces", &body).await?.refuses(400, error)?;
    let answer = server.get_as_admin("/workspaces").await?;
    let fleet = answer.json(200)?;
    let named = body["name"] != "conformance refused";
    let made = |row: &Value| row["role"] == role.as_str() || (named && row["name"] == body["name"]);
    if fleet.as_array().into_iter().flatten().any(made) { Err(answer.wrong("no workspace of it")) } else { Ok(()) }
}

async fn a_workspace_has_a_name(server: &Server) -> Result<(), Verdict> {
    for name in [json!(""), json!("  ")] {
        refused(server, &json!({"name": name}), "invalid workspace payload").await?;
    }
    server.post_as_admin("/workspaces", &json!({"external": true})).await?.refuses(400, "invalid workspace payload")
}

async fn a_workspace_has_a_tier(server: &Server) -> Result<(), Verdict> {
    for tier in [-1, 5] {
        refused(server, &json!({"tier": tier}), "invalid workspace fields").await?;
    }
    for (said, expected) in
        [(Value::Null, 3), (json!({"tier": 0}), 3), (json!({"tier": 1}), 1), (json!({"tier": 4}), 4)]
    {
        let workspace = server.external("conformance tier", &said).await?;
        server.get(&format!("/workspaces/{}", workspace.id)).await?.has(200, &json!({"tier": expected}))?;
    }
    Ok(())
}

async fn a_budget_is_not_below_nothing(server: &Server) -> Result<(), Verdict> {
    refused(server, &json!({"budget_limit": -1}), "invalid workspace fields").await
}

async fn access_is_to_a_folder(server: &Server) -> Result<(), Verdict> {
    refused(server, &json!({"workspace_access": "read_only"}), "invalid workspace access").await
}

async fn text_of_a_new_workspace_has_rules(server: &Server) -> Result<(), Verdict> {
    let (long, longer) = ("n".repeat(256), "r".repeat(1001));
    for members in [json!({"name": "a\nb"}), json!({"name": long}), json!({"role": "a\rb"}), json!({"role": longer})] {
        refused(server, &members, "invalid workspace fields").await?;
    }
    Ok(())
}

async fn a_parent_is_there(server: &Server) -> Result<(), Verdict> {
    refused(server, &json!({"parent_id": unknown_id()?}), "parent workspace not found").await
}

async fn a_mode_is_one_of_two(server: &Server) -> Result<(), Verdict> {
    for mode in ["pull", "PUSH"] {
        refused(server, &json!({"delivery_mode": mode}), "delivery_mode must be 'push' or 'poll'").await?;
    }
    Ok(())
}

async fn a_folder_is_allowed(server: &Server) -> Result<(), Verdict> {
    for dir in ["etc", "/etc", "/", "/proc/self", "/tmp/../etc", "/no/such/folder"] {
        let members = json!({"workspace_dir": dir, "workspace_access": "read_only"});
        refused(server, &members, "invalid workspace directory").await?;
    }
    Ok(())
}

/// The row of a workspace in the list of the operator.
async fn listed(server: &Server, id: Uuid) -> Result<Value, Verdict> {
    let answer = server.get_as_admin("/workspaces").await?;
    let list = answer.json(200)?;
    let row = list.as_array().into_iter().flatten().find(|row| row["id"] == id.to_string());
    row.cloned().ok_or_else(|| answer.wrong("the workspace that was made"))
}

async fn shows(server: &Server, id: Uuid, expected: &Value) -> Result<(), Verdict> {
    let row = listed(server, id).await?;
    for (member, value) in expected.as_object().into_iter().flatten() {
        if &row[member] != value {
            return Err(Verdict::Failed(format!("expected {member} {value}, got {}", row[member])));
        }
    }
    Ok(())
}

async fn what_is_asked_for_is_kept(server: &Server) -> Result<(), Verdict> {
    let parent = server.external("conformance parent", &Value::Null).await?;
    let asked = json!({
        "role": "writes", "tier": 1, "parent_id": parent.id, "budget_limit": 700, "max_concurrent_tasks": 3,
        "canvas": {"x": 12.5, "y": -4.0}, "hibernation_idle_minutes": 30, "delivery_mode": "poll",
    });
    let made = server.external("conformance kept", &asked).await?;
    let expected = json!({
        "name": "conformance kept", "role": "writes", "tier": 1, "parent_id": parent.id, "budget_limit": 700,
        "max_concurrent_tasks": 3, "x": 12.5, "y": -4.0, "hibernation_idle_minutes": 30, "runtime": "external",
        "status": "awaiting_agent",
    });
    shows(server, made.id, &expected).await
}

async fn what_is_left_out_has_a_default(server: &Server) -> Result<(), Verdict> {
    let nothing = json!({"role": "", "tier": 0, "max_concurrent_tasks": -1, "parent_id": null, "budget_limit": null});
    for said in [Value::Null, nothing] {
        let made = server.external("conformance defaults", &said).await?;
        let expected = json!({
            "role": null, "tier": 3, "max_concurrent_tasks": 1, "parent_id": null, "budget_limit": null, "x": 0.0,
            "y": 0.0, "collapsed": false, "url": "", "workspace_dir": null, "agent_card": null, "active_tasks": 0,
            "monthly_spend": 0, "uptime_seconds": 0, "last_sample_error": "", "current_task": "",
        });
        shows(server, made.id, &expected).await?;
    }
    Ok(())
}

async fn a_body_that_cannot_be_read_makes_nothing(server: &Server) -> Result<(), Verdict> {
    // Nothing else is called so, and what is made against the rules is found by it.
    let name = format!("conformance {}", unknown_id()?);
    let with = |member: Value| json!({"name": name, "external": true, "tier": member}).to_string();
    let cut = with(json!(1)).trim_end_matches('}').to_owned();
    let listed = format!("[{}]", with(json!(1)));
    for body in ["{".to_owned(), String::new(), r#"{"name": 7}"#.to_owned(), cut, listed, with(json!("two"))] {
        let answer = server.call(reqwest::Method::POST, "/workspaces").admin().text(body).send().await?;
        answer.refuses(400, "invalid workspace payload")?;
    }
    let answer = server.get_as_admin("/workspaces").await?;
    let fleet = answer.json(200)?;
    let made = fleet.as_array().into_iter().flatten().any(|row| row["name"] == name.as_str());
    if made { Err(answer.wrong("no workspace of it")) } else { Ok(()) }
}
