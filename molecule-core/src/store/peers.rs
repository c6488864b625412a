//! Hears what other replicas change and tell, so that what is remembered here is true, and tells them.

use std::{collections::HashMap, io, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    PgPool,
    postgres::{PgListener, PgNotification, PgPoolOptions},
};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::{
    CONNECT_PATIENCE, Store,
    events::EventRow,
    memory::Memory,
    pool::{Pool, answered},
};
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

/// How often the connection that listens is asked whether it lives, and how long it may take to say so. One over which
/// nothing comes any more looks like one on which nothing happens.
const PULSE_EVERY: Duration = Duration::from_secs(1);
const PULSE_PATIENCE: Duration = Duration::from_secs(5);

/// The pause before another try to listen, doubled each time up to the limit.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

pub(super) mod postgres {
    use crate::store::pool::statements;

    statements! {
        NOTIFY = "SELECT pg_notify('molecule_events', notice) FROM unnest($1::text[]) AS n (notice)";
        CLOCK = "SELECT clock_timestamp()";
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
    /// and told whether that is again: what was told meanwhile is lost. `pulse` is called every second or so as long as it
    /// can, and told what the clock of the database says and how long it took to say so.
    pub(crate) async fn follow_peers(
        &self,
        hear: impl Fn(&str) + Send + Sync,
        began: impl Fn(bool) + Send + Sync,
        pulse: impl Fn(DateTime<Utc>, Duration) + Send + Sync,
    ) {
        let Pool::Postgres(pool) = &self.write else { return };
        let mut backoff = FIRST_BACKOFF;
        let mut again = false;
        loop {
            let heard = self.hear(pool, &hear, || began(std::mem::replace(&mut again, true)), &pulse).await;
            match heard {
                Ok(()) => backoff = FIRST_BACKOFF,
                Err(error) => {
                    tracing::warn!(%error, "changes by other replicas cannot be heard");
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
            tokio::time::sleep(backoff).await;
        }
    }

    /// Hears until the connection is lost.
    async fn hear(
        &self,
        pool: &PgPool,
        hear: &(impl Fn(&str) + Sync),
        began: impl FnOnce() + Send,
        pulse: &(impl Fn(DateTime<Utc>, Duration) + Sync),
    ) -> sqlx::Result<()> {
        // A connection of its own: one that died holds no place that others need.
        let own = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_PATIENCE)
            .connect_lazy_with((*pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&own).await?;
        lives(listener.listen_all([CHANGES, EVENTS])).await?;
        // What changed before is read from the database from here on.
        let _trust = Trust::begin(&self.memory);
        began();
        let mut pulses = tokio::time::interval(PULSE_EVERY);
        pulses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                notice = listener.try_recv() => match notice? {
                    Some(notice) => self.take_notice(&notice, hear),
                    None => return Ok(()),
                },
                _ = pulses.tick() => {
                    let asked = Instant::now();
                    let time = lives(sqlx::query_scalar(postgres::CLOCK).fetch_one(&mut listener)).await?;
                    pulse(time, asked.elapsed());
                }
            }
        }
    }

    fn take_notice(&self, notice: &PgNotification, hear: &impl Fn(&str)) {
        if notice.channel() == EVENTS {
            hear(notice.payload());
        } else if notice.payload() == ORG_TOKENS {
            self.memory.org_tokens_changed();
        } else {
            match notice.payload().parse::<WorkspaceId>() {
                Ok(id) => self.memory.changed(id),
                Err(_) => tracing::warn!(payload = notice.payload(), "a notice that is no workspace ID"),
            }
        }
    }

    /// Tells every replica, this one included, all of `notices` in their order.
    pub(crate) async fn notify_peers(&self, notices: &[String]) -> Result<()> {
        if notices.is_empty() {
            return Ok(());
        }
        if let Pool::Postgres(pool) = self.writer() {
            answered(sqlx::query(postgres::NOTIFY).bind(notices).execute(pool)).await?;
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
        let rows: Vec<EventRow> = answered(sqlx::query_as(postgres::RECORDED).bind(ids).fetch_all(pool)).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.into())).collect())
    }
}

/// Memory is believed as long as this is there: whatever ends the hearing, a panic included, ends that.
struct Trust<'a>(&'a Memory);

impl<'a> Trust<'a> {
    fn begin(memory: &'a Memory) -> Self {
        memory.set_trusted(true);
        Self(memory)
    }
}

impl Drop for Trust<'_> {
    fn drop(&mut self) {
        self.0.set_trusted(false);
    }
}

async fn lives<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let dead = |_| sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the connection that listens is dead"));
    timeout(PULSE_PATIENCE, asked).await.map_err(dead)?
}
