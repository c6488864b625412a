//! Changes what a workspace is, while it stays where it is in its life.

use super::{
    EXTERNAL_RUNTIME, Position,
    create::{broken_idle_rule, broken_rule, sanitize_runtime},
    lifecycle::{PATIENCE_WITH_RACES, gone_is_not_found, raced, said},
};
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    identity::{Credential, Exposure},
    store::{Patched, RowPatch},
    templates::Templates,
};

/// What changes about a workspace. `None` leaves a member alone.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// As [`CreateWorkspace::name`](super::CreateWorkspace).
    pub name: Option<String>,
    /// As [`CreateWorkspace::role`](super::CreateWorkspace); empty is none.
    pub role: Option<String>,
    /// 1 to 4. The operator's to change.
    pub tier: Option<i32>,
    /// The workspace that leads it, or none. The operator's to change.
    pub parent_id: Option<Option<WorkspaceId>>,
    /// As [`CreateWorkspace::runtime`](super::CreateWorkspace). The operator's to change.
    pub runtime: Option<String>,
    /// The folder of this host to work in, or none. The operator's to change.
    pub workspace_dir: Option<Option<String>>,
    /// After how many minutes without work it hibernates, or never. The operator's to change.
    pub hibernation_idle_minutes: Option<Option<i32>>,
    /// The place on the canvas.
    pub position: Option<Position>,
    /// Whether the canvas hides its children.
    pub collapsed: Option<bool>,
}

/// What a change comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchOutcome {
    /// The change holds from the next restart on.
    pub needs_restart: bool,
}

impl Patch {
    /// The members that would give an agent more than it was given.
    fn privileged(&self) -> bool {
        self.tier.is_some()
            || self.parent_id.is_some()
            || self.runtime.is_some()
            || self.workspace_dir.is_some()
            || self.hibernation_idle_minutes.is_some()
    }

    /// Checks every rule that needs nothing but the request.
    fn check(self, templates: &Templates) -> Result<RowPatch> {
        let name = self.name.as_deref();
        if name.is_some_and(|name| name.trim().is_empty()) {
            return Err(Error::invalid("name must not be empty"));
        }
        let texts =
            [("name", name, 255), ("role", self.role.as_deref(), 1000), ("runtime", self.runtime.as_deref(), 100)];
        for (field, text, most) in texts {
            if let Some(rule) = text.and_then(|text| broken_rule(field, text, most)) {
                return Err(Error::invalid(rule));
            }
        }
        if self.tier.is_some_and(|tier| !(1..=4).contains(&tier)) {
            return Err(Error::invalid("tier must be 1 to 4"));
        }
        if let Some(rule) = self.hibernation_idle_minutes.flatten().and_then(broken_idle_rule) {
            return Err(Error::invalid(rule));
        }
        Ok(RowPatch {
            name: self.name,
            role: self.role.map(|role| Some(role).filter(|role| !role.is_empty())),
            tier: self.tier,
            parent_id: self.parent_id,
            runtime: self.runtime.map(|runtime| sanitize_runtime(Some(runtime), templates)),
            workspace_dir: self.workspace_dir,
            hibernation_idle_minutes: self.hibernation_idle_minutes,
            position: self.position,
            collapsed: self.collapsed,
        })
    }
}

impl ControlPlane {
    /// Changes a workspace: all that `patch` says, or nothing. Who may change the workspace at all was judged before.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a broken rule, a parent that is unknown, or one that is below the workspace;
    /// [`ErrorKind::PermissionDenied`] where a member is the operator's to change; [`ErrorKind::NotFound`] for an unknown
    /// or removed workspace.
    pub async fn patch(
        &self,
        id: WorkspaceId,
        patch: Patch,
        credential: Credential,
        exposure: Exposure,
    ) -> Result<PatchOutcome> {
        if patch.privileged() {
            self.admit_operator(credential, exposure).await.map_err(|error| match error.kind() {
                // The credential is a good one; it is only not enough.
                ErrorKind::Unauthenticated => Error::new(
                    ErrorKind::PermissionDenied,
                    "tier, parent_id, runtime, workspace_dir and hibernation_idle_minutes are the operator's to change",
                ),
                _ => error,
            })?;
        }
        let needs_restart = patch.workspace_dir.is_some();
        let mut patch = patch.check(&self.inner.config.templates)?;
        let workspace = self.existing(id).await.map_err(gone_is_not_found)?;
        if patch.runtime.as_deref().is_some_and(|runtime| (runtime == EXTERNAL_RUNTIME) != workspace.is_external()) {
            return Err(Error::invalid("a workspace stays external, or stays managed; create another one"));
        }
        if let Some(Some(dir)) = &patch.workspace_dir {
            let dir = Some(dir.as_str()).filter(|dir| !dir.is_empty());
            patch.workspace_dir = Some(self.check_workspace_dir(dir).await?);
        }
        for _ in 0..PATIENCE_WITH_RACES {
            let failed = |error| said(error, "failed to update workspace");
            match self.inner.store.patch(id, &patch, self.now()).await.map_err(failed)? {
                Patched::Done => return Ok(PatchOutcome { needs_restart }),
                Patched::NoWorkspace => return Err(Error::not_found("workspace not found")),
                Patched::NoParent => return Err(Error::invalid("parent workspace not found")),
                Patched::Cycle => return Err(Error::invalid("a workspace cannot be below itself")),
                Patched::Moved => {}
            }
        }
        Err(raced(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_breaks_a_rule() {
        let name = |name: &str| Patch { name: Some(name.to_owned()), ..Patch::default() };
        let role = |role: &str| Patch { role: Some(role.to_owned()), ..Patch::default() };
        let runtime = |runtime: &str| Patch { runtime: Some(runtime.to_owned()), ..Patch::default() };
        let idle = |minutes| Patch { hibernation_idle_minutes: Some(Some(minutes)), ..Patch::default() };
        let tier = |tier| Patch { tier: Some(tier), ..Patch::default() };
        let rows = [
            (name(" "), "name must not be empty"),
            (name("a\nb"), "name must not contain newline characters"),
            (name("a{b"), "name contains invalid characters"),
            (name(&"é".repeat(256)), "name must be at most 255 characters"),
            (role("a\rb"), "role must not contain newline characters"),
            (role("a|b"), "role contains invalid characters"),
            (role(&"é".repeat(1001)), "role must be at most 1000 characters"),
            (runtime("a\nb"), "runtime must not contain newline characters"),
            (runtime(&"a".repeat(101)), "runtime must be at most 100 characters"),
            (tier(0), "tier must be 1 to 4"),
            (tier(5), "tier must be 1 to 4"),
            (idle(-1), "hibernation_idle_minutes must be 0 to 525600"),
            (idle(525_601), "hibernation_idle_minutes must be 0 to 525600"),
        ];
        for (patch, expected) in rows {
            assert_eq!(patch.check(&Templates::default()).unwrap_err().message(), expected);
        }
    }

    #[test]
    fn what_would_give_an_agent_more_is_the_operators() {
        let harmless = Patch {
            name: Some("a".to_owned()),
            role: Some("b".to_owned()),
            position: Some(Position { x: 1.0, y: 2.0 }),
            collapsed: Some(true),
            ..Patch::default()
        };
        assert!(!harmless.privileged());
        for privileged in [
            Patch { tier: Some(1), ..Patch::default() },
            Patch { parent_id: Some(None), ..Patch::default() },
            Patch { runtime: Some("hermes".to_owned()), ..Patch::default() },
            Patch { workspace_dir: Some(None), ..Patch::default() },
            Patch { hibernation_idle_minutes: Some(None), ..Patch::default() },
        ] {
            assert!(privileged.privileged(), "{privileged:?}");
        }
    }
}
