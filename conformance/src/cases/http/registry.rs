//! Agents that report in.

use crate::{
    case::{Area, Case, Level, Verdict},
    http::Server,
};

pub(super) fn cases() -> Vec<Case<Server>> {
    vec![Case {
        name: "malformed_heartbeat_is_refused",
        sentence: "A heartbeat that is no JSON is answered 400",
        area: Area::Registry,
        level: Level::Core,
        rule: "R-HEARTBEAT-1",
        run: |server| Box::pin(malformed_heartbeat_is_refused(server)),
    }]
}

async fn malformed_heartbeat_is_refused(server: &Server) -> Result<(), Verdict> {
    let answer = server.post("/registry/heartbeat", "{").await?;
    // Other members may say more about it.
    if answer.json(400)?["error"] == "invalid request body" {
        Ok(())
    } else {
        Err(answer.wrong("the error \"invalid request body\""))
    }
}
