//! What `molecule agent` is told: flags, over the environment, over defaults.

use std::{convert::Infallible, fs, path::PathBuf, time::Duration};

use clap::Args;
use molecule_core::{
    agent::{PlatformUrl, StateDir, files::Files, heartbeat::LONGEST_INTERVAL},
    error::{Error, Result},
    id::WorkspaceId,
};
use secrecy::SecretString;

/// Run a reference agent: it registers, beats, and answers every message by repeating it
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The workspace this agent is
    #[arg(long, env = "WORKSPACE_ID", value_name = "UUID")]
    workspace_id: Option<String>,

    /// Where the platform is
    #[arg(long, env = "PLATFORM_URL", value_name = "URL")]
    platform_url: Option<String>,

    /// The port to answer on; 0 picks a free one
    #[arg(long, env = "PORT", default_value_t = 8000)]
    port: u16,

    /// The address to answer on
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    listen_host: String,

    /// The folder that keeps the token and the inbound secret [default: /configs, else ~/.molecule-workspace]
    #[arg(long, env = "CONFIGS_DIR", value_name = "DIR")]
    configs_dir: Option<PathBuf>,

    /// The token of the workspace; rather set the environment variable, as other users can see arguments
    #[arg(
        long,
        env = "MOLECULE_WORKSPACE_TOKEN",
        hide_env_values = true,
        value_parser = |token: &str| Ok::<_, Infallible>(SecretString::from(token)),
    )]
    token: Option<SecretString>,

    /// The folder that holds `workspace`, `configs`, `home` and `plugins`, whose files are sent and read [default: the one
    /// around the folder of the secrets where that is called `configs` and `workspace` lies beside it, else /]
    #[arg(long, value_name = "DIR")]
    files_root: Option<PathBuf>,

    /// Where the platform reaches this agent [default: http://HOST:PORT, with the listen host or the name of this host]
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// What the agent calls itself [default: molecule-agent- and the start of the workspace id]
    #[arg(long, env = "MOLECULE_AGENT_NAME")]
    name: Option<String>,

    /// What is logged, as in `info` or `molecule_core=debug`
    #[arg(long, env = "MOLECULE_LOG", value_name = "FILTER", default_value = "info")]
    pub(super) log: String,

    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,

    /// For tests.
    #[arg(long, hide = true, value_name = "MS")]
    heartbeat_interval_ms: Option<u64>,

    /// For tests.
    #[arg(long, hide = true, value_name = "MS", default_value_t = 10_000)]
    platform_timeout_ms: u64,
}

/// [`AgentArgs`], read and found complete.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) workspace_id: WorkspaceId,
    pub(super) platform_url: PlatformUrl,
    pub(super) port: u16,
    pub(super) listen_host: String,
    pub(super) state: StateDir,
    pub(super) files_root: PathBuf,
    pub(super) token: Option<SecretString>,
    pub(super) name: String,
    pub(super) heartbeat_interval: Duration,
    pub(super) platform_timeout: Duration,
    url: Option<String>,
}

impl Settings {
    /// Where the platform reaches an agent that listens on `port`.
    ///
    /// # Errors
    /// [`InvalidInput`](molecule_core::error::ErrorKind::InvalidInput) when it listens on every address and the host
    /// has no name.
    pub(super) fn url(&self, port: u16) -> Result<String> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => Ok(format!("http://{}:{port}", address(&self.listen_host)?)),
        }
    }
}

impl TryFrom<AgentArgs> for Settings {
    type Error = Error;

    fn try_from(args: AgentArgs) -> Result<Self> {
        let workspace_id = given(args.workspace_id);
        let platform_url = given(args.platform_url);
        let (Some(workspace_id), Some(platform_url)) = (&workspace_id, &platform_url) else {
            let missing: Vec<&str> =
                [(&workspace_id, "WORKSPACE_ID (--workspace-id)"), (&platform_url, "PLATFORM_URL (--platform-url)")]
                    .into_iter()
                    .filter_map(|(value, name)| value.is_none().then_some(name))
                    .collect();
            return Err(Error::invalid(format!("missing settings: {}", missing.join(", "))));
        };
        let workspace_id: WorkspaceId = workspace_id
            .parse()
            .map_err(|error: Error| error.with_message(format!("WORKSPACE_ID is not a UUID: {workspace_id:?}")))?;
        let state = StateDir::resolve(not_empty(args.configs_dir).as_deref(), not_empty(args.home).as_deref())?;
        let interval = args.heartbeat_interval_ms.map_or(LONGEST_INTERVAL, Duration::from_millis);
        Ok(Self {
            workspace_id,
            platform_url: platform_url.parse()?,
            port: args.port,
            listen_host: args.listen_host,
            files_root: not_empty(args.files_root).unwrap_or_else(|| Files::root_beside(&state)),
            state,
            token: args.token,
            name: given(args.name).unwrap_or_else(|| format!("molecule-agent-{}", &workspace_id.to_string()[..8])),
            heartbeat_interval: interval,
            platform_timeout: Duration::from_millis(args.platform_timeout_ms),
            url: given(args.url),
        })
    }
}

/// A variable that is set to nothing counts as not set.
fn given(value: Option<String>) -> Option<String> {
    value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn not_empty(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// `listen_host` as others can call it: an agent that listens on every address has only its host's name.
fn address(listen_host: &str) -> Result<String> {
    match listen_host {
        "0.0.0.0" | "::" => host_name(),
        host if host.contains(':') => Ok(format!("[{host}]")),
        host => Ok(host.to_owned()),
    }
}

fn host_name() -> Result<String> {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .into_iter()
        .find_map(|path| given(fs::read_to_string(path).ok()))
        .ok_or_else(|| Error::invalid("the name of this host is not known: say with --url where the agent is reached"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use molecule_core::error::ErrorKind;

    use super::*;

    const ID: &str = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: AgentArgs,
    }

    /// The settings of a command line that also names everything the environment could say.
    fn settings(arguments: &[&str]) -> Result<Settings> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().to_str().unwrap();
        let fixed = ["agent", "--configs-dir", folder, "--home", folder];
        Settings::try_from(Cli::try_parse_from(fixed.iter().chain(arguments)).unwrap().args)
    }

    #[test]
    fn says_in_one_line_all_that_is_missing() {
        for (arguments, message) in [
            (
                &["--workspace-id", "", "--platform-url", " "][..],
                "missing settings: WORKSPACE_ID (--workspace-id), PLATFORM_URL (--platform-url)",
            ),
            (&["--workspace-id", ID, "--platform-url", ""], "missing settings: PLATFORM_URL (--platform-url)"),
            (&["--workspace-id", "x", "--platform-url", "http://p"], "WORKSPACE_ID is not a UUID: \"x\""),
        ] {
            let error = settings(arguments).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidInput, message));
        }
    }

    #[test]
    fn defaults_are_those_of_a_container() {
        let settings =
            settings(&["--workspace-id", ID, "--platform-url", "http://p/", "--name", "", "--port", "8000"]).unwrap();
        assert_eq!(settings.name, "molecule-agent-6f9619ff");
        assert_eq!(settings.url(8000).unwrap(), "http://127.0.0.1:8000");
        assert_eq!(settings.heartbeat_interval, Duration::from_secs(20));
        assert_eq!(settings.platform_timeout, Duration::from_secs(10));
    }

    #[test]
    fn its_address_is_what_others_can_call() {
        let url = |arguments: &[&str]| {
            let fixed = ["--workspace-id", ID, "--platform-url", "http://p"];
            settings(&[&fixed, arguments].concat()).unwrap().url(8001).unwrap()
        };
        assert_eq!(url(&["--url", "https://agent.example"]), "https://agent.example");
        assert_eq!(url(&["--listen-host", "10.0.0.1"]), "http://10.0.0.1:8001");
        assert_eq!(url(&["--listen-host", "::1"]), "http://[::1]:8001");
        let named = url(&["--listen-host", "0.0.0.0"]);
        assert!(
            !named.contains("0.0.0.0") && named.ends_with(":8001") && named.len() > "http://:8001".len(),
            "{named}"
        );
    }

    #[test]
    fn the_token_is_not_in_debug_output() {
        let cli = Cli::try_parse_from(["agent", "--token", "t0ken"]).unwrap();
        assert!(!format!("{cli:?}").contains("t0ken"));
    }
}
