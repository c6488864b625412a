//! One JSON-RPC request, one answer: what clients do that know nothing of streams.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use molecule_core::{
    ControlPlane,
    id::WorkspaceId,
    tools::{Definition, Place},
};
use serde_json::{Map, Value, json};

use super::{SERVER, contained, said};

/// The revision of the protocol that such clients speak.
const REVISION: &str = "2024-11-05";

const UNPARSABLE: i32 = -32700;
const NO_REQUEST: i32 = -32600;
const UNKNOWN_METHOD: i32 = -32601;
const WRONG_PARAMS: i32 = -32602;
const PANICKED: i32 = -32603;
const FAILED: i32 = -32000;

/// What is wrong with a request, as JSON-RPC says it.
#[derive(Debug)]
struct Refusal {
    code: i32,
    message: String,
}

/// Answers `body` for workspace `id`.
pub(crate) async fn answer(control_plane: &ControlPlane, id: WorkspaceId, body: &[u8]) -> Response {
    let Ok(mut request) = serde_json::from_slice::<Map<String, Value>>(body) else {
        let refusal = Refusal { code: UNPARSABLE, message: "parse error".to_owned() };
        return (StatusCode::BAD_REQUEST, envelope(Value::Null, Err(refusal))).into_response();
    };
    let method = request.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
    match request.remove("id") {
        Some(number) if !method.starts_with("notifications/") => {
            let outcome = outcome(control_plane, id, &method, request.remove("params")).await;
            envelope(number, outcome).into_response()
        }
        // Nobody waits for an answer.
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

fn envelope(id: Value, outcome: Result<Value, Refusal>) -> Json<Value> {
    Json(match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(Refusal { code, message }) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    })
}

async fn outcome(
    control_plane: &ControlPlane,
    id: WorkspaceId,
    method: &str,
    params: Option<Value>,
) -> Result<Value, Refusal> {
    match method {
        "initialize" => {
            let (name, version) = SERVER;
            Ok(json!({
                "protocolVersion": REVISION,
                "capabilities": {"tools": {"listChanged": false}},
                "serverInfo": {"name": name, "version": version},
            }))
        }
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({"tools": control_plane.tools().map(listed).collect::<Value>()})),
        "tools/call" => {
            let (name, arguments) = call(params)?;
            let answered = contained(&name, control_plane.call_tool(id, &name, arguments)).await;
            let answered = answered.map_err(|message| Refusal { code: PANICKED, message })?;
            let text = answered.map_err(|error| Refusal { code: FAILED, message: said(&name, &error) })?;
            Ok(json!({"content": [{"type": "text", "text": text}]}))
        }
        "" => Err(Refusal { code: NO_REQUEST, message: "a request names its method".to_owned() }),
        _ => Err(Refusal { code: UNKNOWN_METHOD, message: format!("method not found: {method}") }),
    }
}

fn listed(tool: &Definition) -> Value {
    let schema = tool.input_schema(Place::ControlPlane);
    json!({"name": tool.name, "description": tool.description, "inputSchema": schema})
}

/// Which tool is called, and with what.
fn call(params: Option<Value>) -> Result<(String, Option<Map<String, Value>>), Refusal> {
    let wrong = |what: &str| Refusal { code: WRONG_PARAMS, message: format!("invalid params: {what}") };
    let Some(Value::Object(mut params)) = params else { return Err(wrong("an object is needed")) };
    let Some(Value::String(name)) = params.remove("name") else { return Err(wrong("name must be a string")) };
    match params.remove("arguments") {
        None | Some(Value::Null) => Ok((name, None)),
        Some(Value::Object(arguments)) => Ok((name, Some(arguments))),
        Some(_) => Err(wrong("arguments must be an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_its_tool_and_gives_an_object() {
        assert_eq!(call(Some(json!({"name": "a"}))).unwrap(), ("a".to_owned(), None));
        assert_eq!(call(Some(json!({"name": "a", "arguments": null}))).unwrap(), ("a".to_owned(), None));
        let given = call(Some(json!({"name": "a", "arguments": {"b": 1}}))).unwrap().1;
        assert_eq!(given, json!({"b": 1}).as_object().cloned());
        for params in [
            None,
            Some(json!([])),
            Some(json!({})),
            Some(json!({"name": 1})),
            Some(json!({"name": "a", "arguments": []})),
        ] {
            assert_eq!(call(params).unwrap_err().code, WRONG_PARAMS);
        }
    }
}
