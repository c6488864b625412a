//! What each tool does.

use std::{path::PathBuf, sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio_util::task::TaskTracker;

use super::{attachments, delegation, inbox::Inbox};
use crate::{
    agent::{
        PlatformClient,
        client::{Answer, Call, text},
        redact,
    },
    clock::Entropy,
    tools::Arguments,
};

/// How long a tool that only asks the platform waits.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that a tool looks at.
const LIMIT: usize = 10 * 1024 * 1024;

/// How many characters of an error a tool passes on.
pub(super) const REASON: usize = 200;

const REMOVED: &str =
    "Workspace was deleted on the platform. Regenerate workspace + token from the canvas → Tokens tab.";

const NO_INBOX: &str = "Error: inbox polling is not enabled in this runtime. The standalone molecule-mcp wrapper activates \
                        it; in-container runtimes receive messages via push delivery and do not need these tools.";

/// The tools of one workspace. A clone is a handle on the same ones.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub(super) client: PlatformClient,
    pub(super) entropy: Arc<dyn Entropy>,
    /// `None` when the inbox is not wanted.
    pub(super) inbox: Option<Inbox>,
    /// Files below these may be sent to the user.
    pub(super) folders: Vec<PathBuf>,
    /// The folder whose files never are.
    pub(super) secrets: PathBuf,
    /// What is being said in the log.
    pub(super) reports: TaskTracker,
}

impl Tools {
    /// What the tool `name` answers; `None` when there is no such tool.
    ///
    /// What goes wrong is a text as well: whoever reads it decides what to do.
    pub(super) async fn call(
        &self,
        name: &str,
        arguments: Option<Map<String, Value>>,
    ) -> Option<Result<String, String>> {
        let arguments = Arguments::new(arguments);
        Some(match name {
            "delegate_task" => delegation::delegate(self, &arguments).await,
            "delegate_task_async" => delegation::delegate_async(self, &arguments).await,
            "check_task_status" => delegation::check(self, &arguments).await,
            "list_peers" => Ok(self.list_peers().await),
            "get_workspace_info" => self.workspace_info().await,
            "send_message_to_user" => self.send_message_to_user(&arguments).await,
            "wait_for_message" => self.wait_for_message(&arguments).await,
            "inbox_peek" => self.inbox_peek(&arguments),
            "inbox_pop" => self.inbox_pop(&arguments),
            "chat_history" => self.chat_history(&arguments).await,
            "commit_memory" => self.commit_memory(&arguments).await,
            "recall_memory" => self.recall_memory(&arguments).await,
            _ => return None,
        })
    }

    async fn list_peers(&self) -> String {
        let path = format!("/registry/{}/peers", self.client.workspace_id());
        let none = |reason: &str| format!("No peers found. {reason}");
        let answer = match self.client.exchange(&get(&path, &[])).await {
            Ok(answer) => answer,
            Err(reason) => return none(&format!("The platform cannot be reached: {reason}")),
        };
        let code = answer.status.as_u16();
        match code {
            200 => {}
            401 | 403 => return none(&format!("The platform rejected the token (HTTP {code}): it may be revoked.")),
            404 | 410 => {
                return none(&format!("The platform does not know this workspace (HTTP {code}): it may be deleted."));
            }
            500.. => return none(&format!("The platform failed (HTTP {code}): try again later.")),
            _ => return none(&format!("HTTP {code}: {}", answer.message())),
        }
        let Some(Value::Array(peers)) = answer.json() else { return none("The answer was not a list.") };
        if peers.is_empty() {
            return "You have no peers in the platform registry. (No parent, no children, no siblings registered.)"
                .into();
        }
        let line = |peer: &Value| {
            let member = |name: &str| peer.get(name).and_then(Value::as_str).unwrap_or_default();
            let (name, id, status, role) = (member("name"), member("id"), member("status"), member("role"));
            format!("- {name} (ID: {id}, status: {status}, role: {role})")
        };
        peers.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    async fn workspace_info(&self) -> Result<String, String> {
        let id = self.client.workspace_id();
        let answer = self.ask(&get(&format!("/workspaces/{id}"), &[])).await?;
        let object = answer.object().unwrap_or_default();
        Ok(match answer.status {
            StatusCode::OK => Value::Object(object).to_string(),
            StatusCode::GONE => {
                let hint = text(&object, "hint").unwrap_or(REMOVED);
                let removed_at = object.get("removed_at").cloned().unwrap_or_default();
                json!({"error": "removed", "id": id.to_string(), "removed_at": removed_at, "hint": hint}).to_string()
            }
            StatusCode::NOT_FOUND => json!({"error": "not found"}).to_string(),
            status => return Err(format!("Error: platform returned {}: {}", status.as_u16(), answer.message())),
        })
    }

    async fn send_message_to_user(&self, arguments: &Arguments) -> Result<String, String> {
        let message = arguments.text("message")?;
        if message.is_empty() {
            return Err("Error: message is required".into());
        }
        let paths = arguments.texts("attachments")?;
        let files = if paths.is_empty() { Vec::new() } else { attachments::upload(self, &paths).await? };
        let body = attachments::notification(message, files);
        let answer = self.ask(&post(&self.own("notify"), &body)).await?;
        if !answer.status.is_success() {
            return Err(format!("Error: platform returned {}: {}", answer.status.as_u16(), answer.message()));
        }
        Ok(match paths.len() {
            0 => "Message sent to user".to_owned(),
            count => format!("Message sent to user with {count} attachment(s)"),
        })
    }

    async fn wait_for_message(&self, arguments: &Arguments) -> Result<String, String> {
        let seconds = arguments.number("timeout_secs", 60.0, 300.0)?;
        let found = self.inbox()?.wait(Duration::from_secs_f64(seconds)).await;
        Ok(match found {
            Some(message) => json!(message).to_string(),
            None => json!({"timeout": true, "timeout_secs": seconds}).to_string(),
        })
    }

    fn inbox_peek(&self, arguments: &Arguments) -> Result<String, String> {
        Ok(json!(self.inbox()?.peek(arguments.count("limit", 10, usize::MAX)?)).to_string())
    }

    fn inbox_pop(&self, arguments: &Arguments) -> Result<String, String> {
        let id = arguments.text("activity_id")?;
        if id.is_empty() {
            return Err("Error: activity_id is required".into());
        }
        Ok(json!({"removed": self.inbox()?.pop(id), "activity_id": id}).to_string())
    }

    async fn chat_history(&self, arguments: &Arguments) -> Result<String, String> {
        let peer = arguments.workspace("peer_id")?.ok_or("Error: peer_id is required")?;
        let mut query = vec![("peer_id", peer.to_string()), ("limit", arguments.count("limit", 20, 500)?.to_string())];
        match arguments.text("before_ts")? {
            "" => {}
            before => query.push(("before_ts", before.to_owned())),
        }
        let answer = self.ask(&get(&self.own("activity"), &query)).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => return Err(format!("Error: {}", answer.message())),
            status => return Err(format!("Error: chat_history returned HTTP {}", status.as_u16())),
        }
        let Some(Value::Array(mut rows)) = answer.json() else { return Err("Error: the answer was not a list".into()) };
        rows.reverse();
        Ok(Value::Array(rows).to_string())
    }

    async fn commit_memory(&self, arguments: &Arguments) -> Result<String, String> {
        let (content, scope) = (arguments.text("content")?, arguments.text("scope")?);
        if content.is_empty() {
            return Err("Error: content is required".into());
        }
        let scope = if scope.is_empty() { "LOCAL" } else { scope };
        if !matches!(scope, "LOCAL" | "TEAM" | "GLOBAL") {
            return Err("Error: scope must be LOCAL, TEAM, or GLOBAL".into());
        }
        let answer =
            self.ask(&post(&self.own("memories"), &json!({"content": redact(content), "scope": scope}))).await?;
        match answer.status {
            status if status.is_success() => {
                let object = answer.object().unwrap_or_default();
                Ok(json!({"success": true, "id": object.get("id"), "scope": scope}).to_string())
            }
            StatusCode::FORBIDDEN => Err(format!("Error: RBAC — {}", answer.message())),
            _ => Err(format!("Error: {}", answer.message())),
        }
    }

    async fn recall_memory(&self, arguments: &Arguments) -> Result<String, String> {
        let (words, scope) = (arguments.text("query")?, arguments.text("scope")?);
        if !matches!(scope, "" | "LOCAL" | "TEAM" | "GLOBAL") {
            return Err("Error: scope must be LOCAL, TEAM, GLOBAL, or empty".into());
        }
        let answer =
            self.ask(&get(&self.own("memories"), &[("q", words.to_owned()), ("scope", scope.to_owned())])).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return Err(format!("Error: RBAC — {}", answer.message())),
            _ => return Err(format!("Error: {}", answer.message())),
        }
        let Some(Value::Array(memories)) = answer.json() else { return Err("Error: the answer was not a list".into()) };
        if memories.is_empty() {
            return Ok("No memories found.".into());
        }
        let line = |memory: &Value| {
            let member = |name: &str| memory.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("[{}] {}", member("scope"), member("content"))
        };
        Ok(memories.iter().map(line).collect::<Vec<_>>().join("\n"))
    }

    fn inbox(&self) -> Result<&Inbox, String> {
        self.inbox.as_ref().ok_or_else(|| NO_INBOX.to_owned())
    }

    /// The path of what belongs to this workspace.
    pub(super) fn own(&self, what: &str) -> String {
        format!("/workspaces/{}/{what}", self.client.workspace_id())
    }

    /// Makes `call`; the error is what a tool says.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Answer, String> {
        self.client.exchange(call).await.map_err(|reason| format!("Error: the platform cannot be reached: {reason}"))
    }
}

/// A call that reads.
pub(super) fn get<'a>(path: &'a str, query: &'a [(&'a str, String)]) -> Call<'a> {
    Call { query, timeout: TIMEOUT, limit: LIMIT, ..Call::to(Method::GET, path) }
}

/// A call that says something in the name of the workspace.
pub(super) fn post<'a>(path: &'a str, body: &Value) -> Call<'a> {
    let body = Some(body.to_string().into_bytes());
    Call { body, is_own: true, timeout: TIMEOUT, limit: LIMIT, ..Call::to(Method::POST, path) }
}

/// The start of `text`.
pub(super) fn start(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
