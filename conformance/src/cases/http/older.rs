//! What clients of other versions send, word for word: a new version of a server has to go on taking it.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::Server,
};

cases! {
    Area::Registry;
    Core, "R-OLDER-1", other_versions_are_understood: "What clients of other versions send is answered as ever";
}

/// Every request, in the order that a client sends them.
const REQUESTS: &str = include_str!("../../../fixtures/older-clients.json");

/// A request as it was sent, and what matters of its answer.
#[derive(Deserialize)]
struct Recorded {
    what: String,
    r#as: Sender,
    method: String,
    /// With `{id}` for the sender's workspace and `{peer}` for one that polls, like the body.
    path: String,
    body: Value,
    status: u16,
    /// What the answer has, whatever else it has.
    members: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sender {
    Agent,
    Operator,
}

async fn other_versions_are_understood(server: &Server) -> Result<(), Verdict> {
    let broken = |error: &dyn std::fmt::Display| Verdict::Failed(format!("fixtures/older-clients.json: {error}"));
    let requests: Vec<Recorded> = serde_json::from_str(REQUESTS).map_err(|error| broken(&error))?;
    let own = server.external("conformance older", &json!({"delivery_mode": "push"})).await?;
    let peer = server.member("conformance older peer", &Value::Null).await?;
    let filled = |text: &str| text.replace("{id}", &own.id.to_string()).replace("{peer}", &peer.id.to_string());
    for recorded in requests {
        let method: Method = recorded.method.parse().map_err(|error| broken(&error))?;
        let call = server.call(method, &filled(&recorded.path)).text(filled(&recorded.body.to_string()));
        let call = match recorded.r#as {
            Sender::Agent => call.bearer(&own.token),
            Sender::Operator => call.admin(),
        };
        call.send().await?.has(recorded.status, &recorded.members).map_err(|verdict| match verdict {
            Verdict::Failed(why) => Verdict::Failed(format!("{}: {why}", recorded.what)),
            other => other,
        })?;
    }
    Ok(())
}
