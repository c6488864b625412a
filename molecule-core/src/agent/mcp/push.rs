//! Tells the client of each message as it arrives.

use std::{collections::HashMap, time::Duration};

use reqwest::{Method, StatusCode};
use rmcp::{
    RoleServer,
    model::{CustomNotification, ServerNotification},
    service::Peer,
};
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};

use super::inbox::Message;
use crate::agent::{PlatformClient, client::Call};

/// What clients listen to that know it.
const METHOD: &str = "notifications/claude/channel";

/// How long to look for who a peer is.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long what was found, or that nothing was, is believed.
const BELIEVED: Duration = Duration::from_secs(300);

/// Passes on what arrives in `news`, until nothing can any more.
pub(super) async fn push(client: &PlatformClient, mut news: UnboundedReceiver<Message>, peer: &Peer<RoleServer>) {
    let mut known: HashMap<String, (Instant, Map<String, Value>)> = HashMap::new();
    while let Some(message) = news.recv().await {
        let sender =
            if message.peer_id.is_empty() { Map::new() } else { sender(client, &mut known, &message.peer_id).await };
        let notification = CustomNotification::new(METHOD, Some(params(message, sender)));
        if let Err(error) = peer.send_notification(ServerNotification::CustomNotification(notification)).await {
            tracing::warn!("molecule-mcp: a message could not be pushed: {error}");
        }
    }
}

fn params(message: Message, sender: Map<String, Value>) -> Value {
    let mut meta = json!({
        "source": "molecule",
        "kind": message.kind,
        "peer_id": message.peer_id,
        "method": message.method,
        "activity_id": message.activity_id,
        "ts": message.created_at,
    });
    if let Some(meta) = meta.as_object_mut() {
        meta.extend(sender);
    }
    json!({"content": message.text, "meta": meta})
}

/// What is known of workspace `id`, which is an id and nothing else.
async fn sender(
    client: &PlatformClient,
    known: &mut HashMap<String, (Instant, Map<String, Value>)>,
    id: &str,
) -> Map<String, Value> {
    if let Some((at, found)) = known.get(id)
        && at.elapsed() < BELIEVED
    {
        return found.clone();
    }
    let path = format!("/registry/discover/{id}");
    let call = Call { is_own: true, timeout: TIMEOUT, ..Call::to(Method::GET, &path) };
    let mut found = Map::from_iter([("agent_card_url".to_owned(), client.platform().endpoint(&path).into())]);
    if let Ok(answer) = client.exchange(&call).await
        && answer.status == StatusCode::OK
    {
        let object = answer.object().unwrap_or_default();
        for (member, name) in [("name", "peer_name"), ("role", "peer_role")] {
            if let Some(value) = object.get(member).filter(|value| value.is_string()) {
                found.insert(name.to_owned(), value.clone());
            }
        }
    }
    known.insert(id.to_owned(), (Instant::now(), found.clone()));
    found
}
