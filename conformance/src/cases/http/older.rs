//! What clients of other versions send, word for word: a new version of a server has to go on taking it.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server},
};

cases! {
    Area::Registry;
    Core, "R-OLDER-1", other_versions_are_understood: "What agents of other versions send is answered as ever, and kept";
    Extended(Feature::Activity), "R-OLDER-2", other_versions_report_and_call:
        "What agents of other versions report and say is answered as ever, and kept";
    Extended(Feature::Memory), "R-OLDER-3", other_versions_remember:
        "What agents of other versions remember is answered as ever, and kept";
}

/// Every request, in the order that a client sends them.
const REQUESTS: &str = include_str!("../../../../fixtures/wire/requests.json");

/// A request as it was sent, and what matters of its answer.
#[derive(Deserialize)]
struct Recorded {
    what: String,
    r#as: Sender,
    method: String,
    /// With `{id}` for the sender's workspace and `{peer}` for one that polls, like the body.
    path: String,
    /// What a server must have to know the route.
    feature: Option<String>,
    body: Value,
    status: u16,
    /// What the answer has, whatever else it has.
    members: Value,
    kept: Kept,
}

/// What the operator finds afterwards.
#[derive(Deserialize)]
struct Kept {
    path: String,
    /// Where in the answer, as a JSON pointer.
    at: String,
    value: Value,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sender {
    Agent,
    Operator,
}

async fn other_versions_are_understood(server: &Server) -> Result<(), Verdict> {
    replay(server, None).await
}

async fn other_versions_report_and_call(server: &Server) -> Result<(), Verdict> {
    replay(server, Some("activity")).await
}

async fn other_versions_remember(server: &Server) -> Result<(), Verdict> {
    replay(server, Some("memory")).await
}

/// Sends the requests that take this feature, and looks for what is kept of each.
async fn replay(server: &Server, feature: Option<&str>) -> Result<(), Verdict> {
    let broken = |error: &dyn std::fmt::Display| Verdict::Failed(format!("fixtures/wire/requests.json: {error}"));
    let requests: Vec<Recorded> = serde_json::from_str(REQUESTS).map_err(|error| broken(&error))?;
    let own = server.external("conformance older", &json!({"delivery_mode": "push"})).await?;
    let peer = server.member("conformance older peer", &Value::Null).await?;
    let filled = |text: &str| text.replace("{id}", &own.id.to_string()).replace("{peer}", &peer.id.to_string());
    for recorded in requests.into_iter().filter(|recorded| recorded.feature.as_deref() == feature) {
        let method: Method = recorded.method.parse().map_err(|error| broken(&error))?;
        let call = server.call(method, &filled(&recorded.path)).text(filled(&recorded.body.to_string()));
        let call = match recorded.r#as {
            Sender::Agent => call.bearer(&own.token),
            Sender::Operator => call.admin(),
        };
        let answered = call.send().await?.has(recorded.status, &recorded.members).map(drop);
        let found = server.get_as_admin(&filled(&recorded.kept.path)).await?;
        answered.and_then(|()| holds(&found, &recorded.kept)).map_err(|verdict| match verdict {
            Verdict::Failed(why) => Verdict::Failed(format!("{}: {why}", recorded.what)),
            other => other,
        })?;
    }
    Ok(())
}

fn holds(found: &Answer, kept: &Kept) -> Result<(), Verdict> {
    match found.json(200)?.pointer(&kept.at) {
        Some(value) if *value == kept.value => Ok(()),
        _ => Err(found.wrong(&format!("{} at {}", kept.value, kept.at))),
    }
}
