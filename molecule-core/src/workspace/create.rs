//! What a new workspace is made from, and what makes it invalid.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{Access, DeliveryMode};
use crate::{
    error::{Error, Result},
    id::WorkspaceId,
    memory::NewMemory,
    secrets::{check_key, check_value},
    templates::{Template, Templates},
};

/// The runtime of a workspace whose maker named none.
pub const DEFAULT_RUNTIME: &str = "claude-code";

/// The runtime of a workspace whose agent runs somewhere else and only reports in.
pub const EXTERNAL_RUNTIME: &str = "external";

/// The tier of a workspace whose maker named none.
const DEFAULT_TIER: i32 = 3;

/// The longest time without work after which a workspace may hibernate: a year.
const MOST_IDLE_MINUTES: i32 = 365 * 24 * 60;

/// What a new workspace is made from. [`Default`] leaves everything to the defaults but the name, which is required.
#[derive(Debug, Clone, Default)]
pub struct CreateWorkspace {
    /// 1 to 255 characters.
    pub name: String,
    /// At most 1000 characters; empty is none.
    pub role: Option<String>,
    /// 1 to 4; 0 stands for 3.
    pub tier: i32,
    /// The folder of a template, whose runtime and model are taken where the request names none; empty is none.
    pub template: Option<String>,
    /// At most 100 characters; empty is none.
    pub model: Option<String>,
    /// At most 100 characters; unknown or empty stands for [`DEFAULT_RUNTIME`].
    pub runtime: Option<String>,
    /// The agent runs somewhere else, whatever `runtime` says.
    pub external: bool,
    /// Where the agent of an external workspace is called.
    pub url: Option<String>,
    /// An absolute folder of this host to work in.
    pub workspace_dir: Option<String>,
    /// What the agent may do there.
    pub workspace_access: Option<Access>,
    /// The workspace that leads it.
    pub parent_id: Option<WorkspaceId>,
    /// US cents a month.
    pub budget_limit: Option<i64>,
    /// After how many minutes without work it hibernates; never where that is 0 or nothing.
    pub hibernation_idle_minutes: Option<i32>,
    /// 0 or less stands for 1.
    pub max_concurrent_tasks: i32,
    /// The place on the canvas.
    pub canvas: Option<Position>,
    /// How messages reach the agent. External workspaces without a URL poll unless they say otherwise.
    pub delivery_mode: Option<DeliveryMode>,
    /// What it is given from the start, by name. Empty ones are left out.
    pub secrets: BTreeMap<String, SecretString>,
    /// What it remembers from the start. A scope counts in whatever case, and none is `LOCAL`; what breaks a rule is
    /// left out.
    pub initial_memories: Vec<NewMemory>,
}

/// A place on the canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// To the right.
    pub x: f64,
    /// Down.
    pub y: f64,
}

/// A request whose every rule has been checked, with the defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) name: String,
    pub(crate) role: Option<String>,
    pub(crate) tier: i32,
    pub(crate) model: Option<String>,
    pub(crate) runtime: String,
    pub(crate) url: Option<String>,
    pub(crate) workspace_dir: Option<String>,
    pub(crate) workspace_access: Access,
    pub(crate) parent_id: Option<WorkspaceId>,
    pub(crate) budget_limit: Option<i64>,
    pub(crate) max_concurrent_tasks: i32,
    pub(crate) canvas: Option<Position>,
    pub(crate) delivery_mode: DeliveryMode,
    pub(crate) secrets: BTreeMap<String, SecretString>,
    pub(crate) hibernation_idle_minutes: Option<i32>,
}

impl CreateWorkspace {
    /// Takes from `template` what the request leaves open.
    pub(crate) fn fill_in(&mut self, template: &Template) {
        let open = |given: &Option<String>| given.as_ref().is_none_or(|given| given.trim().is_empty());
        if open(&self.model) {
            self.model = Some(template.model.clone());
        }
        if open(&self.runtime) {
            self.runtime = Some(template.runtime.clone());
        }
    }

    /// Checks every rule that needs nothing but the request.
    pub(crate) fn check(self, templates: &Templates) -> Result<Checked> {
        if self.name.trim().is_empty() {
            return Err(Error::invalid("invalid workspace payload").with_member("detail", "name is required"));
        }
        check_text("name", &self.name, 255)?;
        let role = self.role.filter(|role| !role.is_empty());
        check_text("role", role.as_deref().unwrap_or_default(), 1000)?;
        let model = self.model.map(|model| model.trim().to_owned()).filter(|model| !model.is_empty());
        check_text("model", model.as_deref().unwrap_or_default(), 100)?;
        check_text("runtime", self.runtime.as_deref().unwrap_or_default(), 100)?;
        if !(0..=4).contains(&self.tier) {
            return Err(invalid_fields(format!("tier must be 1 to 4, or 0 for {DEFAULT_TIER}")));
        }
        if self.budget_limit.is_some_and(|limit| limit < 0) {
            return Err(invalid_fields("budget_limit must be >= 0 (USD cents)"));
        }
        if let Some(rule) = self.hibernation_idle_minutes.and_then(broken_idle_rule) {
            return Err(invalid_fields(rule));
        }
        let workspace_dir = self.workspace_dir.filter(|dir| !dir.is_empty());
        let workspace_access = self.workspace_access.unwrap_or_default();
        if workspace_access != Access::None && workspace_dir.is_none() {
            return Err(Error::invalid("invalid workspace access")
                .with_member("detail", format!("{workspace_access} needs workspace_dir")));
        }
        let runtime =
            if self.external { EXTERNAL_RUNTIME.to_owned() } else { sanitize_runtime(self.runtime, templates) };
        let url = self.url.map(|url| url.trim().to_owned()).filter(|url| !url.is_empty());
        if url.is_some() && runtime != EXTERNAL_RUNTIME {
            return Err(invalid_fields("url is for external workspaces; the backend assigns it to others"));
        }
        let mut secrets = self.secrets;
        secrets.retain(|_, value| !value.expose_secret().is_empty());
        for (key, value) in &secrets {
            check_key(key)?;
            check_value(key, value.expose_secret())?;
        }
        let waits_for_agent = runtime == EXTERNAL_RUNTIME && url.is_none();
        let default_mode = if waits_for_agent { DeliveryMode::Poll } else { DeliveryMode::Push };
        Ok(Checked {
            name: self.name,
            role,
            tier: if self.tier == 0 { DEFAULT_TIER } else { self.tier },
            model,
            runtime,
            url,
            workspace_dir,
            workspace_access,
            parent_id: self.parent_id,
            budget_limit: self.budget_limit,
            max_concurrent_tasks: self.max_concurrent_tasks.max(1),
            canvas: self.canvas,
            delivery_mode: self.delivery_mode.unwrap_or(default_mode),
            secrets,
            hibernation_idle_minutes: self.hibernation_idle_minutes,
        })
    }
}

/// The rule that so many minutes without work break, as callers are told it.
pub(super) fn broken_idle_rule(minutes: i32) -> Option<String> {
    let within = (0..=MOST_IDLE_MINUTES).contains(&minutes);
    (!within).then(|| format!("hibernation_idle_minutes must be 0 to {MOST_IDLE_MINUTES}"))
}

fn invalid_fields(detail: impl Into<Value>) -> Error {
    Error::invalid("invalid workspace fields").with_member("detail", detail)
}

fn check_text(field: &str, text: &str, most: usize) -> Result<()> {
    match broken_rule(field, text, most) {
        Some(rule) => Err(invalid_fields(rule)),
        None => Ok(()),
    }
}

/// The rule about text that is broken, as callers are told it.
pub(crate) fn broken_rule(field: &str, text: &str, most: usize) -> Option<String> {
    let restricted = matches!(field, "name" | "role");
    if text.contains(['\n', '\r']) {
        Some(format!("{field} must not contain newline characters"))
    } else if text.contains('\0') || (restricted && text.contains(['{', '}', '[', ']', '|', '>', '*', '&', '!'])) {
        Some(format!("{field} contains invalid characters"))
    } else if text.chars().count() > most {
        Some(format!("{field} must be at most {most} characters"))
    } else {
        None
    }
}

pub(super) fn sanitize_runtime(runtime: Option<String>, templates: &Templates) -> String {
    let runtime = runtime.unwrap_or_default();
    match runtime.trim() {
        known if templates.runtimes().contains(known) => known.to_owned(),
        other => {
            if !other.is_empty() {
                tracing::warn!(runtime = other, "unknown runtime, using {DEFAULT_RUNTIME}");
            }
            DEFAULT_RUNTIME.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> CreateWorkspace {
        CreateWorkspace { name: name.to_owned(), ..CreateWorkspace::default() }
    }

    fn detail(error: &Error) -> String {
        error.members().iter().find(|(name, _)| *name == "detail").unwrap().1.as_str().unwrap().to_owned()
    }

    #[test]
    fn fills_in_the_defaults() {
        let checked = named("hello").check(&Templates::default()).unwrap();
        assert_eq!((checked.tier, checked.max_concurrent_tasks), (3, 1));
        assert_eq!(checked.runtime, "claude-code");
        assert_eq!(checked.delivery_mode, DeliveryMode::Push);
    }

    #[test]
    fn unknown_runtimes_become_the_default_and_known_ones_stay() {
        for (given, expected) in
            [("", "claude-code"), (" hermes ", "hermes"), ("langgraph", "claude-code"), ("external", "external")]
        {
            let request = CreateWorkspace { runtime: Some(given.to_owned()), ..named("a") };
            assert_eq!(request.check(&Templates::default()).unwrap().runtime, expected, "{given:?}");
        }
    }

    #[test]
    fn an_external_workspace_without_a_url_polls_unless_it_says_otherwise() {
        let external = CreateWorkspace { external: true, ..named("a") };
        assert_eq!(external.clone().check(&Templates::default()).unwrap().delivery_mode, DeliveryMode::Poll);
        let push = CreateWorkspace { delivery_mode: Some(DeliveryMode::Push), ..external.clone() };
        assert_eq!(push.check(&Templates::default()).unwrap().delivery_mode, DeliveryMode::Push);
        let with_url = CreateWorkspace { url: Some("https://agent.example".to_owned()), ..external };
        assert_eq!(with_url.check(&Templates::default()).unwrap().delivery_mode, DeliveryMode::Push);
    }

    #[test]
    fn limits_count_characters() {
        assert!(named(&"é".repeat(255)).check(&Templates::default()).is_ok());
        let error = named(&"é".repeat(256)).check(&Templates::default()).unwrap_err();
        assert_eq!(error.message(), "invalid workspace fields");
        assert_eq!(detail(&error), "name must be at most 255 characters");
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        let cases = [
            (named(" "), "invalid workspace payload", "name is required"),
            (named("a\nb"), "invalid workspace fields", "name must not contain newline characters"),
            (named("a{b"), "invalid workspace fields", "name contains invalid characters"),
            (
                CreateWorkspace { role: Some("x|y".to_owned()), ..named("a") },
                "invalid workspace fields",
                "role contains invalid characters",
            ),
            (CreateWorkspace { tier: 5, ..named("a") }, "invalid workspace fields", "tier must be 1 to 4, or 0 for 3"),
            (
                CreateWorkspace { budget_limit: Some(-1), ..named("a") },
                "invalid workspace fields",
                "budget_limit must be >= 0 (USD cents)",
            ),
            (
                CreateWorkspace { workspace_access: Some(Access::ReadOnly), ..named("a") },
                "invalid workspace access",
                "read_only needs workspace_dir",
            ),
            (
                CreateWorkspace { url: Some("http://x".to_owned()), ..named("a") },
                "invalid workspace fields",
                "url is for external workspaces; the backend assigns it to others",
            ),
        ];
        for (request, message, expected) in cases {
            let error = request.check(&Templates::default()).unwrap_err();
            assert_eq!((error.message(), detail(&error).as_str()), (message, expected));
        }
    }
}
