//! The tokens of a workspace, as their holder and the operator manage them.

use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::{TokenId, WorkspaceId},
    identity::{self, IssuedToken},
    store::{Added, Token},
    workspace::lifecycle::{gone_is_not_found, said},
};

/// How many live tokens a workspace may have.
const LIVE_TOKENS: u32 = 50;

impl ControlPlane {
    /// The live tokens of a workspace, newest first: at most `limit` of them, after the first `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace.
    pub async fn tokens(&self, id: WorkspaceId, limit: u32, offset: u32) -> Result<Vec<Token>> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        self.inner.store.live_tokens(id, limit, offset).await.map_err(|error| said(error, "failed to list tokens"))
    }

    /// Issues one more token for a workspace. The others stay good, and all of them end with the next start of a
    /// workspace that is run for it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown or removed workspace; [`ErrorKind::LimitReached`] where it has 50 live ones.
    pub async fn issue_token(&self, id: WorkspaceId) -> Result<IssuedToken> {
        self.issue_or_say(id, "failed to create token").await
    }

    /// Issues one more token for a workspace, as [`ControlPlane::issue_token`] does, to whom
    /// [`ControlPlane::admit_to_test_tokens`] let in.
    pub async fn issue_test_token(&self, id: WorkspaceId) -> Result<IssuedToken> {
        self.issue_or_say(id, "token issue failed").await
    }

    async fn issue_or_say(&self, id: WorkspaceId, failure: &'static str) -> Result<IssuedToken> {
        let (kept, issued) = identity::issue(id, None, &*self.inner.entropy, self.now());
        let added = self.inner.store.add_token(&kept, LIVE_TOKENS).await;
        match added.map_err(|error| said(error, failure))? {
            Added::Kept => Ok(issued),
            Added::Full => {
                let message = format!("maximum {LIVE_TOKENS} active tokens per workspace");
                Err(Error::new(ErrorKind::LimitReached, message).context("workspace.id", id))
            }
            Added::NoWorkspace => Err(Error::not_found("workspace not found").context("workspace.id", id)),
        }
    }

    /// Revokes one token of a workspace: this replica refuses it from now on, others within a second.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the workspace has no live token by that id, so also on repeat.
    pub async fn revoke_token(&self, id: WorkspaceId, token: TokenId) -> Result<()> {
        let revoked = self.inner.store.revoke_token(id, token, self.now()).await;
        if revoked.map_err(|error| said(error, "failed to revoke token"))? {
            return Ok(());
        }
        let error = Error::not_found("token not found or already revoked");
        Err(error.context("workspace.id", id).context("token.id", token))
    }
}
