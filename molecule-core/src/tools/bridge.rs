//! The tools that the control plane serves itself.
//!
//! They go the way of every other call: through the proxy, the delegations, the log and the budget.

use serde_json::{Map, Value, json};
use tokio::task::JoinError;

use super::{
    Arguments, Definition, Place,
    reply::{self, Reply},
};
use crate::{
    activity::Activity,
    control_plane::ControlPlane,
    delegation::{Delegate, Delegated},
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    memory::{NewMemory, Recall, Scope},
    workspace::lifecycle::gone_is_not_found,
};

/// The one tool that speaks to people, and has to be allowed.
const TO_USER: &str = "send_message_to_user";

impl ControlPlane {
    /// The tools that agents may call here.
    pub fn tools(&self) -> impl Iterator<Item = &'static Definition> {
        let speaks = self.config().tools_message_users;
        Definition::at(Place::ControlPlane).filter(move |tool| speaks || tool.name != TO_USER)
    }

    /// What the tool `name` answers to workspace `id`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an unknown tool and for arguments that it does not take,
    /// [`ErrorKind::PermissionDenied`] where the two workspaces may not talk; whatever else hinders the tool.
    pub async fn call_tool(
        &self,
        id: WorkspaceId,
        name: &str,
        arguments: Option<Map<String, Value>>,
    ) -> Result<String> {
        let arguments = Arguments::new(arguments);
        if !self.tools().any(|tool| tool.name == name) {
            return Err(Error::invalid(format!("unknown tool: {name}")));
        }
        match name {
            "delegate_task" => self.delegate_task(id, &arguments).await,
            "delegate_task_async" => self.delegate_task_async(id, &arguments).await,
            "check_task_status" => self.check_task_status(id, &arguments).await,
            "list_peers" => self.list_peers(id).await,
            "get_workspace_info" => self.workspace_info(id).await,
            TO_USER => self.message_user(id, &arguments).await,
            "commit_memory" => self.commit_memory(id, &arguments).await,
            "recall_memory" => self.recall_memory(id, &arguments).await,
            _ => Err(Error::new(ErrorKind::Unsupported, format!("unknown tool: {name}"))),
        }
    }

    async fn delegate_task(&self, id: WorkspaceId, arguments: &Arguments) -> Result<String> {
        let (target, task) = self.assignment(id, arguments).await?;
        // A delegation like any other, so that a reply which comes late is kept for who asked.
        let delegate = Delegate { target_id: target.to_string(), task: task.to_owned(), idempotency_key: None };
        let (Delegated { id: task_id, .. }, run) = self.begin_to_delegate(id, delegate).await?;
        let ask_later =
            format!("Do not send it again: check_task_status with task_id {task_id} tells what became of it.");
        let ended = |cause: Option<JoinError>| {
            let error = Error::new(ErrorKind::Unavailable, "the task was not handed over: the server is stopping");
            cause.into_iter().fold(error, Error::caused_by)
        };
        let run = run.ok_or_else(|| ended(None))?;
        let Ok(called) = tokio::time::timeout(self.config().tool_patience, run).await else {
            return Ok(format!("Queued: the other workspace has the task and is at work on it still. {ask_later}"));
        };
        let answer = called.map_err(|error| ended(Some(error)))?.ok_or_else(|| ended(None))??;
        let failed = |text: String| Error::new(ErrorKind::Upstream, text);
        let said = serde_json::from_slice(&answer.body)
            .map_err(|error| failed("the agent's answer is no JSON".to_owned()).caused_by(error))?;
        match reply::read(&said) {
            Reply::Text(text) if answer.status < 300 => Ok(text),
            Reply::Queued => Ok(format!(
                "Queued: the other workspace is busy or asks for its messages, and will be given the task. {ask_later}"
            )),
            Reply::Error(text) => Err(failed(text)),
            Reply::Text(_) => Err(failed(format!("the agent answered with status {}", answer.status))),
        }
    }

    async fn delegate_task_async(&self, id: WorkspaceId, arguments: &Arguments) -> Result<String> {
        let (target, task) = self.assignment(id, arguments).await?;
        // Each call is one delegation: the same task later is another.
        let delegate = Delegate { target_id: target.to_string(), task: task.to_owned(), idempotency_key: None };
        let delegated = self.delegate(id, delegate).await?;
        Ok(json!({"task_id": delegated.id, "status": "dispatched", "target_id": target}).to_string())
    }

    /// Whom a task is for, and the task.
    async fn assignment<'a>(&self, id: WorkspaceId, arguments: &'a Arguments) -> Result<(WorkspaceId, &'a str)> {
        let target = arguments.workspace("workspace_id")?.ok_or_else(|| Error::invalid("workspace_id is required"))?;
        let task = arguments.text("task")?;
        if task.is_empty() {
            return Err(Error::invalid("task is required"));
        }
        if target == id {
            return Err(Error::invalid("self-delegation not permitted"));
        }
        if !self.can_communicate(id, target).await? {
            let text = format!("workspace {id} is not authorised to communicate with {target}");
            return Err(Error::new(ErrorKind::PermissionDenied, text));
        }
        Ok((target, task))
    }

    async fn check_task_status(&self, id: WorkspaceId, arguments: &Arguments) -> Result<String> {
        let task = arguments.text("task_id")?;
        if task.is_empty() {
            return Err(Error::invalid("task_id is required"));
        }
        let target = arguments.workspace("workspace_id")?;
        let rows = self.delegations(id).await?;
        let is_it = |row: &&Activity| {
            let of_target = target.is_none() || row.target_id == target;
            of_target && row.delegation_id.as_deref() == Some(task)
        };
        // The newest row comes first, and the newest of a delegation is its outcome.
        Ok(rows.iter().find(is_it).map_or_else(|| untracked(task), |row| tracked(task, row)).to_string())
    }

    async fn list_peers(&self, id: WorkspaceId) -> Result<String> {
        let peers = self.peers(id, None).await?;
        if peers.is_empty() {
            return Ok("No peers found.".to_owned());
        }
        let view = |peer: &crate::workspace::Workspace| {
            json!({
                "id": peer.id, "name": peer.name, "role": peer.role.as_deref().unwrap_or_default(),
                "status": peer.status.as_str(), "tier": peer.tier,
            })
        };
        Ok(peers.iter().map(view).collect::<Value>().to_string())
    }

    async fn workspace_info(&self, id: WorkspaceId) -> Result<String> {
        let own = self.existing(id).await.map_err(gone_is_not_found)?;
        let mut view = json!({
            "id": id, "name": own.name, "role": own.role.unwrap_or_default(), "tier": own.tier,
            "status": own.status.as_str(),
        });
        if let Some(parent) = own.parent_id {
            view["parent_id"] = json!(parent);
        }
        Ok(view.to_string())
    }

    async fn message_user(&self, id: WorkspaceId, arguments: &Arguments) -> Result<String> {
        self.notify(id, arguments.text("message")?, &[]).await?;
        Ok("Message sent to user".to_owned())
    }

    async fn commit_memory(&self, id: WorkspaceId, arguments: &Arguments) -> Result<String> {
        let (content, scope) = (arguments.text("content")?, arguments.text("scope")?);
        if content.is_empty() {
            return Err(Error::invalid("content is required"));
        }
        let scope = match scope {
            "" => "LOCAL",
            "LOCAL" | "TEAM" => scope,
            "GLOBAL" => {
                let text = "GLOBAL scope is not permitted via the MCP bridge — use LOCAL or TEAM";
                return Err(Error::new(ErrorKind::PermissionDenied, text));
            }
            _ => return Err(Error::invalid("scope must be LOCAL or TEAM")),
        };
        let new = NewMemory { content: content.to_owned(), scope: scope.to_owned(), namespace: String::new() };
        let memory = self.remember(id, &new).await?;
        Ok(json!({"success": true, "id": memory.id, "scope": memory.scope.as_str()}).to_string())
    }

    async fn recall_memory(&self, id: WorkspaceId, arguments: &Arguments) -> Result<String> {
        let (query, scope) = (arguments.text("query")?, arguments.text("scope")?);
        match scope {
            "" | "LOCAL" | "TEAM" => {}
            "GLOBAL" => {
                let text = "GLOBAL scope is not permitted via the MCP bridge — use LOCAL, TEAM, or empty";
                return Err(Error::new(ErrorKind::PermissionDenied, text));
            }
            _ => return Err(Error::invalid("scope must be LOCAL, TEAM, or empty")),
        }
        let recall = Recall { scope: scope.to_owned(), query: query.to_owned(), ..Recall::default() };
        let mut found = self.recall(id, &recall).await?;
        found.retain(|memory| memory.scope != Scope::Global);
        if found.is_empty() {
            return Ok("No memories found.".to_owned());
        }
        let lines = found.iter().map(|memory| format!("[{}] {}", memory.scope, memory.content));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

fn untracked(task: &str) -> Value {
    json!({
        "task_id": task, "status": "not_found",
        "note": "this workspace has delegated no such task, or it is no longer among the latest",
    })
}

/// What `row`, the latest about a delegation, says of it.
fn tracked(task: &str, row: &Activity) -> Value {
    let mut view = json!({"task_id": task, "status": row.status});
    if let Some(target) = row.target_id {
        view["target_id"] = json!(target);
    }
    if let Some(reply) = row.response_body.as_ref().and_then(|body| body["text"].as_str()) {
        view["result"] = reply.into();
    }
    if let Some(error) = &row.error_detail {
        view["error"] = error.as_str().into();
    }
    view
}
