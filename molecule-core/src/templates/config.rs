//! `config.yaml`, as far as the control plane reads it.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A template, as it is offered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    /// The name of its folder.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// How much its workspaces may use and do; 0 where it does not say.
    pub tier: i32,
    /// The runtime that it is for.
    pub runtime: String,
    /// The model that is used where none is chosen.
    pub model: String,
    /// What its agents know to do.
    pub skills: Vec<String>,
    /// The models to choose from.
    pub models: Vec<ModelOption>,
    /// The variables that its agents cannot do without.
    pub required_env: Vec<String>,
    /// The providers to choose from, by name.
    pub providers: Vec<String>,
    /// What is known of providers; not the same list.
    pub provider_registry: Vec<ProviderEntry>,
    /// How long bringing up one of its workspaces may take, where it says.
    pub provision_timeout: Option<Duration>,
}

/// A model to choose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ModelOption {
    /// What is stored.
    #[serde(deserialize_with = "or_default")]
    pub id: String,
    /// The name for people; may be empty.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The variables that it needs.
    #[serde(deserialize_with = "or_default")]
    pub required_env: Vec<String>,
}

/// What a template says of a provider. Everything but the name may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each is named like the key that it is read from")]
pub struct ProviderEntry {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub auth_mode: String,
    #[serde(deserialize_with = "or_default")]
    pub model_prefixes: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub model_aliases: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub base_url: String,
    #[serde(deserialize_with = "or_default")]
    pub auth_env: Vec<String>,
}

/// A workspace that belongs to the team of another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubWorkspace {
    /// The folder of its template; may be empty.
    #[serde(deserialize_with = "or_default")]
    pub(crate) config: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) role: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    description: String,
    #[serde(deserialize_with = "or_default")]
    tier: i32,
    #[serde(deserialize_with = "or_default")]
    runtime: String,
    #[serde(deserialize_with = "or_default")]
    model: String,
    #[serde(deserialize_with = "or_default")]
    skills: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    models: Vec<ModelOption>,
    #[serde(deserialize_with = "or_default")]
    providers: Vec<ProviderEntry>,
    #[serde(deserialize_with = "or_default")]
    runtime_config: RuntimeConfig,
    #[serde(deserialize_with = "or_default")]
    env: Env,
    #[serde(deserialize_with = "or_default")]
    sub_workspaces: Vec<SubWorkspace>,
    /// Looked at where it is asked for: one that is no list spoils nothing else.
    shared_context: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    #[serde(deserialize_with = "or_default")]
    model: String,
    #[serde(deserialize_with = "or_default")]
    models: Vec<ModelOption>,
    #[serde(deserialize_with = "or_default")]
    required_env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    providers: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    provision_timeout_seconds: i64,
    /// These two are looked at where they are asked for: what is wrong with them spoils nothing else.
    command: Option<serde_json::Value>,
    args: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Env {
    #[serde(deserialize_with = "or_default")]
    required: Vec<String>,
}

/// A key without a value counts as left out.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Why a file cannot be read, in one line.
fn read(yaml: &str) -> Result<File, String> {
    let parsed: Result<Option<File>, _> = serde_saphyr::from_str(yaml);
    parsed.map(Option::unwrap_or_default).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim().to_owned()
    })
}

impl Template {
    /// The template that `yaml` in the folder `id` describes, or why it cannot be read.
    pub(crate) fn parse(id: &str, yaml: &str) -> Result<Self, String> {
        let File { name, description, tier, runtime, model, skills, models, providers, runtime_config, env, .. } =
            read(yaml)?;
        let first = |one: Vec<String>, other| if one.is_empty() { other } else { one };
        Ok(Self {
            id: id.to_owned(),
            name,
            description,
            tier,
            runtime,
            model: if model.is_empty() { runtime_config.model } else { model },
            skills,
            models: if runtime_config.models.is_empty() { models } else { runtime_config.models },
            required_env: first(runtime_config.required_env, env.required),
            providers: runtime_config.providers,
            provider_registry: providers,
            provision_timeout: u64::try_from(runtime_config.provision_timeout_seconds)
                .ok()
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
        })
    }
}

/// The variables without which an agent of this configuration cannot start, or why it cannot be read.
pub(crate) fn required_env(yaml: &str) -> Result<Vec<String>, String> {
    read(yaml).map(|file| file.runtime_config.required_env)
}

/// The program that a configuration names for its agent, with its arguments; nothing where it names none.
pub(crate) fn agent_command(yaml: &str) -> Vec<String> {
    let Ok(File { runtime_config: RuntimeConfig { command, args, .. }, .. }) = read(yaml) else { return Vec::new() };
    let program = command.as_ref().and_then(|command| command.as_str()).filter(|command| !command.is_empty());
    let Some(program) = program else { return Vec::new() };
    let arguments = args.as_ref().and_then(|args| args.as_array()).into_iter().flatten();
    std::iter::once(program).chain(arguments.filter_map(|argument| argument.as_str())).map(str::to_owned).collect()
}

/// The team that a configuration names, or why it cannot be read.
pub(crate) fn sub_workspaces(yaml: &str) -> Result<Vec<SubWorkspace>, String> {
    read(yaml).map(|file| file.sub_workspaces)
}

/// The files that a configuration shares, as it names them, or why it cannot be read. What is no text is passed over.
pub(crate) fn shared_context(yaml: &str) -> Result<Vec<String>, String> {
    let named = read(yaml)?.shared_context.and_then(|named| named.as_array().cloned()).unwrap_or_default();
    Ok(named.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_with_its_arguments_or_not_at_all() {
        for (yaml, expected) in [
            ("runtime_config: {command: python3, args: [-m, agent]}", &["python3", "-m", "agent"][..]),
            ("runtime_config: {command: /opt/agent}", &["/opt/agent"]),
            ("runtime_config: {args: [-m, agent]}", &[]),
            ("runtime_config: {command: '', args: [x]}", &[]),
            ("runtime_config: {command: [python3], args: x, model: sonnet}", &[]),
            ("name: [", &[]),
        ] {
            assert_eq!(agent_command(yaml), expected, "{yaml}");
        }
        let template = Template::parse("t", "runtime_config: {command: [python3], args: x, model: sonnet}").unwrap();
        assert_eq!(template.model, "sonnet");
    }

    #[test]
    fn reads_what_is_offered_and_passes_over_the_rest() {
        let yaml = r#"
name: "Claude # Code"   # a comment
description: d
tier: 2
runtime: 'claude-code'
version: 1.0.0
skills: [one, two]
providers:
  - {name: anthropic-oauth, auth_mode: oauth, model_aliases: [sonnet, opus], auth_env: [CLAUDE_CODE_OAUTH_TOKEN]}
  - name: minimax
    model_prefixes: [minimax-]
    base_url: null
    wire_api: chat
runtime_config:
  model: sonnet
  timeout: 0
  models:
    - {id: sonnet, name: Sonnet, required_env: [CLAUDE_CODE_OAUTH_TOKEN]}
  required_env: [CLAUDE_CODE_OAUTH_TOKEN]
  providers: [anthropic-oauth, anthropic-api, minimax]
  provision_timeout_seconds: 1200
"#;
        let template = Template::parse("claude-code-default", yaml).unwrap();
        assert_eq!((template.name.as_str(), template.runtime.as_str()), ("Claude # Code", "claude-code"));
        assert_eq!((template.model.as_str(), template.tier), ("sonnet", 2));
        assert_eq!(template.providers, ["anthropic-oauth", "anthropic-api", "minimax"]);
        let names: Vec<&str> = template.provider_registry.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["anthropic-oauth", "minimax"], "neither list is made from the other");
        assert_eq!(template.provider_registry[1].base_url, "");
        assert_eq!(template.provision_timeout, Some(Duration::from_secs(1200)));
        assert_eq!(required_env(yaml).unwrap(), ["CLAUDE_CODE_OAUTH_TOKEN"]);
    }

    #[test]
    fn what_stands_at_the_top_is_read_where_nothing_else_is_said() {
        let yaml = "model: openai:gpt-4.1-mini\nmodels:\n  - id: a\nenv:\n  required: [OPENAI_API_KEY]\nruntime_config:\n  model: other\n";
        let template = Template::parse("openclaw", yaml).unwrap();
        assert_eq!((template.model.as_str(), template.models[0].id.as_str()), ("openai:gpt-4.1-mini", "a"));
        assert_eq!(template.required_env, ["OPENAI_API_KEY"]);
        assert_eq!(required_env(yaml).unwrap(), [] as [&str; 0], "that is a declaration only");
    }

    #[test]
    fn shares_what_is_named_and_passes_over_the_rest() {
        for (yaml, expected) in [
            ("shared_context: [a.md, docs/b.md]", vec!["a.md", "docs/b.md"]),
            ("shared_context: [a.md, 7, {x: 1}]", vec!["a.md"]),
            ("shared_context: a.md", vec![]),
            ("shared_context:", vec![]),
            ("name: x", vec![]),
        ] {
            assert_eq!(shared_context(yaml).unwrap(), expected, "{yaml:?}");
        }
        assert!(shared_context("a: [").is_err());
    }

    #[test]
    fn what_is_quoted_is_text_and_what_is_not_may_be() {
        let template = Template::parse("x", "name: '2024'\nmodel: \"5\"\ndescription: 'yes'\ntier: 2\n").unwrap();
        assert_eq!((template.name.as_str(), template.model.as_str(), template.tier), ("2024", "5", 2));
        for yaml in ["tier: 2.5", "tier: [2]", "name: [a]", "name: {a: b}"] {
            assert!(Template::parse("x", yaml).is_err(), "{yaml:?}");
        }
        let template = Template::parse("x", "name: 2024\nmodel: 5\n").unwrap();
        assert_eq!((template.name.as_str(), template.model.as_str()), ("2024", "5"));
    }

    #[test]
    fn nothing_is_required_of_a_template() {
        for yaml in
            ["", "---\n", "name:\nproviders:\nruntime_config:\n", "runtime_config: {provision_timeout_seconds: -5}"]
        {
            let expected = Template { id: "x".to_owned(), ..Template::default() };
            assert_eq!(Template::parse("x", yaml), Ok(expected), "{yaml:?}");
        }
    }

    #[test]
    fn a_wrong_type_or_no_yaml_is_malformed() {
        for yaml in ["providers: [a, b]", "tier: two", "skills: one", "a: [", "- a", "runtime_config: 7", "a: &a [*a]"]
        {
            let error = Template::parse("x", yaml).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n'), "{yaml:?}: {error:?}");
        }
    }
}
