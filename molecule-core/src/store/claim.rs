//! Keeps a database to one server, where only one can see the workloads of its workspaces.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::time::timeout;

use super::{CONNECT_PATIENCE, Store, pool::Pool};
use crate::error::Result;

/// "molecule", as a number: what servers that must be alone on a database lock.
const KEY: i64 = 0x6d6f_6c65_6375_6c65;

/// How often it is looked whether a claim still stands, and how long the answer may take.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) mod postgres {
    use crate::store::pool::statements;

    statements! {
        LOCK = "SELECT pg_try_advisory_lock($1)";
        OWN = "SELECT pg_backend_pid()";
        ALIVE = "SELECT 1";
        /// A session that this server lost may stand at the database for long, and hold what it locked. The key is kept in
        /// two halves there.
        END = "SELECT pg_terminate_backend(pid) FROM pg_locks \
               WHERE locktype = 'advisory' AND granted AND pid = $1 \
               AND (classid::bigint << 32) | objid::bigint = $2";
    }
}

/// Keeps other servers off a database; see [`Store::claim`].
#[derive(Debug)]
pub struct Claim(Option<Held>);

/// A claim on Postgres.
#[derive(Debug)]
struct Held {
    store: Store,
    /// Holds the lock, for as long as it stands.
    connection: PgConnection,
    /// What the database knows the connection by.
    session: i32,
}

impl Store {
    /// Claims the database for one server. `None` where another holds it; the claim ends with the value, or with this
    /// process. On SQLite, whose file is in a data folder of one server, there is nothing to claim.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) where the database does not answer.
    pub async fn claim(&self) -> Result<Option<Claim>> {
        let Pool::Postgres(pool) = &self.write else { return Ok(Some(Claim(None))) };
        let mut connection = connect(pool).await?;
        if !lock(&mut connection).await? {
            return Ok(None);
        }
        let session = sqlx::query_scalar(postgres::OWN).fetch_one(&mut connection).await?;
        Ok(Some(Claim(Some(Held { store: self.clone(), connection, session }))))
    }
}

impl Claim {
    /// Holds the claim through connections that break, and returns once another server has it.
    pub async fn lost(&mut self) {
        let Some(held) = &mut self.0 else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if held.stands().await {
                continue;
            }
            match held.again().await {
                Ok(true) => tracing::info!("the database is claimed again after its connection was lost"),
                Ok(false) => return,
                // Nobody else can have it either.
                Err(error) => tracing::warn!(error = error.detail(), "the database cannot be claimed now"),
            }
        }
    }
}

impl Held {
    async fn stands(&mut self) -> bool {
        let asked = sqlx::query(postgres::ALIVE).execute(&mut self.connection);
        matches!(timeout(PATIENCE, asked).await, Ok(Ok(_)))
    }

    /// Claims it once more. False where another server has it.
    async fn again(&mut self) -> Result<bool> {
        let Pool::Postgres(pool) = &self.store.write else { return Ok(true) };
        let mut connection = connect(pool).await?;
        let left = sqlx::query(postgres::END).bind(self.session).bind(KEY);
        if left.execute(&mut connection).await?.rows_affected() > 0 {
            // It ends a moment after it was told to.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if !lock(&mut connection).await? {
            return Ok(false);
        }
        self.session = sqlx::query_scalar(postgres::OWN).fetch_one(&mut connection).await?;
        self.connection = connection;
        Ok(true)
    }
}

/// A connection of its own, which no other work waits for.
async fn connect(pool: &PgPool) -> Result<PgConnection> {
    let own = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_PATIENCE)
        .connect_lazy_with((*pool.connect_options()).clone());
    Ok(own.acquire().await?.detach())
}

async fn lock(connection: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar(postgres::LOCK).bind(KEY).fetch_one(connection).await?)
}
