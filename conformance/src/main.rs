//! `molecule-conformance`: holds a server, a store or a backend against the contract.

use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use molecule_conformance::{
    Feature, Outcome, Profile, Report, Tried, Verdict, cases, coverage, gates, http::Server, junit, provisioner,
    run_watched, shuffle, store,
};
use molecule_core::{
    provisioner::{
        docker::{DockerConfig, DockerProvisioner},
        process::{DEFAULT_STOP_GRACE, ProcessConfig, ProcessProvisioner},
        remote::{RemoteConfig, RemoteProvisioner},
    },
    testing::ScriptedProvisioner,
};

/// Holds an implementation of the Molecule contract against its rules.
///
/// Ends with 0 where something passed, nothing failed, and all was tried that is demanded of everyone; with 1 where it is
/// not so; and with 2 where the command itself is wrong or the server does not answer.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Target {
    /// A server at a base URL.
    Http(HttpArgs),
    /// The store of the library, on a database.
    Store {
        /// `sqlite:`, or a Postgres server with a user who may create databases; the one it names is left alone.
        #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
        database_url: String,
    },
    /// The sources of this repository, against the rules that no compiler checks.
    Gates {
        /// The root of the repository.
        #[arg(default_value = ".")]
        root: PathBuf,
    },
    /// A backend that comes with the library. One of your own is tried by the library call `provisioner::run`.
    Provisioner {
        /// Which one.
        name: Backend,
        /// What runs on it: for processes a program, for Docker an image, that does what `examples/workload.rs` of the
        /// library does.
        #[arg(long, required_if_eq_any([("name", "process"), ("name", "docker")]))]
        workload: Option<String>,
    },
    /// A control plane that machines are asked for (`docs/control-plane-api.md`). What it runs must do what
    /// `examples/workload.rs` of the library does.
    Machines(MachinesArgs),
}

#[derive(Debug, Args)]
struct HttpArgs {
    /// Where it is, such as http://127.0.0.1:8080.
    #[arg(long)]
    base_url: String,
    /// The operator's token; cases that need it are skipped without. Better given in the environment, where other users
    /// of the machine do not see it.
    #[arg(long, env = "MOLECULE_CONFORMANCE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The organisation whose server it is, where it serves one alone.
    #[arg(long, value_name = "ID")]
    organisation: Option<String>,
    /// What is demanded beyond what every server must have.
    #[arg(long, value_enum, default_value = "offered")]
    profile: Profile,
    /// What the server claims to have besides: it is demanded even where it is not seen.
    #[arg(long, value_delimiter = ',', value_name = "FEATURE")]
    features: Vec<Feature>,
    /// Tries only cases whose name or rule contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Tries the cases in an order that this number decides, in place of that of the contract.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The OpenAPI document of the server: lists the operations in it that no case asked for.
    #[arg(long, value_name = "FILE")]
    openapi: Option<PathBuf>,
    /// The rules of the server, in a page like `docs/contract.md`: lists those that no case tries.
    #[arg(long, value_name = "FILE")]
    contract: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct MachinesArgs {
    /// Where it is, such as http://127.0.0.1:9090.
    #[arg(long, env = "CP_PROVISION_URL")]
    base_url: String,
    /// The organisation that machines are asked for.
    #[arg(long, env = "MOLECULE_ORG_ID", default_value = "conformance")]
    organisation: String,
    /// The runtime that machines are asked for.
    #[arg(long, default_value = "claude-code")]
    runtime: String,
    /// The bearer of every call. Better given in the environment.
    #[arg(long, env = "MOLECULE_CP_SHARED_SECRET", hide_env_values = true)]
    secret: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Backend {
    Process,
    Docker,
    Scripted,
}

#[derive(Debug, Args)]
struct Output {
    /// Prints the report as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Writes the report as JUnit XML.
    #[arg(long, global = true, value_name = "FILE")]
    junit: Option<PathBuf>,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { target, output } = Arguments::parse();
    match run(target, &output).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell where this cannot be written.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(target: Target, output: &Output) -> Result<bool, Failure> {
    let report = match target {
        Target::Http(args) => http(args).await?,
        Target::Gates { root } => gates::run(&root)?,
        Target::Store { database_url } => store::run(&database_url, progress).await?,
        Target::Provisioner { name, workload } => backend(name, workload.unwrap_or_default()).await?,
        Target::Machines(args) => machines(args).await?,
    };
    if let Some(path) = &output.junit {
        fs::write(path, junit::junit(&report)?).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut stdout = io::stdout().lock();
    if output.json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(stdout, "{report}")?;
    }
    Ok(report.succeeded())
}

async fn http(args: HttpArgs) -> Result<Report, Failure> {
    let HttpArgs { base_url, token, organisation, profile, features, filter, seed, openapi, contract } = args;
    let mut server = Server::new(&base_url, token.filter(|token| !token.is_empty()))?;
    if let Some(id) = organisation {
        server = server.of_organisation(id);
    }
    let taken = profile.features(&server).await.map_err(Verdict::into_reason)?;
    server = server.with_features(taken.into_iter().chain(features));
    let mut cases = cases::http::all();
    if let Some(text) = &filter {
        cases.retain(|case| case.name.contains(text) || case.rule.contains(text));
    }
    if let Some(seed) = seed {
        shuffle(&mut cases, seed);
    }
    let report = run_watched(base_url, &server, &cases, progress).await.with_seed(seed);
    let mut gaps = Vec::new();
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    if let Some(path) = contract {
        let (page, tried) = (read(&path)?, coverage::tried(&cases));
        let untried = coverage::rules(&page).into_iter().filter(|rule| !tried.contains(rule));
        gaps.extend(untried.map(|(rule, _)| format!("no case tries {rule}")));
    }
    if let Some(path) = openapi {
        let document = serde_json::from_str(&read(&path)?).map_err(|error| format!("{}: {error}", path.display()))?;
        let uncalled = coverage::uncalled(&document, &server.called());
        gaps.extend(uncalled.into_iter().map(|operation| format!("no case asks for {operation}")));
    }
    Ok(report.with_gaps(gaps))
}

async fn backend(name: Backend, workload: String) -> Result<Report, Failure> {
    let mut runtime = "claude-code".to_owned();
    Ok(match name {
        Backend::Scripted => {
            let backend = ScriptedProvisioner::new();
            provisioner::run_watched("scripted", &backend, &provisioner::Scripted(backend.clone()), progress).await
        }
        Backend::Process => {
            let folder = tempfile::tempdir()?;
            let backend = ProcessProvisioner::new(ProcessConfig {
                root: folder.path().to_owned(),
                command: std::path::absolute(workload)?,
                args: Vec::new(),
                inherit: Vec::new(),
                open_files: None,
                stop_grace: DEFAULT_STOP_GRACE,
            })?;
            provisioner::run_watched("process", &backend, &provisioner::Plain { runtime }, progress).await
        }
        Backend::Docker => {
            let mut config = DockerConfig::default();
            "conformance".clone_into(&mut runtime);
            config.images.overrides.insert(runtime.clone(), workload);
            let backend = DockerProvisioner::connect(config).await?;
            provisioner::run_watched("docker", &backend, &provisioner::Plain { runtime }, progress).await
        }
    })
}

async fn machines(args: MachinesArgs) -> Result<Report, Failure> {
    let MachinesArgs { base_url, organisation, runtime, secret } = args;
    let machines = RemoteProvisioner::new(RemoteConfig {
        base_url: base_url.clone(),
        org_id: organisation,
        shared_secret: secret.map(Into::into),
        admin_api_token: None,
        admin_token: None,
        timeout: RemoteConfig::DEFAULT_TIMEOUT,
    })?;
    Ok(provisioner::run_machines_watched(&base_url, &machines, &provisioner::Plain { runtime }, progress).await)
}

/// A line for each case as it was tried, beside the report.
fn progress(tried: &Tried) {
    let word = match tried.outcome {
        Outcome::Passed => "passed",
        Outcome::Failed { .. } => "FAILED",
        Outcome::Unsupported { .. } => "unsupported",
        Outcome::Skipped { .. } => "skipped",
    };
    // A run goes on where nobody watches.
    let _ = writeln!(io::stderr(), "{word:<11} {}", tried.name);
}
