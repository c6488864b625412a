//! Brings a change to the workspaces that it concerns, a few at a time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};

use crate::{
    control_plane::{Backend, ControlPlane},
    error::{ErrorKind, Result},
    id::WorkspaceId,
    provisioner::stop::Source,
    workspace::Status,
};

/// How many workspaces are brought up anew at once.
const AT_ONCE: usize = 4;

/// How long one of them may keep the next one waiting.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a restart is tried again after another change came in between.
const PATIENCE_WITH_RACES: usize = 8;

/// Whether a workspace in this status runs, or is meant to. Others take a change up with their next start.
fn is_concerned(status: Status) -> bool {
    match status {
        Status::Provisioning | Status::Online | Status::Offline | Status::Degraded | Status::Failed => true,
        Status::Removed | Status::Paused | Status::Hibernated | Status::Hibernating | Status::AwaitingAgent => false,
    }
}

/// Whether a try that began then was told what is kept since `since`.
fn was_told(began: Option<DateTime<Utc>>, since: DateTime<Utc>) -> bool {
    began.is_some_and(|began| began >= since)
}

impl ControlPlane {
    /// Begins to bring up anew every workspace that is given the global secret `key`.
    pub(super) async fn roll_out_globally(&self, key: &str) -> Result<()> {
        let concerned = self.inner.store.workspaces_without_secret(key).await?;
        self.roll_out(concerned);
        Ok(())
    }

    /// Begins to bring up anew those of `ids` that run. That goes on after the call.
    pub(crate) fn roll_out(&self, ids: Vec<WorkspaceId>) {
        self.roll_out_to(ids, None);
    }

    /// As [`roll_out`](Self::roll_out) for what was kept before, at `since`: only those whose try began earlier. Whoever
    /// saves it again may have heard no answer, from a server that ended before it began to roll it out.
    pub(super) fn roll_out_late(&self, ids: Vec<WorkspaceId>, since: DateTime<Utc>) {
        self.roll_out_to(ids, Some(since));
    }

    fn roll_out_to(&self, ids: Vec<WorkspaceId>, since: Option<DateTime<Utc>>) {
        if matches!(self.inner.backend, Backend::None) || ids.is_empty() {
            return;
        }
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let each = stream::iter(ids).for_each_concurrent(AT_ONCE, |id| {
                let this = &this;
                async move {
                    if let Err(error) = this.bring_up_anew(id, since).await {
                        tracing::error!(workspace.id = %id, error = error.detail(), "a change waits for a restart");
                    }
                    // Whoever is late keeps only its own place.
                    let _ = tokio::time::timeout(PATIENCE, this.inner.attempts.until_over(id)).await;
                }
            });
            tokio::select! {
                () = each => {}
                () = this.inner.stop.cancelled() => {}
            }
        });
    }

    /// Begins a new try, where there is something to bring up, and waits until nothing is asked of the backend for it any
    /// more. Of those who ask meanwhile none waits: one more try serves them all.
    async fn bring_up_anew(&self, id: WorkspaceId, since: Option<DateTime<Utc>>) -> Result<()> {
        if let Some(since) = since {
            let workspace = self.inner.store.workspace(id).await?;
            if workspace.is_none_or(|workspace| was_told(workspace.provision_started_at, since)) {
                return Ok(());
            }
        }
        let mut turn = self.inner.turns.take(id);
        while let Some(held) = turn {
            self.try_anew(id).await?;
            turn = held.once_more();
        }
        Ok(())
    }

    async fn try_anew(&self, id: WorkspaceId) -> Result<()> {
        for _ in 0..PATIENCE_WITH_RACES {
            let Some(workspace) = self.inner.store.workspace(id).await? else { return Ok(()) };
            if workspace.is_external() || !is_concerned(workspace.status) {
                return Ok(());
            }
            match self.refuse_below_paused(&workspace).await {
                // It takes the change up when that one is resumed.
                Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
                other => other?,
            }
            if self.begin_attempt(workspace, Source::AutoRestart, false).await? {
                // Whoever asks the backend for so long is overtaken by the next change.
                let _ = tokio::time::timeout(PATIENCE, self.inner.attempts.until_asked(id)).await;
                return Ok(());
            }
        }
        tracing::warn!(workspace.id = %id, "a change waits for a restart: the workspace keeps changing");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_or_is_meant_to_is_brought_up_anew() {
        let concerned: Vec<&str> =
            Status::ALL.into_iter().filter(|status| is_concerned(*status)).map(Status::as_str).collect();
        assert_eq!(concerned, ["provisioning", "online", "offline", "degraded", "failed"]);
    }
    #[test]
    fn what_was_saved_before_a_try_began_was_told_to_it() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        for (began, since, expected) in [(None, 5, false), (Some(4), 5, false), (Some(5), 5, true), (Some(6), 5, true)]
        {
            assert_eq!(was_told(began.map(at), at(since)), expected, "{began:?} {since}");
        }
    }
}
