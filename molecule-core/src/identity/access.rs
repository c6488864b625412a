//! The gates, as decision tables: facts in, verdict out, no look-ups.
//!
//! `docs/access.md` lists the same rows. 401 means "this credential is wrong or missing" and nothing else; a store
//! that is away has failed the call before it gets here.

use crate::{
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    store::{Kin, OrgTokenOwner, TokenOwner},
    workspace::Status,
};

/// What a presented bearer turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// None was presented.
    Absent,
    /// It is worth nothing: unknown, revoked, or of a removed workspace.
    Unknown,
    /// It speaks for the operator of the whole instance.
    Operator,
    /// A token of the organisation, worth the same and revoked by itself.
    Org(OrgTokenOwner),
    /// The session of a person whom another control plane signed in, worth the same.
    Session,
    /// It speaks for one workspace.
    Workspace(TokenOwner),
}

/// From where a request can have come, by the address it was received on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// From this host alone.
    Loopback,
    /// From elsewhere as well: every rule that opens a gate without a credential is closed.
    Network,
}

/// Who makes a call, once its credential was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The operator, or the canvas on the operator's behalf.
    Operator,
    /// The agent of a workspace.
    Workspace(WorkspaceId),
}

fn missing(message: &'static str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message)
}

/// What the gate of `/workspaces/:id/…` looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkspaceFacts {
    pub(crate) credential: Credential,
    pub(crate) target: WorkspaceId,
    pub(crate) dev_fail_open: bool,
    pub(crate) exposure: Exposure,
}

pub(crate) fn workspace_gate(facts: &WorkspaceFacts) -> Result<Caller> {
    match facts.credential {
        Credential::Operator | Credential::Org(_) | Credential::Session => Ok(Caller::Operator),
        Credential::Workspace(owner) if owner.workspace_id == facts.target => Ok(Caller::Workspace(facts.target)),
        Credential::Workspace(_) | Credential::Unknown => Err(missing("invalid workspace auth token")),
        Credential::Absent if facts.dev_fail_open && facts.exposure == Exposure::Loopback => Ok(Caller::Operator),
        Credential::Absent => Err(missing("missing workspace auth token")),
    }
}

/// The gate of a workspace's state, by which its agent learns that it is gone. Without a live token there is nothing to
/// prove: the answer then says no more than the open view does.
pub(crate) fn state_gate(facts: &WorkspaceFacts, has_live_token: bool) -> Result<()> {
    if has_live_token { workspace_gate(facts).map(drop) } else { Ok(()) }
}

/// What the gate of operator routes looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdminFacts {
    pub(crate) credential: Credential,
    pub(crate) admin_token_set: bool,
    /// Of a workspace or of the organisation.
    pub(crate) any_live_token: bool,
    /// Another control plane provides the machines or signs people in.
    pub(crate) managed: bool,
    pub(crate) dev_fail_open: bool,
    pub(crate) exposure: Exposure,
}

pub(crate) fn admin_gate(facts: &AdminFacts) -> Result<()> {
    let local = facts.exposure == Exposure::Loopback;
    let fresh = !facts.admin_token_set && !facts.any_live_token && !facts.managed;
    match facts.credential {
        Credential::Operator | Credential::Org(_) | Credential::Session => Ok(()),
        Credential::Absent if local && (fresh || facts.dev_fail_open) => Ok(()),
        Credential::Absent => Err(missing("admin auth required")),
        // Development keeps what the reference's own scripts rely on.
        Credential::Workspace(_) if local && facts.dev_fail_open => Ok(()),
        Credential::Workspace(_) | Credential::Unknown => Err(missing("invalid admin auth token")),
    }
}

/// What the gate of register, heartbeat and update-card looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RegistryFacts {
    pub(crate) credential: Credential,
    pub(crate) target: WorkspaceId,
    pub(crate) status: Status,
    pub(crate) has_live_token: bool,
}

/// Whether the caller proved who it is; false where it is let in to be given its first token.
pub(crate) fn registry_gate(facts: &RegistryFacts) -> Result<bool> {
    match facts.credential {
        _ if facts.status == Status::Removed => Err(missing("invalid workspace auth token")),
        Credential::Workspace(owner) if owner.workspace_id == facts.target => Ok(true),
        Credential::Absent
            if !facts.has_live_token && matches!(facts.status, Status::Provisioning | Status::AwaitingAgent) =>
        {
            Ok(false)
        }
        Credential::Absent => Err(missing("missing workspace auth token")),
        _ => Err(missing("invalid workspace auth token")),
    }
}

/// What the gate of calls to agents, and of the event feed, looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallerFacts {
    pub(crate) credential: Credential,
    /// Who the caller says it is.
    pub(crate) claimed: Option<WorkspaceId>,
    /// The operator's gate would let the caller in.
    pub(crate) operator_gate_open: bool,
}

/// Who calls an agent. The operator may call in the name of a workspace; a workspace in its own alone.
pub(crate) fn caller_gate(facts: &CallerFacts) -> Result<Caller> {
    match (facts.credential, facts.claimed) {
        (Credential::Operator | Credential::Org(_) | Credential::Session, Some(claimed)) => {
            Ok(Caller::Workspace(claimed))
        }
        (Credential::Operator | Credential::Org(_) | Credential::Session, None) => Ok(Caller::Operator),
        (Credential::Workspace(owner), claimed) if claimed.is_none_or(|claimed| claimed == owner.workspace_id) => {
            Ok(Caller::Workspace(owner.workspace_id))
        }
        (Credential::Workspace(_) | Credential::Unknown, _) => Err(missing("invalid caller auth token")),
        (Credential::Absent, None) if facts.operator_gate_open => Ok(Caller::Operator),
        (Credential::Absent, _) => Err(missing("missing caller auth token")),
    }
}

/// Whether an agent that says it is `claimed` may hear what happens around that workspace.
pub(crate) fn listener_gate(credential: Credential, claimed: Option<WorkspaceId>) -> Result<()> {
    match credential {
        Credential::Workspace(owner) if Some(owner.workspace_id) == claimed => Ok(()),
        Credential::Absent => Err(missing("missing workspace auth token")),
        _ => Err(missing("invalid workspace auth token")),
    }
}

/// What the gate of test tokens looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TestTokenFacts {
    pub(crate) enabled: bool,
    pub(crate) credential: Credential,
    pub(crate) admin_token_set: bool,
    pub(crate) exposure: Exposure,
}

/// Whether a caller may be given a token of any workspace, as tests need it. Where that is not enabled there is nothing
/// to be seen of it.
pub(crate) fn test_token_gate(facts: &TestTokenFacts) -> Result<()> {
    match facts.credential {
        _ if !facts.enabled => Err(Error::not_found("not found")),
        Credential::Operator => Ok(()),
        Credential::Absent if !facts.admin_token_set && facts.exposure == Exposure::Loopback => Ok(()),
        _ => Err(missing("admin auth required")),
    }
}

/// What is still to be asked about a caller that looks into a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    /// Whether it is this workspace or one below it.
    IsBelow(WorkspaceId),
    /// Whether it may talk to the one that the caller says it is.
    TalksTo(WorkspaceId),
    /// Both of these, and that the one the caller says it is is below the first as well.
    IsBelowAndTalksTo(WorkspaceId, WorkspaceId),
}

/// The gate of routes that show the inside of `target`, after that of the workspace itself: who says that it is another
/// workspace must be that one, or speak for the operator.
pub(crate) fn claim_gate(credential: Credential, claimed: Option<WorkspaceId>, target: WorkspaceId) -> Result<Asked> {
    match (credential, claimed.filter(|claimed| *claimed != target)) {
        (Credential::Org(OrgTokenOwner { org_id: Some(org_id), .. }), None) => Ok(Asked::IsBelow(org_id)),
        (_, None) => Ok(Asked::Nothing),
        // Whatever it says it is: a token that is bound stays where it is bound.
        (Credential::Org(OrgTokenOwner { org_id: Some(org_id), .. }), Some(claimed)) => {
            Ok(Asked::IsBelowAndTalksTo(org_id, claimed))
        }
        (Credential::Operator | Credential::Org(_) | Credential::Session | Credential::Absent, Some(claimed)) => {
            Ok(Asked::TalksTo(claimed))
        }
        (Credential::Workspace(owner), Some(claimed)) if owner.workspace_id == claimed => Ok(Asked::TalksTo(claimed)),
        (Credential::Workspace(_) | Credential::Unknown, Some(_)) => {
            Err(missing("invalid token for claimed workspace"))
        }
    }
}

/// Whether `id` is `top` or below it, by the kin of `id`.
pub(crate) fn is_at_or_below(id: WorkspaceId, top: WorkspaceId, kin: &[Kin]) -> bool {
    kin.iter().any(|kin| kin.start == id && kin.id == top)
}

/// Whether two workspaces may talk: the same one, siblings, both roots, or one above the other at any depth.
///
/// `kin` holds both and their ancestors; one that is removed or unknown has no entry and may talk to nobody.
pub(crate) fn can_communicate(one: WorkspaceId, other: WorkspaceId, kin: &[Kin]) -> bool {
    if one == other {
        return true;
    }
    let own = |start| kin.iter().find(|kin| kin.start == start && kin.depth == 0);
    let (Some(first), Some(second)) = (own(one), own(other)) else {
        return false;
    };
    let above = |start, id| kin.iter().any(|kin| kin.start == start && kin.id == id);
    first.parent_id == second.parent_id || above(one, other) || above(other, one)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::TokenId;

    fn id(n: u128) -> WorkspaceId {
        WorkspaceId::from_uuid(Uuid::from_u128(n))
    }

    fn token_of(n: u128) -> Credential {
        Credential::Workspace(TokenOwner {
            id: TokenId::from_uuid(Uuid::nil()),
            workspace_id: id(n),
            provision_attempt: None,
        })
    }

    fn org_token(org_id: Option<u128>) -> Credential {
        Credential::Org(OrgTokenOwner { id: TokenId::from_uuid(Uuid::nil()), org_id: org_id.map(id) })
    }

    fn verdict<T>(result: Result<T>) -> &'static str {
        match result {
            Ok(_) => "allow",
            Err(error) => match error.message() {
                "invalid workspace auth token" | "invalid admin auth token" | "invalid caller auth token" => "invalid",
                "missing workspace auth token" | "admin auth required" | "missing caller auth token" => "missing",
                other => panic!("unexpected {other}"),
            },
        }
    }

    #[test]
    fn the_workspace_gate_row_by_row() {
        use Exposure::{Loopback, Network};
        let rows = [
            (Credential::Operator, false, Network, "allow"),
            (org_token(None), false, Network, "allow"),
            (org_token(Some(9)), false, Network, "allow"),
            (Credential::Session, false, Network, "allow"),
            (token_of(1), false, Network, "allow"),
            (token_of(2), false, Network, "invalid"),
            (token_of(2), true, Loopback, "invalid"),
            (Credential::Unknown, true, Loopback, "invalid"),
            (Credential::Absent, true, Loopback, "allow"),
            (Credential::Absent, true, Network, "missing"),
            (Credential::Absent, false, Loopback, "missing"),
        ];
        for (credential, dev_fail_open, exposure, expected) in rows {
            let facts = WorkspaceFacts { credential, target: id(1), dev_fail_open, exposure };
            assert_eq!(verdict(workspace_gate(&facts)), expected, "{facts:?}");
        }
    }

    #[test]
    fn the_admin_gate_row_by_row() {
        use Credential::{Absent, Operator, Session, Unknown};
        use Exposure::{Loopback, Network};
        // credential, admin token set, any live token, dev, exposure; and nobody else's control plane
        let rows = [
            (Operator, true, true, false, Network, "allow"),
            (Operator, false, true, false, Loopback, "allow"),
            (org_token(None), true, true, false, Network, "allow"),
            (Session, true, true, false, Network, "allow"),
            (Absent, false, false, false, Loopback, "allow"),
            (Absent, false, false, false, Network, "missing"),
            (Absent, false, true, false, Loopback, "missing"),
            (Absent, true, false, false, Loopback, "missing"),
            (Absent, false, true, true, Loopback, "allow"),
            (Absent, false, true, true, Network, "missing"),
            (token_of(1), true, true, false, Loopback, "invalid"),
            (token_of(1), false, true, false, Loopback, "invalid"),
            (token_of(1), false, true, true, Loopback, "allow"),
            (token_of(1), false, true, true, Network, "invalid"),
            (Unknown, false, false, false, Loopback, "invalid"),
            (Unknown, true, true, false, Loopback, "invalid"),
        ];
        for (credential, admin_token_set, any_live_token, dev_fail_open, exposure, expected) in rows {
            let facts =
                AdminFacts { credential, admin_token_set, any_live_token, managed: false, dev_fail_open, exposure };
            assert_eq!(verdict(admin_gate(&facts)), expected, "{facts:?}");
        }
        let managed = AdminFacts {
            credential: Absent,
            admin_token_set: false,
            any_live_token: false,
            managed: true,
            dev_fail_open: false,
            exposure: Loopback,
        };
        assert_eq!(verdict(admin_gate(&managed)), "missing", "what others run is never fresh");
        assert_eq!(verdict(admin_gate(&AdminFacts { dev_fail_open: true, ..managed })), "allow");
    }

    #[test]
    fn the_gate_of_a_state_row_by_row() {
        let rows = [
            (token_of(1), true, "allow"),
            (Credential::Operator, true, "allow"),
            (token_of(2), true, "invalid"),
            (Credential::Unknown, true, "invalid"),
            (Credential::Absent, true, "missing"),
            (Credential::Unknown, false, "allow"),
            (Credential::Absent, false, "allow"),
        ];
        for (credential, has_live_token, expected) in rows {
            let facts = WorkspaceFacts { credential, target: id(1), dev_fail_open: false, exposure: Exposure::Network };
            assert_eq!(verdict(state_gate(&facts, has_live_token)), expected, "{facts:?} {has_live_token}");
        }
    }

    #[test]
    fn the_registry_gate_row_by_row() {
        let rows = [
            (token_of(1), Status::Online, true, "allow"),
            (token_of(1), Status::Removed, true, "invalid"),
            (token_of(2), Status::Online, true, "invalid"),
            (token_of(2), Status::Provisioning, false, "invalid"),
            (Credential::Unknown, Status::Provisioning, false, "invalid"),
            (Credential::Operator, Status::Online, true, "invalid"),
            (org_token(None), Status::Online, true, "invalid"),
            (Credential::Session, Status::Provisioning, false, "invalid"),
            (Credential::Absent, Status::Online, true, "missing"),
            (Credential::Absent, Status::Provisioning, true, "missing"),
            (Credential::Absent, Status::Provisioning, false, "allow"),
            (Credential::Absent, Status::AwaitingAgent, false, "allow"),
            (Credential::Absent, Status::Online, false, "missing"),
            (Credential::Absent, Status::Removed, false, "invalid"),
        ];
        for (credential, status, has_live_token, expected) in rows {
            let facts = RegistryFacts { credential, target: id(1), status, has_live_token };
            assert_eq!(verdict(registry_gate(&facts)), expected, "{facts:?}");
        }
    }

    #[test]
    fn the_gate_of_calls_row_by_row() {
        use Credential::{Absent, Operator, Session, Unknown};
        // credential, claimed, operator's gate open, verdict, who calls
        let rows = [
            (Operator, None, false, "allow", Some(Caller::Operator)),
            (Operator, Some(1), false, "allow", Some(Caller::Workspace(id(1)))),
            (org_token(None), None, false, "allow", Some(Caller::Operator)),
            (org_token(None), Some(1), false, "allow", Some(Caller::Workspace(id(1)))),
            (Session, None, false, "allow", Some(Caller::Operator)),
            (Session, Some(1), false, "allow", Some(Caller::Workspace(id(1)))),
            (token_of(1), None, false, "allow", Some(Caller::Workspace(id(1)))),
            (token_of(1), Some(1), false, "allow", Some(Caller::Workspace(id(1)))),
            (token_of(1), Some(2), true, "invalid", None),
            (Unknown, None, true, "invalid", None),
            (Unknown, Some(1), true, "invalid", None),
            (Absent, None, true, "allow", Some(Caller::Operator)),
            (Absent, None, false, "missing", None),
            (Absent, Some(1), true, "missing", None),
        ];
        for (credential, claimed, operator_gate_open, expected, who) in rows {
            let facts = CallerFacts { credential, claimed: claimed.map(id), operator_gate_open };
            assert_eq!(caller_gate(&facts).ok(), who, "{facts:?}");
            assert_eq!(verdict(caller_gate(&facts)), expected, "{facts:?}");
        }
    }

    #[test]
    fn the_gate_of_listening_agents_row_by_row() {
        let rows = [
            (token_of(1), Some(1), "allow"),
            (token_of(1), Some(2), "invalid"),
            (token_of(1), None, "invalid"),
            (Credential::Operator, Some(1), "invalid"),
            (org_token(None), Some(1), "invalid"),
            (Credential::Session, Some(1), "invalid"),
            (Credential::Unknown, Some(1), "invalid"),
            (Credential::Absent, Some(1), "missing"),
        ];
        for (credential, claimed, expected) in rows {
            assert_eq!(verdict(listener_gate(credential, claimed.map(id))), expected, "{credential:?} {claimed:?}");
        }
    }

    #[test]
    fn the_gate_of_test_tokens_row_by_row() {
        use Credential::{Absent, Operator, Session, Unknown};
        use Exposure::{Loopback, Network};
        // enabled, credential, admin token set, exposure
        let rows = [
            (false, Operator, true, Loopback, "not found"),
            (false, Absent, false, Loopback, "not found"),
            (true, Operator, true, Network, "allow"),
            (true, Operator, false, Network, "allow"),
            (true, Absent, false, Loopback, "allow"),
            (true, Absent, false, Network, "admin auth required"),
            (true, Absent, true, Loopback, "admin auth required"),
            (true, org_token(None), true, Network, "admin auth required"),
            (true, Session, true, Network, "admin auth required"),
            (true, token_of(1), false, Loopback, "admin auth required"),
            (true, Unknown, false, Loopback, "admin auth required"),
        ];
        for (enabled, credential, admin_token_set, exposure, expected) in rows {
            let facts = TestTokenFacts { enabled, credential, admin_token_set, exposure };
            let verdict = test_token_gate(&facts);
            let said = verdict.as_ref().map_or_else(|error| error.message(), |()| "allow");
            assert_eq!(said, expected, "{facts:?}");
        }
    }

    #[test]
    fn the_gate_of_those_who_look_inside_row_by_row() {
        use Credential::{Absent, Operator, Session, Unknown};
        let talks_to_2 = Some(Asked::TalksTo(id(2)));
        // credential, claimed, what is still asked; the target is 1
        let rows = [
            (Operator, None, Some(Asked::Nothing)),
            (token_of(1), None, Some(Asked::Nothing)),
            (token_of(1), Some(1), Some(Asked::Nothing)),
            (org_token(None), None, Some(Asked::Nothing)),
            (org_token(Some(9)), None, Some(Asked::IsBelow(id(9)))),
            (org_token(Some(9)), Some(1), Some(Asked::IsBelow(id(9)))),
            (org_token(Some(9)), Some(2), Some(Asked::IsBelowAndTalksTo(id(9), id(2)))),
            (org_token(None), Some(2), talks_to_2),
            (Operator, Some(2), talks_to_2),
            (Session, Some(2), talks_to_2),
            (Absent, Some(2), talks_to_2),
            (token_of(2), Some(2), talks_to_2),
            (token_of(1), Some(2), None),
            (Unknown, Some(2), None),
        ];
        for (credential, claimed, expected) in rows {
            let verdict = claim_gate(credential, claimed.map(id), id(1));
            assert_eq!(verdict.as_ref().ok().copied(), expected, "{credential:?} {claimed:?}");
            if let Err(error) = verdict {
                assert_eq!(error.message(), "invalid token for claimed workspace");
            }
        }
        let kin = kin_of(&[(9, None), (1, Some(9)), (2, None)], [1, 9]);
        assert!(is_at_or_below(id(1), id(9), &kin) && is_at_or_below(id(9), id(9), &kin));
        assert!(!is_at_or_below(id(9), id(1), &kin) && !is_at_or_below(id(1), id(2), &kin));
    }

    #[test]
    fn only_a_bearer_proves_who_calls() {
        let facts = |credential| RegistryFacts {
            credential,
            target: id(1),
            status: Status::Provisioning,
            has_live_token: false,
        };
        assert!(registry_gate(&facts(token_of(1))).unwrap());
        assert!(!registry_gate(&facts(Credential::Absent)).unwrap());
    }

    /// Workspaces by number, each with its parent; the kin that the store would find.
    fn kin_of(parents: &[(u128, Option<u128>)], asked: [u128; 2]) -> Vec<Kin> {
        let parent = |n| parents.iter().find(|(child, _)| *child == n).map(|(_, parent)| *parent);
        let mut kin = Vec::new();
        for start in asked {
            let mut at = start;
            let mut depth = 0;
            while let Some(above) = parent(at) {
                kin.push(Kin { start: id(start), id: id(at), parent_id: above.map(id), depth });
                let Some(next) = above else { break };
                at = next;
                depth += 1;
            }
        }
        kin
    }

    #[test]
    fn who_may_talk_to_whom() {
        // 1 and 2 are roots; 10, 11 below 1; 100 below 10; 110 below 11; 20 below 2.
        let parents =
            [(1, None), (2, None), (10, Some(1)), (11, Some(1)), (100, Some(10)), (110, Some(11)), (20, Some(2))];
        let rows = [
            (1, 1, true),
            (999, 999, true),
            (10, 11, true),
            (1, 2, true),
            (1, 10, true),
            (1, 100, true),
            (100, 1, true),
            (100, 110, false),
            (10, 20, false),
            (100, 11, false),
            (1, 20, false),
            (1, 999, false),
            (999, 1, false),
        ];
        for (one, other, expected) in rows {
            let kin = kin_of(&parents, [one, other]);
            assert_eq!(can_communicate(id(one), id(other), &kin), expected, "{one} -> {other}");
        }
    }
}
