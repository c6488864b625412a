//! Hears what other replicas change and tell, so that what is remembered here is true, and tells them.

use std::{collections::HashMap, time::Duration};

use sqlx::{PgPool, postgres::PgListener};

use super::{Store, events::EventRow, pool::Pool};
use crate::{
    error::Result,
    events::RecordedEvent,
    id::{EventId, WorkspaceId},
};

/// Where the triggers of the schema tell what changed.
const CHANGES: &str = "molecule_changes";

/// Where replicas tell what happens.
const EVENTS: &str = "molecule_events";

/// What they say where a token of the organisation changed; otherwise they name a workspace.
const ORG_TOKENS: &str = "org-tokens";

/// The pause before another try to listen, doubled each time up to the limit.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

pub(super) mod postgres {
    use crate::store::pool::statements;

    statements! {
        NOTIFY = "SELECT pg_notify('molecule_events', notice) FROM unnest($1::text[]) AS n (notice)";
        RECORDED = "SELECT id, event_type, workspace_id, payload, created_at FROM structure_events \
                    WHERE id = ANY($1::uuid[])";
    }
}

impl Store {
    /// Whether changes by other replicas reach this process; always so where there can be none.
    pub fn hears_peers(&self) -> bool {
        self.memory.is_trusted()
    }

    /// What other replicas know this handle by.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Forgets what other replicas change, and gives what they tell to `hear`, until it is dropped. Returns at once
    /// where there can be no others.
    ///
    /// While nothing can be heard, tokens are looked up in the database each time. `began` is called when it can be,
    /// and told whether that is again: what was told meanwhile is lost.
    pub(crate) async fn follow_peers(&self, hear: impl Fn(&str) + Send + Sync, began: impl Fn(bool) + Send + Sync) {
        let Pool::Postgres(pool) = &self.write else { return };
        let mut backoff = FIRST_BACKOFF;
        let mut again = false;
        loop {
            let heard = self.hear(pool, &hear, || began(std::mem::replace(&mut again, true))).await;
            match heard {
                Ok(()) => backoff = FIRST_BACKOFF,
                Err(error) => {
                    tracing::warn!(%error, "changes by other replicas cannot be heard");
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
            self.memory.set_trusted(false);
            tokio::time::sleep(backoff).await;
        }
    }

    /// Hears until the connection is lost.
    async fn hear(
        &self,
        pool: &PgPool,
        hear: &(impl Fn(&str) + Sync),
        began: impl FnOnce() + Send,
    ) -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen_all([CHANGES, EVENTS]).await?;
        // What changed before is read from the database from here on.
        self.memory.set_trusted(true);
        began();
        while let Some(notice) = listener.try_recv().await? {
            if notice.channel() == EVENTS {
                hear(notice.payload());
                continue;
            }
            if notice.payload() == ORG_TOKENS {
                self.memory.org_tokens_changed();
                continue;
            }
            match notice.payload().parse::<WorkspaceId>() {
                Ok(id) => self.memory.changed(id),
                Err(_) => tracing::warn!(payload = notice.payload(), "a notice that is no workspace ID"),
            }
        }
        Ok(())
    }

    /// Tells every replica, this one included, all of `notices` in their order.
    pub(crate) async fn notify_peers(&self, notices: &[String]) -> Result<()> {
        if notices.is_empty() {
            return Ok(());
        }
        if let Pool::Postgres(pool) = self.writer() {
            sqlx::query(postgres::NOTIFY).bind(notices).execute(pool).await?;
        }
        Ok(())
    }

    /// The recorded events of these ids, as far as there are any.
    pub(crate) async fn recorded_events(&self, ids: &[EventId]) -> Result<HashMap<EventId, RecordedEvent>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let Pool::Postgres(pool) = self.reader() else { return Ok(HashMap::new()) };
        let ids: Vec<_> = ids.iter().map(|id| id.as_uuid()).collect();
        let rows: Vec<EventRow> = sqlx::query_as(postgres::RECORDED).bind(ids).fetch_all(pool).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.into())).collect())
    }
}
