//! Which model an agent uses, and which provider serves it: two secrets that are chosen apart from each other.

use secrecy::{ExposeSecret, SecretString};

use crate::{
    control_plane::ControlPlane,
    error::{Error, Result},
    id::WorkspaceId,
    store::NewSecret,
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

    /// Chooses a model, or none where it is empty, and begins to bring the workspace up anew.
    ///
    /// A provider that was derived from the model before follows; one that somebody chose stays. The model that is chosen
    /// already changes nothing.
    ///
    /// # Errors
    /// As [`ControlPlane::set_secret`].
    pub async fn set_model(&self, id: WorkspaceId, model: &str) -> Result<()> {
        let failed = if model.is_empty() { "failed to clear model" } else { "failed to save model" };
        check_choice("model", model)?;
        let before = self.choice(id, MODEL).await?;
        if self.is_chosen(id, MODEL, model).await.map_err(|error| said(error, failed))? {
            return Ok(());
        }
        let provider = self.choice(id, PROVIDER).await?;
        let follows = match follow(provider.as_deref(), before.as_deref(), model) {
            Follow::Leave => None,
            Follow::Set(provider) => Some((PROVIDER, provider)),
            Follow::Delete => Some((PROVIDER, "")),
        };
        let choices: Vec<_> = std::iter::once((MODEL, model)).chain(follows).collect();
        self.keep_choices(id, &choices).await.map_err(|error| said(error, failed))?;
        self.roll_out(vec![id]);
        Ok(())
    }

    /// Chooses a provider, or none where it is empty, and begins to bring the workspace up anew. The provider that is
    /// chosen already changes nothing.
    ///
    /// # Errors
    /// As [`ControlPlane::set_secret`].
    pub async fn set_provider(&self, id: WorkspaceId, provider: &str) -> Result<()> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let failed = if provider.is_empty() { "failed to clear provider" } else { "failed to save provider" };
        check_choice("provider", provider)?;
        if self.is_chosen(id, PROVIDER, provider).await.map_err(|error| said(error, failed))? {
            return Ok(());
        }
        self.keep_choices(id, &[(PROVIDER, provider)]).await.map_err(|error| said(error, failed))?;
        self.roll_out(vec![id]);
        Ok(())
    }

    async fn choice(&self, id: WorkspaceId, key: &str) -> Result<Option<String>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        let Some(secret) = self.inner.store.workspace_secret(id, key).await? else { return Ok(None) };
        let opened = self.inner.cipher.open(&secret.sealed).map_err(|error| {
            let error = Error::new(error.kind(), "failed to decrypt").caused_by(error);
            error.context("workspace.id", id).context("secret", key)
        })?;
        Ok(Some(opened.expose_secret().to_owned()).filter(|text| !text.is_empty()))
    }

    /// Whether to choose this changes nothing.
    async fn is_chosen(&self, id: WorkspaceId, key: &str, choice: &str) -> Result<bool> {
        let before = self.inner.store.workspace_secret(id, key).await?;
        if choice.is_empty() {
            return Ok(before.is_none());
        }
        let value = SecretString::from(choice);
        let since = self.kept_since(before, &self.new_secret(key, &value)?, &value);
        if let Some(since) = since {
            self.roll_out_late(vec![id], since);
        }
        Ok(since.is_some())
    }

    /// Keeps choices, all or none; empty ones are deleted.
    async fn keep_choices(&self, id: WorkspaceId, choices: &[(&str, &str)]) -> Result<()> {
        let (gone, kept): (Vec<_>, Vec<_>) = choices.iter().partition(|(_, choice)| choice.is_empty());
        let gone: Vec<&str> = gone.into_iter().map(|(key, _)| key).collect();
        let kept = kept.into_iter().map(|(key, choice)| self.new_secret(key, &SecretString::from(choice)));
        let kept = kept.collect::<Result<Vec<_>>>()?;
        self.inner.store.change_workspace_secrets(id, &kept, &gone, self.now()).await
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
