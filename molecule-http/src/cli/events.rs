//! `molecule events`

use std::{collections::HashMap, time::Duration};

use clap::Args;
use molecule_core::error::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::Value;
use tokio::{signal, time::sleep};

use super::{
    Session, json, names, output,
    stream::{End, EventStream},
    text::clean,
    workspace,
};
use crate::paths;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Arguments of `molecule events`.
#[derive(Debug, Args)]
#[command(after_help = "With --follow, --json prints one event a line. Ctrl-C ends following and is no failure.")]
pub(crate) struct EventsArgs {
    /// Only events of this workspace: a name or an id
    name: Option<String>,
    /// Print events as they happen, instead of those that were
    #[arg(long, short)]
    follow: bool,
}

/// An event, as it is recorded or as it is sent while it happens.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(alias = "event")]
    event_type: String,
    workspace_id: Option<String>,
    #[serde(alias = "timestamp")]
    created_at: String,
    #[serde(default)]
    payload: Value,
}

/// Prints events, oldest first.
pub(crate) async fn run(args: EventsArgs, session: &Session) -> Result<()> {
    let only = match &args.name {
        Some(name) => Some(names::resolve(&session.client, name).await?),
        None => None,
    };
    match args.follow {
        // Without a runtime to catch it the signal would end the process with a failure.
        true => tokio::select! {
            ended = follow(session, only.as_deref()) => ended,
            _ = signal::ctrl_c() => Ok(()),
        },
        false => print_recorded(session, only.as_deref()).await,
    }
}

async fn print_recorded(session: &Session, only: Option<&str>) -> Result<()> {
    let path: Vec<_> = ["events"].into_iter().chain(only).collect();
    let answer = session.client.get(&path).await?;
    if session.json {
        return output::json(&answer.text);
    }
    let events: Vec<Event> = answer.parse()?;
    if events.is_empty() {
        return output::line("no events yet");
    }
    let names = Names::load(session).await;
    for event in events.iter().rev() {
        output::line(&names.line(event))?;
    }
    Ok(())
}

async fn follow(session: &Session, only: Option<&str>) -> Result<()> {
    let mut stream = EventStream::open(&session.client).await?;
    let mut names = if session.json { Names::default() } else { Names::load(session).await };
    output::note("following events; Ctrl-C ends");
    loop {
        match stream.next().await {
            Ok(text) => print_frame(session, only, &mut names, &text)?,
            Err(end) => {
                output::note(&match end {
                    End::FellBehind => "fell behind; connecting again, some events are missing here".to_owned(),
                    End::Lost(why) => format!("lost the server ({why}); connecting again"),
                });
                stream = reopen(session).await?;
                output::note(&format!(
                    "connected again; for what happened in between see: {} events",
                    paths::program()
                ));
            }
        }
    }
}

/// Tries until the server takes the connection, or says that it never will.
async fn reopen(session: &Session) -> Result<EventStream> {
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match EventStream::open(&session.client).await {
            Err(error) if may_pass(&error) => output::note(&format!("{error}; trying again")),
            settled => return settled,
        }
    }
}

fn may_pass(error: &Error) -> bool {
    // A proxy in front of a server that starts answers 502, and a server that starts may answer 500.
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Upstream | ErrorKind::Unexpected)
}

fn print_frame(session: &Session, only: Option<&str>, names: &mut Names, text: &str) -> Result<()> {
    // A frame that is no event comes from a newer server, and is not for this program.
    let Ok(event) = serde_json::from_str::<Event>(text) else { return Ok(()) };
    if only.is_some() && event.workspace_id.as_deref() != only {
        return Ok(());
    }
    if session.json {
        return output::line(&json::one_line(text));
    }
    names.learn(&event);
    output::line(&names.line(&event))
}

/// The names of the workspaces, by id.
#[derive(Debug, Default)]
struct Names(HashMap<String, String>);

impl Names {
    /// The names known now. Not to get them is no failure: ids do as well.
    async fn load(session: &Session) -> Self {
        let Ok((workspaces, _)) = workspace::list(&session.client).await else { return Self::default() };
        Self(workspaces.into_iter().map(|workspace| (workspace.id, workspace.name)).collect())
    }

    /// Takes the name of a workspace that is new since then.
    fn learn(&mut self, event: &Event) {
        if let (Some(id), Some(name)) = (&event.workspace_id, event.payload["name"].as_str()) {
            self.0.entry(id.clone()).or_insert_with(|| name.to_owned());
        }
    }

    fn line(&self, event: &Event) -> String {
        let id = event.workspace_id.as_deref().unwrap_or("-");
        let name = self.0.get(id).map_or(id, String::as_str);
        let payload = match &event.payload {
            Value::Null => String::new(),
            Value::Object(members) if members.is_empty() => String::new(),
            payload => format!("  {payload}"),
        };
        clean(&format!("{}  {:<26}  {name}{payload}", event.created_at, event.event_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What earlier servers sent and kept is still read: `fixtures/wire/frames.json`.
    #[test]
    fn events_of_older_servers_are_read() {
        let recorded: Value = serde_json::from_str(include_str!("../../../fixtures/wire/frames.json")).unwrap();
        let feed = recorded["feed"].as_array().unwrap().iter().map(|frame| frame.as_str().unwrap().to_owned());
        let log = recorded["log"].as_array().unwrap().iter().map(Value::to_string);
        let read: Vec<Event> = feed.chain(log).map(|text| serde_json::from_str(&text).unwrap()).collect();
        let kinds: Vec<&str> = read.iter().map(|event| event.event_type.as_str()).collect();
        assert!(kinds.starts_with(&["WORKSPACE_ONLINE"]) && kinds.ends_with(&["WORKSPACE_ONLINE", "CANVAS_MOVED"]));
        assert!(read.iter().all(|event| event.created_at.starts_with("2026-05-01T10:00:0")));
        assert!(read.last().is_some_and(|event| event.workspace_id.is_none() && event.payload.is_null()));
    }
}
