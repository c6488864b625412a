//! Workspaces as clients read them.

use serde_json::json;

use crate::{
    case::{Area, Case, Level, Verdict},
    http::{Server, unknown_id},
};

pub(super) fn cases() -> Vec<Case<Server>> {
    vec![
        Case {
            name: "unknown_workspace_is_not_found",
            sentence: "An id that names no workspace is answered 404",
            area: Area::Workspaces,
            level: Level::Core,
            rule: "R-WORKSPACE-1",
            run: |server| Box::pin(unknown_workspace_is_not_found(server)),
        },
        Case {
            name: "malformed_workspace_id_is_refused",
            sentence: "An id that is no UUID is answered 400",
            area: Area::Workspaces,
            level: Level::Core,
            rule: "R-WORKSPACE-2",
            run: |server| Box::pin(malformed_workspace_id_is_refused(server)),
        },
        Case {
            name: "workspaces_are_an_array",
            sentence: "GET /workspaces answers the operator with an array, empty where there are none",
            area: Area::Workspaces,
            level: Level::Core,
            rule: "R-WORKSPACE-3",
            run: |server| Box::pin(workspaces_are_an_array(server)),
        },
    ]
}

async fn unknown_workspace_is_not_found(server: &Server) -> Result<(), Verdict> {
    let answer = server.get(&format!("/workspaces/{}", unknown_id()?)).await?;
    answer.is(404, &json!({"error": "workspace not found"}))
}

async fn malformed_workspace_id_is_refused(server: &Server) -> Result<(), Verdict> {
    server.get("/workspaces/not-a-uuid").await?.is(400, &json!({"error": "invalid workspace ID"}))
}

async fn workspaces_are_an_array(server: &Server) -> Result<(), Verdict> {
    let answer = server.get_as_admin("/workspaces").await?;
    if answer.json(200)?.is_array() { Ok(()) } else { Err(answer.wrong("an array")) }
}
