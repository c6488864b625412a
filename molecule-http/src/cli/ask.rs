//! `molecule ask`

use std::{
    io::{self, Read},
    time::Duration,
};

use clap::Args;
use molecule_core::{
    clock::{SystemEntropy, random_uuid},
    error::{Error, ErrorKind, Result},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Session, client::Answer, json::pretty, names, output, spinner::Progress, text::clean};

/// How long an agent may think before the command gives up on it.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// What the server takes in one message.
const LONGEST_MESSAGE: u64 = 1024 * 1024;

/// Arguments of `molecule ask`.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// The name or id of the workspace
    name: String,
    /// The message; `-` reads it from standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
}

/// Sends a message to an agent and prints its reply.
pub(crate) async fn run(args: AskArgs, session: &Session) -> Result<()> {
    let text = if args.text == "-" { text_from_stdin()? } else { args.text };
    if text.trim().is_empty() {
        return Err(Error::invalid("the message is empty"));
    }
    let id = names::resolve(&session.client, &args.name).await?;
    let answer = {
        let mut progress = Progress::start(session.json || !output::stderr_is_terminal());
        progress.tell(&format!("{} thinks", args.name));
        session.client.post(&["workspaces", &id, "a2a"], &request(&text), TIMEOUT).await?
    };
    if session.json {
        output::json(&answer.text)?;
    }
    if let Some(error) = answer.value.get("error").filter(|error| !error.is_null()) {
        return Err(agent_error(&args.name, error));
    }
    if session.json {
        return Ok(());
    }
    match queued(&args.name, &answer) {
        Some(notice) => output::foreign(&notice),
        None => output::foreign(&reply(&answer.value).unwrap_or_else(|| pretty(&answer.text))),
    }
}

fn request(text: &str) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": random_uuid(&SystemEntropy),
        "method": "message/send",
        "params": { "message": {
            "kind": "message",
            "role": "user",
            "messageId": random_uuid(&SystemEntropy),
            "parts": [{ "kind": "text", "text": text }],
        } },
    })
}

/// The text of the reply, wherever the agent put it.
fn reply(answer: &Value) -> Option<String> {
    let result = answer.get("result")?;
    let artifacts = || {
        let parts = result["artifacts"].as_array()?.iter().filter_map(|artifact| text_of(&artifact["parts"]));
        joined(parts)
    };
    text_of(&result["parts"]).or_else(|| text_of(&result["status"]["message"]["parts"])).or_else(artifacts)
}

fn text_of(parts: &Value) -> Option<String> {
    // Clients and agents of different ages call the discriminator `kind` or `type`; only text parts have a `text`.
    joined(parts.as_array()?.iter().filter_map(|part| Some(part.get("text")?.as_str()?.to_owned())))
}

fn joined(texts: impl Iterator<Item = String>) -> Option<String> {
    let texts: Vec<_> = texts.collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// What to say when the message waits instead of being answered.
fn queued(name: &str, answer: &Answer) -> Option<String> {
    let value = &answer.value;
    if answer.status == StatusCode::ACCEPTED && value["queued"] == true {
        let depth = value["queue_depth"].as_u64().map(|depth| format!(" ({depth} waiting)")).unwrap_or_default();
        return Some(format!("queued: {name} is busy and gets the message when it can take it{depth}"));
    }
    let polls = value["status"] == "queued" && value["delivery_mode"] == "poll";
    polls.then(|| format!("queued: {name} fetches its messages itself and answers in its own time"))
}

fn agent_error(name: &str, error: &Value) -> Error {
    let message = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
    let code = error["code"].as_i64().map(|code| format!(" ({code})")).unwrap_or_default();
    Error::new(ErrorKind::Upstream, format!("{} answered with an error: {}{code}", clean(name), clean(&message)))
}

fn text_from_stdin() -> Result<String> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(LONGEST_MESSAGE + 1)
        .read_to_string(&mut text)
        .map_err(|error| Error::invalid(format!("cannot read the message from standard input: {error}")))?;
    if text.len() as u64 > LONGEST_MESSAGE {
        return Err(Error::invalid("the message on standard input is larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_is_found_in_every_place_agents_put_it() {
        for (result, expected) in [
            (json!({"parts": [{"kind": "text", "text": "a"}, {"kind": "data", "data": {}}]}), Some("a")),
            (json!({"parts": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), Some("a\nb")),
            (
                json!({"status": {"state": "completed", "message": {"parts": [{"kind": "text", "text": "s"}]}}}),
                Some("s"),
            ),
            (
                json!({"status": {"state": "completed"}, "artifacts": [
                    {"parts": [{"kind": "text", "text": "x"}]}, {"parts": [{"kind": "text", "text": "y"}]},
                ]}),
                Some("x\ny"),
            ),
            (json!({"parts": [{"kind": "file"}]}), None),
            (json!("text"), None),
        ] {
            assert_eq!(reply(&json!({ "result": result })).as_deref(), expected, "{result}");
        }
    }
}
