//! `molecule login`

use std::io::{self, BufRead, Read};

use clap::Args;
use molecule_core::error::{Error, Result};
use secrecy::SecretString;
use serde_json::json;

use super::{
    GlobalArgs,
    client::Client,
    output,
    profile::{self, DEFAULT_PROFILE, Profiles, Target},
    workspace,
};
use crate::paths;

/// Longer than any token.
const LONGEST_TOKEN: u64 = 16 * 1024;

/// Arguments of `molecule login`.
#[derive(Debug, Args)]
#[command(after_help = "The token is taken from --token-stdin, --token or MOLECULE_TOKEN, tried on the server, and \
                        saved with it as the profile named by --profile, or else as the default one.")]
pub(crate) struct LoginArgs {
    /// The server
    #[arg(value_name = "URL")]
    url: String,
    /// Read the token from standard input
    #[arg(long, conflicts_with = "token")]
    token_stdin: bool,
}

/// Tries a server with a token, and saves both.
pub(crate) async fn run(args: LoginArgs, global: &GlobalArgs) -> Result<()> {
    let server = profile::parse_server(&args.url)?;
    let token = if args.token_stdin {
        Some((token_from_stdin()?, "standard input".to_owned()))
    } else {
        let variable = || paths::environment("MOLECULE_TOKEN").map(|token| (token.into(), "MOLECULE_TOKEN".to_owned()));
        global.token.clone().map(|token| (token, "--token".to_owned())).or_else(variable)
    };
    if let Some((token, source)) = &token {
        profile::check_token(token, source)?;
    }
    let file = paths::profiles_file(&paths::environment)
        .ok_or_else(|| Error::invalid("cannot tell where profiles are kept; set HOME"))?;
    let name = global.profile.clone().or_else(|| paths::environment("MOLECULE_PROFILE"));
    let name = name.as_deref().unwrap_or(DEFAULT_PROFILE);
    let target = Target { server, token };
    let mut profiles = Profiles::load(&file)?;
    profiles.put(name, &target)?;

    // A profile that does not work is worse than none.
    let client = Client::new(target)?;
    workspace::list(&client).await?;
    profiles.save(&file)?;
    if global.json {
        return output::json(&json!({ "profile": name, "server": client.server(), "file": file }).to_string());
    }
    output::foreign(&format!("saved {} as profile {name:?} in {}", client.server(), file.display()))
}

fn token_from_stdin() -> Result<SecretString> {
    let mut first_line = String::new();
    io::stdin()
        .lock()
        .take(LONGEST_TOKEN)
        .read_line(&mut first_line)
        .map_err(|error| Error::invalid(format!("cannot read a token from standard input: {error}")))?;
    match first_line.trim() {
        "" => Err(Error::invalid("standard input holds no token")),
        token => Ok(token.into()),
    }
}
