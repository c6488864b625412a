//! What an answer means for a delegation: pure.

use serde_json::{Value, json};

use crate::{
    a2a::Answer,
    activity::preview,
    error::{Error, ErrorKind},
    events::EventKind,
    id::WorkspaceId,
    tools::reply::{self, Reply},
};

/// How much of a reply its summary shows, and how much listeners are told, in characters.
const SUMMARY_SHOWN: usize = 80;
const REPLY_SHOWN: usize = 200;

/// What became of a delegation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The agent replied.
    Completed(String),
    /// The task is kept until the agent has time.
    Queued,
    /// There is no reply, and why.
    Failed(String),
}

impl Outcome {
    /// What a call means.
    pub(super) fn of(called: &Result<Answer, Error>) -> Self {
        let answer = match called {
            Ok(answer) => answer,
            Err(error) => return Self::Failed(error.message().to_owned()),
        };
        let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or(Value::Null);
        let is_kept = answer.status == 202 && body["queued"] == true
            || body["status"] == "queued" && body["delivery_mode"] == "poll";
        if is_kept {
            return Self::Queued;
        }
        if answer.status >= 300 {
            let said = body["error"].as_str().map(str::to_owned);
            return Self::Failed(said.unwrap_or_else(|| format!("the agent answered with status {}", answer.status)));
        }
        Self::of_reply(&body, &answer.body)
    }

    /// What an answer that came means, `raw` being its text.
    pub(crate) fn of_reply(body: &Value, raw: &[u8]) -> Self {
        match reply::read(body) {
            Reply::Error(why) => Self::Failed(why),
            Reply::Text(_) | Reply::Queued => Self::Completed(
                reply_text(body).map_or_else(|| String::from_utf8_lossy(raw).into_owned(), str::to_owned),
            ),
        }
    }

    pub(super) fn status(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Queued => "queued",
            Self::Failed(_) => "failed",
        }
    }

    pub(super) fn summary(&self) -> String {
        match self {
            Self::Completed(text) => format!("Delegation completed ({})", preview(text, SUMMARY_SHOWN).0),
            Self::Queued => "Delegation queued — target at capacity".to_owned(),
            Self::Failed(_) => "Delegation failed".to_owned(),
        }
    }

    pub(super) fn response_body(&self, id: &str) -> Value {
        match self {
            Self::Completed(text) => json!({"text": text, "delegation_id": id}),
            Self::Queued => json!({"delegation_id": id, "queued": true}),
            Self::Failed(_) => json!({"delegation_id": id}),
        }
    }

    pub(super) fn error(&self) -> Option<String> {
        match self {
            Self::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> EventKind {
        match self {
            Self::Completed(_) => EventKind::DelegationComplete,
            Self::Queued => EventKind::DelegationStatus,
            Self::Failed(_) => EventKind::DelegationFailed,
        }
    }

    pub(super) fn payload(&self, id: &str, target: Option<WorkspaceId>, via: Option<&str>) -> Value {
        let mut payload = json!({"delegation_id": id});
        if let Some(target) = target {
            payload["target_id"] = json!(target);
        }
        match self {
            Self::Completed(text) => payload["response_preview"] = preview(text, REPLY_SHOWN).0.into(),
            Self::Queued => payload["status"] = "queued".into(),
            Self::Failed(error) => payload["error"] = error.as_str().into(),
        }
        if let Some(via) = via {
            payload["via"] = via.into();
        }
        payload
    }
}

/// The first text of a reply, in its parts or in those of its artifacts.
fn reply_text(body: &Value) -> Option<&str> {
    fn text(parts: &Value) -> Option<&str> {
        parts.as_array()?.iter().find_map(|part| part["text"].as_str())
    }
    let result = &body["result"];
    // The newer protocol says what kind of result it is by a member around it.
    [result, &result["message"], &result["task"]].into_iter().find_map(|result| {
        text(&result["parts"]).or_else(|| result["artifacts"].as_array()?.iter().find_map(|made| text(&made["parts"])))
    })
}

/// Whether a call that failed may be made once more: the agent is known not to have the task, and is not just busy.
pub(super) fn may_retry(called: &Result<Answer, Error>) -> bool {
    let Err(error) = called else { return false };
    let says = |name: &str| error.members().iter().find(|(member, _)| *member == name).map(|(_, value)| value);
    let undelivered = error.kind() == ErrorKind::Upstream && says("delivery_confirmed").is_none();
    undelivered || says("restarting") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Result<Answer, Error> {
        Ok(Answer { status, body: body.as_bytes().into(), is_events: false })
    }

    fn error(kind: ErrorKind, members: &[(&'static str, Value)]) -> Result<Answer, Error> {
        let error = Error::new(kind, "why");
        Err(members.iter().fold(error, |error, (name, value)| error.with_member(name, value.clone())))
    }

    #[test]
    fn what_an_answer_means_row_by_row() {
        let completed = |text: &str| Outcome::Completed(text.to_owned());
        let failed = |text: &str| Outcome::Failed(text.to_owned());
        let rows = [
            (answer(200, r#"{"result":{"parts":[{"kind":"data"},{"type":"text","text":"a"}]}}"#), completed("a")),
            (answer(200, r#"{"result":{"artifacts":[{"parts":[]},{"parts":[{"text":"b"}]}]}}"#), completed("b")),
            (answer(200, r#"{"result":{"message":{"parts":[{"text":"c"}]}}}"#), completed("c")),
            (answer(200, r#"{"result":{"task":{"artifacts":[{"parts":[{"text":"d"}]}]}}}"#), completed("d")),
            (
                answer(200, r#"{"result":{"status":{"state":"failed","message":{"parts":[{"text":"e"}]}}}}"#),
                failed("the task is failed: e"),
            ),
            (answer(200, r#"{"result":5}"#), completed(r#"{"result":5}"#)),
            (answer(200, "plain"), completed("plain")),
            (answer(200, r#"{"error":{"code":-1,"message":"no model"}}"#), failed("no model")),
            (answer(200, r#"{"error":"odd"}"#), failed("odd")),
            (answer(200, r#"{"error":7}"#), failed("7")),
            (answer(202, r#"{"queued":true,"queue_id":"x"}"#), Outcome::Queued),
            (answer(200, r#"{"status":"queued","delivery_mode":"poll","method":"m"}"#), Outcome::Queued),
            (answer(500, r#"{"error":"broken"}"#), failed("broken")),
            (answer(302, ""), failed("the agent answered with status 302")),
            (error(ErrorKind::Upstream, &[]), failed("why")),
        ];
        for (called, expected) in rows {
            assert_eq!(Outcome::of(&called), expected, "{called:?}");
        }
    }

    #[test]
    fn only_what_did_not_arrive_is_sent_again() {
        let rows = [
            (answer(200, "{}"), false),
            (answer(502, r#"{"error":"bad gateway"}"#), false),
            (error(ErrorKind::Upstream, &[]), true),
            (error(ErrorKind::Upstream, &[("delivery_confirmed", true.into())]), false),
            (error(ErrorKind::Upstream, &[("delivery_confirmed", false.into())]), false),
            (error(ErrorKind::Unavailable, &[("restarting", true.into())]), true),
            (error(ErrorKind::Unavailable, &[("busy", true.into())]), false),
            (error(ErrorKind::Unavailable, &[]), false),
            (error(ErrorKind::BudgetExceeded, &[]), false),
        ];
        for (called, expected) in rows {
            assert_eq!(may_retry(&called), expected, "{called:?}");
        }
    }

    #[test]
    fn previews_are_cut_between_characters() {
        let long = Outcome::Completed("ü".repeat(500));
        assert_eq!(long.summary(), format!("Delegation completed ({})", "ü".repeat(80)));
        assert_eq!(long.payload("d", None, None)["response_preview"], "ü".repeat(200));
    }
}
