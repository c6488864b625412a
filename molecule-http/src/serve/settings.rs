//! What the server was told: flags over environment over file over default.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use molecule_core::{Error, audit::AuditKey, net::Policy, secrets::Cipher};
use secrecy::SecretString;
use serde::Deserialize;

use super::{docker::DockerArgs, edge::args::EdgeArgs, remote::RemoteArgs};
use crate::{logging::LogFormat, paths};

const DEFAULT_PORT: u16 = 8080;

/// The database driver tells of every table that exists already.
const DEFAULT_LOG: &str = "info,sqlx=warn";

/// Where workspaces run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProvisionerChoice {
    /// In containers where a Docker daemon answers, otherwise, on loopback only, as child processes.
    Auto,
    /// In containers.
    Docker,
    /// As child processes of this host, without isolation.
    Process,
    /// On machines of another control plane.
    ControlPlane,
    /// Nowhere: only external agents join.
    None,
}

/// Run the server.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on [default: 127.0.0.1:8080].
    #[arg(long, env = "MOLECULE_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Port to listen on at 127.0.0.1, where --listen says nothing.
    #[arg(env = "PORT", long, hide = true, value_name = "PORT")]
    port: Option<u16>,

    /// The database: sqlite:PATH or postgres://… [default: an SQLite file in the data folder].
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<SecretString>,

    /// Where workspaces run [default: auto].
    #[arg(long, env = "MOLECULE_PROVISIONER", value_name = "BACKEND")]
    provisioner: Option<ProvisionerChoice>,

    /// A TOML file with any of these settings, named like the flags.
    #[arg(long, env = "MOLECULE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// How log lines look [default: pretty].
    #[arg(long, env = "MOLECULE_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// What is logged, as in `info` or `molecule_core=debug` [default: info].
    #[arg(long, env = "MOLECULE_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// Bring up one workspace named hello where there is none yet, and say how to talk to it.
    #[arg(long)]
    welcome: bool,

    /// The operator's token; needed to listen on anything but loopback.
    #[arg(env = "ADMIN_TOKEN", long, hide = true, hide_env_values = true)]
    admin_token: Option<SecretString>,

    /// The key that secrets are encrypted with: 32 bytes, as they are or in base64.
    #[arg(env = "SECRETS_ENCRYPTION_KEY", long, hide = true, hide_env_values = true)]
    secrets_encryption_key: Option<SecretString>,

    /// Keys that secrets may have been encrypted with before, separated by commas.
    #[arg(env = "SECRETS_ENCRYPTION_OLD_KEYS", long, hide = true, hide_env_values = true, value_delimiter = ',')]
    secrets_encryption_old_keys: Vec<SecretString>,

    /// What the ledger of agents is signed with.
    #[arg(env = "AUDIT_LEDGER_SALT", long, hide = true, hide_env_values = true)]
    audit_ledger_salt: Option<SecretString>,

    /// The folder of templates, one folder below it for each.
    #[arg(long, env = "CONFIGS_DIR", value_name = "DIR")]
    configs_dir: Option<PathBuf>,

    /// The file that says which runtimes there are.
    #[arg(long, env = "WORKSPACE_MANIFEST_PATH", value_name = "FILE")]
    manifest: Option<PathBuf>,

    /// Where agents reach this server, where that differs from the address it listens on.
    #[arg(long, env = "PLATFORM_URL", value_name = "URL")]
    platform_url: Option<String>,

    /// Where external agents reach this server, shown to them when they are created.
    #[arg(long, env = "EXTERNAL_PLATFORM_URL", value_name = "URL")]
    external_platform_url: Option<String>,

    /// A host folder, with all below it, that workspaces may be given. May be repeated.
    #[arg(long, env = "MOLECULE_WORKSPACE_ROOTS", value_delimiter = ':', value_name = "DIR")]
    workspace_root: Vec<PathBuf>,

    /// The highest tier that containers run with; higher ones are run with its limits [default: 2].
    #[arg(long, env = "MOLECULE_MAX_TIER", value_name = "TIER", value_parser = clap::value_parser!(i32).range(1..=4))]
    max_tier: Option<i32>,

    /// How long bringing up a workspace may take, in seconds.
    #[arg(long, env = "PROVISION_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    provision_timeout_seconds: Option<u64>,

    /// How long fetching what a start needs, such as its image, may take, in seconds [default: 900, 600 of them one pull].
    #[arg(long, env = "PREPARE_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    prepare_timeout_seconds: Option<u64>,

    /// How long an external agent may be silent, in seconds [default: 90].
    #[arg(long, env = "REMOTE_LIVENESS_STALE_AFTER", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    remote_liveness_stale_after: Option<u64>,

    /// How long a call to an agent may see no sign of life of it, in seconds [default: 300].
    #[arg(long, env = "A2A_IDLE_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    a2a_idle_timeout_seconds: Option<u64>,

    /// How long events are kept that do not tell how a workspace or its agent came and went, in days [default: for good].
    #[arg(long, env = "EVENT_RETENTION_DAYS", value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..))]
    event_retention_days: Option<u64>,

    /// How long the activity log is kept, in days [default: 7].
    #[arg(long, env = "ACTIVITY_RETENTION_DAYS", value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..))]
    activity_retention_days: Option<u64>,

    /// How often older activity is deleted, in hours [default: 6].
    #[arg(long, env = "ACTIVITY_CLEANUP_INTERVAL_HOURS", value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..))]
    activity_cleanup_interval_hours: Option<u64>,

    /// Where the Docker Engine is reached.
    #[arg(env = "DOCKER_HOST", long, value_name = "URL")]
    docker_host: Option<String>,

    /// `development` opens the gates on loopback, where no admin token is set.
    #[arg(env = "MOLECULE_ENV", long, hide = true)]
    environment: Option<String>,

    /// `saas` trusts the private network around this server; `self-hosted` does not.
    #[arg(env = "MOLECULE_DEPLOY_MODE", long, hide = true)]
    deploy_mode: Option<String>,

    #[command(flatten)]
    docker: DockerArgs,

    #[command(flatten)]
    remote: RemoteArgs,

    #[command(flatten)]
    edge: EdgeArgs,

    /// How often the health sweep looks, in milliseconds.
    #[arg(long, env = "MOLECULE_HEALTH_TICK_MS", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    health_tick_ms: Option<u64>,

    /// How often the timeout sweep looks, in milliseconds.
    #[arg(long, env = "MOLECULE_TIMEOUT_TICK_MS", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_tick_ms: Option<u64>,

    /// How long what a server has under way counts as its own when it says no more about it, in milliseconds.
    #[arg(long, env = "MOLECULE_QUEUE_LEASE_MS", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    queue_lease_ms: Option<u64>,

    /// How often those who listen to what happens are asked whether they live, in milliseconds.
    #[arg(long, env = "MOLECULE_LISTENER_PING_MS", hide = true, value_parser = clap::value_parser!(u64).range(6..))]
    listener_ping_ms: Option<u64>,

    /// The program that child processes run in place of this one, with the same arguments. For tests.
    #[arg(long, env = "MOLECULE_AGENT_COMMAND", hide = true, value_name = "FILE")]
    agent_command: Option<PathBuf>,
}

/// What a settings file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    database_url: Option<SecretString>,
    data_dir: Option<PathBuf>,
    provisioner: Option<ProvisionerChoice>,
    log_format: Option<LogFormat>,
    log: Option<String>,
    admin_token: Option<SecretString>,
    secrets_encryption_key: Option<SecretString>,
    secrets_encryption_old_keys: Vec<SecretString>,
    audit_ledger_salt: Option<SecretString>,
    configs_dir: Option<PathBuf>,
    manifest: Option<PathBuf>,
    platform_url: Option<String>,
    external_platform_url: Option<String>,
    workspace_roots: Vec<PathBuf>,
    max_tier: Option<i32>,
    provision_timeout_seconds: Option<u64>,
    prepare_timeout_seconds: Option<u64>,
    remote_liveness_stale_after: Option<u64>,
    a2a_idle_timeout_seconds: Option<u64>,
    event_retention_days: Option<u64>,
    activity_retention_days: Option<u64>,
    activity_cleanup_interval_hours: Option<u64>,
    docker_host: Option<String>,
}

/// Every setting, resolved.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) database_url: Option<SecretString>,
    pub(crate) data_dir: PathBuf,
    pub(crate) provisioner: ProvisionerChoice,
    pub(crate) log_format: LogFormat,
    pub(crate) log: String,
    pub(crate) welcome: bool,
    pub(crate) admin_token: Option<SecretString>,
    pub(crate) cipher: Cipher,
    pub(crate) audit_key: Option<AuditKey>,
    pub(crate) configs_dir: Option<PathBuf>,
    pub(crate) manifest: Option<PathBuf>,
    pub(crate) platform_url: Option<String>,
    pub(crate) external_platform_url: Option<String>,
    pub(crate) workspace_roots: Vec<PathBuf>,
    pub(crate) max_tier: Option<i32>,
    pub(crate) provision_timeout: Option<Duration>,
    pub(crate) prepare_timeout: Option<Duration>,
    pub(crate) external_silence: Option<Duration>,
    pub(crate) a2a_idle: Option<Duration>,
    pub(crate) event_retention: Option<Duration>,
    pub(crate) activity_retention: Option<Duration>,
    pub(crate) activity_tick: Option<Duration>,
    pub(crate) docker_host: Option<String>,
    pub(crate) development: bool,
    pub(crate) address_policy: Policy,
    pub(crate) docker: DockerArgs,
    pub(crate) remote: RemoteArgs,
    pub(crate) edge: EdgeArgs,
    pub(crate) health_tick: Option<Duration>,
    pub(crate) timeout_tick: Option<Duration>,
    pub(crate) queue_lease: Option<Duration>,
    pub(crate) listener_ping: Option<Duration>,
    pub(crate) agent_command: Option<PathBuf>,
}

impl ServeArgs {
    /// Reads the settings file, if one is named, and fills in the defaults.
    pub(crate) fn resolve(self, data_dir: Option<PathBuf>) -> Result<Settings, Error> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let port = self.port.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
        let environment = self.environment.unwrap_or_default().trim().to_lowercase();
        let development = matches!(environment.as_str(), "dev" | "development");
        let mut old_keys = if self.secrets_encryption_old_keys.is_empty() {
            file.secrets_encryption_old_keys
        } else {
            self.secrets_encryption_old_keys
        };
        old_keys.retain(|key| !secrecy::ExposeSecret::expose_secret(key).trim().is_empty());
        let url = |url: Option<String>| url.map(|url| url.trim().trim_end_matches('/').to_owned());
        let secret = |secret: Option<SecretString>| {
            secret.filter(|secret| !secrecy::ExposeSecret::expose_secret(secret).trim().is_empty())
        };
        let listen = self.listen.or(port).or(file.listen).unwrap_or(default);
        let network =
            Network { development, local: listen.ip().is_loopback(), has_org: self.remote.org_id().is_some() };
        Ok(Settings {
            listen,
            database_url: secret(self.database_url).or(secret(file.database_url)),
            data_dir: data_dir
                .or_else(|| paths::environment("MOLECULE_DATA_DIR").map(PathBuf::from))
                .or(file.data_dir)
                .or_else(|| paths::data_dir(None, &paths::environment))
                .ok_or_else(|| Error::invalid("the home folder is unknown; name a data folder with --data-dir"))?,
            provisioner: self.provisioner.or(file.provisioner).unwrap_or(ProvisionerChoice::Auto),
            log_format: self.log_format.or(file.log_format).unwrap_or(LogFormat::Pretty),
            log: given(self.log).or(given(file.log)).unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            welcome: self.welcome,
            admin_token: secret(self.admin_token).or(secret(file.admin_token)),
            configs_dir: named(self.configs_dir).or(file.configs_dir),
            manifest: named(self.manifest).or(file.manifest),
            cipher: cipher(
                secret(self.secrets_encryption_key).or(secret(file.secrets_encryption_key)),
                &old_keys,
                matches!(environment.as_str(), "prod" | "production"),
            )?,
            audit_key: secret(self.audit_ledger_salt)
                .or(secret(file.audit_ledger_salt))
                .map(|password| AuditKey::derive(&password)),
            platform_url: url(given(self.platform_url).or(given(file.platform_url))),
            external_platform_url: url(given(self.external_platform_url).or(given(file.external_platform_url))),
            workspace_roots: if self.workspace_root.is_empty() { file.workspace_roots } else { self.workspace_root },
            max_tier: self.max_tier.or(file.max_tier),
            provision_timeout: self
                .provision_timeout_seconds
                .or(file.provision_timeout_seconds)
                .map(Duration::from_secs),
            prepare_timeout: self.prepare_timeout_seconds.or(file.prepare_timeout_seconds).map(Duration::from_secs),
            external_silence: self
                .remote_liveness_stale_after
                .or(file.remote_liveness_stale_after)
                .map(Duration::from_secs),
            a2a_idle: self.a2a_idle_timeout_seconds.or(file.a2a_idle_timeout_seconds).map(Duration::from_secs),
            event_retention: self.event_retention_days.or(file.event_retention_days).map(days),
            activity_retention: self.activity_retention_days.or(file.activity_retention_days).map(days),
            activity_tick: self.activity_cleanup_interval_hours.or(file.activity_cleanup_interval_hours).map(hours),
            docker_host: given(self.docker_host).or(given(file.docker_host)),
            development,
            address_policy: address_policy(network, self.deploy_mode.as_deref())?,
            docker: self.docker,
            remote: self.remote,
            edge: self.edge,
            health_tick: self.health_tick_ms.map(Duration::from_millis),
            timeout_tick: self.timeout_tick_ms.map(Duration::from_millis),
            queue_lease: self.queue_lease_ms.map(Duration::from_millis),
            listener_ping: self.listener_ping_ms.map(Duration::from_millis),
            agent_command: self.agent_command.filter(|path| !path.as_os_str().is_empty()),
        })
    }
}

fn days(number: u64) -> Duration {
    hours(number.saturating_mul(24))
}

fn hours(number: u64) -> Duration {
    Duration::from_secs(number.saturating_mul(60 * 60))
}

/// An empty variable names nothing.
fn named(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

fn cipher(current: Option<SecretString>, older: &[SecretString], production: bool) -> Result<Cipher, Error> {
    match current {
        Some(current) => Cipher::new(&current, older).map_err(|error| {
            let text = format!("SECRETS_ENCRYPTION_KEY or SECRETS_ENCRYPTION_OLD_KEYS: {error}");
            error.with_message(text)
        }),
        None if production => Err(Error::invalid(
            "in production secrets must be encrypted, so SECRETS_ENCRYPTION_KEY must be set (openssl rand -base64 32)",
        )),
        None if !older.is_empty() => {
            Err(Error::invalid("SECRETS_ENCRYPTION_OLD_KEYS is set, and SECRETS_ENCRYPTION_KEY is not"))
        }
        None => Ok(Cipher::default()),
    }
}

/// What is known of the network around the server.
#[derive(Debug, Clone, Copy)]
struct Network {
    development: bool,
    /// It listens where only this host reaches it.
    local: bool,
    has_org: bool,
}

/// How far it is trusted. That agents may be on this host is for whoever runs the server to say, where others reach it.
fn address_policy(network: Network, deploy_mode: Option<&str>) -> Result<Policy, Error> {
    let policy = match deploy_mode.unwrap_or_default().trim().to_lowercase().as_str() {
        "" if network.has_org => Policy::Saas,
        "" if network.local => Policy::Strict,
        "" => Policy::Closed,
        "saas" => Policy::Saas,
        "self-hosted" | "selfhosted" | "standalone" => Policy::Strict,
        other => {
            return Err(Error::invalid(format!(
                "MOLECULE_DEPLOY_MODE is {other:?}; it must be saas, self-hosted or left out"
            )));
        }
    };
    Ok(if network.development { Policy::Development } else { policy })
}

fn read_file(path: &Path) -> Result<File, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::invalid(format!("the settings file {} cannot be read: {error}", path.display())).caused_by(error)
    })?;
    toml::from_str(&text).map_err(|error| {
        let line = error.message().lines().next().unwrap_or_default().to_owned();
        Error::invalid(format!("the settings file {} is not valid: {line}", path.display())).caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use clap::CommandFactory;
    use molecule_core::testing::drift::{Violation, demand_none};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn how_far_the_network_is_trusted() {
        use Policy::{Closed, Development, Saas, Strict};
        // The mode, whether there is an organisation, and the policy on loopback and elsewhere.
        let rows = [
            (None, false, [Strict, Closed]),
            (None, true, [Saas, Saas]),
            (Some(" "), false, [Strict, Closed]),
            (Some(" "), true, [Saas, Saas]),
            (Some("saas"), false, [Saas, Saas]),
            (Some(" SaaS "), false, [Saas, Saas]),
            (Some("self-hosted"), true, [Strict, Strict]),
            (Some("SelfHosted"), true, [Strict, Strict]),
            (Some("standalone"), false, [Strict, Strict]),
        ];
        for (mode, has_org, expected) in rows {
            for (local, expected) in [true, false].into_iter().zip(expected) {
                let network = Network { development: false, local, has_org };
                assert_eq!(address_policy(network, mode).unwrap(), expected, "{mode:?} {network:?}");
                let network = Network { development: true, ..network };
                assert_eq!(address_policy(network, mode).unwrap(), Development, "{mode:?} {network:?}");
            }
        }
        let network = Network { development: true, local: true, has_org: true };
        assert!(address_policy(network, Some("weird")).is_err());
    }

    const PAGE: &str = "docs/settings.md";

    fn page() -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE))
            .expect("the page can be read")
    }

    /// The flag, variable and file columns of every row of the page that begins with a flag.
    fn rows(page: &str) -> Vec<Vec<String>> {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).skip(1).take(3).collect();
        page.lines().filter(|line| line.starts_with("| `--")).map(cells).collect()
    }

    /// The first text between backticks.
    fn code(cell: &str) -> Option<&str> {
        cell.split('`').nth(1)
    }

    type Flag = (String, Option<String>);

    /// The variables of the client commands, and of the data folder, are looked up by hand.
    const BY_HAND: [&str; 4] = ["--server", "--token", "--profile", "--data-dir"];

    /// Where the flags of the page and those of the program differ.
    fn flags_differ(page: &str, program: &BTreeSet<Flag>) -> Vec<Violation> {
        let documented: BTreeSet<Flag> = rows(page)
            .iter()
            .filter_map(|row| Some((code(&row[0])?.to_owned(), code(&row[1]).map(str::to_owned))))
            .map(|(flag, variable)| if BY_HAND.contains(&&*flag) { (flag, None) } else { (flag, variable) })
            .collect();
        let shown = |(flag, variable): &Flag| match variable {
            Some(variable) => format!("{flag} with {variable}"),
            None => flag.clone(),
        };
        let at = |flag: &Flag, what: String| Violation::near(PAGE, page, &format!("| `{}` |", flag.0), what);
        let lacks = program.difference(&documented);
        let lacks = lacks.map(|flag| at(flag, format!("the program has {}: correct or add its row", shown(flag))));
        let more = documented.difference(program);
        let more = more.map(|flag| at(flag, format!("the program has no {}: correct or remove its row", shown(flag))));
        lacks.chain(more).collect()
    }

    fn flags_of_the_program() -> BTreeSet<Flag> {
        let mut program = Cli::command();
        program.build();
        let serve = program.find_subcommand("serve").expect("there is a command serve");
        let arguments = serve.get_arguments().filter(|argument| argument.get_id() != "help");
        arguments
            .map(|argument| {
                let flag = format!("--{}", argument.get_long().expect("every setting has a flag"));
                (flag, argument.get_env().map(|name| name.to_string_lossy().into_owned()))
            })
            .collect()
    }

    /// Where the names of a settings file on the page differ from those that it may have.
    fn names_differ(page: &str, known: &BTreeSet<String>) -> Vec<Violation> {
        let rows = rows(page);
        let client =
            |row: &&Vec<String>| matches!(code(&row[0]), Some("--server" | "--token" | "--profile" | "--json"));
        let documented: BTreeSet<String> =
            rows.iter().filter(|row| !client(row)).filter_map(|row| code(&row[2])).map(str::to_owned).collect();
        let at = |name: &str, what: String| Violation::near(PAGE, page, &format!("| `{name}`"), what);
        let lacks = known.difference(&documented);
        let lacks = lacks.map(|name| at(name, format!("a settings file knows {name}: add it to its row")));
        let more = documented.difference(known);
        let more = more.map(|name| at(name, format!("a settings file knows no {name}: correct its row")));
        lacks.chain(more).collect()
    }

    fn names_of_the_file() -> BTreeSet<String> {
        let refused = toml::from_str::<File>("no-such-name = 1").unwrap_err();
        let (_, known) = refused.message().split_once("expected one of ").expect("the refusal lists what is known");
        known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_flag_and_its_variable_are_documented_and_no_other() {
        demand_none(&flags_differ(&page(), &flags_of_the_program()));
    }

    #[test]
    fn every_name_in_a_settings_file_is_documented_and_no_other() {
        demand_none(&names_differ(&page(), &names_of_the_file()));
    }

    #[test]
    fn a_setting_on_one_side_alone_is_found() {
        let (page, flags, names) = (page(), flags_of_the_program(), names_of_the_file());
        let line = page.lines().position(|line| line.starts_with("| `--listen` |")).expect("it has a row") + 1;
        let told = |found: Vec<Violation>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        let renamed = page.replace("`MOLECULE_LISTEN`", "`LISTEN_ON`");
        assert_eq!(
            told(flags_differ(&renamed, &flags)),
            [
                format!("{PAGE}:{line}: the program has --listen with MOLECULE_LISTEN: correct or add its row"),
                format!("{PAGE}:{line}: the program has no --listen with LISTEN_ON: correct or remove its row"),
            ]
        );
        let without: Vec<&str> = page.lines().filter(|line| !line.starts_with("| `--listen` |")).collect();
        let told_without = told(flags_differ(&without.join("\n"), &flags));
        assert!(told_without.len() == 1 && told_without[0].starts_with(&format!("{PAGE}:1: the program has --listen")));
        let other = page.replacen("| `MOLECULE_LISTEN` | `listen` |", "| `MOLECULE_LISTEN` | `listens` |", 1);
        let told_other = told(names_differ(&other, &names));
        assert_eq!(told_other.len(), 2, "{told_other:?}");
        let expected = format!("{PAGE}:{line}: a settings file knows no listens: correct its row");
        assert_eq!(told_other[1], expected);
    }
}
