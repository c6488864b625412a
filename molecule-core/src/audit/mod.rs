//! What agents answer for: a ledger of their steps, each row signed together with the one before it.

mod chain;
mod key;

use chrono::{DateTime, Utc};

pub(crate) use self::chain::judge;
pub use self::key::AuditKey;
use crate::{
    activity::query::{limit, micros_up},
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    store::pool::{row, text_enum},
    workspace::lifecycle::{gone_is_not_found, said},
};

/// How many rows a page holds where nobody says, and at most.
const PAGE: u32 = 100;
const LONGEST_PAGE: u32 = 500;

/// The longest text of a row, in characters.
const LONGEST_TEXT: usize = 200;

text_enum! {
    /// A step of an agent.
    pub enum Operation {
        /// It began with a task.
        TaskStart = "task_start",
        /// It asked a model.
        LlmCall = "llm_call",
        /// It used a tool.
        ToolCall = "tool_call",
        /// It is done with a task.
        TaskEnd = "task_end",
    }
}

row! {
    /// A row of the ledger.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct AuditEvent {
        /// Names it.
        pub id: String,
        /// When. Signed to the second.
        pub timestamp: DateTime<Utc>,
        /// Who took the step; rows of one agent of a workspace are a chain.
        pub agent_id: String,
        /// In which session.
        pub session_id: String,
        /// What the step was.
        pub operation: Operation,
        /// The hash of what went in.
        pub input_hash: Option<String>,
        /// The hash of what came out.
        pub output_hash: Option<String>,
        /// The model that was asked.
        pub model_used: Option<String>,
        /// A person looked at it.
        pub human_oversight_flag: bool,
        /// It may do harm.
        pub risk_flag: bool,
        /// The signature of the row before it; none for the first.
        pub prev_hmac: Option<String>,
        /// Its signature; none where the server had no key.
        pub hmac: Option<String>,
        /// Whose agent it was.
        pub workspace_id: WorkspaceId,
    }
}

/// A step that an agent answers for.
#[derive(Debug, Clone, Default)]
pub struct NewAuditEvent {
    /// Who took it, where a workspace has several agents; the workspace itself where it is empty.
    pub agent_id: String,
    /// In which session.
    pub session_id: String,
    /// The name of an [`Operation`].
    pub operation: String,
    /// The hash of what went in.
    pub input_hash: Option<String>,
    /// The hash of what came out.
    pub output_hash: Option<String>,
    /// The model that was asked.
    pub model_used: Option<String>,
    /// A person looked at it.
    pub human_oversight_flag: bool,
    /// It may do harm.
    pub risk_flag: bool,
}

/// Which rows to read, as the client wrote it. What is empty counts as left out; what is given must all hold.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Those of this agent.
    pub agent_id: String,
    /// Those of this session.
    pub session_id: String,
    /// Those at this time or later.
    pub from: String,
    /// Those before this time.
    pub to: String,
    /// How many; what is no number above 0 counts as left out.
    pub limit: String,
    /// How many to pass over first; what is no number above 0 counts as left out.
    pub offset: String,
}

/// A page of the ledger.
#[derive(Debug, Clone)]
pub struct AuditTrail {
    /// The rows, oldest first.
    pub events: Vec<AuditEvent>,
    /// How many rows the query fits, on this page or not.
    pub total: i64,
    /// Whether these are the rows that were signed, each behind the one that came before it. None where that cannot be
    /// told: without a key, behind an offset, or where a row was kept without a signature.
    pub chain_valid: Option<bool>,
}

/// Which rows to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) agent_id: String,
    pub(crate) session_id: String,
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    pub(crate) limit: i64,
    pub(crate) offset: i64,
}

impl AuditQuery {
    fn window(&self) -> Result<Window> {
        let time = |text: &str, otherwise: DateTime<Utc>, refusal: &'static str| match text.trim() {
            "" => Ok(otherwise),
            text => DateTime::parse_from_rfc3339(text)
                .map(|time| micros_up(time.to_utc()))
                .map_err(|_| Error::invalid(refusal)),
        };
        let (first, last) = crate::activity::query::all_time();
        Ok(Window {
            agent_id: self.agent_id.clone(),
            session_id: self.session_id.clone(),
            from: time(&self.from, first, "from must be RFC 3339 (e.g. 2026-04-17T00:00:00Z)")?,
            to: time(&self.to, last, "to must be RFC 3339 (e.g. 2026-04-17T23:59:59Z)")?,
            limit: i64::from(limit(&self.limit, PAGE, LONGEST_PAGE)),
            offset: i64::from(limit(&self.offset, 0, u32::MAX)),
        })
    }
}

impl NewAuditEvent {
    /// The step, where it can be kept as it is.
    fn check(&self) -> Result<Operation> {
        let operation = self.operation.parse().map_err(|_| {
            let names: Vec<_> = Operation::ALL.iter().map(|operation| operation.as_str()).collect();
            Error::invalid(format!("operation must be one of: {}", names.join(", ")))
        })?;
        if self.session_id.trim().is_empty() {
            return Err(Error::invalid("session_id is required"));
        }
        let texts = [
            ("agent_id", Some(&self.agent_id)),
            ("session_id", Some(&self.session_id)),
            ("input_hash", self.input_hash.as_ref()),
            ("output_hash", self.output_hash.as_ref()),
            ("model_used", self.model_used.as_ref()),
        ];
        for (name, text) in texts {
            if text.is_some_and(|text| text.chars().nth(LONGEST_TEXT).is_some()) {
                return Err(Error::invalid(format!("{name} must be <= {LONGEST_TEXT} characters")));
            }
        }
        Ok(operation)
    }
}

impl ControlPlane {
    /// Keeps a step of an agent behind those before it, signed where there is a key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a broken rule; [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn append_audit(&self, id: WorkspaceId, new: NewAuditEvent) -> Result<AuditEvent> {
        let operation = new.check()?;
        self.existing(id).await.map_err(gone_is_not_found)?;
        let event = AuditEvent {
            id: random_uuid(&*self.inner.entropy).to_string(),
            timestamp: self.now(),
            agent_id: if new.agent_id.trim().is_empty() { id.to_string() } else { new.agent_id },
            session_id: new.session_id,
            operation,
            input_hash: new.input_hash,
            output_hash: new.output_hash,
            model_used: new.model_used,
            human_oversight_flag: new.human_oversight_flag,
            risk_flag: new.risk_flag,
            prev_hmac: None,
            hmac: None,
            workspace_id: id,
        };
        let kept = self.inner.store.append_audit(event, self.inner.config.audit_key.as_ref()).await;
        kept.map_err(|error| match error.kind() {
            ErrorKind::NotFound => error,
            _ => said(error, "failed to record audit event"),
        })
    }

    /// One page of the ledger of a workspace, and whether it is what was signed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a time that cannot be read; [`ErrorKind::NotFound`] for an unknown or removed
    /// workspace.
    pub async fn audit(&self, id: WorkspaceId, query: &AuditQuery) -> Result<AuditTrail> {
        let window = query.window()?;
        self.existing(id).await.map_err(gone_is_not_found)?;
        let (rows, total) = self.inner.store.audit(id, &window).await?;
        let key = self.inner.config.audit_key.as_ref().filter(|_| window.offset == 0);
        let chain_valid = key.and_then(|key| judge(key, &rows));
        Ok(AuditTrail { events: rows.into_iter().map(|row| row.event).collect(), total, chain_valid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &AuditQuery) -> String {
        query.window().unwrap_err().message().to_owned()
    }

    #[test]
    fn times_that_cannot_be_read_are_named() {
        for bad in ["yesterday", "2026-04-17", "2026-04-17T00:00:00", "' OR 1=1"] {
            let query = AuditQuery { from: bad.into(), to: bad.into(), ..AuditQuery::default() };
            assert_eq!(refusal(&query), "from must be RFC 3339 (e.g. 2026-04-17T00:00:00Z)", "{bad}");
            let query = AuditQuery { from: String::new(), ..query };
            assert_eq!(refusal(&query), "to must be RFC 3339 (e.g. 2026-04-17T23:59:59Z)", "{bad}");
        }
    }

    #[test]
    fn pages_have_bounds() {
        let window = |limit: &str, offset: &str| {
            let query = AuditQuery { limit: limit.into(), offset: offset.into(), ..AuditQuery::default() };
            query.window().map(|window| (window.limit, window.offset)).unwrap()
        };
        assert_eq!(window("", ""), (100, 0));
        assert_eq!(window("7", "3"), (7, 3));
        assert_eq!(window("501", "x"), (500, 0));
        assert_eq!(window("0", "-1"), (100, 0));
        assert_eq!(window("-1", "99999999999"), (100, i64::from(u32::MAX)));
    }

    #[test]
    fn steps_are_checked() {
        let step = |operation: &str, session_id: &str| NewAuditEvent {
            operation: operation.into(),
            session_id: session_id.into(),
            ..NewAuditEvent::default()
        };
        assert_eq!(step("llm_call", "s").check().unwrap(), Operation::LlmCall);
        let refused = |new: NewAuditEvent| new.check().unwrap_err().message().to_owned();
        let named = "operation must be one of: task_start, llm_call, tool_call, task_end";
        for odd in ["", "LLM_CALL", "other"] {
            assert_eq!(refused(step(odd, "s")), named);
        }
        assert_eq!(refused(step("task_end", " ")), "session_id is required");
        let long = "ü".repeat(201);
        assert!(step("task_end", &long[2..]).check().is_ok());
        assert_eq!(refused(step("task_end", &long)), "session_id must be <= 200 characters");
        let new = NewAuditEvent { model_used: Some(long), ..step("task_end", "s") };
        assert_eq!(refused(new), "model_used must be <= 200 characters");
    }
}
