//! From what a request presents to what it may do. The rules are in [`identity`](crate::identity).

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    identity::{
        self, AdminFacts, Asked, Caller, CallerFacts, Credential, Exposure, RegistryFacts, TestTokenFacts,
        WorkspaceFacts,
    },
    workspace::Workspace,
};

/// Names that only callers inside the control plane go by.
const RESERVED_CALLERS: [&str; 4] = ["webhook:", "system:", "test:", "channel:"];

impl ControlPlane {
    /// What the presented bearer is worth.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where the store can't say: never taken for a wrong credential.
    pub async fn authenticate(&self, bearer: Option<&str>) -> Result<Credential> {
        let Some(bearer) = bearer.filter(|bearer| !bearer.is_empty()) else {
            return Ok(Credential::Absent);
        };
        if let Some(known) = self.recognise(bearer) {
            return Ok(known);
        }
        let hash = identity::hash(bearer);
        if let Some(owner) = self.inner.store.token_owner(&hash, self.now()).await.map_err(store_away)? {
            return Ok(Credential::Workspace(owner));
        }
        let owner = self.inner.store.org_token_owner(&hash, self.now()).await.map_err(store_away)?;
        Ok(owner.map_or(Credential::Unknown, Credential::Org))
    }

    /// What the presented bearer is worth, where that is known without asking the store.
    pub fn recognise(&self, bearer: &str) -> Option<Credential> {
        let config = &self.inner.config;
        let operator = [&config.admin_token, &config.operator_token].into_iter().flatten();
        if operator.map(|token| same(token, bearer)).fold(false, |found, same| found | same) {
            return Some(Credential::Operator);
        }
        let (hash, now) = (identity::hash(bearer), self.now());
        let of_workspace = self.inner.store.known_token(&hash, now).map(Credential::Workspace);
        of_workspace.or_else(|| self.inner.store.known_org_token(&hash, now).map(Credential::Org))
    }

    /// What the cookies of a request without a bearer are worth.
    ///
    /// The caller has made sure that no other site had them sent.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where the control plane that signs people in can't say.
    pub async fn authenticate_session(&self, cookies: &str) -> Result<Credential> {
        let Some(sessions) = self.inner.sessions.as_ref().filter(|sessions| sessions.may_hold_one(cookies)) else {
            return Ok(Credential::Absent);
        };
        let valid = sessions.verify(cookies, &*self.inner.clock).await?;
        Ok(if valid { Credential::Session } else { Credential::Absent })
    }

    /// Whether cookies can be a credential at all.
    pub fn has_sessions(&self) -> bool {
        self.inner.sessions.is_some()
    }

    /// The gate of routes that belong to one workspace.
    pub fn admit_to_workspace(
        &self,
        credential: Credential,
        target: WorkspaceId,
        exposure: Exposure,
    ) -> Result<Caller> {
        let dev_fail_open = self.inner.config.dev_fail_open();
        identity::workspace_gate(&WorkspaceFacts { credential, target, dev_fail_open, exposure })
    }

    /// The gate of a workspace's state.
    pub async fn admit_to_state(&self, credential: Credential, target: WorkspaceId, exposure: Exposure) -> Result<()> {
        let has_live_token = self.inner.store.has_live_token(target).await.map_err(store_away)?;
        let dev_fail_open = self.inner.config.dev_fail_open();
        identity::state_gate(&WorkspaceFacts { credential, target, dev_fail_open, exposure }, has_live_token)
    }

    /// The gate of routes that belong to the operator.
    pub async fn admit_operator(&self, credential: Credential, exposure: Exposure) -> Result<()> {
        let admin_token_set = self.inner.config.admin_token.is_some();
        // Only a fresh install needs to know.
        let undecided = credential == Credential::Absent && !admin_token_set;
        let any_live_token =
            if undecided { self.inner.store.any_live_token().await.map_err(store_away)? } else { true };
        identity::admin_gate(&AdminFacts {
            credential,
            admin_token_set,
            any_live_token,
            managed: self.has_sessions() || matches!(self.inner.backend, Backend::ControlPlane(_)),
            dev_fail_open: self.inner.config.dev_fail_open(),
            exposure,
        })
    }

    /// The gate of register, heartbeat and update-card: the workspace, and whether the caller proved to be it.
    pub(crate) async fn admit_to_registry(
        &self,
        credential: Credential,
        target: WorkspaceId,
    ) -> Result<(Workspace, bool)> {
        let workspace = self
            .inner
            .store
            .workspace(target)
            .await
            .map_err(store_away)?
            .ok_or_else(|| Error::not_found("workspace not found").context("workspace.id", target))?;
        // A local backend hands its agents their tokens, also where it is the one of another control plane: nobody else
        // has any business with a first one.
        let bootstraps = workspace.is_external()
            || workspace.instance_id.is_some()
            || matches!(self.inner.backend, Backend::ControlPlane(_));
        let undecided = credential == Credential::Absent && bootstraps;
        let has_live_token =
            if undecided { self.inner.store.has_live_token(target).await.map_err(store_away)? } else { true };
        let facts = RegistryFacts { credential, target, status: workspace.status, has_live_token };
        let verified = identity::registry_gate(&facts)?;
        Ok((workspace, verified))
    }

    /// Who calls an agent: `claimed` is what the caller says it is.
    pub async fn admit_caller(
        &self,
        credential: Credential,
        claimed: Option<&str>,
        target: WorkspaceId,
        exposure: Exposure,
    ) -> Result<Caller> {
        let claimed = match claimed.map(str::trim).filter(|claimed| !claimed.is_empty()) {
            Some(claimed) if RESERVED_CALLERS.iter().any(|prefix| claimed.starts_with(prefix)) => {
                return Err(invalid_caller());
            }
            Some(claimed) => Some(claimed.parse::<WorkspaceId>().map_err(|_| invalid_caller())?),
            None => None,
        };
        let operator_gate_open = match self.admit_operator(credential, exposure).await {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Unauthenticated => false,
            // A store that is away says nothing about a credential.
            Err(error) => return Err(error),
        };
        let caller = identity::caller_gate(&CallerFacts { credential, claimed, operator_gate_open })?;
        if let Caller::Workspace(id) = caller
            && !self.can_communicate(id, target).await?
        {
            let text = "access denied: workspaces cannot communicate per hierarchy rules";
            return Err(Error::new(ErrorKind::PermissionDenied, text));
        }
        Ok(caller)
    }

    /// The gate of test tokens, which are for anyone whom it lets in.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where they are not enabled.
    pub fn admit_to_test_tokens(&self, credential: Credential, exposure: Exposure) -> Result<()> {
        let config = &self.inner.config;
        let admin_token_set = config.admin_token.is_some();
        let enabled = config.development || config.test_tokens;
        identity::test_token_gate(&TestTokenFacts { enabled, credential, admin_token_set, exposure })
    }

    /// The second gate of routes that show the inside of `target`, asked before anything about it is looked up: a caller
    /// that says it is another workspace must be that one and be allowed to talk to it. `refusal` is what it is told otherwise.
    pub async fn guard_inside(
        &self,
        credential: Credential,
        claimed: Option<&str>,
        target: WorkspaceId,
        refusal: &'static str,
    ) -> Result<()> {
        let refused = || Error::new(ErrorKind::PermissionDenied, refusal);
        let claimed = match claimed.map(str::trim).filter(|claimed| !claimed.is_empty()) {
            // What is no ID names nobody who may talk.
            Some(claimed) => Some(claimed.parse::<WorkspaceId>().map_err(|_| refused())?),
            None => None,
        };
        let allowed = match identity::claim_gate(credential, claimed, target)? {
            Asked::Nothing => true,
            Asked::IsBelow(top) => self.is_at_or_below(target, top).await?,
            Asked::TalksTo(caller) => self.can_communicate(caller, target).await?,
            Asked::IsBelowAndTalksTo(top, caller) => {
                self.is_at_or_below(target, top).await?
                    && self.is_at_or_below(caller, top).await?
                    && self.can_communicate(caller, target).await?
            }
        };
        if allowed { Ok(()) } else { Err(refused()) }
    }

    async fn is_at_or_below(&self, id: WorkspaceId, top: WorkspaceId) -> Result<bool> {
        let kin = self.inner.store.kin(id, top).await.map_err(store_away)?;
        Ok(identity::is_at_or_below(id, top, &kin))
    }

    /// Who hears what happens: `claimed` is the workspace whose agent the caller says it is, if any.
    pub async fn admit_listener(
        &self,
        credential: Credential,
        claimed: Option<&str>,
        exposure: Exposure,
    ) -> Result<Caller> {
        let Some(claimed) = claimed.map(str::trim).filter(|claimed| !claimed.is_empty()) else {
            return self.admit_operator(credential, exposure).await.map(|()| Caller::Operator);
        };
        let claimed = claimed.parse().ok();
        identity::listener_gate(credential, claimed)?;
        claimed.map(Caller::Workspace).ok_or_else(invalid_caller)
    }

    /// Whether two workspaces may talk: the same one, siblings, both roots, or one above the other.
    pub async fn can_communicate(&self, one: WorkspaceId, other: WorkspaceId) -> Result<bool> {
        if one == other {
            return Ok(true);
        }
        let kin = self.inner.store.kin(one, other).await.map_err(store_away)?;
        Ok(identity::can_communicate(one, other, &kin))
    }

    /// Whether two workspaces might talk until `removed` was.
    pub async fn could_communicate(&self, one: WorkspaceId, removed: WorkspaceId) -> Result<bool> {
        let kin = self.inner.store.kin_of_removed(one, removed).await.map_err(store_away)?;
        Ok(identity::can_communicate(one, removed, &kin))
    }
}

/// Whatever keeps the store from answering a gate says nothing about the credential: try again.
fn store_away(error: Error) -> Error {
    if error.kind() == ErrorKind::Unavailable { error } else { crate::store::away().caused_by(error) }
}

fn invalid_caller() -> Error {
    Error::new(ErrorKind::PermissionDenied, "invalid caller ID")
}

fn same(token: &SecretString, bearer: &str) -> bool {
    token.expose_secret().as_bytes().ct_eq(bearer.as_bytes()).into()
}
