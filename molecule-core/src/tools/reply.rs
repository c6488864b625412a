//! What another agent's answer to a message says: pure.

use serde_json::Value;

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// What the agent said.
    Text(String),
    /// It will be delivered later.
    Queued,
    /// What is wrong, in the words of who answered.
    Error(String),
}

/// The states of a task that came to nothing (A2A 0.3 and 1.0).
const FAILED: [&str; 7] = [
    "failed",
    "rejected",
    "canceled",
    "TASK_STATE_FAILED",
    "TASK_STATE_REJECTED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_CANCELLED",
];

/// Reads `answer`, a JSON-RPC response or what the platform says in its place.
pub(crate) fn read(answer: &Value) -> Reply {
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        let said = error.as_str().or_else(|| error.get("message")?.as_str());
        return Reply::Error(said.map_or_else(|| error.to_string(), str::to_owned));
    }
    let result = answer.get("result").unwrap_or(answer);
    // The newer protocol says what kind of result it is by a member around it.
    let result = ["message", "task"].iter().find_map(|kind| result.get(kind)).unwrap_or(result);
    let is_queued = |value: &Value| {
        value.get("queued") == Some(&Value::Bool(true)) || value.get("status").is_some_and(|status| status == "queued")
    };
    if is_queued(answer) || is_queued(result) {
        return Reply::Queued;
    }
    let state = result.pointer("/status/state").and_then(Value::as_str);
    let failed = state.filter(|state| FAILED.contains(state));
    // A message, the message of a task's status, or what a task made.
    let artifacts = result.get("artifacts").and_then(Value::as_array).into_iter().flatten();
    let places = [Some(result), result.pointer("/status/message")].into_iter().flatten().chain(artifacts);
    let texts: Vec<String> = places.map(parts).find(|texts| !texts.is_empty()).unwrap_or_default();
    if let Some(state) = failed {
        let why = if texts.is_empty() { "no reason was given".to_owned() } else { texts.join("\n") };
        return Reply::Error(format!("the task is {state}: {why}"));
    }
    if !texts.is_empty() {
        return Reply::Text(texts.join("\n"));
    }
    match result.as_str() {
        Some(text) => Reply::Text(text.to_owned()),
        None => Reply::Text(format!("(the agent answered without a text: {result})")),
    }
}

/// The texts of the parts of `value`.
pub(crate) fn parts(value: &Value) -> Vec<String> {
    let parts = value.get("parts").and_then(Value::as_array).into_iter().flatten();
    let is_text = |part: &&Value| {
        let kind = part.get("kind").or_else(|| part.get("type"));
        kind.is_none_or(|kind| kind == "text")
    };
    parts.filter(is_text).filter_map(|part| part.get("text")?.as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_shape_of_an_answer_is_read() {
        let text = |text: &str| Reply::Text(text.into());
        let error = |text: &str| Reply::Error(text.into());
        for (answer, expected) in [
            (
                json!({"result": {"parts": [{"kind": "text", "text": "a"}, {"type": "text", "text": "b"}]}}),
                text("a\nb"),
            ),
            (json!({"result": {"parts": [{"kind": "data", "text": "x"}, {"text": "a"}]}}), text("a")),
            (
                json!({"result": {"status": {"state": "failed", "message": {"parts": [{"kind": "text", "text": "a"}]}}}}),
                error("the task is failed: a"),
            ),
            (
                json!({"result": {"status": {"state": "TASK_STATE_REJECTED"}}}),
                error("the task is TASK_STATE_REJECTED: no reason was given"),
            ),
            (
                json!({"result": {"status": {"state": "completed", "message": {"parts": [{"kind": "text", "text": "a"}]}}}}),
                text("a"),
            ),
            (
                json!({"result": {"parts": [], "artifacts": [{"parts": []}, {"parts": [{"kind": "text", "text": "a"}]}]}}),
                text("a"),
            ),
            (json!({"result": {"message": {"role": "ROLE_AGENT", "parts": [{"text": "a"}]}}}), text("a")),
            (
                json!({"result": {"task": {"status": {"state": "TASK_STATE_COMPLETED"}, "artifacts": [{"parts": [{"text": "a"}]}]}}}),
                text("a"),
            ),
            (
                json!({"result": {"task": {"status": {"state": "TASK_STATE_FAILED", "message": {"parts": [{"text": "a"}]}}}}}),
                error("the task is TASK_STATE_FAILED: a"),
            ),
            (json!({"result": "plain"}), text("plain")),
            (json!({"result": {}}), text("(the agent answered without a text: {})")),
            (json!({"queued": true, "queue_depth": 1}), Reply::Queued),
            (json!({"status": "queued"}), Reply::Queued),
            (json!({"result": {"status": "queued"}}), Reply::Queued),
            (json!({"error": {"code": -1, "message": "no"}}), error("no")),
            (json!({"error": "no"}), error("no")),
            (json!({"error": {"code": -1}}), error(r#"{"code":-1}"#)),
            (json!({"error": null, "result": "a"}), text("a")),
        ] {
            assert_eq!(read(&answer), expected, "{answer}");
        }
    }
}
