//! The environment of an agent: its secrets, then what the control plane adds, then what plugins make of it.

use std::{collections::BTreeMap, fmt::Debug};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    secrets::{MODEL, Scope},
    workspace::Workspace,
};

/// The runtime that reads its model from a variable of its own as well.
const HERMES: &str = "hermes";

/// Who commits are made by, where the workspace does not say otherwise: the domain of its address.
const MAIL_DOMAIN: &str = "agents.moleculesai.app";

/// Has a say in the environment of every agent before it is brought up.
#[async_trait]
pub trait EnvMutator: Debug + Send + Sync + 'static {
    /// Changes what the agent of `workspace` is given. The variables of the backend itself win over it.
    ///
    /// # Behavior
    /// - Sees what the mutators before it made of the environment.
    ///
    /// # Errors
    /// Any error fails the start, and no later mutator is asked.
    async fn mutate(&self, workspace: &Workspace, env: &mut BTreeMap<String, String>) -> Result<()>;
}

impl ControlPlane {
    /// The environment of the agent of `workspace`.
    pub(super) async fn environment(&self, workspace: &Workspace) -> Result<BTreeMap<String, String>> {
        let opened = self.open_secrets(workspace.id).await;
        let (secrets, failed) = opened.map_err(|error| {
            Error::new(error.kind(), "failed to load the secrets of the workspace").caused_by(error)
        })?;
        if let Some((scope, _)) = failed.first() {
            return Err(Error::new(
                ErrorKind::Unexpected,
                match scope {
                    Scope::Global => "failed to decrypt global secret",
                    Scope::Workspace => "failed to decrypt workspace secret",
                },
            ));
        }
        let mut env = assemble(workspace, &secrets, self.inner.config.awareness_url.as_deref());
        for mutator in &self.inner.env_mutators {
            mutator.mutate(workspace, &mut env).await.map_err(|error| {
                let failed = Error::new(ErrorKind::Upstream, "plugin env mutator chain failed");
                failed.context("mutator", format!("{mutator:?}")).caused_by(error)
            })?;
        }
        Ok(env)
    }
}

fn assemble(
    workspace: &Workspace,
    secrets: &BTreeMap<String, SecretString>,
    awareness_url: Option<&str>,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> =
        secrets.iter().map(|(key, value)| (key.clone(), value.expose_secret().to_owned())).collect();
    for (key, value) in git_identity(&workspace.name) {
        env.entry(key.to_owned()).or_insert(value);
    }
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            env.insert(name.to_owned(), value.to_owned());
        }
    };
    let model = secrets.get(MODEL).map(SecretString::expose_secret).unwrap_or_default();
    set("MODEL", model);
    if workspace.runtime == HERMES {
        set("HERMES_DEFAULT_MODEL", model);
    }
    set("MOLECULE_AGENT_NAME", &workspace.name);
    set("MOLECULE_AGENT_ROLE", workspace.role.as_deref().unwrap_or_default());
    set("PARENT_ID", &workspace.parent_id.map(|id| id.to_string()).unwrap_or_default());
    if let Some(url) = awareness_url.filter(|url| !url.is_empty()) {
        set("AWARENESS_URL", url);
        set("AWARENESS_NAMESPACE", &format!("workspace:{}", workspace.id));
    }
    env
}

/// Whose commits those of a workspace of this name are.
fn git_identity(name: &str) -> Vec<(&'static str, String)> {
    let name = name.trim();
    let slug: String = name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug = slug.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if name.is_empty() {
        return Vec::new();
    }
    let slug = if slug.is_empty() { "agent" } else { &slug };
    let (full, mail) = (format!("Molecule AI {name}"), format!("{slug}@{MAIL_DOMAIN}"));
    vec![
        ("GIT_AUTHOR_NAME", full.clone()),
        ("GIT_AUTHOR_EMAIL", mail.clone()),
        ("GIT_COMMITTER_NAME", full),
        ("GIT_COMMITTER_EMAIL", mail),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_made_in_the_name_of_the_workspace() {
        for (name, mail) in [
            ("Data Engineer", "data-engineer@agents.moleculesai.app"),
            ("  R&D — 2 ", "r-d-2@agents.moleculesai.app"),
            ("--x--", "x@agents.moleculesai.app"),
            ("設計", "agent@agents.moleculesai.app"),
        ] {
            let identity = git_identity(name);
            assert_eq!(identity[1], ("GIT_AUTHOR_EMAIL", mail.to_owned()));
            assert_eq!(identity[2], ("GIT_COMMITTER_NAME", format!("Molecule AI {}", name.trim())));
        }
        assert!(git_identity(" ").is_empty());
    }
}
