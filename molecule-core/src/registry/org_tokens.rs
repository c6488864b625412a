//! The tokens of the organisation, as operators manage them.

use crate::{
    control_plane::ControlPlane,
    error::{Error, Result},
    id::TokenId,
    identity::{self, Credential, IssuedOrgToken},
    store::{OrgToken, clean},
    workspace::lifecycle::said,
};

/// How many of the newest tokens are listed.
const LISTED: u32 = 500;

/// How long the name of a token may be.
const LONGEST_NAME: usize = 100;

impl ControlPlane {
    /// The live tokens of the organisation, newest first, at most 500.
    pub async fn org_tokens(&self) -> Result<Vec<OrgToken>> {
        self.inner.store.live_org_tokens(LISTED).await.map_err(|error| said(error, "failed to list tokens"))
    }

    /// Mints a token of the organisation for whoever presented `minter`, and notes by what it was let in. It inherits the
    /// organisation that `minter` is bound to.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind) for a name of more than 100 characters.
    pub async fn mint_org_token(&self, minter: Credential, name: Option<&str>) -> Result<IssuedOrgToken> {
        let name = name.map(str::trim).filter(|name| !name.is_empty());
        if name.is_some_and(|name| name.chars().count() > LONGEST_NAME) {
            return Err(Error::invalid(format!("name too long (max {LONGEST_NAME} chars)")));
        }
        let failed = |error| said(error, "failed to mint token");
        let (created_by, org_id) = match minter {
            Credential::Org(owner) => {
                let prefix = self.inner.store.org_token_prefix(owner.id).await.map_err(failed)?;
                (prefix.map(|prefix| format!("org-token:{prefix}")), owner.org_id)
            }
            Credential::Session => (Some("session".to_owned()), None),
            Credential::Operator => (Some("admin-token".to_owned()), None),
            Credential::Absent | Credential::Unknown | Credential::Workspace(_) => (None, None),
        };
        let name = name.map(|name| clean::text(name).into_owned());
        let (kept, issued) = identity::issue_for_org(name, created_by, org_id, &*self.inner.entropy, self.now());
        self.inner.store.add_org_token(&kept).await.map_err(failed)?;
        tracing::info!(
            token.prefix = kept.prefix,
            created_by = kept.created_by,
            "a token of the organisation was minted"
        );
        Ok(issued)
    }

    /// Revokes a token of the organisation: this replica refuses it from now on, others within a second.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind) where there is no live token by that id, so also on repeat.
    pub async fn revoke_org_token(&self, id: TokenId) -> Result<()> {
        let revoked = self.inner.store.revoke_org_token(id, self.now()).await;
        if revoked.map_err(|error| said(error, "failed to revoke"))? {
            return Ok(());
        }
        Err(Error::not_found("token not found or already revoked").context("token.id", id))
    }
}
