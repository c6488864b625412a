//! Tasks for agents that speak A2A 1.0 alone: pure. What most agents speak, 0.3, is tried first.

use serde_json::{Value, json};

/// What `A2A-Version` says of it.
pub(crate) const VERSION: &str = "1.0";

/// The codes by which an agent says that it speaks another version, or knows no such method: it did nothing yet.
const OTHER: [i64; 2] = [-32009, -32601];

/// Whether `answer` says that its agent wants the task in another version.
pub(crate) fn is_wanted(answer: &Value) -> bool {
    answer.pointer("/error/code").and_then(Value::as_i64).is_some_and(|code| OTHER.contains(&code))
}

/// The request to do `task`, in a message called `id`.
pub(crate) fn request(id: &str, task: &str, metadata: Option<Value>) -> Value {
    let mut message = json!({"role": "ROLE_USER", "messageId": id, "parts": [{"text": task}]});
    if let Some(metadata) = metadata {
        message["metadata"] = metadata;
    }
    json!({"jsonrpc": "2.0", "id": id, "method": "SendMessage", "params": {"message": message}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_says_that_it_wants_another_version() {
        for (answer, expected) in [
            (json!({"error": {"code": -32009}}), true),
            (json!({"error": {"code": -32601, "message": "Method not found"}}), true),
            (json!({"error": {"code": -32603}}), false),
            (json!({"error": "busy"}), false),
            (json!({"result": {"code": -32009}}), false),
        ] {
            assert_eq!(is_wanted(&answer), expected, "{answer}");
        }
    }

    #[test]
    fn a_task_is_a_message() {
        let message = json!({"role": "ROLE_USER", "messageId": "m", "parts": [{"text": "add"}], "metadata": {"a": 1}});
        let expected = json!({"jsonrpc": "2.0", "id": "m", "method": "SendMessage", "params": {"message": message}});
        assert_eq!(request("m", "add", Some(json!({"a": 1}))), expected);
        assert!(request("m", "add", None).pointer("/params/message/metadata").is_none());
    }
}
