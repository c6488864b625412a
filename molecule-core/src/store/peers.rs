//! Hears what other replicas change, so that what is remembered here is true.

use std::time::Duration;

use sqlx::{PgPool, postgres::PgListener};

use super::{Store, pool::Pool};
use crate::id::WorkspaceId;

/// Where the triggers of the schema tell what changed.
const CHANNEL: &str = "molecule_changes";

/// The pause before another try to listen, doubled each time up to the limit.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

impl Store {
    /// Whether changes by other replicas reach this process; always so where there can be none.
    pub fn hears_peers(&self) -> bool {
        self.memory.is_trusted()
    }

    /// Forgets what other replicas change, until it is dropped. Returns at once where there can be no others.
    ///
    /// While nothing can be heard, tokens are looked up in the database each time.
    pub(crate) async fn follow_peers(&self) {
        let Pool::Postgres(pool) = &self.write else { return };
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.hear(pool).await {
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
    async fn hear(&self, pool: &PgPool) -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        // What changed before is read from the database from here on.
        self.memory.set_trusted(true);
        while let Some(notice) = listener.try_recv().await? {
            match notice.payload().parse::<WorkspaceId>() {
                Ok(id) => self.memory.changed(id),
                Err(_) => tracing::warn!(payload = notice.payload(), "a notice that is no workspace ID"),
            }
        }
        Ok(())
    }
}
