//! The gates of `docs/decisions/0002-one-sql-text.md`: what checks the SQL in place of the compiler.
#![cfg(feature = "server")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use molecule_core::{
    store::{Engine, Store, gate},
    testing::drift::{Violation, demand_none, line_of},
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

/// A text of the repository; none where there is no such file.
fn text(file: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).ok()
}

#[tokio::test]
async fn every_statement_prepares_on_every_database() {
    let statements = gate::statements();
    assert!(statements.len() > 100, "the list of statements is broken: it holds {}", statements.len());
    let mut found = Vec::new();
    for (engine, store, _database) in stores().await {
        let of_engine = gate::statements_of(store.engine());
        found.extend(refused(&store, engine, statements.iter().chain(&of_engine)).await);
        store.close().await;
    }
    demand_none(&found);
}

/// The statements that the database refuses.
async fn refused(
    store: &Store,
    engine: &str,
    statements: impl IntoIterator<Item = &(String, &'static str)>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, sql) in statements {
        if let Err(error) = prepare(store, sql).await {
            let (modules, constant) = name.rsplit_once("::").expect("a statement has its module");
            let (file, text) = source_of(modules);
            let what = format!("{engine} refuses {constant} ({error}): say it in words that both databases know");
            found.push(Violation::near(&file, &text, &format!("{constant} = "), what));
        }
    }
    found
}

/// The file of a module of the store, such as `queue::sqlite`, and its text.
fn source_of(modules: &str) -> (String, String) {
    let path = modules.replace("::", "/");
    let parent = modules.split("::").next().unwrap_or_default();
    let files = [&*path, parent].map(|name| format!("molecule-core/src/store/{name}.rs"));
    let found = files.iter().find_map(|file| Some((file.clone(), text(file)?)));
    found.unwrap_or_else(|| (files[1].clone(), String::new()))
}

#[tokio::test]
async fn a_statement_that_a_database_refuses_is_found() {
    let planted = [
        ("workspaces::PLANTED".to_owned(), "SELECT no_such_column FROM workspaces"),
        ("queue::sqlite::PLANTED".to_owned(), "SELECT now()"),
    ];
    for (engine, store, _database) in stores().await {
        let told: Vec<String> = refused(&store, engine, &planted).await.iter().map(ToString::to_string).collect();
        let expected = format!("molecule-core/src/store/workspaces.rs:1: {engine} refuses PLANTED (");
        assert!(told[0].starts_with(&expected) && told[0].contains("say it in words that both"), "{told:?}");
        assert_eq!(told.len(), if store.engine() == Engine::Sqlite { 2 } else { 1 }, "{told:?}");
        store.close().await;
    }
    let (name, _) = &gate::statements()[0];
    let (module, constant) = name.rsplit_once("::").expect("a statement has its module");
    let (file, text) = source_of(module);
    assert!(line_of(&text, &format!("{constant} = ")) > 1, "{constant} is not found in {file}");
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
    demand_none(&column_differences(
        &sqlite_columns(sqlite(&embedded)).await,
        &postgres_columns(postgres(&shared)).await,
    ));
    shared.close().await;
}

fn column_differences(sqlite: &Columns, postgres: &Columns) -> Vec<Violation> {
    let names: BTreeSet<_> = sqlite.keys().chain(postgres.keys()).collect();
    let difference = |key: &(String, String)| {
        let name = format!("{}.{}", key.0, key.1);
        let at = |engine, what: String| {
            let (file, line) = declared(engine, &key.0, &key.1);
            Some(Violation { file, line, what: format!("{what}: bring both migrations in line by a new one") })
        };
        match (sqlite.get(key), postgres.get(key)) {
            (Some(_), None) => at("sqlite", format!("{name} is missing on Postgres")),
            (None, Some(_)) => at("postgres", format!("{name} is missing on SQLite")),
            (Some(here), Some(there)) if here.nullable != there.nullable => {
                let only = if here.nullable { "SQLite" } else { "Postgres" };
                at("sqlite", format!("{name} may be null on {only} only"))
            }
            (Some(here), Some(there)) if !same_type(&here.kind, &there.kind) => {
                at("sqlite", format!("{name} is {} on SQLite and {} on Postgres", here.kind, there.kind))
            }
            _ => None,
        }
    };
    if names.is_empty() {
        let file = "molecule-core/migrations/sqlite/0001_init.sql".to_owned();
        return vec![Violation { file, line: 1, what: "neither database has a table: look at the queries".to_owned() }];
    }
    names.into_iter().filter_map(difference).collect()
}

/// Where the migrations of `engine` declare a column: its file and line.
fn declared(engine: &str, table: &str, column: &str) -> (String, usize) {
    let folder = format!("molecule-core/migrations/{engine}");
    let entries =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&folder)).expect("there are migrations");
    let mut files: Vec<String> = entries
        .map(|entry| entry.expect("a migration can be named").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    for file in &files {
        let file = format!("{folder}/{file}");
        let mut within = false;
        for (index, line) in text(&file).unwrap_or_default().lines().enumerate() {
            let words: Vec<&str> = line.split([' ', '(', ',', ';']).filter(|word| !word.is_empty()).collect();
            if line.contains("CREATE TABLE") || line.contains("ALTER TABLE") {
                within = words.contains(&table);
            }
            if within && words.contains(&column) && words.first() != Some(&"CREATE") {
                return (file, index + 1);
            }
        }
    }
    (format!("{folder}/{}", files.first().expect("there are migrations")), 1)
}

#[tokio::test]
async fn a_column_that_only_one_database_has_is_found() {
    let store = in_memory().await;
    let sqlite = sqlite_columns(sqlite(&store)).await;
    let key = |column: &str| ("workspaces".to_owned(), column.to_owned());
    let as_on_postgres = |column: &Column| Column {
        kind: TYPES.iter().find(|(here, _)| *here == column.kind).expect("a known type").1[0].to_owned(),
        ..column.clone()
    };
    let postgres: Columns = sqlite.iter().map(|(key, column)| (key.clone(), as_on_postgres(column))).collect();
    assert_eq!(column_differences(&sqlite, &postgres), []);
    let planted = |change: fn(&mut Columns, (String, String)), column: &str| -> String {
        let mut postgres = postgres.clone();
        change(&mut postgres, key(column));
        let told: Vec<String> = column_differences(&sqlite, &postgres).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        told[0].clone()
    };
    let told = planted(|columns, key| drop(columns.remove(&key)), "name");
    assert!(told.starts_with("molecule-core/migrations/sqlite/0001_init.sql:"), "{told}");
    assert!(
        told.ends_with("workspaces.name is missing on Postgres: bring both migrations in line by a new one"),
        "{told}"
    );
    let told = planted(|columns, key| columns.get_mut(&key).expect("it is there").nullable = true, "name");
    assert!(told.contains("workspaces.name may be null on Postgres only"), "{told}");
    let told = planted(|columns, key| columns.get_mut(&key).expect("it is there").kind = "boolean".into(), "name");
    assert!(told.contains("workspaces.name is text on SQLite and boolean on Postgres"), "{told}");
    assert_eq!(column_differences(&Columns::new(), &Columns::new()).len(), 1, "nothing at all does not pass");
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
    demand_none(&set_differences("index", ("SQLite", &here), ("Postgres", &there)));
    shared.close().await;
}

#[tokio::test]
async fn the_check_of_sqlite_holds_exactly_the_statuses() {
    let store = in_memory().await;
    let ddl: String = sqlx::query_scalar("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'workspaces'")
        .fetch_one(sqlite(&store))
        .await
        .expect("SQLite keeps the text of its tables");
    demand_none(&status_differences("the CHECK of SQLite", "sqlite", &checked_values(&ddl, "status")));
    let planted = ddl.replacen("'online', ", "", 1).replacen("'failed'", "'failed', 'zombie'", 1);
    let told = status_differences("the CHECK of SQLite", "sqlite", &checked_values(&planted, "status"));
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|told| told.starts_with("molecule-core/migrations/sqlite/0001_init.sql:")), "{told:?}");
    assert!(told[0].ends_with("status online is known to the code only: write a migration"), "{told:?}");
    assert!(told[1].ends_with("status zombie is known to the CHECK of SQLite only: write a migration"), "{told:?}");
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
    demand_none(&status_differences("the enum of Postgres", "postgres", &enum_values(postgres(&store)).await));

    // A value that somebody added by hand.
    sqlx::query("ALTER TYPE workspace_status ADD VALUE 'zombie'").execute(postgres(&store)).await.expect("it is added");
    let told = status_differences("the enum of Postgres", "postgres", &enum_values(postgres(&store)).await);
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    let line = line_of(&text(&init("postgres")).unwrap_or_default(), "'awaiting_agent'");
    let expected = format!(
        "{}:{line}: status zombie is known to the enum of Postgres only: write a migration, or add it to Status",
        init("postgres")
    );
    assert!(line > 1 && told.len() == 1 && expected.starts_with(&told[0]), "{told:?}");
    store.close().await;
}

async fn enum_values(pool: &PgPool) -> BTreeSet<String> {
    let values: Vec<String> = sqlx::query_scalar("SELECT unnest(enum_range(NULL::workspace_status))::text")
        .fetch_all(pool)
        .await
        .expect("Postgres lists the values of the enum");
    values.into_iter().collect()
}

fn init(engine: &str) -> String {
    format!("molecule-core/migrations/{engine}/0001_init.sql")
}

/// Where a database knows other statuses than the code.
fn status_differences(name: &str, engine: &str, found: &BTreeSet<String>) -> Vec<Violation> {
    let code: BTreeSet<String> = Status::ALL.iter().map(ToString::to_string).collect();
    let migration = text(&init(engine)).unwrap_or_default();
    let differences = set_differences("status", ("the code", &code), (name, found));
    let at = |what: String| Violation::near(&init(engine), &migration, "'awaiting_agent'", what);
    differences.into_iter().map(|it| at(it.what)).collect()
}

/// What only one of two sets has.
fn set_differences(what: &str, here: (&str, &BTreeSet<String>), there: (&str, &BTreeSet<String>)) -> Vec<Violation> {
    let only = |(name, set): (&str, &BTreeSet<String>), other: &BTreeSet<String>| {
        let lacking = set.difference(other).map(|value| Violation {
            file: init("sqlite"),
            line: 1,
            what: format!("{what} {value} is known to {name} only: write a migration"),
        });
        lacking.collect::<Vec<_>>()
    };
    [only(here, there.1), only(there, here.1)].concat()
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
