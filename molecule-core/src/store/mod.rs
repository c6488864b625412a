//! What the control plane keeps: SQLite by default, Postgres where several replicas share it.
//!
//! Each query is one text that runs on both (`docs/decisions/0002-one-sql-text.md`). The store is a concrete type
//! and not a trait: the fast store for tests is SQLite in memory, which is the real thing.

mod clean;
mod events;
pub(crate) mod pool;
mod tokens;
mod workspaces;

use std::{borrow::Cow, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, PgPool, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tracing::log::LevelFilter;

use self::pool::{Pool, on_pool};
pub use self::tokens::TokenOwner;
pub(crate) use self::workspaces::{Kin, NewWorkspace, Registration, Supervised, Telemetry};
use crate::error::{Error, ErrorKind, Result};

/// How long a caller waits for a connection, or for another writer, before it is told that the store is away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the first connection of a start may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A handle to the database. Cloning clones the handle.
#[derive(Debug, Clone)]
pub struct Store {
    read: Pool,
    // SQLite has one writer at a time, so writers queue here fairly instead of racing for its lock.
    write: Pool,
}

/// Which database is behind a [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The embedded one.
    Sqlite,
    /// The one that several replicas can share.
    Postgres,
}

impl Store {
    /// Opens the database at `url` and brings its schema up to date.
    ///
    /// `sqlite:PATH` and `sqlite://PATH` create the file when it is missing; `sqlite::memory:` lives as long as the
    /// handle. `postgres://…` needs the database to exist.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for any other URL; [`ErrorKind::Unavailable`] where the database can't be reached or
    /// its schema is newer than this build.
    pub async fn connect(url: &str) -> Result<Self> {
        let store = Self::connect_unmigrated(url).await?;
        store.migrate().await?;
        Ok(store)
    }

    async fn connect_unmigrated(url: &str) -> Result<Self> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => Self::connect_sqlite(url).await,
            "postgres" | "postgresql" => Self::connect_postgres(url).await,
            _ => Err(Error::invalid("the database URL must begin with sqlite: or postgres://")),
        }
    }

    async fn connect_sqlite(url: &str) -> Result<Self> {
        let bad_url = |error| Error::invalid("the SQLite URL cannot be understood").caused_by(error);
        let options = SqliteConnectOptions::from_str(url)
            .map_err(bad_url)?
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was acknowledged must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE)
            .log_statements(LevelFilter::Trace);
        let opened = |error| unreachable_database("SQLite file", error);
        // A database in memory lives in its one connection.
        if url.contains(":memory:") {
            let one = SqlitePoolOptions::new()
                .max_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(PATIENCE)
                .connect_with(options)
                .await
                .map_err(opened)?;
            return Ok(Self { read: Pool::Sqlite(one.clone()), write: Pool::Sqlite(one) });
        }
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                .test_before_acquire(false)
                .connect_with(options.clone())
        };
        let write = pool(1).await.map_err(opened)?;
        let read = pool(8).await.map_err(opened)?;
        Ok(Self { read: Pool::Sqlite(read), write: Pool::Sqlite(write) })
    }

    async fn connect_postgres(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| Error::invalid("the Postgres URL cannot be understood").caused_by(error))?
            .application_name("molecule")
            .log_statements(LevelFilter::Trace);
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(CONNECT_PATIENCE)
            .connect_with(options)
            .await
            .map_err(|error| unreachable_database("Postgres server", error))?;
        Ok(Self { read: Pool::Postgres(pool.clone()), write: Pool::Postgres(pool) })
    }

    /// Brings the schema up to date. Repeating it changes nothing; several replicas may do it at once.
    async fn migrate(&self) -> Result<()> {
        let failed = |error| {
            Error::new(ErrorKind::Unavailable, "the database schema could not be brought up to date")
                .during("migrate")
                .caused_by(error)
        };
        match &self.write {
            Pool::Sqlite(pool) => {
                migrator(include_str!("../../migrations/sqlite/0001_init.sql")).run(pool).await.map_err(failed)
            }
            Pool::Postgres(pool) => {
                migrator(include_str!("../../migrations/postgres/0001_init.sql")).run(pool).await.map_err(failed)
            }
        }
    }

    /// Which database this is.
    pub fn engine(&self) -> Engine {
        match &self.read {
            Pool::Sqlite(_) => Engine::Sqlite,
            Pool::Postgres(_) => Engine::Postgres,
        }
    }

    /// Asks the database for nothing, to see whether it answers.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        on_pool!(&self.read, |p| sqlx::query("SELECT 1").execute(p).await.map(drop))?;
        Ok(())
    }

    /// Closes every connection, waiting for those in use. Later calls fail.
    pub async fn close(&self) {
        on_pool!(&self.read, |p| p.close().await);
        on_pool!(&self.write, |p| p.close().await);
    }
}

fn migrator(init: &'static str) -> Migrator {
    Migrator::with_migrations(vec![Migration::new(
        1,
        Cow::Borrowed("init"),
        MigrationType::Simple,
        sqlx::SqlSafeStr::into_sql_str(init),
        false,
    )])
}

fn unreachable_database(what: &str, error: sqlx::Error) -> Error {
    // The driver's text may hold the path, never the password; it stays in the source for the log.
    Error::new(ErrorKind::Unavailable, format!("the {what} cannot be opened: {error}")).during("connect")
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as Sqlx;
        match error {
            Sqlx::Io(_) | Sqlx::Tls(_) | Sqlx::PoolTimedOut | Sqlx::PoolClosed | Sqlx::WorkerCrashed => {
                Self::new(ErrorKind::Unavailable, "platform datastore unavailable — retry shortly")
                    .with_member("code", "platform_unavailable")
                    .during("query")
                    .caused_by(error)
            }
            error => Self::new(ErrorKind::Unexpected, "query failed").during("query").caused_by(error),
        }
    }
}

/// Access for the gates of `docs/decisions/0002-one-sql-text.md`. Not part of the API.
#[doc(hidden)]
pub mod gate {
    use super::{PgPool, Pool, SqlitePool, Store};

    /// The name and text of every statement of the store.
    pub fn statements() -> Vec<(String, &'static str)> {
        let modules = [
            ("events", super::events::STATEMENTS),
            ("tokens", super::tokens::STATEMENTS),
            ("workspaces", super::workspaces::STATEMENTS),
        ];
        let named = |(module, list): (&str, &'static [(&'static str, &'static str)])| {
            list.iter().map(|(name, sql)| (format!("{module}::{name}"), *sql)).collect::<Vec<_>>()
        };
        modules.into_iter().flat_map(named).collect()
    }

    /// The pool, where the store is SQLite.
    pub fn sqlite(store: &Store) -> Option<&SqlitePool> {
        match &store.write {
            Pool::Sqlite(pool) => Some(pool),
            Pool::Postgres(_) => None,
        }
    }

    /// The pool, where the store is Postgres.
    pub fn postgres(store: &Store) -> Option<&PgPool> {
        match &store.write {
            Pool::Sqlite(_) => None,
            Pool::Postgres(pool) => Some(pool),
        }
    }
}
