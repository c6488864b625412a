//! Tells an agent that it was restarted, once it is there to hear it.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Status, Workspace};
use crate::{
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::AttemptId,
};

/// How long an agent may take to come online and still be told.
const WAIT: Duration = Duration::from_secs(30);

/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long the agent may take to answer. Nobody waits for what it says.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an agent is told of its restart.
#[derive(Debug)]
pub(crate) struct RestartContext {
    pub(crate) restarted_at: DateTime<Utc>,
    /// When the session before was heard last.
    pub(crate) heard_before: Option<DateTime<Utc>>,
    /// The names of what is in its environment, sorted. Never the values.
    pub(crate) env: Vec<String>,
}

impl RestartContext {
    fn text(&self) -> String {
        let time = |time: &DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let before = match &self.heard_before {
            Some(heard) => format!("The session before was last heard from at {}.", time(heard)),
            None => "No earlier session was heard from.".to_owned(),
        };
        let env = match self.env.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        format!(
            "This workspace was restarted at {}. {before} Variables in its environment: {env}.",
            time(&self.restarted_at)
        )
    }

    /// The call, as any agent understands it.
    fn message(&self, request: Uuid, message: Uuid) -> Value {
        let metadata = json!({"source": "platform", "kind": "restart_context", "layer": 1, "restart_context": true});
        json!({
            "jsonrpc": "2.0",
            "id": request,
            "method": "message/send",
            "params": {"message": {
                "role": "user",
                "messageId": message,
                "parts": [{"kind": "text", "text": self.text()}],
                "metadata": metadata,
            }},
        })
    }
}

impl ControlPlane {
    /// Begins to wait for the agent of `attempt`, and tells it. Without effect where it does not come in time.
    pub(crate) fn tell_of_restart(&self, workspace: &Workspace, attempt: AttemptId, context: RestartContext) {
        let (this, id) = (self.clone(), workspace.id);
        self.inner.tasks.spawn(async move {
            let told = async {
                let there = async {
                    loop {
                        let row = this.inner.store.workspace(id).await?;
                        let row = row.filter(|row| row.provision_attempt == Some(attempt));
                        match row {
                            Some(row) if row.status == Status::Online => return Ok(Some(row)),
                            Some(row) if row.status == Status::Provisioning => {}
                            _ => return Ok(None),
                        }
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                };
                match tokio::time::timeout(WAIT, there).await {
                    Ok(Ok(Some(row))) if !row.url.is_empty() => this.deliver_context(&row, &context).await,
                    Ok(Err(error)) => Err(error),
                    _ => Ok(()),
                }
            };
            let told = tokio::select! {
                told = told => told,
                () = this.inner.stop.cancelled() => return,
            };
            if let Err(error) = told {
                tracing::info!(workspace.id = %id, error = error.detail(), "an agent was not told of its restart");
            }
        });
    }

    async fn deliver_context(&self, workspace: &Workspace, context: &RestartContext) -> Result<()> {
        let [request, message] = [(), ()].map(|()| random_uuid(&*self.inner.entropy));
        let body = context.message(request, message);
        let client = self.client_for(workspace).await?;
        let sent = client.post(&workspace.url).json(&body).timeout(PATIENCE).send().await;
        sent.and_then(reqwest::Response::error_for_status).map(drop).map_err(|error| {
            Error::new(ErrorKind::Upstream, "the agent did not take the message").caused_by(error.without_url())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_what_agents_take() {
        let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let context = RestartContext {
            restarted_at: at(60),
            heard_before: Some(at(0)),
            env: vec!["A_KEY".to_owned(), "MODEL".to_owned()],
        };
        let message = context.message(Uuid::nil(), Uuid::nil());
        assert_eq!(message["method"], "message/send");
        let message = &message["params"]["message"];
        assert_eq!(
            message["parts"],
            json!([{"kind": "text", "text": "This workspace was restarted at 2027-01-15T08:01:00Z. The session before \
                was last heard from at 2027-01-15T08:00:00Z. Variables in its environment: A_KEY, MODEL."}])
        );
        let metadata = json!({"source": "platform", "kind": "restart_context", "layer": 1, "restart_context": true});
        assert_eq!(message["metadata"], metadata);
        let first = RestartContext { heard_before: None, env: Vec::new(), ..context };
        assert!(first.text().ends_with("No earlier session was heard from. Variables in its environment: none."));
    }
}
