//! From a workspace to what its backend needs to know: pure, and the same for every backend.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{AgentCommand, ConfigFile, StartSpec};
use crate::{
    config::Config,
    workspace::{Access, DEFAULT_RUNTIME, Workspace},
};

/// What an agent reads its configuration from.
pub(crate) const CONFIG_FILE: &str = "config.yaml";

/// What the backend is told.
pub(crate) fn spec(
    workspace: &Workspace,
    env: BTreeMap<String, String>,
    mut files: Vec<ConfigFile>,
    config: &Config,
    token: &SecretString,
) -> StartSpec {
    files.push(ConfigFile {
        path: ".auth_token".to_owned(),
        contents: token.expose_secret().as_bytes().to_vec(),
        private: true,
    });
    StartSpec {
        workspace_id: workspace.id,
        name: workspace.name.clone(),
        runtime: workspace.runtime.clone(),
        tier: workspace.tier,
        files,
        env,
        workspace_dir: match workspace.workspace_access {
            Access::None => None,
            Access::ReadOnly | Access::ReadWrite => workspace.workspace_dir.as_ref().map(PathBuf::from),
        },
        access: workspace.workspace_access,
        platform_url: config.platform_url.clone(),
        reset_session: false,
        command: AgentCommand::default(),
    }
}

/// The file by which an agent knows calls of its platform.
pub(crate) fn inbound_secret_file(secret: &SecretString) -> ConfigFile {
    ConfigFile {
        path: ".platform_inbound_secret".to_owned(),
        contents: secret.expose_secret().as_bytes().to_vec(),
        private: true,
    }
}

/// The configuration of a workspace that no template is named for.
pub(crate) fn generated_config(workspace: &Workspace, model: Option<&str>) -> String {
    let default_model = match workspace.runtime.as_str() {
        DEFAULT_RUNTIME => "sonnet",
        _ => "anthropic:claude-opus-4-7",
    };
    format!(
        "name: {}\ndescription: {}\nversion: 1.0.0\ntier: {}\nruntime: {}\nmodel: {}\nruntime_config:\n  timeout: 0\n",
        quoted(&workspace.name),
        quoted(workspace.role.as_deref().unwrap_or_default()),
        workspace.tier,
        workspace.runtime,
        quoted(model.unwrap_or(default_model)),
    )
}

/// A double-quoted YAML scalar. JSON's escapes are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace('\n', " ").replace('\r', "")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_add_keys() {
        assert_eq!(quoted("a\nb: \"c\"\r\\"), r#""a b: \"c\"\\""#);
    }
}
