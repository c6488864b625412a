//! The gates of `docs/decisions/0002-one-sql-text.md`: what checks the SQL in place of the compiler.
#![cfg(feature = "server")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use molecule_core::{
    store::{Engine, Store, gate},
    workspace::Status,
};
use sqlx::{Executor, PgPool, SqlitePool};

use support::TestDatabase;

/// Stores on every database there is, each of its own; the last member keeps it alive.
async fn stores() -> Vec<(&'static str, Store, Option<TestDatabase>)> {
    let mut stores = vec![("sqlite in memory", in_memory().await, None)];
    if let Some(database) = support::postgres_database().await {
        let store = Store::connect(database.url()).await.expect("an empty database can be migrated");
        stores.push(("postgres", store, Some(database)));
    }
    stores
}

async fn in_memory() -> Store {
    Store::connect("sqlite::memory:").await.expect("SQLite in memory always opens")
}

/// A SQLite store in memory and a Postgres one beside it, where there is a server.
async fn pair() -> Option<(Store, Store, TestDatabase)> {
    let database = support::postgres_database().await?;
    let postgres = Store::connect(database.url()).await.expect("an empty database can be migrated");
    Some((in_memory().await, postgres, database))
}

fn sqlite(store: &Store) -> &SqlitePool {
    gate::sqlite(store).expect("this store is SQLite")
}

fn postgres(store: &Store) -> &PgPool {
    gate::postgres(store).expect("this store is Postgres")
}

#[tokio::test]
async fn every_statement_prepares_on_every_database() {
    let statements = gate::statements();
    assert!(statements.len() >= 3, "the list of statements is broken: it holds {}", statements.len());
    let mut broken = Vec::new();
    for (engine, store, _database) in stores().await {
        for (name, sql) in statements.iter().chain(&gate::statements_of(store.engine())) {
            if let Err(error) = prepare(&store, sql).await {
                broken.push(format!("{name} on {engine}: {error}\n    {sql}"));
            }
        }
        store.close().await;
    }
    assert!(broken.is_empty(), "statements that a database refuses:\n{}", broken.join("\n"));
}

async fn prepare(store: &Store, sql: &'static str) -> sqlx::Result<()> {
    use sqlx::SqlSafeStr;
    match (gate::sqlite(store), gate::postgres(store)) {
        (Some(pool), _) => pool.acquire().await?.prepare(sql.into_sql_str()).await.map(drop),
        (_, Some(pool)) => pool.acquire().await?.prepare(sql.into_sql_str()).await.map(drop),
        _ => unreachable!("a store is one or the other"),
    }
}

#[tokio::test]
async fn a_file_can_be_opened_again_as_it_was_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite:{}", folder.path().join("molecule.db").display());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let store = Store::connect(&url).await.expect("the file opens");
        seen.push(sqlite_columns(sqlite(&store)).await);
        store.close().await;
    }
    assert!(!seen[0].is_empty());
    assert_eq!(seen[0], seen[1], "opening a file again changed its schema");
}

/// What must be the same of a column on both databases.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    nullable: bool,
    /// The declared type, in lower case.
    kind: String,
}

/// Columns by table and name, without the table that migrations are recorded in, and without what each database finds
/// words with: tables of its own on SQLite, a column and its index on Postgres.
type Columns = BTreeMap<(String, String), Column>;

async fn sqlite_columns(pool: &SqlitePool) -> Columns {
    let rows: Vec<(String, String, bool, String)> = sqlx::query_as(
        "SELECT t.name, c.name, c.\"notnull\" = 0, LOWER(c.type) FROM sqlite_master t JOIN pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name <> '_sqlx_migrations' \
         AND t.name NOT LIKE '%!_fts%' ESCAPE '!'",
    )
    .fetch_all(pool)
    .await
    .expect("SQLite describes its tables");
    columns(rows)
}

async fn postgres_columns(pool: &PgPool) -> Columns {
    let rows: Vec<(String, String, bool, String)> = sqlx::query_as(
        "SELECT table_name::text, column_name::text, is_nullable = 'YES', LOWER(data_type::text) \
         FROM information_schema.columns \
         WHERE table_schema = current_schema() AND table_name <> '_sqlx_migrations' AND data_type <> 'tsvector'",
    )
    .fetch_all(pool)
    .await
    .expect("Postgres describes its tables");
    columns(rows)
}

fn columns(rows: Vec<(String, String, bool, String)>) -> Columns {
    rows.into_iter().map(|(table, name, nullable, kind)| ((table, name), Column { nullable, kind })).collect()
}

/// The types that may stand for one another: SQLite's on the left, those of Postgres on the right.
const TYPES: &[(&str, &[&str])] = &[
    ("blob", &["uuid", "bytea"]),
    ("boolean", &["boolean"]),
    ("integer", &["integer", "bigint"]),
    ("real", &["double precision"]),
    ("text", &["text", "character varying", "timestamp with time zone", "jsonb", "user-defined"]),
];

#[tokio::test]
async fn both_migrations_make_the_same_tables() {
    let Some((embedded, shared, _database)) = pair().await else { return };
    let differences =
        column_differences(&sqlite_columns(sqlite(&embedded)).await, &postgres_columns(postgres(&shared)).await);
    assert!(differences.is_empty(), "the two migrations differ:\n{}", differences.join("\n"));
    shared.close().await;
}

fn column_differences(sqlite: &Columns, postgres: &Columns) -> Vec<String> {
    let names: BTreeSet<_> = sqlite.keys().chain(postgres.keys()).collect();
    let difference = |key: &(String, String)| {
        let name = format!("{}.{}", key.0, key.1);
        match (sqlite.get(key), postgres.get(key)) {
            (Some(_), None) => Some(format!("{name} is missing on Postgres")),
            (None, Some(_)) => Some(format!("{name} is missing on SQLite")),
            (Some(here), Some(there)) if here.nullable != there.nullable => {
                Some(format!("{name} may be null on {} only", if here.nullable { "SQLite" } else { "Postgres" }))
            }
            (Some(here), Some(there)) if !same_type(&here.kind, &there.kind) => {
                Some(format!("{name} is {} on SQLite and {} on Postgres", here.kind, there.kind))
            }
            _ => None,
        }
    };
    if names.is_empty() {
        return vec!["neither database has a table".to_owned()];
    }
    names.into_iter().filter_map(difference).collect()
}

fn same_type(sqlite: &str, postgres: &str) -> bool {
    TYPES.iter().any(|(here, there)| *here == sqlite && there.contains(&postgres))
}

#[tokio::test]
async fn both_migrations_make_the_same_indexes() {
    let Some((embedded, shared, _database)) = pair().await else { return };
    let here: BTreeSet<String> = sqlx::query_scalar(
        // Without those that SQLite makes for UNIQUE and PRIMARY KEY.
        "SELECT name FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite_%'",
    )
    .fetch_all(sqlite(&embedded))
    .await
    .expect("SQLite lists its indexes")
    .into_iter()
    .collect();
    let there: BTreeSet<String> = sqlx::query_scalar(
        "SELECT indexname::text FROM pg_indexes WHERE schemaname = current_schema() \
         AND indexname NOT IN (SELECT conname FROM pg_constraint) AND indexname NOT LIKE '%!_tsv' ESCAPE '!'",
    )
    .fetch_all(postgres(&shared))
    .await
    .expect("Postgres lists its indexes")
    .into_iter()
    .collect();
    assert!(!here.is_empty());
    assert_same("index", ("SQLite", &here), ("Postgres", &there));
    shared.close().await;
}

#[tokio::test]
async fn the_check_of_sqlite_holds_exactly_the_statuses() {
    let store = in_memory().await;
    let ddl: String = sqlx::query_scalar("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'workspaces'")
        .fetch_one(sqlite(&store))
        .await
        .expect("SQLite keeps the text of its tables");
    let checked = checked_values(&ddl, "status");
    assert_same("status", ("the code", &statuses()), ("the CHECK of SQLite", &checked));
}

/// The values that `CHECK (column IN ('a', 'b'))` lists in the text of a table.
fn checked_values(ddl: &str, column: &str) -> BTreeSet<String> {
    let start = format!("CHECK ({column} IN (");
    let (_, list) = ddl.split_once(&start).unwrap_or_else(|| panic!("no `{start}` in:\n{ddl}"));
    let (list, _) = list.split_once("))").expect("the list of a CHECK is closed");
    list.split(',').map(|value| value.trim().trim_matches('\'').to_owned()).collect()
}

#[tokio::test]
async fn the_enum_of_postgres_holds_exactly_the_statuses() {
    let Some(database) = support::postgres_database().await else { return };
    let store = Store::connect(database.url()).await.expect("an empty database can be migrated");
    let values: Vec<String> = sqlx::query_scalar("SELECT unnest(enum_range(NULL::workspace_status))::text")
        .fetch_all(postgres(&store))
        .await
        .expect("Postgres lists the values of the enum");
    assert_same("status", ("the code", &statuses()), ("the enum of Postgres", &values.into_iter().collect()));
    store.close().await;
}

fn statuses() -> BTreeSet<String> {
    Status::ALL.iter().map(ToString::to_string).collect()
}

/// Compares two sets both ways, naming what only one of them has.
fn assert_same<T: Ord + Display>(what: &str, here: (&str, &BTreeSet<T>), there: (&str, &BTreeSet<T>)) {
    let only = |(name, set): (&str, &BTreeSet<T>), other: &BTreeSet<T>| {
        set.difference(other).map(|value| format!("{what} {value} is known to {name} only")).collect::<Vec<_>>()
    };
    let differences = [only(here, there.1), only(there, here.1)].concat();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn every_page_of_activity_is_read_from_an_index() {
    let pages: Vec<_> =
        gate::statements().into_iter().filter(|(name, _)| name.starts_with("activity::Shape")).collect();
    assert_eq!(pages.len(), 24);
    let (own, beset, peer) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2), uuid::Uuid::from_u128(7));
    for (engine, store, _database) in stores().await {
        fill_activity(&store, own, peer, RARE).await;
        fill_activity(&store, beset, peer, DOMINANT).await;
        for ((name, sql), of) in pages.iter().flat_map(|page| [(page, own), (page, beset)]) {
            let plan = match store.engine() {
                Engine::Sqlite => sqlite_plan(sqlite(&store), name, sql, of, peer).await,
                Engine::Postgres => postgres_plan(postgres(&store), name, sql, of, peer).await,
            };
            let scans = plan.contains("Seq Scan") || plan.contains("SCAN activity_logs");
            assert!(!scans && plan.contains("activity_logs_"), "{name} on {engine} reads the table:\n{plan}");
            // What both directions of a peer give is merged, and Postgres may sort the few rows of a rare peer; anything
            // else comes in the order of its index.
            let sorts = plan.contains("Sort") || plan.contains("TEMP B-TREE") || plan.contains("Bitmap");
            assert!(!sorts || name.contains("with_peer: true"), "{name} on {engine} sorts:\n{plan}");
            let discarded = plan.lines().filter_map(|line| line.split("Rows Removed by Filter: ").nth(1));
            let most = discarded.filter_map(|count| count.trim().parse::<u32>().ok()).max().unwrap_or(0);
            assert!(most <= 1000, "{name} on {engine} reads {most} rows in vain:\n{plan}");
        }
        store.close().await;
    }
}

/// Who the rows are from and for: nearly all of one type from the operator, and a few of a peer.
const RARE: &str = "CASE WHEN n % 60 = 0 THEN $2 END, CASE WHEN n % 90 = 0 THEN $2 ELSE $1 END";

/// Nearly all from a peer, or for it.
const DOMINANT: &str = "CASE WHEN n % 100 = 1 THEN NULL WHEN n % 2 = 0 THEN $2 ELSE $1 END, \
                        CASE WHEN n % 2 = 0 THEN $1 ELSE $2 END";

/// Thirty thousand rows of one workspace, and a few of every kind among them.
async fn fill_activity(store: &Store, own: uuid::Uuid, peer: uuid::Uuid, ends: &str) {
    let workspace = "INSERT INTO workspaces (id, name, created_at, updated_at) VALUES ($1, 'x', $2, $2)";
    let row = |numbers: &str, id: &str, time: &str| {
        format!(
            "INSERT INTO activity_logs (id, workspace_id, activity_type, source_id, target_id, created_at) \
             SELECT {id}, $1, CASE WHEN n % 100 = 0 THEN 'error' ELSE 'a2a_receive' END, {ends}, {time} FROM {numbers}"
        )
    };
    let from = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
    match store.engine() {
        Engine::Sqlite => {
            let pool = sqlite(store);
            sqlx::query(workspace).bind(own).bind(from).execute(pool).await.expect("a workspace");
            let numbers =
                "(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 30000) SELECT n FROM s)";
            let sql =
                row(numbers, "randomblob(16)", "strftime('%Y-%m-%dT%H:%M:%S+00:00', 1800000000 + n, 'unixepoch')");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(own).bind(peer).execute(pool).await.expect("rows");
        }
        Engine::Postgres => {
            let pool = postgres(store);
            sqlx::query(workspace).bind(own).bind(from).execute(pool).await.expect("a workspace");
            let numbers = "generate_series(1, 30000) AS s (n)";
            let sql = row(numbers, "gen_random_uuid()", "to_timestamp(1800000000 + n)");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(own).bind(peer).execute(pool).await.expect("rows");
            sqlx::query("ANALYZE activity_logs").execute(pool).await.expect("statistics");
        }
    }
}

/// How SQLite means to read a page.
async fn sqlite_plan(pool: &SqlitePool, name: &str, sql: &str, own: uuid::Uuid, peer: uuid::Uuid) -> String {
    let explained = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let (after, before) = bounds();
    let mut query = sqlx::query_as(explained).bind(own).bind(after).bind(uuid::Uuid::nil()).bind(before).bind(100_i64);
    if name.contains("of_type: true") {
        query = query.bind("error");
    }
    if name.contains("with_peer: true") {
        query = query.bind(peer);
    }
    let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(pool).await.expect("SQLite explains");
    rows.into_iter().map(|(.., detail)| detail + "\n").collect()
}

/// How Postgres read a page.
async fn postgres_plan(pool: &PgPool, name: &str, sql: &str, own: uuid::Uuid, peer: uuid::Uuid) -> String {
    let explained = sqlx::AssertSqlSafe(format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}"));
    let (after, before) = bounds();
    let mut query =
        sqlx::query_scalar(explained).bind(own).bind(after).bind(uuid::Uuid::nil()).bind(before).bind(100_i64);
    if name.contains("of_type: true") {
        query = query.bind("error");
    }
    if name.contains("with_peer: true") {
        query = query.bind(peer);
    }
    let rows: Vec<String> = query.fetch_all(pool).await.expect("Postgres explains");
    rows.join("\n")
}

fn bounds() -> (chrono::DateTime<chrono::Utc>, chrono::DateTime<chrono::Utc>) {
    let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0).expect("a time");
    (at(0), at(1_900_000_000))
}

#[tokio::test]
async fn the_health_sweep_reads_nobody_who_was_heard() {
    let (_, sql) = gate::statements().into_iter().find(|(name, _)| name == "workspaces::UNHEARD").expect("it is there");
    for (engine, store, _database) in stores().await {
        let at = |seconds: i64| chrono::DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time");
        let plan = match store.engine() {
            Engine::Sqlite => {
                let explained = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
                let rows: Vec<(i64, i64, i64, String)> =
                    sqlx::query_as(explained).fetch_all(sqlite(&store)).await.expect("SQLite explains");
                rows.into_iter().map(|(.., detail)| detail + "\n").collect::<String>()
            }
            Engine::Postgres => {
                let pool = postgres(&store);
                let heard = "INSERT INTO workspaces (id, name, status, last_heartbeat_at, created_at, updated_at) \
                             SELECT gen_random_uuid(), 'x', $1, $2, $2, $2 FROM generate_series(1, 20000)";
                sqlx::query(heard).bind(Status::Online).bind(at(0)).execute(pool).await.expect("rows");
                sqlx::query("ANALYZE workspaces").execute(pool).await.expect("statistics");
                let explained = sqlx::AssertSqlSafe(format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}"));
                let mut query = sqlx::query_scalar(explained);
                for status in [Status::Provisioning, Status::Offline, Status::Online, Status::Degraded] {
                    query = query.bind(status);
                }
                let rows: Vec<String> =
                    query.bind(at(-90)).bind(at(1)).fetch_all(pool).await.expect("Postgres explains");
                rows.join("\n")
            }
        };
        assert!(plan.contains("workspaces_heard") && !plan.contains("Seq Scan"), "{engine} reads everyone:\n{plan}");
        assert!(!plan.contains("SCAN workspaces") && !plan.contains("Removed by Filter"), "{engine}:\n{plan}");
        store.close().await;
    }
}

/// What tells of a workspace after it was purged: what happened, and machines that somebody still pays for.
const OUTLIVES: [&str; 2] = ["machines_left", "structure_events"];

#[tokio::test]
async fn a_purge_takes_along_all_that_hangs_on_a_workspace() {
    const OF_SQLITE: &str = "SELECT m.name, MAX(f.\"table\" = 'workspaces' AND f.on_delete = 'CASCADE') \
                             FROM sqlite_master m JOIN pragma_table_info(m.name) c ON c.name = 'workspace_id' \
                             LEFT JOIN pragma_foreign_key_list(m.name) f ON f.\"from\" = 'workspace_id' \
                             WHERE m.type = 'table' GROUP BY m.name ORDER BY m.name";
    const OF_POSTGRES: &str = "SELECT c.table_name::text, BOOL_OR(COALESCE(k.confdeltype = 'c', FALSE))::int4::int8 \
                               FROM information_schema.columns c \
                               LEFT JOIN pg_constraint k ON k.contype = 'f' AND k.confrelid = 'workspaces'::regclass \
                               AND k.conrelid = (quote_ident(c.table_name))::regclass \
                               WHERE c.table_schema = 'public' AND c.column_name = 'workspace_id' \
                               GROUP BY c.table_name ORDER BY c.table_name";
    for (engine, store, _database) in stores().await {
        let tables: Vec<(String, Option<i64>)> = match (gate::sqlite(&store), gate::postgres(&store)) {
            (Some(pool), _) => sqlx::query_as(OF_SQLITE).fetch_all(pool).await.unwrap(),
            (_, Some(pool)) => sqlx::query_as(OF_POSTGRES).fetch_all(pool).await.unwrap(),
            _ => unreachable!("a store is one or the other"),
        };
        assert!(tables.len() >= 15, "{engine}: {tables:?}");
        let stay: Vec<&str> =
            tables.iter().filter(|(_, goes)| *goes != Some(1)).map(|(table, _)| table.as_str()).collect();
        assert_eq!(stay, OUTLIVES, "{engine}");
        store.close().await;
    }
}
