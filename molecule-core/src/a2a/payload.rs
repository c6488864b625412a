//! Brings the shapes of messages that clients send to the one that agents understand: pure.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};

const HINT: &str = "content must be a string (v0.2 compat) or omitted in favour of parts (v0.3)";

/// The request as the agent gets it, with its method.
///
/// `new_id` is called for each id that the client left out.
///
/// # Errors
/// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for what is no JSON object, or a message without content.
pub(crate) fn normalise(body: &[u8], mut new_id: impl FnMut() -> Uuid) -> Result<(Value, String)> {
    let Ok(Value::Object(mut request)) = serde_json::from_slice(body) else {
        return Err(Error::invalid("invalid JSON"));
    };
    if !request.contains_key("jsonrpc") {
        let member = |name: &str| request.get(name).cloned().unwrap_or(Value::Null);
        let wrapped = json!({
            "jsonrpc": "2.0",
            "id": new_id().to_string(),
            "method": member("method"),
            "params": member("params"),
        });
        let Value::Object(wrapped) = wrapped else { return Err(Error::invalid("invalid JSON")) };
        request = wrapped;
    }
    if let Some(Value::Object(message)) = request.get_mut("params").and_then(|params| params.get_mut("message")) {
        normalise_message(message, &mut new_id)?;
    }
    let method = request.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((Value::Object(request), method))
}

fn normalise_message(message: &mut Map<String, Value>, new_id: &mut impl FnMut() -> Uuid) -> Result<()> {
    if !message.contains_key("messageId") {
        message.insert("messageId".to_owned(), new_id().to_string().into());
    }
    if message.contains_key("parts") {
        return Ok(());
    }
    let parts = match message.remove("content") {
        Some(Value::String(text)) => json!([{"kind": "text", "text": text}]),
        Some(parts @ Value::Array(_)) => parts,
        Some(_) => return Err(Error::invalid("invalid params.message.content type").with_member("hint", HINT)),
        None => {
            let text = "params.message must contain either 'parts' (v0.3) or 'content' (v0.2 compat)";
            return Err(Error::invalid(text).with_member("hint", HINT));
        }
    };
    message.insert("parts".to_owned(), parts);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(body: &str) -> Result<Value> {
        let mut count = 0;
        normalise(body.as_bytes(), || {
            count += 1;
            Uuid::from_u128(count)
        })
        .map(|(request, _)| request)
    }

    #[test]
    fn every_shape_becomes_the_one_that_agents_understand() {
        let id = |n: u128| Uuid::from_u128(n).to_string();
        let rows = [
            // Not wrapped, no message id, old content.
            (
                r#"{"method":"message/send","params":{"message":{"role":"user","content":"hi"}}}"#,
                json!({"jsonrpc": "2.0", "id": id(1), "method": "message/send", "params": {"message": {
                    "role": "user", "messageId": id(2), "parts": [{"kind": "text", "text": "hi"}],
                }}}),
            ),
            // A list of content becomes the parts.
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"message":{"messageId":"x","content":[{"type":"text"}]}}}"#,
                json!({"jsonrpc": "2.0", "id": 7, "method": "m", "params": {"message": {
                    "messageId": "x", "parts": [{"type": "text"}],
                }}}),
            ),
            // Parts win, and their discriminator is left as it is.
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"message":{"messageId":"x","parts":[{"type":"text"}]}}}"#,
                json!({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"message": {
                    "messageId": "x", "parts": [{"type": "text"}],
                }}}),
            ),
            // Nothing to do without a message.
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"id":"t"}}"#,
                json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "t"}}),
            ),
        ];
        for (body, expected) in rows {
            assert_eq!(normalised(body).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn refuses_what_no_agent_could_understand() {
        let rows = [
            ("", "invalid JSON"),
            ("[]", "invalid JSON"),
            ("{", "invalid JSON"),
            (r#"{"params":{"message":{"content":5}}}"#, "invalid params.message.content type"),
            (
                r#"{"params":{"message":{"role":"user"}}}"#,
                "params.message must contain either 'parts' (v0.3) or 'content' (v0.2 compat)",
            ),
        ];
        for (body, message) in rows {
            assert_eq!(normalised(body).unwrap_err().message(), message, "{body}");
        }
    }
}
