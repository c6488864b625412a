//! What a workspace may be made of.

use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::Server,
};

cases! {
    Area::Workspaces;
    Core, "R-CREATE-1", a_workspace_has_a_name: "A create call without a name is refused";
    Core, "R-CREATE-2", a_workspace_has_a_tier: "A create call with a tier that there is none of is refused";
    Core, "R-CREATE-3", a_budget_is_not_below_nothing: "A create call with a budget below 0 is refused";
    Core, "R-CREATE-4", access_is_to_a_folder: "Access to a folder is refused where no folder is named";
    Core, "R-CREATE-5", text_of_a_new_workspace_has_rules: "Names and roles with lines, or too long, are refused";
    Core, "R-CREATE-6", a_parent_is_there: "A create call below a parent that is not there is refused";
}

/// Demands that a create call of an external workspace with these members is refused, and makes nothing.
async fn refused(server: &Server, members: &Value, error: &str) -> Result<(), Verdict> {
    let mut body = json!({"name": "conformance refused", "external": true});
    if let (Some(body), Some(members)) = (body.as_object_mut(), members.as_object()) {
        body.extend(members.clone());
    }
    server.post_as_admin("/workspaces", &body).await?.refuses(400, error)
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
    refused(server, &json!({"parent_id": crate::http::unknown_id()?}), "parent workspace not found").await
}
