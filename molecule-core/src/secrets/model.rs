//! Which model an agent uses, and which provider serves it: two secrets that are chosen apart from each other.

use secrecy::{ExposeSecret, SecretString};

use crate::{
    control_plane::ControlPlane,
    error::{Error, Result},
    id::WorkspaceId,
    store::{NewSecret, Secret, SecretChange},
    templates::derive::provider_of,
    workspace::{
        create::broken_rule,
        lifecycle::{gone_is_not_found, said},
    },
};

/// The variable that holds the model. Its name is older than its meaning.
pub(crate) const MODEL: &str = "MODEL_PROVIDER";

/// The variable that holds the provider.
pub(crate) const PROVIDER: &str = "LLM_PROVIDER";

/// What is done where an error says that a choice could not be read.
const OPEN: &str = "open a choice";

/// How many characters a model or a provider has at most.
const CHOICE_LIMIT: usize = 100;

/// What a change of the model does to the stored provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    Leave,
    Set(&'static str),
    Delete,
}

/// A provider that was derived from the model `before` follows to the model `after`; one that somebody chose stays.
fn follow(stored: Option<&str>, before: Option<&str>, after: &str) -> Follow {
    let Some(stored) = stored else { return Follow::Leave };
    if before.and_then(provider_of) != Some(stored) {
        return Follow::Leave;
    }
    match provider_of(after) {
        Some(provider) if provider == stored => Follow::Leave,
        Some(provider) => Follow::Set(provider),
        None => Follow::Delete,
    }
}

impl ControlPlane {
    /// The model that was chosen for a workspace; `None` where that is left to its template.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn model(&self, id: WorkspaceId) -> Result<Option<String>> {
        self.choice(id, MODEL).await
    }

    /// The provider that was chosen for a workspace, or derived from its model when that was first set.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn provider(&self, id: WorkspaceId) -> Result<Option<String>> {
        self.choice(id, PROVIDER).await
    }

    /// Chooses a model, or none where it is blank, and begins to bring the workspace up anew. Gives what is chosen now: blanks
    /// around it do not count.
    ///
    /// A provider that was derived from the model before follows; one that somebody chose stays. The model that is chosen
    /// already changes nothing.
    ///
    /// # Errors
    /// As [`ControlPlane::set_secret`].
    pub async fn set_model(&self, id: WorkspaceId, model: &str) -> Result<Option<String>> {
        let model = model.trim();
        let failed = if model.is_empty() { "failed to clear model" } else { "failed to save model" };
        check_choice("model", model)?;
        let follows = |secrets: &[Secret]| {
            let before = self.opened(id, secrets, MODEL)?;
            let provider = self.opened(id, secrets, PROVIDER)?;
            Ok(match follow(provider.as_deref(), before.as_deref(), model) {
                Follow::Leave => None,
                Follow::Set(provider) => Some((PROVIDER, provider)),
                Follow::Delete => Some((PROVIDER, "")),
            })
        };
        self.choose(id, (MODEL, model), follows, failed).await
    }

    /// Chooses a provider, or none where it is blank, and begins to bring the workspace up anew. Gives what is chosen now:
    /// blanks around it do not count. The provider that is chosen already changes nothing.
    ///
    /// # Errors
    /// As [`ControlPlane::set_secret`].
    pub async fn set_provider(&self, id: WorkspaceId, provider: &str) -> Result<Option<String>> {
        let provider = provider.trim();
        let failed = if provider.is_empty() { "failed to clear provider" } else { "failed to save provider" };
        check_choice("provider", provider)?;
        self.choose(id, (PROVIDER, provider), |_| Ok(None), failed).await
    }

    async fn choice(&self, id: WorkspaceId, key: &str) -> Result<Option<String>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let secret = self.inner.store.workspace_secret(id, key).await?;
        self.opened(id, secret.as_slice(), key)
    }

    /// The choice that is kept under `key`, where it is one.
    fn opened(&self, id: WorkspaceId, secrets: &[Secret], key: &str) -> Result<Option<String>> {
        let Some(secret) = secrets.iter().find(|secret| secret.key == key) else { return Ok(None) };
        let opened = self.inner.cipher.open(&secret.sealed).map_err(|error| {
            let error = Error::new(error.kind(), "failed to decrypt").during(OPEN).caused_by(error);
            error.context("workspace.id", id).context("secret", key)
        })?;
        Ok(Some(opened.expose_secret().to_owned()).filter(|text| !text.is_empty()))
    }

    /// Keeps a choice and the one that follows from it, both or none, and begins to bring the workspace up anew; an empty
    /// one is deleted. A choice that is made already changes nothing. Gives what is chosen now.
    async fn choose(
        &self,
        id: WorkspaceId,
        choice: (&'static str, &str),
        follows: impl FnOnce(&[Secret]) -> Result<Option<(&'static str, &'static str)>>,
        failed: &'static str,
    ) -> Result<Option<String>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let mut made_at = None;
        let decide = |secrets: &[Secret]| {
            let follower = follows(secrets)?;
            let mut change = SecretChange { kept: Vec::new(), gone: Vec::new() };
            for (key, choice) in std::iter::once(choice).chain(follower) {
                let before = secrets.iter().find(|secret| secret.key == key);
                if choice.is_empty() {
                    change.gone.extend(before.map(|_| key));
                    continue;
                }
                let value = SecretString::from(choice);
                let new = self.new_secret(key, &value)?;
                match self.kept_since(before, &new, &value) {
                    Some(since) => made_at = Some(since),
                    None => change.kept.push(new),
                }
            }
            Ok((!change.kept.is_empty() || !change.gone.is_empty()).then_some(change))
        };
        let changed = self.inner.store.change_workspace_secrets(id, self.now(), decide).await;
        let changed = changed.map_err(|error| if error.is_during(OPEN) { error } else { said(error, failed) })?;
        match made_at {
            _ if changed => self.roll_out(vec![id]),
            Some(made_at) => self.roll_out_late(vec![id], made_at),
            None => {}
        }
        Ok(Some(choice.1.to_owned()).filter(|chosen| !chosen.is_empty()))
    }

    /// The secrets that keep the choice of a new workspace's model through every restart; none of those it `has` already
    /// but the model itself.
    pub(crate) fn choice_of_model(&self, model: &str, has: impl Fn(&str) -> bool) -> Result<Vec<NewSecret>> {
        let provider = provider_of(model).filter(|_| !has(PROVIDER));
        let kept = std::iter::once((MODEL, model)).chain(provider.map(|provider| (PROVIDER, provider)));
        kept.map(|(key, value)| self.new_secret(key, &SecretString::from(value))).collect()
    }
}

/// Refuses what no create call would take either.
fn check_choice(field: &str, choice: &str) -> Result<()> {
    match broken_rule(field, choice, CHOICE_LIMIT) {
        Some(rule) => Err(Error::invalid("invalid request body").with_member("detail", rule)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_provider_follows_the_model_and_a_chosen_one_stays() {
        for (stored, before, after, expected) in [
            (None, Some("minimax/a"), "grok/b", Follow::Leave),
            (Some("minimax"), Some("minimax/a"), "grok/b", Follow::Set("xai")),
            (Some("minimax"), Some("minimax/a"), "minimax/b", Follow::Leave),
            (Some("minimax"), Some("minimax/a"), "sonnet", Follow::Delete),
            (Some("minimax"), Some("minimax/a"), "", Follow::Delete),
            (Some("custom"), Some("minimax/a"), "grok/b", Follow::Leave),
            (Some("minimax"), Some("sonnet"), "grok/b", Follow::Leave),
            (Some("minimax"), None, "grok/b", Follow::Leave),
        ] {
            assert_eq!(follow(stored, before, after), expected, "{stored:?} {before:?} {after:?}");
        }
    }
}
