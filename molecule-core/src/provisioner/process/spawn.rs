//! Starts the first process of a workload.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit, setsid};
use tokio::process::{Child, Command};

use super::{ProcessConfig, folder, folder::Folder, log, proc_table::ProcessId, record::Record};
use crate::{
    error::{Error, ErrorKind, Result, Retry},
    provisioner::{AgentCommand, StartSpec},
    workspace::Access,
};

/// A running first process, and what is to be remembered of it.
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) process: ProcessId,
    pub(super) record: Record,
}

/// Prepares the folder of a workspace and starts its agent there.
pub(super) fn spawn(config: &ProcessConfig, folder: &Folder, spec: &StartSpec) -> Result<Spawned> {
    let workspace = workspace(folder, spec)?;
    let (program, arguments) = agent(config, folder, &spec.command)?;
    check_command(&program)?;
    folder.create()?;
    folder.write_configs(&spec.files)?;
    keep_command(folder, &spec.command)?;
    let log = log::open(&folder.log)?;
    let errors =
        log.try_clone().map_err(|error| folder::failed("open the log of the workspace", &folder.log, error))?;
    let port = free_port()?;

    let mut command = Command::new(&program);
    command
        .args(&arguments)
        .env_clear()
        .envs(environment(config, folder, spec, port)?)
        .current_dir(&workspace)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(false);
    let open_files = config.open_files;
    let prepare = move || {
        // A session of its own: no signal meant for the server reaches it, and all its descendants can be found.
        setsid()?;
        if let Some(current) = open_files {
            let maximum = getrlimit(Resource::Nofile).maximum;
            setrlimit(
                Resource::Nofile,
                Rlimit { current: Some(maximum.map_or(current, |most| most.min(current))), maximum },
            )?;
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "these are system calls alone; they are safe between fork and exec")]
    // SAFETY: the closure neither allocates nor takes a lock, as is demanded of code between fork and exec.
    unsafe {
        command.pre_exec(prepare);
    }
    let child = command.spawn().map_err(|error| {
        let message = format!(
            "the agent command cannot be run: {} — check that it, and the interpreter a script names, can be run",
            error.kind()
        );
        Error::new(ErrorKind::Unavailable, message).context("command", program.display()).caused_by(error)
    })?;

    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(|| lost(&program))?;
    let process = ProcessId::of(pid).map_err(|error| {
        end(pid);
        lost(&program).caused_by(error)
    })?;
    let record = Record {
        process: Some(process.clone()),
        port,
        command: std::iter::once(program.display().to_string()).chain(arguments).collect(),
        workspace,
        exit_code: None,
    };
    Ok(Spawned { child, process, record })
}

impl Spawned {
    /// Ends a workload that cannot be kept.
    pub(super) fn discard(self) {
        // Not waited for yet, so that the pid is still its own.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            end(pid);
        }
    }
}

fn end(pid: i32) {
    if let Some(group) = Pid::from_raw(pid) {
        // It fails only where nothing is left to end.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn lost(command: &Path) -> Error {
    Error::new(ErrorKind::Unexpected, "the agent was started and cannot be found in the process table")
        .context("command", command.display())
}

/// The folder to work in.
fn workspace(folder: &Folder, spec: &StartSpec) -> Result<PathBuf> {
    match &spec.workspace_dir {
        Some(path) if spec.access != Access::None => {
            if !path.is_absolute() || !path.is_dir() {
                let message =
                    "the folder given to the workspace is not there — create it, or give the workspace another";
                return Err(Error::invalid(message).context("workspace_dir", path.display()));
            }
            Ok(path.clone())
        }
        _ => Ok(folder.workspace.clone()),
    }
}

/// The program of the agent and its arguments.
fn agent(config: &ProcessConfig, folder: &Folder, command: &AgentCommand) -> Result<(PathBuf, Vec<String>)> {
    let named = match command {
        AgentCommand::Own => None,
        AgentCommand::Named(named) => Some(named.clone()),
        AgentCommand::Kept => match fs::read(&folder.command) {
            Ok(text) => Some(serde_json::from_slice(&text).map_err(|error| {
                Error::new(ErrorKind::Unexpected, "the file that names the agent's program is damaged")
                    .context("path", folder.command.display())
                    .caused_by(error)
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(folder::failed("read a file of the workspace", &folder.command, error)),
        },
    };
    let mut named: std::collections::VecDeque<String> = named.unwrap_or_default().into();
    Ok(match named.pop_front() {
        Some(program) => (look_up(config, &program), named.into()),
        None => (config.command.clone(), config.args.clone()),
    })
}

/// The program that is called so where agents look for programs.
fn look_up(config: &ProcessConfig, program: &str) -> PathBuf {
    let folders = config.inherit.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_str());
    let named_only = !program.contains('/');
    let mut places = folders.into_iter().flat_map(std::env::split_paths).filter(|_| named_only);
    places.find_map(|place| Some(place.join(program)).filter(|path| path.is_file())).unwrap_or_else(|| program.into())
}

/// Keeps what was named for the starts to come.
fn keep_command(folder: &Folder, command: &AgentCommand) -> Result<()> {
    match command {
        AgentCommand::Kept => Ok(()),
        AgentCommand::Named(named) => {
            folder::replace(&folder.command, serde_json::Value::from(named.clone()).to_string().as_bytes(), 0o600)
        }
        AgentCommand::Own => match fs::remove_file(&folder.command) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(folder::failed("remove a file of the workspace", &folder.command, error))
            }
            _ => Ok(()),
        },
    }
}

fn check_command(command: &Path) -> Result<()> {
    let problem = match fs::metadata(command) {
        _ if !command.is_absolute() => "is not an absolute path".to_owned(),
        Err(error) => format!("cannot be run: {}", error.kind()),
        Ok(found) if !found.is_file() => "is not a file".to_owned(),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => "is not executable".to_owned(),
        Ok(_) => return Ok(()),
    };
    Err(Error::new(ErrorKind::Unavailable, format!("the agent command {problem} — configure one that is there"))
        .with_retry(Retry::Never)
        .context("command", command.display()))
}

/// A port of the loopback address that nothing listens on.
///
/// Until the agent listens, another program may take it. The agent then ends with an error of its own, which shows as
/// a workload that ended; the next start picks another port.
fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Error::new(ErrorKind::Unavailable, "this host has no free port").caused_by(error))
}

/// The whole environment of the agent. Ours wins over that of the spec, which wins over what is inherited.
fn environment(
    config: &ProcessConfig,
    folder: &Folder,
    spec: &StartSpec,
    port: u16,
) -> Result<BTreeMap<String, String>> {
    let configs = folder.configs.display().to_string();
    let own = [
        ("WORKSPACE_ID", spec.workspace_id.to_string()),
        ("WORKSPACE_CONFIG_PATH", configs.clone()),
        ("CONFIGS_DIR", configs),
        ("PLATFORM_URL", spec.platform_url.clone()),
        ("MOLECULE_URL", spec.platform_url.clone()),
        ("TIER", spec.tier.to_string()),
        ("PORT", port.to_string()),
    ];
    let mut environment: BTreeMap<String, String> = config.inherit.iter().cloned().collect();
    for (name, value) in &spec.env {
        // A `=` in a name would set another variable than it says.
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::invalid(format!("environment variable {name:?} has an impossible name or value")));
        }
        environment.insert(name.clone(), value.clone());
    }
    environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(command: &str) -> ProcessConfig {
        ProcessConfig {
            root: "/r".into(),
            command: command.into(),
            args: Vec::new(),
            inherit: vec![("PATH".to_owned(), "/bin".to_owned()), ("LANG".to_owned(), "C".to_owned())],
            open_files: None,
            stop_grace: Duration::ZERO,
        }
    }

    fn spec(env: &[(&str, &str)]) -> StartSpec {
        StartSpec {
            workspace_id: "6f9619ff-8b86-d011-b42d-00cf4fc964ff".parse().unwrap(),
            name: "w".to_owned(),
            runtime: "claude-code".to_owned(),
            tier: 2,
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            files: Vec::new(),
            workspace_dir: None,
            access: Access::None,
            platform_url: "http://127.0.0.1:8080".to_owned(),
            reset_session: false,
            command: Default::default(),
        }
    }

    #[test]
    fn the_backends_own_variables_win() {
        let folder = Folder::new("/r/w".into());
        let spec = spec(&[("TIER", "4"), ("PORT", "1"), ("LANG", "de"), ("KEY", "k")]);
        let environment = environment(&config("/a"), &folder, &spec, 9000).unwrap();
        let expected = [
            ("CONFIGS_DIR", "/r/w/configs"),
            ("KEY", "k"),
            ("LANG", "de"),
            ("MOLECULE_URL", "http://127.0.0.1:8080"),
            ("PATH", "/bin"),
            ("PLATFORM_URL", "http://127.0.0.1:8080"),
            ("PORT", "9000"),
            ("TIER", "2"),
            ("WORKSPACE_CONFIG_PATH", "/r/w/configs"),
            ("WORKSPACE_ID", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
        ];
        assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn the_program_that_was_named_is_found_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("w"));
        folder.create().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("own-agent"), "").unwrap();
        let mut config = config("/usr/bin/molecule");
        config.args = vec!["agent".to_owned()];
        config.inherit = vec![("PATH".to_owned(), format!("/no/such/folder:{}", bin.display()))];
        let own = ("/usr/bin/molecule".into(), vec!["agent".to_owned()]);
        let named = |words: &[&str]| AgentCommand::Named(words.iter().map(|word| (*word).to_owned()).collect());
        let agent = |command: &AgentCommand| agent(&config, &folder, command).unwrap();
        assert_eq!(agent(&AgentCommand::Kept), own, "nothing was named before");
        let found = (bin.join("own-agent"), vec!["-v".to_owned()]);
        assert_eq!(agent(&named(&["own-agent", "-v"])), found);
        assert_eq!(agent(&named(&["/opt/agent"])), ("/opt/agent".into(), Vec::new()));
        assert_eq!(agent(&named(&["../own-agent"])).0, PathBuf::from("../own-agent"), "that is refused");
        keep_command(&folder, &named(&["own-agent", "-v"])).unwrap();
        keep_command(&folder, &AgentCommand::Kept).unwrap();
        assert_eq!(agent(&AgentCommand::Kept), found);
        keep_command(&folder, &AgentCommand::Own).unwrap();
        assert_eq!(agent(&AgentCommand::Kept), own);
    }

    #[test]
    fn a_variable_cannot_pose_as_another() {
        let folder = Folder::new("/r/w".into());
        for name in ["", "PORT=1", "A\0"] {
            let error = environment(&config("/a"), &folder, &spec(&[(name, "secret-value")]), 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!error.detail().contains("secret-value"), "{error:?}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_the_command() {
        for (command, problem) in [
            ("bin/molecule", "is not an absolute path"),
            ("/no/such/agent", "entity not found"),
            ("/etc", "is not a file"),
            ("/etc/passwd", "is not executable"),
        ] {
            let error = check_command(Path::new(command)).unwrap_err();
            assert!(error.message().contains(problem), "{error}");
            assert!(!error.message().contains(command) && error.detail().contains(command), "{error:?}");
        }
    }
}
