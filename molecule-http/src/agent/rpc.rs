//! What the reference agent answers to JSON-RPC: the text of a message, once more.

use serde_json::{Map, Value, json};

const PARSE_ERROR: Failure = Failure(-32700, "the body is not JSON");
const METHOD_NOT_FOUND: Failure = Failure(-32601, "method not found: this agent answers message/send");

/// The code and the text of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failure(i32, &'static str);

/// The answer to the request in `body`; `None` when it is a notification, which nothing answers.
///
/// `message_id` names a new message.
pub(super) fn answer(body: &[u8], message_id: impl FnOnce() -> String) -> Option<Value> {
    let Ok(request) = serde_json::from_slice(body) else { return Some(failed(&Value::Null, PARSE_ERROR)) };
    let request = match Request::read(&request) {
        Ok(request) => request,
        Err((id, failure)) => return Some(failed(id, failure)),
    };
    let id = request.id?;
    Some(match request.call() {
        Ok(message) => json!({"jsonrpc": "2.0", "id": id, "result": message.reply(message_id())}),
        Err(failure) => failed(id, failure),
    })
}

fn failed(id: &Value, Failure(code, message): Failure) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

struct Request<'a> {
    id: Option<&'a Value>,
    method: &'a str,
    params: Option<&'a Value>,
}

impl<'a> Request<'a> {
    /// Reads a request, or says what it breaks and which id its answer carries.
    fn read(value: &'a Value) -> Result<Self, (&'a Value, Failure)> {
        let invalid = |text| Failure(-32600, text);
        let Some(request) = value.as_object() else {
            return Err((&Value::Null, invalid("the request is not a JSON object")));
        };
        let id = request.get("id");
        if id.is_some_and(|id| !matches!(id, Value::String(_) | Value::Number(_) | Value::Null)) {
            return Err((&Value::Null, invalid("the id is neither a string nor a number")));
        }
        let answered = id.unwrap_or(&Value::Null);
        if request.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err((answered, invalid("jsonrpc is not \"2.0\"")));
        }
        let method = request.get("method").and_then(Value::as_str);
        let method = method.ok_or((answered, invalid("the method is not a string")))?;
        Ok(Self { id, method, params: request.get("params") })
    }

    fn call(&self) -> Result<Message<'a>, Failure> {
        if self.method != "message/send" {
            return Err(METHOD_NOT_FOUND);
        }
        Message::read(self.params)
    }
}

struct Message<'a> {
    text: String,
    context_id: Option<&'a str>,
    task_id: Option<&'a str>,
}

impl<'a> Message<'a> {
    fn read(params: Option<&'a Value>) -> Result<Self, Failure> {
        let invalid = |text| Failure(-32602, text);
        let message = params
            .and_then(|params| params.get("message"))
            .and_then(Value::as_object)
            .ok_or(invalid("params.message is not an object"))?;
        let text = match (message.get("parts"), message.get("content")) {
            (Some(Value::Array(parts)), _) if !parts.is_empty() => {
                text_of(parts).ok_or(invalid("a text part of params.message.parts holds no text"))?
            }
            (None, Some(Value::String(content))) => content.clone(),
            _ => return Err(invalid("params.message.parts is not a list of parts")),
        };
        let named = |name: &str| message.get(name).and_then(Value::as_str);
        Ok(Self { text, context_id: named("contextId"), task_id: named("taskId") })
    }

    fn reply(&self, message_id: String) -> Value {
        let mut reply = Map::new();
        reply.insert("kind".into(), "message".into());
        reply.insert("role".into(), "agent".into());
        reply.insert("messageId".into(), message_id.into());
        reply.insert("parts".into(), json!([{"kind": "text", "text": self.text}]));
        for (name, value) in [("contextId", self.context_id), ("taskId", self.task_id)] {
            if let Some(value) = value {
                reply.insert(name.into(), value.into());
            }
        }
        Value::Object(reply)
    }
}

/// The text parts, a line each; `None` when one of them has no text. Older clients name the kind of a part `type`.
fn text_of(parts: &[Value]) -> Option<String> {
    let texts: Option<Vec<&str>> = parts
        .iter()
        .filter(|part| ["kind", "type"].iter().any(|name| part.get(name).is_some_and(|kind| kind == "text")))
        .map(|part| part.get("text").and_then(Value::as_str))
        .collect();
    Some(texts?.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(request: &Value) -> Option<Value> {
        answer(request.to_string().as_bytes(), || "m1".into())
    }

    fn send(message: Value) -> Value {
        call(&json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}})).unwrap()
    }

    #[test]
    fn repeats_the_text_of_a_message() {
        for (message, text) in [
            (json!({"parts": [{"kind": "text", "text": "hi"}]}), "hi"),
            (json!({"parts": [{"type": "text", "text": "hi"}]}), "hi"),
            (
                json!({"parts": [{"kind": "text", "text": "a"}, {"kind": "file"}, {"type": "text", "text": "b"}]}),
                "a\nb",
            ),
            (json!({"parts": [{"kind": "file"}]}), ""),
            (json!({"content": "hi"}), "hi"),
        ] {
            let expected = json!({
                "jsonrpc": "2.0",
                "id": 1,
                "result": {
                    "kind": "message",
                    "role": "agent",
                    "messageId": "m1",
                    "parts": [{"kind": "text", "text": text}],
                },
            });
            assert_eq!(send(message.clone()), expected, "{message}");
        }
    }

    #[test]
    fn keeps_the_context_and_the_task() {
        let parts = json!([{"kind": "text", "text": "hi"}]);
        let answer = send(json!({"parts": parts, "contextId": "c", "taskId": "t"}));
        assert_eq!((&answer["result"]["contextId"], &answer["result"]["taskId"]), (&json!("c"), &json!("t")));
        let answer = send(json!({"parts": parts, "contextId": 7}));
        assert_eq!(answer["result"].get("contextId"), None);
    }

    #[test]
    fn every_mistake_has_its_code() {
        let message = json!({"parts": [{"kind": "text", "text": "hi"}]});
        let params = json!({"message": message});
        for (request, id, code) in [
            (json!([]), Value::Null, -32600),
            (json!("hi"), Value::Null, -32600),
            (json!({"id": 1, "method": "message/send"}), json!(1), -32600),
            (json!({"jsonrpc": "1.0", "id": 1, "method": "message/send"}), json!(1), -32600),
            (json!({"jsonrpc": "2.0", "id": "a"}), json!("a"), -32600),
            (json!({"jsonrpc": "2.0", "id": 1, "method": 7}), json!(1), -32600),
            (json!({"jsonrpc": "2.0", "method": 7}), Value::Null, -32600),
            (json!({"jsonrpc": "2.0", "id": [1], "method": "message/send", "params": params}), Value::Null, -32600),
            (json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/get"}), json!(1), -32601),
            (json!({"jsonrpc": "2.0", "id": null, "method": "tasks/get"}), Value::Null, -32601),
            (json!({"jsonrpc": "2.0", "id": 1, "method": "message/send"}), json!(1), -32602),
        ] {
            let answer = call(&request).unwrap();
            assert_eq!((&answer["id"], answer["error"]["code"].as_i64()), (&id, Some(code)), "{request}");
            assert!(answer["error"]["message"].is_string());
        }
        assert_eq!(answer(b"{\"jsonrpc\"", || "m1".into()).unwrap()["error"]["code"], -32700);
        assert_eq!(answer(b"", || "m1".into()).unwrap()["error"]["code"], -32700);
    }

    #[test]
    fn a_message_that_says_nothing_is_a_mistake() {
        for message in [
            json!(null),
            json!("hi"),
            json!({}),
            json!({"parts": []}),
            json!({"parts": "hi"}),
            json!({"parts": [{"kind": "text"}]}),
            json!({"parts": [{"kind": "text", "text": 7}]}),
            json!({"content": 7}),
        ] {
            assert_eq!(send(message.clone())["error"]["code"], -32602, "{message}");
        }
    }

    #[test]
    fn a_notification_is_not_answered() {
        for method in ["message/send", "notifications/unknown"] {
            assert_eq!(call(&json!({"jsonrpc": "2.0", "method": method})), None);
        }
    }
}
