//! What an answer says, for the log and for what it used: a whole one, and one that comes as events. Pure.

use serde_json::{Value, json};

use super::{Answer, Used};

/// The most of an answer that is kept, and that listeners are told.
const KEPT: usize = 1024 * 1024;

/// What is kept of an answer.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Kept {
    /// What it says: of events a list. For one that is too long, only that.
    pub(crate) body: Value,
    /// The tools that the agent says to have used for it.
    pub(crate) tool_trace: Option<Value>,
    /// What it says to have used.
    pub(crate) used: Option<Used>,
}

impl Kept {
    /// Of an answer that is there as a whole.
    pub(super) fn of(answer: &Answer) -> Self {
        if answer.is_events {
            let mut told = Told::default();
            told.hear(&answer.body);
            return told.into_kept();
        }
        if answer.body.len() > KEPT {
            return Self { body: truncated(), ..Self::default() };
        }
        let body = value(&answer.body);
        Self { tool_trace: tool_trace(&body), used: Used::of(&body), body }
    }
}

fn truncated() -> Value {
    json!({"truncated": true})
}

fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

fn tool_trace(answer: &Value) -> Option<Value> {
    answer.get("result")?.get("metadata")?.get("tool_trace").filter(|trace| !trace.is_null()).cloned()
}

/// What events said so far. Holds no more than what is kept of them.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The line that is not over yet, and the event that is not.
    line: Vec<u8>,
    data: Vec<u8>,
    events: Vec<Value>,
    length: usize,
    is_truncated: bool,
    tool_trace: Option<Value>,
    used: Option<Used>,
}

impl Told {
    /// Takes the next bytes, wherever they were cut.
    pub(crate) fn hear(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.line.len() + self.data.len() + bytes.len() > KEPT {
            self.is_truncated = true;
            self.line.clear();
            return;
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() {
            return self.end_event();
        }
        let Some(data) = line.strip_prefix(b"data:") else { return };
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
    }

    fn end_event(&mut self) {
        let data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return;
        }
        let event = value(&data);
        // The last one that says so knows.
        self.tool_trace = tool_trace(&event).or(self.tool_trace.take());
        self.used = Used::of(&event).or(self.used);
        self.length += data.len();
        if self.length > KEPT {
            self.is_truncated = true;
            self.events.clear();
        } else {
            self.events.push(event);
        }
    }

    /// What is kept of them.
    pub(crate) fn into_kept(mut self) -> Kept {
        self.end_line();
        self.end_event();
        let body = if self.is_truncated { truncated() } else { Value::Array(self.events) };
        Kept { body, tool_trace: self.tool_trace, used: self.used }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(body: &[u8]) -> Kept {
        Kept::of(&Answer { status: 200, body: body.to_vec().into(), is_events: false })
    }

    #[test]
    fn what_is_kept_of_an_answer() {
        assert_eq!(whole(br#"{"a":1}"#).body, json!({"a": 1}));
        assert_eq!(whole(b"<html>").body, json!("<html>"));
        assert_eq!(whole(&vec![b'x'; KEPT + 1]).body, json!({"truncated": true}));
    }

    #[test]
    fn tools_are_found_where_they_are_told() {
        let trace = json!([{"tool": "ls"}]);
        assert_eq!(tool_trace(&json!({"result": {"metadata": {"tool_trace": trace}}})), Some(trace));
        for odd in
            [json!({"result": {"metadata": {"tool_trace": null}}}), json!({"result": "x"}), json!([]), json!("x")]
        {
            assert_eq!(tool_trace(&odd), None, "{odd}");
        }
    }

    #[test]
    fn events_are_read_wherever_they_are_cut() {
        let text = ": hello\r\ndata: {\"result\":\r\ndata: {\"usage\":{\"input_tokens\":3}}}\r\n\r\n\
                    event: x\nid: 7\ndata:plain\n\n\n\n\
                    data: {\"result\":{\"metadata\":{\"tool_trace\":[1]}}}";
        let expected = Kept {
            body: json!([
                {"result": {"usage": {"input_tokens": 3}}}, "plain", {"result": {"metadata": {"tool_trace": [1]}}},
            ]),
            tool_trace: Some(json!([1])),
            used: Some(Used { input_tokens: 3, output_tokens: 0 }),
        };
        for size in 1..text.len() {
            let mut told = Told::default();
            text.as_bytes().chunks(size).for_each(|bit| told.hear(bit));
            assert_eq!(told.into_kept(), expected, "{size}");
        }
        assert_eq!(Told::default().into_kept().body, json!([]));
    }

    #[test]
    fn what_events_used_is_known_however_long_they_are() {
        let long = format!("data: {}\n\n", "x".repeat(KEPT / 2));
        let mut told = Told::default();
        for _ in 0..20 {
            told.hear(long.as_bytes());
        }
        told.hear(b"data: {\"usage\":{\"output_tokens\":4}}\n\n");
        assert!(told.events.len() <= 2 && told.line.is_empty());
        let kept = told.into_kept();
        assert_eq!((kept.body, kept.used.map(|used| used.output_tokens)), (json!({"truncated": true}), Some(4)));

        let mut endless = Told::default();
        for _ in 0..20 {
            endless.hear(&vec![b'x'; KEPT / 3]);
        }
        assert!(endless.line.len() <= KEPT);
        assert_eq!(endless.into_kept().body, json!({"truncated": true}));
    }
}
