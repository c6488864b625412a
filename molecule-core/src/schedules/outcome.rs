//! What a run came to: from the agent's answer to what is kept of it.

use serde_json::Value;

use crate::store::pool::text_enum;

/// So many answers without a word in a row mean that something is wrong with the schedule or its agent.
const EMPTY_RUNS: i32 = 3;

text_enum! {
    /// How a run ended.
    pub enum RunStatus {
        /// The agent did what it was asked for.
        Ok = "ok",
        /// It could not be asked, or refused.
        Error = "error",
        /// It has answered nothing for the third time in a row.
        Stale = "stale",
        /// It was busy all the time.
        Skipped = "skipped",
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: RunStatus,
    pub(crate) error: Option<String>,
    /// How many runs in a row were answered with nothing.
    pub(crate) empty_runs: i32,
}

/// Judges an answer, after `empty_runs` in a row without a word.
pub(crate) fn judge(answer: Result<(u16, &[u8]), String>, empty_runs: i32) -> Outcome {
    let failed = |why: String| Outcome { status: RunStatus::Error, error: Some(why), empty_runs };
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(why) => return failed(why),
    };
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = &body["error"];
    let said = said.as_str().or_else(|| said["message"].as_str());
    if status >= 300 || !body["error"].is_null() {
        return failed(said.map_or_else(|| format!("the agent answered with status {status}"), str::to_owned));
    }
    // What is kept until the agent has time is no answer yet.
    let queued = status == 202 || body["status"] == "queued" || body["queued"] == true;
    let empty_runs = if queued || has_words(&body["result"]) { 0 } else { empty_runs.saturating_add(1) };
    let status = if empty_runs >= EMPTY_RUNS { RunStatus::Stale } else { RunStatus::Ok };
    Outcome { status, error: None, empty_runs }
}

/// Whether there is any text in the parts of an answer, at whatever depth.
fn has_words(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| match value {
            Value::String(text) => name == "text" && !text.trim().is_empty(),
            value => has_words(value),
        }),
        Value::Array(items) => items.iter().any(has_words),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_row_by_row() {
        let words = r#"{"result":{"parts":[{"kind":"text","text":"done"}]}}"#;
        let nested = r#"{"result":{"status":{"message":{"parts":[{"text":"x"}]}},"id":"7"}}"#;
        let empty = r#"{"result":{"parts":[{"kind":"text","text":"  "}],"messageId":"m"}}"#;
        let rows = [
            (Ok((200, words)), 2, RunStatus::Ok, None, 0),
            (Ok((200, nested)), 0, RunStatus::Ok, None, 0),
            (Ok((200, empty)), 0, RunStatus::Ok, None, 1),
            (Ok((200, empty)), 1, RunStatus::Ok, None, 2),
            (Ok((200, empty)), 2, RunStatus::Stale, None, 3),
            (Ok((200, "no json")), i32::MAX, RunStatus::Stale, None, i32::MAX),
            (Ok((202, r#"{"queued":true}"#)), 2, RunStatus::Ok, None, 0),
            (Ok((200, r#"{"status":"queued"}"#)), 2, RunStatus::Ok, None, 0),
            (Ok((200, r#"{"error":{"code":-1,"message":"no"}}"#)), 2, RunStatus::Error, Some("no"), 2),
            (Ok((500, r#"{"error":"broke"}"#)), 0, RunStatus::Error, Some("broke"), 0),
            (Ok((500, "")), 0, RunStatus::Error, Some("the agent answered with status 500"), 0),
            (Err("away".to_owned()), 1, RunStatus::Error, Some("away"), 1),
        ];
        for (answer, before, status, error, empty_runs) in rows {
            let judged = judge(answer.clone().map(|(status, body)| (status, body.as_bytes())), before);
            let expected = Outcome { status, error: error.map(str::to_owned), empty_runs };
            assert_eq!(judged, expected, "{answer:?}");
        }
    }
}
