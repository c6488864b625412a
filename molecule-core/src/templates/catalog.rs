//! What a workspace is configured from: at its first start, and at every other.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Template, agent_command, files, required_env};
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    provisioner::{
        AgentCommand, ConfigFile,
        prepare::{CONFIG_FILE, generated_config},
    },
    workspace::{Restart, Workspace},
};

/// What a start puts into the configuration folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    /// What an earlier start left there stays; where there is nothing, what fits the runtime.
    Keep,
    /// A configuration that is made from the workspace.
    Generated,
    /// The files of this folder.
    Folder(PathBuf),
}

/// The label of a restart that leaves the configuration alone.
pub(crate) const EXISTING: &str = "existing-volume";

impl ControlPlane {
    /// Every template that can be read, by id.
    pub async fn templates(&self) -> Vec<Template> {
        self.inner.config.templates.list().await
    }

    /// What a new workspace that names `template` is made from, and what that says.
    ///
    /// One that is not there is replaced by what fits the runtime, once that is known.
    pub(crate) async fn template_for_create(&self, template: Option<String>) -> Result<Option<(PathBuf, Template)>> {
        let Some(name) = template else { return Ok(None) };
        let templates = self.inner.config.templates.clone();
        blocking(move || templates.find(&name)).await
    }

    /// What replaces a template that is not there.
    pub(crate) async fn config_of_runtime(&self, runtime: &str) -> Result<ConfigSource> {
        let (templates, runtime) = (self.inner.config.templates.clone(), runtime.to_owned());
        blocking(move || {
            Ok(templates.vanilla(&runtime).map_or(ConfigSource::Generated, |(_, folder)| ConfigSource::Folder(folder)))
        })
        .await
    }

    /// What a workspace without a configuration is given: what it was made with, as long as it was never started, and what
    /// fits its runtime once it lost what it had.
    async fn first_config(&self, workspace: &Workspace) -> Result<ConfigSource> {
        match workspace.template.as_deref() {
            Some("") => return Ok(ConfigSource::Generated),
            Some(name) => {
                let (templates, name) = (self.inner.config.templates.clone(), name.to_owned());
                if let Some(folder) = blocking(move || Ok(templates.locate(&name).ok().flatten())).await? {
                    return Ok(ConfigSource::Folder(folder));
                }
            }
            None => {}
        }
        self.config_of_runtime(&workspace.runtime).await
    }

    /// What a restart puts into the configuration folder, and its label. A template that is not there, or leads out of
    /// the folder of templates, is passed over.
    pub(crate) async fn config_for_restart(
        &self,
        choice: &Restart,
        workspace: &Workspace,
    ) -> Result<(ConfigSource, String)> {
        let templates = self.inner.config.templates.clone();
        let (choice, name, runtime) = (choice.clone(), workspace.name.clone(), workspace.runtime.clone());
        blocking(move || {
            let named = || {
                let folder = templates.locate(&choice.template).ok().flatten()?;
                Some((choice.template.clone(), folder))
            };
            let rebuilt = || {
                let (folder, path) = templates.called_like("org-templates", &name)?;
                Some((format!("org-templates/{folder}"), path))
            };
            let chosen = named()
                .or_else(|| choice.apply_template.then(|| templates.called_like("", &name)).flatten())
                .or_else(|| choice.rebuild_config.then(rebuilt).flatten())
                .or_else(|| choice.apply_template.then(|| templates.vanilla(&runtime)).flatten());
            Ok(match chosen {
                Some((label, folder)) => (ConfigSource::Folder(folder), label),
                None => (ConfigSource::Keep, EXISTING.to_owned()),
            })
        })
        .await
    }

    /// What a restart puts into the configuration folder that somebody else began with this label, if any. A template that
    /// is gone meanwhile is passed over.
    pub(crate) async fn config_asked_for(&self, label: Option<String>) -> ConfigSource {
        let Some(label) = label else { return ConfigSource::Keep };
        let templates = self.inner.config.templates.clone();
        match blocking(move || Ok(templates.locate(&label).ok().flatten())).await {
            Ok(Some(folder)) => ConfigSource::Folder(folder),
            Ok(None) | Err(_) => ConfigSource::Keep,
        }
    }

    /// The files that a start puts into the configuration folder, where it `holds` a configuration or not yet, and the
    /// program that its agent is. Checked against the environment that the agent will have.
    ///
    /// Only a template names a program: agents write their own configuration, and would choose what runs on this host.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with `missing` where a variable is required that is not set.
    pub(crate) async fn config_files(
        &self,
        workspace: &Workspace,
        source: &ConfigSource,
        holds: bool,
        env: &BTreeMap<String, String>,
    ) -> Result<(Vec<ConfigFile>, AgentCommand)> {
        let source = match source {
            ConfigSource::Keep if holds => return Ok((Vec::new(), AgentCommand::Kept)),
            ConfigSource::Keep => self.first_config(workspace).await?,
            other => other.clone(),
        };
        let mut files = match source {
            ConfigSource::Folder(folder) => blocking(move || files::read(&folder)).await?,
            ConfigSource::Keep | ConfigSource::Generated => Vec::new(),
        };
        let config = match files.iter().find(|file| file.path == CONFIG_FILE) {
            Some(file) => String::from_utf8_lossy(&file.contents).into_owned(),
            None => {
                let yaml = generated_config(workspace, env.get("MODEL").map(String::as_str));
                files.push(ConfigFile { path: CONFIG_FILE.to_owned(), contents: yaml.clone().into(), private: false });
                yaml
            }
        };
        match required_env(&config) {
            Ok(required) => check_required(&required, env)?,
            Err(error) => {
                tracing::warn!(workspace.id = %workspace.id, error, "config.yaml cannot be read; nothing is checked");
            }
        }
        let command = match agent_command(&config) {
            named if named.is_empty() => AgentCommand::Own,
            named => AgentCommand::Named(named),
        };
        Ok((files, command))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Unexpected, "the templates cannot be looked at").caused_by(error))
    })
}

/// Refuses a start that its agent could only fail.
fn check_required(required: &[String], env: &BTreeMap<String, String>) -> Result<()> {
    let is_set = |name: &String| env.get(name).is_some_and(|value| !value.is_empty());
    let missing: Vec<&str> = required.iter().filter(|name| !is_set(name)).map(String::as_str).collect();
    let text = match missing.as_slice() {
        [] => return Ok(()),
        [one] => {
            format!(
                "missing required env var \"{one}\" — add it under Config → Env Vars (or as a Global secret) and retry"
            )
        }
        several => format!(
            "missing required env vars {} — add them under Config → Env Vars (or as Global secrets) and retry",
            several.join(", ")
        ),
    };
    Err(Error::invalid(text).with_member("missing", missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_variables_are_missing() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("EMPTY".to_owned(), String::new())]);
        let check = |required: &[&str]| {
            let required: Vec<String> = required.iter().map(|name| (*name).to_owned()).collect();
            check_required(&required, &env).err().map(|error| error.message().to_owned())
        };
        assert_eq!(check(&[]), None);
        assert_eq!(check(&["A"]), None);
        assert_eq!(
            check(&["A", "EMPTY"]).as_deref(),
            Some(
                "missing required env var \"EMPTY\" — add it under Config → Env Vars (or as a Global secret) and retry"
            )
        );
        assert_eq!(
            check(&["X", "A", "Y"]).as_deref(),
            Some("missing required env vars X, Y — add them under Config → Env Vars (or as Global secrets) and retry")
        );
    }
}
