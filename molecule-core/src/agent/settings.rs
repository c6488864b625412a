//! What an agent is told by its environment.

use std::path::PathBuf;

use secrecy::SecretString;

use super::{AgentCard, PlatformUrl, Skill, StateDir};
use crate::{
    error::{Error, Result},
    http_client::Way,
    id::WorkspaceId,
};

/// What the environment of an agent says, as it stands there; a variable that is blank counts as not set.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `WORKSPACE_ID`: the workspace the agent is.
    pub workspace_id: Option<String>,
    /// `PLATFORM_URL`: where the platform is.
    pub platform_url: Option<String>,
    /// `MOLECULE_WORKSPACE_TOKEN`: what the agent proves itself with.
    pub token: Option<SecretString>,
    /// `CONFIGS_DIR`: where the agent keeps its secrets.
    pub configs_dir: Option<PathBuf>,
    /// `HOME`: below it the secrets are kept when nothing else is said.
    pub home: Option<PathBuf>,
    /// `MOLECULE_AGENT_NAME`: how people call the agent.
    pub name: Option<String>,
    /// `MOLECULE_AGENT_DESCRIPTION`: what the agent is for.
    pub description: Option<String>,
    /// `MOLECULE_AGENT_SKILLS`: what the agent can be asked for, separated by commas.
    pub skills: Option<String>,
    /// How its calls leave the network that it runs in.
    pub way: Way,
}

impl Settings {
    /// Asks `variable` for each variable by its name.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        Self {
            workspace_id: given("WORKSPACE_ID"),
            platform_url: given("PLATFORM_URL"),
            token: given("MOLECULE_WORKSPACE_TOKEN").map(SecretString::from),
            configs_dir: given("CONFIGS_DIR").map(PathBuf::from),
            home: given("HOME").map(PathBuf::from),
            name: given("MOLECULE_AGENT_NAME"),
            description: given("MOLECULE_AGENT_DESCRIPTION"),
            skills: given("MOLECULE_AGENT_SKILLS"),
            way: Way::read(&variable),
        }
    }

    /// The workspace the agent is.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) when it is not said, or is no UUID.
    pub fn workspace_id(&self) -> Result<WorkspaceId> {
        let text = self.workspace_id.as_deref().ok_or_else(|| {
            Error::invalid("WORKSPACE_ID is not set: it is the id that creating the workspace answered with")
        })?;
        text.parse().map_err(|error: Error| error.with_message(format!("WORKSPACE_ID is not a UUID: {text:?}")))
    }

    /// Where the platform is.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) when it is not said, or is no address of a platform.
    pub fn platform_url(&self) -> Result<PlatformUrl> {
        let text = self.platform_url.as_deref().ok_or_else(|| {
            Error::invalid("PLATFORM_URL is not set: it is the address of the control plane, as http://localhost:8080")
        })?;
        text.parse()
    }

    /// Where the agent keeps its secrets, made if need be.
    ///
    /// # Errors
    /// As [`StateDir::resolve`].
    pub fn state_dir(&self) -> Result<StateDir> {
        StateDir::resolve(self.configs_dir.as_deref(), self.home.as_deref())
    }

    /// The card of an agent that says nothing else of itself; without a name it is `prefix` and the start of `id`.
    pub fn card(&self, prefix: &str, id: &WorkspaceId) -> AgentCard {
        let skills = self.skills.as_deref().unwrap_or_default().split(',').map(str::trim);
        AgentCard {
            name: self.name.clone().unwrap_or_else(|| format!("{prefix}-{}", &id.to_string()[..8])),
            description: self.description.clone().unwrap_or_default(),
            skills: skills
                .filter(|name| !name.is_empty())
                .map(|name| Skill { name: name.to_owned(), ..Skill::default() })
                .collect(),
            ..AgentCard::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::read(|asked| variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn what_is_blank_is_not_set() {
        let settings = settings(&[("WORKSPACE_ID", " "), ("PLATFORM_URL", ""), ("MOLECULE_WORKSPACE_TOKEN", "\n")]);
        assert!(settings.token.is_none());
        let error = settings.workspace_id().unwrap_err();
        assert!(error.message().starts_with("WORKSPACE_ID is not set"), "{error}");
        let error = settings.platform_url().unwrap_err();
        assert!(error.message().starts_with("PLATFORM_URL is not set"), "{error}");
    }

    #[test]
    fn what_is_set_is_trimmed() {
        let settings = settings(&[("WORKSPACE_ID", &format!(" {ID}\n")), ("PLATFORM_URL", " http://host/ ")]);
        assert_eq!(settings.workspace_id().unwrap().to_string(), ID);
        assert_eq!(settings.platform_url().unwrap().as_str(), "http://host");
        assert!(super::Settings { workspace_id: Some("x".into()), ..settings }.workspace_id().is_err());
    }

    #[test]
    fn the_card_says_what_is_known() {
        let id = ID.parse().unwrap();
        let card = |variables: &[(&str, &str)]| serde_json::to_value(settings(variables).card("agent", &id)).unwrap();
        assert_eq!(card(&[]), json!({"name": "agent-6f9619ff", "skills": []}));
        assert_eq!(
            card(&[
                ("MOLECULE_AGENT_NAME", "Ada"),
                ("MOLECULE_AGENT_DESCRIPTION", "computes"),
                ("MOLECULE_AGENT_SKILLS", "add, ,multiply"),
            ]),
            json!({"name": "Ada", "description": "computes", "skills": [{"name": "add"}, {"name": "multiply"}]})
        );
    }

    #[test]
    fn the_token_is_not_in_debug_output() {
        let settings = settings(&[("MOLECULE_WORKSPACE_TOKEN", "t0ken")]);
        assert!(!format!("{settings:?}").contains("t0ken"));
    }
}
