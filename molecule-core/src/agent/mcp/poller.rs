//! Asks the platform for what arrived.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::inbox::{CAPACITY, Inbox, Position};
use crate::agent::{
    PlatformClient,
    client::{Answer, Call},
};

/// How often to ask.
const EVERY: Duration = Duration::from_secs(5);

/// How many rows a page has at most.
const PAGE: usize = 100;

/// How far back to look the first time, in seconds.
const FIRST: u32 = 600;

/// How far back the log of the platform can be read at all, in seconds.
const LAST: u32 = 30 * 24 * 60 * 60;

/// The longest page that is looked at. No single row is as long.
const LIMIT: usize = 32 * 1024 * 1024;

/// Fills `inbox` from the log of the workspace, and never ends.
pub(super) async fn poll(client: &PlatformClient, inbox: &Inbox) {
    let mut poller = Poller { client, inbox, page: PAGE };
    let mut failures = 0_u32;
    loop {
        match poller.read_on().await {
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

#[derive(Debug)]
struct Poller<'a> {
    client: &'a PlatformClient,
    inbox: &'a Inbox,
    /// How many rows to ask for.
    page: usize,
}

impl Poller<'_> {
    /// Reads one page, and says whether there may be more.
    async fn read_on(&mut self) -> Result<bool, String> {
        let Some(position) = self.inbox.position() else { return Ok(false) };
        let row = match position {
            Position::Unknown => {
                let rows = self.since(FIRST).await?;
                let before = self.before(rows.first()).await?;
                self.inbox.begin(before);
                self.inbox.take(self.client.workspace_id(), &rows);
                return Ok(true);
            }
            Position::Start => {
                let rows = self.since(LAST).await?;
                self.inbox.take(self.client.workspace_id(), &rows);
                return Ok(!rows.is_empty());
            }
            Position::After(row) => row,
        };
        let answer = self.ask(&[("since_id", row)]).await?;
        if answer.status == StatusCode::GONE {
            self.inbox.forget();
            return Ok(true);
        }
        let rows = rows(&answer)?;
        self.inbox.take(self.client.workspace_id(), &rows);
        let is_full = rows.len() >= self.page;
        self.page = PAGE;
        Ok(is_full)
    }

    /// The oldest rows of the last so many seconds, oldest first, as many as the inbox holds.
    async fn since(&mut self, seconds: u32) -> Result<Vec<Value>, String> {
        let mut found: VecDeque<Value> = VecDeque::new();
        loop {
            let before = found.front().map(created_at).transpose()?.map(|oldest| ("before_ts", oldest));
            let query: Vec<_> = before.into_iter().chain([("since_secs", seconds.to_string())]).collect();
            // The newest come first.
            let rows = self.page(&query).await?;
            let is_last = rows.len() < self.page;
            rows.into_iter().for_each(|row| found.push_front(row));
            found.truncate(CAPACITY);
            if is_last {
                self.page = PAGE;
                return Ok(found.into());
            }
        }
    }

    /// The id of the row before `row`, or of the newest one.
    async fn before(&mut self, row: Option<&Value>) -> Result<Option<String>, String> {
        let before = row.map(created_at).transpose()?.map(|at| ("before_ts", at));
        self.page = 1;
        let found = self.page(before.as_slice()).await;
        self.page = PAGE;
        Ok(found?.first().and_then(|row| row.get("id")?.as_str()).map(str::to_owned))
    }

    async fn page(&mut self, query: &[(&str, String)]) -> Result<Vec<Value>, String> {
        rows(&self.ask(query).await?)
    }

    /// Asks for a page, and for half of it as long as it is too long: whoever writes to this workspace decides how long.
    async fn ask(&mut self, query: &[(&str, String)]) -> Result<Answer, String> {
        let path = format!("/workspaces/{}/activity", self.client.workspace_id());
        loop {
            let mut query = query.to_vec();
            query.extend([("type", "a2a_receive".to_owned()), ("limit", self.page.to_string())]);
            let call = Call { query: &query, limit: LIMIT, ..Call::to(Method::GET, &path) };
            let answer = self.client.exchange(&call).await?;
            if !answer.is_cut() || answer.status != StatusCode::OK || self.page == 1 {
                return Ok(answer);
            }
            self.page /= 2;
        }
    }
}

fn rows(answer: &Answer) -> Result<Vec<Value>, String> {
    if answer.status != StatusCode::OK {
        return Err(format!("HTTP {}: {}", answer.status.as_u16(), answer.message()));
    }
    match answer.json() {
        Some(Value::Array(rows)) => Ok(rows),
        _ => Err("the answer is not a JSON array".to_owned()),
    }
}

fn created_at(row: &Value) -> Result<String, String> {
    let at = row.get("created_at").and_then(Value::as_str).ok_or("a row does not say when it was written")?;
    Ok(at.to_owned())
}
