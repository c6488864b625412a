//! `molecule-conformance`: holds a server against the contract.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use molecule_conformance::{Feature, cases, http::Server, run};

/// Holds an implementation of the Molecule contract against its rules.
///
/// Ends with 0 where nothing failed and something passed, with 1 where something failed or nothing could be run, and
/// with 2 where the command itself is wrong.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Target {
    /// A server at a base URL.
    Http {
        /// Where it is, such as http://127.0.0.1:8080.
        #[arg(long)]
        base_url: String,
        /// The operator's token; cases that need it are skipped without. Better given in the environment, where other
        /// users of the machine do not see it.
        #[arg(long, env = "MOLECULE_CONFORMANCE_TOKEN", hide_env_values = true)]
        token: Option<String>,
        /// What the server has beyond what every one must; everything, where nothing is named.
        #[arg(long, value_delimiter = ',', value_name = "FEATURE")]
        features: Vec<Feature>,
        /// Tries only cases whose name or rule contains this.
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        /// Prints the report as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let Target::Http { base_url, token, features, filter, json } = Arguments::parse().target;
    let mut server = Server::new(&base_url, token.filter(|token| !token.is_empty()))?;
    if !features.is_empty() {
        server = server.with_features(features);
    }
    let mut cases = cases::http::all();
    if let Some(text) = &filter {
        cases.retain(|case| case.name.contains(text) || case.rule.contains(text));
    }
    let report = run(base_url, &server, &cases).await;
    let mut output = io::stdout().lock();
    if json {
        writeln!(output, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(output, "{report}")?;
    }
    Ok(if report.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
