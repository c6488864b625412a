//! `molecule create`

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, ValueEnum};
use molecule_core::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::to_value;

use crate::paths;

use super::{Session, client::REQUEST_TIMEOUT, names, output, wait};

/// Arguments of `molecule create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The name of the workspace
    name: String,
    /// What it is for, in a few words
    #[arg(long)]
    role: Option<String>,
    /// How much of the machine it gets
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    tier: Option<u8>,
    /// The template it is made from
    #[arg(long)]
    template: Option<String>,
    /// The kind of agent
    #[arg(long)]
    runtime: Option<String>,
    /// The model that the agent uses
    #[arg(long)]
    model: Option<String>,
    /// A secret it is given: the name of a variable that holds it here; may be repeated
    #[arg(long = "secret", value_name = "VARIABLE")]
    secrets: Vec<String>,
    /// The workspace that leads it
    #[arg(long, value_name = "NAME|ID")]
    parent: Option<String>,
    /// The agent runs somewhere else and reports in
    #[arg(long)]
    external: bool,
    /// Where the agent of an external workspace is called
    #[arg(long, requires = "external")]
    url: Option<String>,
    /// A folder of the server's host to work in
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What the agent may do in that folder
    #[arg(long, value_enum)]
    access: Option<Access>,
    /// Return as soon as the server has taken the request
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
enum Access {
    /// Nothing
    None,
    /// Read files
    #[value(alias = "read-only")]
    ReadOnly,
    /// Read and write files
    #[value(alias = "read-write")]
    ReadWrite,
}

#[derive(Serialize)]
struct Request<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    external: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_access: Option<Access>,
}

#[derive(Deserialize)]
struct Created {
    id: String,
    status: String,
    #[serde(default)]
    external: bool,
    connection: Option<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    #[serde(default)]
    platform_url: String,
    #[serde(default)]
    auth_token: String,
    #[serde(default)]
    registry_endpoint: String,
    #[serde(default)]
    heartbeat_endpoint: String,
    #[serde(default)]
    curl_register_template: String,
}

/// Creates a workspace.
pub(crate) async fn run(args: CreateArgs, session: &Session) -> Result<()> {
    let parent_id = match &args.parent {
        Some(parent) => Some(names::resolve(&session.client, parent).await?),
        None => None,
    };
    let request = to_value(args.request(parent_id)?)
        .map_err(|error| Error::invalid(format!("cannot write the request as JSON: {error}")))?;
    let answer = session.client.post(&["workspaces"], &request, REQUEST_TIMEOUT).await?;
    let created: Created = answer.parse()?;
    if !created.external && !args.no_wait {
        return wait::until_up(session, &created.id).await;
    }
    if session.json {
        return output::json(&answer.text);
    }
    let id = &created.id;
    output::foreign(&format!("created {}, which is {}\nid:   {id}", args.name, created.status))?;
    match created.connection {
        Some(connection) => print_connection(&connection, id),
        None => output::foreign(&format!("next: molecule show {id}")),
    }
}

impl CreateArgs {
    /// The named variables. Their values are no arguments: other users of this host could read those.
    fn secrets(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<&str, String>> {
        let value = |name: &String| {
            environment(name).ok_or_else(|| Error::invalid(format!("--secret {name}: no variable of that name is set")))
        };
        self.secrets.iter().map(|name| Ok((name.as_str(), value(name)?))).collect()
    }

    fn request(&self, parent_id: Option<String>) -> Result<Request<'_>> {
        let workspace_dir = match &self.dir {
            Some(dir) if !dir.is_absolute() => {
                return Err(Error::invalid(format!(
                    "--dir {} must be an absolute path on the server's host",
                    dir.display()
                )));
            }
            Some(dir) => {
                let text = dir.to_str().ok_or_else(|| Error::invalid("--dir must be valid UTF-8"))?;
                Some(text)
            }
            None => None,
        };
        Ok(Request {
            name: &self.name,
            role: self.role.as_deref(),
            tier: self.tier,
            template: self.template.as_deref(),
            runtime: self.runtime.as_deref(),
            model: self.model.as_deref(),
            secrets: self.secrets(&paths::environment)?,
            parent_id,
            external: self.external,
            url: self.url.as_deref(),
            workspace_dir,
            workspace_access: self.access,
        })
    }
}

fn print_connection(connection: &Connection, id: &str) -> Result<()> {
    output::line("\nConnect its agent with:")?;
    let mut table = output::table([]);
    for (name, value) in [
        ("workspace_id", id),
        ("platform_url", &connection.platform_url),
        ("registry_endpoint", &connection.registry_endpoint),
        ("heartbeat_endpoint", &connection.heartbeat_endpoint),
        ("auth_token", &connection.auth_token),
    ] {
        table.add_row([output::cell(name), output::cell(value)]);
    }
    output::print_table(table)?;
    match connection.auth_token.is_empty() {
        true => output::line("\nThe server could not make a token: delete the workspace and create it again.")?,
        false => output::line("\nThe token is shown this once: keep it now.")?,
    }
    if !connection.curl_register_template.is_empty() {
        output::line("\nFor example:\n")?;
        output::foreign(&connection.curl_register_template)?;
    }
    Ok(())
}
