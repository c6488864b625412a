//! What `molecule-mcp` is told by its environment.

use std::path::{Path, PathBuf};

use super::{EXIT_USAGE, Failure};
use crate::agent::{Settings, StateDir, TokenStore};

/// The advice on how long to wait for messages, in seconds, when nothing else is said, and the longest.
const POLL_TIMEOUT: (u64, u64) = (2, 60);

const HELP: &str = "\
molecule-mcp makes an agent a member of a Molecule fleet. It is told by its environment:
  WORKSPACE_ID              the id of the workspace
  PLATFORM_URL              the address of the platform, as http://localhost:8080
  MOLECULE_WORKSPACE_TOKEN  the token of the workspace, from the canvas → Tokens tab
  CONFIGS_DIR               where secrets are kept (default: /configs, else ~/.molecule-workspace)
  MOLECULE_AGENT_NAME, MOLECULE_AGENT_DESCRIPTION, MOLECULE_AGENT_SKILLS
                            what others see of the agent; skills are separated by commas
  MOLECULE_MCP_DISABLE_HEARTBEAT, MOLECULE_MCP_DISABLE_INBOX, MOLECULE_MCP_VERBOSE
                            anything: no register and no heartbeat; no inbox; more logs
  MOLECULE_MCP_POLL_TIMEOUT_SECS
                            how long the agent is advised to wait for messages (default: 2; 0: not at all)";

/// Folders that no project is, in case nobody says where home is.
const SYSTEM: [&str; 6] = ["/etc", "/home", "/proc", "/root", "/usr", "/var"];

/// What the command is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Who the agent is.
    pub settings: Settings,
    /// Neither register nor beat: another process does.
    pub no_heartbeat: bool,
    /// Take in no messages.
    pub no_inbox: bool,
    /// Log what happens and not only what is wrong.
    pub is_verbose: bool,
    /// How many seconds the agent is advised to wait for messages; 0: not at all.
    pub poll_timeout: u64,
    /// Files below these may be sent to the user.
    pub folders: Vec<PathBuf>,
}

impl Options {
    /// Asks `variable` for each variable by its name. `folder` is the one that the command was started in.
    pub fn read(variable: impl Fn(&str) -> Option<String>, folder: Option<PathBuf>) -> Self {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.trim().is_empty());
        let (default, longest) = POLL_TIMEOUT;
        let poll_timeout =
            variable("MOLECULE_MCP_POLL_TIMEOUT_SECS").and_then(|seconds| seconds.trim().parse::<u64>().ok());
        Self {
            no_heartbeat: is_set("MOLECULE_MCP_DISABLE_HEARTBEAT"),
            no_inbox: is_set("MOLECULE_MCP_DISABLE_INBOX"),
            is_verbose: is_set("MOLECULE_MCP_VERBOSE"),
            poll_timeout: poll_timeout.unwrap_or(default).min(longest),
            folders: folders(folder, variable("HOME"), variable("TMPDIR")),
            settings: Settings::read(variable),
        }
    }

    /// The folder of the secrets, once all is there that is needed.
    pub(super) fn check(&self) -> Result<StateDir, Failure> {
        let folder = self.settings.state_dir();
        let token = folder.as_ref().map(|folder| TokenStore::supplied_first(folder, self.settings.token.clone()).get());
        let has_token = match token {
            Ok(token) => token?.is_some(),
            Err(_) => self.settings.token.is_some(),
        };
        let missing: Vec<&str> = [
            (self.settings.workspace_id.is_some(), "WORKSPACE_ID"),
            (self.settings.platform_url.is_some(), "PLATFORM_URL"),
            (has_token, "MOLECULE_WORKSPACE_TOKEN (or CONFIGS_DIR/.auth_token)"),
        ]
        .into_iter()
        .filter_map(|(is_there, name)| (!is_there).then_some(name))
        .collect();
        if missing.is_empty() {
            return Ok(folder?);
        }
        let message = format!("{HELP}\n\nCurrently missing: {}", missing.join(", "));
        Err(Failure { code: EXIT_USAGE, message })
    }
}

/// The folders of the workspace and the one for temporary files, and that of the project the agent works on. Clients that
/// have no project start the command at the root or in the home folder, where everything lies.
fn folders(project: Option<PathBuf>, home: Option<String>, temporary: Option<String>) -> Vec<PathBuf> {
    let holds_little = |folder: &PathBuf| {
        let is_system = SYSTEM.iter().any(|system| folder == Path::new(system));
        folder.parent().is_some()
            && !is_system
            && home.as_deref().is_none_or(|home| !Path::new(home).starts_with(folder))
    };
    let temporary = temporary.map(PathBuf::from).filter(|folder| folder.is_absolute() && holds_little(folder));
    let temporary = temporary.unwrap_or_else(|| "/tmp".into());
    ["/workspace".into(), temporary].into_iter().chain(project.filter(holds_little)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> Options {
        Options::read(
            |asked| variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned()),
            None,
        )
    }

    #[test]
    fn files_are_sent_from_the_project_and_not_from_everywhere() {
        let found = |project: &str| folders(Some(project.into()), Some("/home/ada".into()), None).len();
        assert_eq!(found("/home/ada/project"), 3);
        for everywhere in ["/", "/home", "/home/ada"] {
            assert_eq!(found(everywhere), 2, "{everywhere}");
        }
        assert_eq!(folders(None, None, Some("/var/tmp".into())), ["/workspace", "/var/tmp"].map(PathBuf::from));
        for everywhere in ["/", "/etc", "/root", "", "tmp"] {
            let found = folders(Some("/root".into()), None, Some(everywhere.into()));
            assert_eq!(found, ["/workspace", "/tmp"].map(PathBuf::from), "{everywhere}");
        }
    }

    #[test]
    fn anything_that_is_not_blank_switches() {
        let set = options(&[
            ("MOLECULE_MCP_DISABLE_HEARTBEAT", "0"),
            ("MOLECULE_MCP_DISABLE_INBOX", "yes"),
            ("MOLECULE_MCP_VERBOSE", " "),
        ]);
        assert!(set.no_heartbeat && set.no_inbox && !set.is_verbose);
    }

    #[test]
    fn the_advice_to_wait_has_its_limits() {
        for (text, expected) in [("", 2), ("0", 0), ("5", 5), ("61", 60), ("-1", 2), ("soon", 2), (" 7 ", 7)] {
            assert_eq!(options(&[("MOLECULE_MCP_POLL_TIMEOUT_SECS", text)]).poll_timeout, expected, "{text}");
        }
        assert_eq!(options(&[]).poll_timeout, 2);
    }

    #[test]
    fn all_that_is_missing_is_named_in_the_last_line() {
        let root = tempfile::tempdir().unwrap();
        let folder = ("CONFIGS_DIR", root.path().to_str().unwrap());
        let failure = options(&[folder, ("PLATFORM_URL", "http://p")]).check().unwrap_err();
        assert_eq!(failure.code, 2);
        let last = failure.message.lines().last().unwrap();
        assert_eq!(last, "Currently missing: WORKSPACE_ID, MOLECULE_WORKSPACE_TOKEN (or CONFIGS_DIR/.auth_token)");
        let failure = options(&[("PLATFORM_URL", "http://p")]).check().unwrap_err();
        let last = failure.message.lines().last().unwrap();
        assert!(last.starts_with("Currently missing: WORKSPACE_ID"), "there is no home either: {last}");
        std::fs::write(root.path().join(".auth_token"), "t0ken").unwrap();
        assert!(options(&[folder, ("PLATFORM_URL", "http://p"), ("WORKSPACE_ID", "x")]).check().is_ok());
    }
}
