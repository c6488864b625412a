//! What agents write into their log: reports of what they did, and words to the user.

use serde_json::{Value, json};

use super::{NewActivity, preview};
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    workspace::lifecycle::gone_is_not_found,
};

/// The types that an agent may report; others the control plane alone writes.
pub const REPORTABLE: [&str; 7] =
    ["a2a_send", "a2a_receive", "task_update", "agent_log", "skill_promotion", "memory_write", "error"];

/// How much of a message its summary shows, in characters.
const SHOWN: usize = 80;

/// What an agent says to have done. What is empty counts as left out.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What kind of thing: one of [`REPORTABLE`].
    pub activity_type: String,
    /// By which method.
    pub method: Option<String>,
    /// In one line.
    pub summary: Option<String>,
    /// To whom.
    pub target_id: String,
    /// Who: the workspace itself.
    pub source_id: String,
    /// How it ended; `ok` where nothing is said.
    pub status: String,
    /// Why it failed.
    pub error_detail: Option<String>,
    /// How long it took.
    pub duration_ms: Option<i64>,
    /// What was asked.
    pub request_body: Option<Value>,
    /// What was answered.
    pub response_body: Option<Value>,
    /// Stands for `request_body` where that is left out.
    pub metadata: Option<Value>,
}

/// A file beside a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Where it is.
    pub uri: String,
    /// What people call it.
    pub name: String,
    /// What it holds.
    pub mime_type: Option<String>,
    /// How large it is, in bytes.
    pub size: Option<i64>,
}

impl Attachment {
    fn json(&self) -> Value {
        let mut value = json!({"uri": self.uri, "name": self.name});
        if let Some(mime_type) = self.mime_type.as_ref().filter(|mime_type| !mime_type.is_empty()) {
            value["mimeType"] = mime_type.as_str().into();
        }
        if let Some(size) = self.size.filter(|size| *size != 0) {
            value["size"] = size.into();
        }
        value
    }
}

impl Report {
    /// Fills in `new` with what is reported.
    fn row(self, new: NewActivity) -> Result<NewActivity> {
        let id = new.workspace_id;
        if !REPORTABLE.contains(&self.activity_type.as_str()) {
            let text = format!("invalid activity_type, must be one of: {}", REPORTABLE.join(", "));
            return Err(Error::invalid(text));
        }
        let source = self.source_id.trim();
        if !source.is_empty() && source.parse().ok() != Some(id) {
            let text = "source_id must match authenticated workspace";
            return Err(Error::new(ErrorKind::PermissionDenied, text).context("source_id", source.escape_debug()));
        }
        let target = Some(self.target_id.trim()).filter(|target| !target.is_empty());
        let target = target.map(str::parse::<WorkspaceId>).transpose();
        Ok(NewActivity {
            activity_type: self.activity_type,
            source_id: Some(id),
            target_id: target.map_err(|_| Error::invalid("target_id must be a UUID"))?,
            method: self.method,
            summary: self.summary,
            request_body: self.request_body.or(self.metadata),
            response_body: self.response_body,
            duration_ms: self.duration_ms.map(|took| i32::try_from(took.max(0)).unwrap_or(i32::MAX)),
            status: if self.status.is_empty() { new.status.clone() } else { self.status },
            error_detail: self.error_detail,
            ..new
        })
    }
}

impl ControlPlane {
    /// Keeps what an agent says to have done, and tells listeners of it.
    ///
    /// A report that cannot be kept is lost: it is logged and counted, and the agent goes on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what is no report, [`ErrorKind::PermissionDenied`] in the name of another,
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn report(&self, id: WorkspaceId, report: Report) -> Result<()> {
        let row = report.row(self.new_activity(id, ""))?;
        self.existing(id).await.map_err(gone_is_not_found)?;
        self.log_or_count(&row).await;
        Ok(())
    }

    /// Tells listeners what an agent says to its user, and keeps it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what says nothing, [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn notify(&self, id: WorkspaceId, message: &str, attachments: &[Attachment]) -> Result<()> {
        if message.is_empty() {
            return Err(Error::invalid("message is required"));
        }
        if let Some(n) = attachments.iter().position(|file| file.uri.is_empty() || file.name.is_empty()) {
            return Err(Error::invalid(format!("attachment[{n}]: uri and name are required")));
        }
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        let files: Vec<Value> = attachments.iter().map(Attachment::json).collect();
        let mut payload = json!({"message": message, "workspace_id": id, "name": workspace.name});
        let mut kept = json!({"result": message});
        if !files.is_empty() {
            kept["parts"] = files.iter().map(|file| json!({"kind": "file", "file": file})).collect();
            payload["attachments"] = files.into();
        }
        self.announce(self.event(EventKind::AgentMessage, id, payload));
        let (shown, more) = preview(message, SHOWN);
        let row = NewActivity {
            method: Some("notify".to_owned()),
            summary: Some(format!("Agent message: {shown}{}", if more { "…" } else { "" })),
            response_body: Some(kept),
            ..self.new_activity(id, "a2a_receive")
        };
        self.keep_or_count(&row).await;
        Ok(())
    }

    /// Writes a row and tells of it; what cannot be written is logged and counted.
    pub(crate) async fn log_or_count(&self, row: &NewActivity) {
        if self.keep_or_count(row).await {
            self.tell_activity(row);
        }
    }

    async fn keep_or_count(&self, row: &NewActivity) -> bool {
        let Err(error) = self.inner.store.insert_activity(row).await else { return true };
        self.inner.activity_lost.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::error!(
            workspace.id = %row.workspace_id,
            activity.type_ = row.activity_type,
            error = error.detail(),
            "an activity could not be kept"
        );
        false
    }

    /// How many rows of the activity log this process could not write.
    pub fn activity_lost(&self) -> u64 {
        self.inner.activity_lost.load(std::sync::atomic::Ordering::Relaxed)
    }
}
