//! Asks the platform for what arrived.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::inbox::Inbox;
use crate::agent::{PlatformClient, client::Call};

/// How often to ask.
const EVERY: Duration = Duration::from_secs(5);

/// How many rows a page has at most.
const PAGE: usize = 100;

/// How far back to look without a cursor, in seconds, and for how many rows.
const FIRST: (&str, &str) = ("600", "500");

/// The longest page that is looked at.
const LIMIT: usize = 32 * 1024 * 1024;

/// Fills `inbox` from the log of the workspace, and never ends.
pub(super) async fn poll(client: &PlatformClient, inbox: &Inbox) {
    let mut failures = 0_u32;
    loop {
        match page(client, inbox).await {
            Ok(true) => {
                failures = 0;
                continue;
            }
            Ok(false) => failures = 0,
            Err(reason) => {
                failures = failures.saturating_add(1);
                if failures <= 3 || failures.is_multiple_of(60) {
                    tracing::warn!("molecule-mcp: the inbox cannot be read ({failures} in a row): {reason}");
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Reads one page, and says whether there is more.
async fn page(client: &PlatformClient, inbox: &Inbox) -> Result<bool, String> {
    let Some(position) = inbox.position() else { return Ok(false) };
    let path = format!("/workspaces/{}/activity", client.workspace_id());
    let mut query = vec![("type", "a2a_receive".to_owned())];
    match &position {
        Some(row) => query.extend([("since_id", row.clone()), ("limit", PAGE.to_string())]),
        None => query.extend([("since_secs", FIRST.0.to_owned()), ("limit", FIRST.1.to_owned())]),
    }
    let answer = client.exchange(&Call { query: &query, limit: LIMIT, ..Call::to(Method::GET, &path) }).await?;
    if answer.status == StatusCode::GONE && position.is_some() {
        inbox.forget();
        return Ok(true);
    }
    if answer.status != StatusCode::OK {
        return Err(format!("HTTP {}: {}", answer.status.as_u16(), answer.message()));
    }
    let Some(Value::Array(mut rows)) = answer.json() else { return Err("the answer is not a JSON array".to_owned()) };
    if position.is_none() {
        // Without a cursor the newest come first.
        rows.reverse();
    }
    inbox.take(client.workspace_id(), &rows);
    Ok(position.is_some() && rows.len() >= PAGE)
}
