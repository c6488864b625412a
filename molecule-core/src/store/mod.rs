//! What the control plane keeps: SQLite by default, Postgres where several replicas share it.
//!
//! Each query is one text that runs on both (`docs/decisions/0002-one-sql-text.md`). The store is a concrete type
//! and not a trait: the fast store for tests is SQLite in memory, which is the real thing.

pub(crate) mod activity;
mod agents;
mod approvals;
mod attempts;
mod audit;
mod checkpoints;
mod claim;
pub(crate) mod clean;
mod configuration;
mod delegations;
mod events;
mod inbound_secrets;
mod instructions;
mod lifecycle;
pub(crate) mod machines;
mod memories;
pub(crate) mod memory;
mod org_tokens;
mod patch;
mod peers;
pub(crate) mod pool;
mod queue;
mod schedules;
pub(crate) mod secrets;
mod sweeps;
mod telemetry;
mod tokens;
mod usage;
mod values;
mod workspaces;

use std::{
    borrow::Cow,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, PgPool, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tracing::log::LevelFilter;

pub use self::{
    agents::ActiveAgent,
    approvals::{Approval, PendingApproval},
    checkpoints::Checkpoint,
    claim::Claim,
    memories::{ExportedMemory, Memory as StoredMemory},
    org_tokens::{OrgToken, OrgTokenOwner},
    schedules::Schedule,
    tokens::{Token, TokenOwner},
    values::Value as StoredValue,
};
pub(crate) use self::{
    agents::NewAgent,
    approvals::Verdict,
    attempts::{Abandoned, Asked, Cause},
    audit::AuditRow,
    delegations::Begun,
    memories::MemoryQuery,
    memory::Condition,
    patch::{Patched, RowPatch},
    schedules::{ScheduleChange, ScheduleWritten},
    secrets::{KeptSecret, NewSecret, Secret, SecretChange},
    sweeps::{Idle, Standing},
    tokens::{Added, Credentials},
    values::NewValue,
    workspaces::{Kin, NewWorkspace, Registration, Supervised},
};
use self::{
    memory::Memory,
    pool::{Pool, on_pool},
};
use crate::{
    clock::{SystemEntropy, random_uuid},
    error::{Error, ErrorKind, Result},
};

/// How long a caller waits for a connection, or for another writer, before it is told that the store is away.
const PATIENCE: Duration = Duration::from_secs(10);

/// What Postgres is told at the start of each connection: it gives up on what takes longer than anything asked here, and on
/// a transaction whose other end is gone.
const LIMITS: &str = "SET statement_timeout = '20s'; SET idle_in_transaction_session_timeout = '60s'";

/// How long the first connection of a start may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A handle to the database. Cloning clones the handle.
#[derive(Debug, Clone)]
pub struct Store {
    read: Pool,
    // SQLite has one writer at a time, so writers queue here fairly instead of racing for its lock.
    write: Pool,
    memory: Arc<Memory>,
    statements: Arc<Counters>,
    /// Whoever saves what is in memory does so alone.
    flushes: Arc<tokio::sync::Mutex<()>>,
    /// What other replicas know this handle by.
    origin: Arc<str>,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
}

/// How many times the database was asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statements {
    /// To read.
    pub reads: u64,
    /// To write; a transaction counts once.
    pub writes: u64,
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
        // A database in memory lives in its one connection, which a caller that leaves while it is tested would take along.
        if url.contains(":memory:") {
            let one = SqlitePoolOptions::new()
                .max_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .acquire_timeout(PATIENCE)
                .connect_with(options)
                .await
                .map_err(opened)?;
            return Ok(Self {
                read: Pool::Sqlite(one.clone()),
                write: Pool::Sqlite(one),
                memory: Arc::default(),
                statements: Arc::default(),
                flushes: Arc::default(),
                origin: Arc::default(),
            });
        }
        let pool = |connections, options| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                .test_before_acquire(false)
                .connect_with(options)
        };
        let write = pool(1, options.clone()).await.map_err(opened)?;
        // Each keeps pages for itself, 2 MiB unless it is told otherwise, of a file that the system keeps in memory anyway.
        let read = pool(8, options.pragma("cache_size", "-512")).await.map_err(opened)?;
        Ok(Self {
            read: Pool::Sqlite(read),
            write: Pool::Sqlite(write),
            memory: Arc::default(),
            statements: Arc::default(),
            flushes: Arc::default(),
            origin: Arc::default(),
        })
    }

    async fn connect_postgres(url: &str) -> Result<Self> {
        let origin = format!("molecule-{}", random_uuid(&SystemEntropy));
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| Error::invalid("the Postgres URL cannot be understood").caused_by(error))?
            // The triggers of the schema tell whose doing a change was.
            .application_name(&origin)
            .log_statements(LevelFilter::Trace);
        let place = format!("{}:{}", options.get_host(), options.get_port());
        // A pool that gets no connection says only that; one connection of its own says why.
        let probe = tokio::time::timeout(CONNECT_PATIENCE, PgConnection::connect_with(&options));
        match probe.await {
            Ok(Ok(probe)) => drop(probe.close().await),
            Ok(Err(error)) => return Err(unreachable_database(&format!("Postgres database at {place}"), error)),
            Err(_) => {
                let text = format!("the Postgres database at {place} cannot be opened: it did not answer in time");
                return Err(Error::new(ErrorKind::Unavailable, text).during("connect"));
            }
        }
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(CONNECT_PATIENCE)
            .after_connect(|connection, _| Box::pin(async move { connection.execute(LIMITS).await.map(drop) }))
            .connect_with(options)
            .await
            .map_err(|error| unreachable_database(&format!("Postgres database at {place}"), error))?;
        let memory = Arc::new(Memory::default());
        // Until this process hears what others change; see the `peers` module.
        memory.set_trusted(false);
        Ok(Self {
            read: Pool::Postgres(pool.clone()),
            write: Pool::Postgres(pool),
            memory,
            statements: Arc::default(),
            flushes: Arc::default(),
            origin: origin.into(),
        })
    }

    /// Brings the schema up to date. Repeating it changes nothing; several replicas may do it at once.
    async fn migrate(&self) -> Result<()> {
        let failed = |error| {
            Error::new(ErrorKind::Unavailable, "the database schema could not be brought up to date")
                .during("migrate")
                .caused_by(error)
        };
        match &self.write {
            Pool::Sqlite(pool) => migrator(SQLITE_MIGRATIONS).run(pool).await.map_err(failed),
            Pool::Postgres(pool) => {
                // Without the limits of the pool: others may be at it, and large tables take their time.
                let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
                migrator(POSTGRES_MIGRATIONS).run(&mut connection).await.map_err(failed)?;
                Ok(connection.close().await?)
            }
        }
    }

    /// How many times the database was asked for something since this handle or one it was cloned from was opened.
    pub fn statements(&self) -> Statements {
        let Counters { reads, writes } = &*self.statements;
        Statements { reads: reads.load(Ordering::Relaxed), writes: writes.load(Ordering::Relaxed) }
    }

    fn reader(&self) -> &Pool {
        self.statements.reads.fetch_add(1, Ordering::Relaxed);
        &self.read
    }

    fn writer(&self) -> &Pool {
        self.statements.writes.fetch_add(1, Ordering::Relaxed);
        &self.write
    }

    /// What is remembered of the database.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
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
        for pool in [&self.read, &self.write] {
            match pool {
                Pool::Sqlite(pool) => pool.close().await,
                Pool::Postgres(pool) => pool.close().await,
            }
        }
    }
}

type Migrations = &'static [(i64, &'static str, &'static str)];

const SQLITE_MIGRATIONS: Migrations = &[
    (1, "init", include_str!("../../migrations/sqlite/0001_init.sql")),
    (2, "changes", include_str!("../../migrations/sqlite/0002_changes.sql")),
    (3, "org_tokens", include_str!("../../migrations/sqlite/0003_org_tokens.sql")),
    (4, "replicas", include_str!("../../migrations/sqlite/0004_replicas.sql")),
    (5, "lifecycle", include_str!("../../migrations/sqlite/0005_lifecycle.sql")),
    (6, "sweeps", include_str!("../../migrations/sqlite/0006_sweeps.sql")),
    (7, "secrets", include_str!("../../migrations/sqlite/0007_secrets.sql")),
    (8, "activity", include_str!("../../migrations/sqlite/0008_activity.sql")),
    (9, "data", include_str!("../../migrations/sqlite/0009_data.sql")),
    (11, "delegations", include_str!("../../migrations/sqlite/0011_delegations.sql")),
    (12, "protocol", include_str!("../../migrations/sqlite/0012_protocol.sql")),
    (15, "heard", include_str!("../../migrations/sqlite/0015_heard.sql")),
    (16, "runtimes", include_str!("../../migrations/sqlite/0016_runtimes.sql")),
    (19, "turns", include_str!("../../migrations/sqlite/0019_turns.sql")),
    (20, "months_and_peers", include_str!("../../migrations/sqlite/0020_months_and_peers.sql")),
    (21, "starts", include_str!("../../migrations/sqlite/0021_starts.sql")),
    (22, "machines", include_str!("../../migrations/sqlite/0022_machines.sql")),
    (23, "leases", include_str!("../../migrations/sqlite/0023_leases.sql")),
    (24, "audit", include_str!("../../migrations/sqlite/0024_audit.sql")),
    (25, "instructions", include_str!("../../migrations/sqlite/0025_instructions.sql")),
    (26, "asked", include_str!("../../migrations/sqlite/0026_asked.sql")),
];

const POSTGRES_MIGRATIONS: Migrations = &[
    (1, "init", include_str!("../../migrations/postgres/0001_init.sql")),
    (2, "changes", include_str!("../../migrations/postgres/0002_changes.sql")),
    (3, "org_tokens", include_str!("../../migrations/postgres/0003_org_tokens.sql")),
    (4, "replicas", include_str!("../../migrations/postgres/0004_replicas.sql")),
    (5, "lifecycle", include_str!("../../migrations/postgres/0005_lifecycle.sql")),
    (6, "sweeps", include_str!("../../migrations/postgres/0006_sweeps.sql")),
    (7, "secrets", include_str!("../../migrations/postgres/0007_secrets.sql")),
    (8, "activity", include_str!("../../migrations/postgres/0008_activity.sql")),
    (9, "data", include_str!("../../migrations/postgres/0009_data.sql")),
    (11, "delegations", include_str!("../../migrations/postgres/0011_delegations.sql")),
    (12, "protocol", include_str!("../../migrations/postgres/0012_protocol.sql")),
    (15, "heard", include_str!("../../migrations/postgres/0015_heard.sql")),
    (16, "runtimes", include_str!("../../migrations/postgres/0016_runtimes.sql")),
    (19, "turns", include_str!("../../migrations/postgres/0019_turns.sql")),
    (20, "months_and_peers", include_str!("../../migrations/postgres/0020_months_and_peers.sql")),
    (21, "starts", include_str!("../../migrations/postgres/0021_starts.sql")),
    (22, "machines", include_str!("../../migrations/postgres/0022_machines.sql")),
    (23, "leases", include_str!("../../migrations/postgres/0023_leases.sql")),
    (24, "audit", include_str!("../../migrations/postgres/0024_audit.sql")),
    (25, "instructions", include_str!("../../migrations/postgres/0025_instructions.sql")),
    (26, "asked", include_str!("../../migrations/postgres/0026_asked.sql")),
];

fn migrator(migrations: Migrations) -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        let sql = sqlx::SqlSafeStr::into_sql_str(sql);
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

fn unreachable_database(what: &str, error: sqlx::Error) -> Error {
    // What the driver says may hold a path, never a password, and is for the operator who starts this process.
    let why = match &error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.kind().to_string(),
        error => error.to_string(),
    };
    Error::new(ErrorKind::Unavailable, format!("the {what} cannot be opened: {why}")).during("connect").caused_by(error)
}

/// What a caller is told when the store cannot answer. Clients go by the code.
pub(crate) fn away() -> Error {
    Error::new(ErrorKind::Unavailable, "platform datastore unavailable — retry shortly")
        .with_member("code", "platform_unavailable")
        .during("query")
}

/// Whether this is how Postgres says that it goes down or comes up, has no connection left, or gave up on a statement that
/// took too long.
fn is_away(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "53300" | "57014" | "57P01" | "57P02" | "57P03")
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as Sqlx;
        match error {
            Sqlx::Io(_) | Sqlx::Tls(_) | Sqlx::PoolTimedOut | Sqlx::PoolClosed | Sqlx::WorkerCrashed => {
                away().caused_by(error)
            }
            Sqlx::Database(refusal) if refusal.code().is_some_and(|code| is_away(&code)) => {
                away().caused_by(Sqlx::Database(refusal))
            }
            error => Self::new(ErrorKind::Unexpected, "query failed").during("query").caused_by(error),
        }
    }
}

/// Access for the gates of `docs/decisions/0002-one-sql-text.md`. Not part of the API.
#[doc(hidden)]
pub mod gate {
    use super::{Engine, PgPool, Pool, SqlitePool, Store};

    /// The name and text of every statement of the store.
    pub fn statements() -> Vec<(String, &'static str)> {
        let modules = [
            ("activity", super::activity::STATEMENTS),
            ("agents", super::agents::STATEMENTS),
            ("approvals", super::approvals::STATEMENTS),
            ("attempts", super::attempts::STATEMENTS),
            ("audit", super::audit::STATEMENTS),
            ("checkpoints", super::checkpoints::STATEMENTS),
            ("configuration", super::configuration::STATEMENTS),
            ("events", super::events::STATEMENTS),
            ("inbound_secrets", super::inbound_secrets::STATEMENTS),
            ("instructions", super::instructions::STATEMENTS),
            ("lifecycle", super::lifecycle::STATEMENTS),
            ("machines", super::machines::STATEMENTS),
            ("org_tokens", super::org_tokens::STATEMENTS),
            ("schedules", super::schedules::STATEMENTS),
            ("secrets", super::secrets::STATEMENTS),
            ("sweeps", super::sweeps::STATEMENTS),
            ("delegations", super::delegations::STATEMENTS),
            ("queue", super::queue::STATEMENTS),
            ("usage", super::usage::STATEMENTS),
            ("patch", super::patch::STATEMENTS),
            ("memories", super::memories::STATEMENTS),
            ("tokens", super::tokens::STATEMENTS),
            ("values", super::values::STATEMENTS),
            ("workspaces", super::workspaces::STATEMENTS),
        ];
        let pages = super::activity::pages().map(|(shape, sql)| (format!("activity::{shape}"), sql));
        modules.into_iter().flat_map(named).chain(pages).collect()
    }

    /// The name and text of every statement that only `engine` runs.
    pub fn statements_of(engine: Engine) -> Vec<(String, &'static str)> {
        match engine {
            Engine::Sqlite => vec![
                ("memories::sqlite", super::memories::sqlite::STATEMENTS),
                ("queue::sqlite", super::queue::sqlite::STATEMENTS),
                ("telemetry::sqlite", super::telemetry::sqlite::STATEMENTS),
            ],
            Engine::Postgres => vec![
                ("claim::postgres", super::claim::postgres::STATEMENTS),
                ("memories::postgres", super::memories::postgres::STATEMENTS),
                ("peers::postgres", super::peers::postgres::STATEMENTS),
                ("queue::postgres", super::queue::postgres::STATEMENTS),
                ("telemetry::postgres", super::telemetry::postgres::STATEMENTS),
            ],
        }
        .into_iter()
        .flat_map(named)
        .collect()
    }

    fn named((module, list): (&str, &'static [(&'static str, &'static str)])) -> Vec<(String, &'static str)> {
        list.iter().map(|(name, sql)| (format!("{module}::{name}"), *sql)).collect()
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

/// What the suite does behind the store's back.
#[cfg(feature = "testing")]
pub(crate) mod suite_access {
    use chrono::{DateTime, Utc};

    use super::{Store, on_pool};
    use crate::{
        clock::{SystemEntropy, random_uuid},
        id::{TokenId, WorkspaceId},
        identity::NewToken,
        workspace::{DeliveryMode, EXTERNAL_RUNTIME, Status},
    };

    /// Inserts the external workspaces of `tokens`, online, all with one inbound secret.
    pub(crate) async fn insert_heard(store: &Store, tokens: &[NewToken], secret: &str, now: DateTime<Utc>) {
        let rows = "INSERT INTO workspaces (id, name, status, runtime, delivery_mode, platform_inbound_secret, \
                    last_heartbeat_at, created_at, updated_at) ";
        let kept = "INSERT INTO workspace_auth_tokens (id, workspace_id, token_hash, prefix, created_at) ";
        let inserted: sqlx::Result<()> = on_pool!(&store.write, |p| async {
            let mut insert = sqlx::QueryBuilder::new(rows);
            insert.push_values(tokens, |mut row, token| {
                row.push_bind(token.workspace_id)
                    .push_bind(format!("heard {}", token.workspace_id))
                    .push_bind(Status::Online)
                    .push_bind(EXTERNAL_RUNTIME)
                    .push_bind(DeliveryMode::Poll)
                    .push_bind(secret)
                    .push_bind(now)
                    .push_bind(now)
                    .push_bind(now);
            });
            insert.build().execute(p).await?;
            let mut insert = sqlx::QueryBuilder::new(kept);
            insert.push_values(tokens, |mut row, token| {
                row.push_bind(token.id)
                    .push_bind(token.workspace_id)
                    .push_bind(&token.hash[..])
                    .push_bind(&token.prefix)
                    .push_bind(now);
            });
            insert.build().execute(p).await.map(drop)
        }
        .await);
        inserted.expect("the rows can be inserted");
    }

    /// Moves a row as another process would.
    pub(crate) async fn move_unheard(store: &Store, id: WorkspaceId, status: Status) {
        let sql = "UPDATE workspaces SET status = $2 WHERE id = $1";
        on_pool!(&store.write, |p| sqlx::query(sql).bind(id).bind(status).execute(p).await.map(drop))
            .expect("the row can be moved");
    }

    /// Rotates an inbound secret as an operator with a console does.
    pub(crate) async fn set_inbound_secret(store: &Store, id: WorkspaceId, secret: Option<&str>) {
        let sql = "UPDATE workspaces SET platform_inbound_secret = $2 WHERE id = $1";
        on_pool!(&store.write, |p| sqlx::query(sql).bind(id).bind(secret).execute(p).await.map(drop))
            .expect("the secret can be set");
    }

    /// Records an event of any kind.
    pub(crate) async fn record(store: &Store, kind: &str, of: WorkspaceId, at: DateTime<Utc>) {
        let sql = "INSERT INTO structure_events (id, event_type, workspace_id, created_at) VALUES ($1, $2, $3, $4)";
        let id = random_uuid(&SystemEntropy);
        on_pool!(&store.write, |p| sqlx::query(sql).bind(id).bind(kind).bind(of).bind(at).execute(p).await.map(drop))
            .expect("the event can be recorded");
    }

    /// Changes what is kept as somebody with a console does.
    pub(crate) async fn run(store: &Store, sql: &str) {
        let run: sqlx::Result<()> =
            on_pool!(&store.write, |p| sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(p).await.map(drop));
        run.expect("the statement runs");
    }

    /// When the database says that a token was used last.
    pub(crate) async fn last_use(store: &Store, id: TokenId) -> Option<DateTime<Utc>> {
        let sql = "SELECT last_used_at FROM workspace_auth_tokens WHERE id = $1";
        on_pool!(&store.read, |p| sqlx::query_scalar(sql).bind(id).fetch_one(p).await).expect("the token is kept")
    }
}
