//! What a server tells about itself.

use serde_json::json;

use crate::{
    case::{Area, Case, Level, Verdict},
    http::Server,
};

pub(super) fn cases() -> Vec<Case<Server>> {
    vec![
        Case {
            name: "health_answers",
            sentence: "GET /health answers ok to anyone",
            area: Area::Operations,
            level: Level::Core,
            rule: "R-HEALTH-1",
            run: |server| Box::pin(health_answers(server)),
        },
        Case {
            name: "buildinfo_names_the_revision",
            sentence: "GET /buildinfo names the revision that the server was built from to anyone",
            area: Area::Operations,
            level: Level::Core,
            rule: "R-BUILDINFO-1",
            run: |server| Box::pin(buildinfo_names_the_revision(server)),
        },
    ]
}

async fn health_answers(server: &Server) -> Result<(), Verdict> {
    server.get("/health").await?.is(200, &json!({"status": "ok"}))
}

async fn buildinfo_names_the_revision(server: &Server) -> Result<(), Verdict> {
    let answer = server.get("/buildinfo").await?;
    match answer.json(200)?["git_sha"].as_str() {
        Some(revision) if !revision.is_empty() => Ok(()),
        _ => Err(answer.wrong("a git_sha that is a string and not empty")),
    }
}
