//! What is planted in a game, to see that the model notices.

use molecule_core::{
    provisioner::{LocalProvisioner, WorkloadInspector},
    store::gate,
    workspace::Status,
};

use super::{Game, Move};

/// A status without the step that leads to it.
const STEP: &str = "UPDATE workspaces SET status = $2 WHERE id = $1";

/// What a game is told to do wrong, to see that the model notices.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// A token is revoked that nobody asked to revoke.
    Revokes,
    /// A token that was revoked is taken again.
    Forgives,
    /// A workspace that was removed comes back.
    Revives,
    /// A heartbeat wakes who was paused.
    Resumes,
    /// A beat makes the workspace of an external agent failed.
    FailsExternal,
    /// The workload of an external agent is asked for.
    AsksExternal,
    /// A try fails twice.
    FailsTwice,
    /// A try starts two workloads.
    StartsTwice,
}

impl Fault {
    /// What the model is sure to come to before the fault. It happens within the last of them.
    pub(crate) fn moves(self) -> Vec<Move> {
        match self {
            Self::Revokes => vec![Move::IssueToken(0), Move::OtherReplica],
            Self::Forgives => vec![Move::IssueToken(0), Move::RevokeToken(0, 1), Move::OtherReplica],
            Self::Revives => vec![Move::Delete(1), Move::OtherReplica],
            Self::Resumes => vec![Move::Pause(0), Move::IssueToken(0), Move::Beat(0, 1)],
            Self::FailsExternal | Self::AsksExternal => vec![Move::Beat(1, 0)],
            Self::FailsTwice => vec![Move::NextStartFails(2), Move::Restart(2), Move::OtherReplica],
            Self::StartsTwice => vec![Move::OtherReplica],
        }
    }

    pub(crate) async fn strikes(self, game: &Game) {
        let row = |sql: &'static str, who: usize| sqlx::query(sql).bind(game.members[who].0.as_uuid());
        let pool = gate::sqlite(game.here().store()).expect("the database of one server is SQLite");
        match self {
            Self::Revokes => {
                let (id, _) = game.members[0];
                let listed = game.here().tokens(id, 1, 0).await.unwrap();
                game.here().revoke_token(id, listed[0].id).await.unwrap();
                return;
            }
            Self::AsksExternal => {
                game.backend.observe(game.members[1].0).await.unwrap();
                return;
            }
            Self::StartsTwice => {
                let mut spec = game.backend.starts().remove(0);
                spec.files.clear();
                game.backend.start(&spec).await.unwrap();
                return;
            }
            Self::Forgives => {
                let all = "UPDATE workspace_auth_tokens SET revoked_at = NULL WHERE workspace_id = $1";
                row(all, 0).execute(pool).await
            }
            Self::Revives => row(STEP, 1).bind(Status::Online).execute(pool).await,
            Self::Resumes => row(STEP, 0).bind(Status::Online).execute(pool).await,
            Self::FailsExternal => row(STEP, 1).bind(Status::Failed).execute(pool).await,
            Self::FailsTwice => {
                let copy = "INSERT INTO structure_events (id, event_type, workspace_id, payload, created_at) \
                            SELECT randomblob(16), event_type, workspace_id, payload, created_at \
                            FROM structure_events WHERE workspace_id = $1 AND event_type = 'WORKSPACE_PROVISION_FAILED'";
                row(copy, 2).execute(pool).await
            }
        }
        .expect("it can be planted");
    }
}
