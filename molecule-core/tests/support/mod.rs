//! What integration tests share: a Postgres database of their own, and the rule for engines that are missing.
//!
//! `fixtures/with-engines` starts the engines and names them in the environment. Where one is missing, a test says so
//! with [`skip`](skip::skip) and returns: a failure under `CI=true`, a counted line elsewhere.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![expect(clippy::disallowed_methods, reason = "tests learn from the environment which engines there are")]

pub(crate) mod skip;

use std::{
    env, process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use url::Url;

use self::skip::skip;

/// An empty database on the Postgres server of the tests, dropped with the value.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    url: Url,
    server: Url,
    name: String,
}

impl TestDatabase {
    /// Its URL, fit for `Store::connect`.
    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }
}

/// Makes an empty Postgres database, or records a skip where there is no server (see [`skip`](skip::skip)).
pub(crate) async fn postgres_database() -> Option<TestDatabase> {
    let Some(server) = env::var("MOLECULE_TEST_POSTGRES_URL").ok().filter(|url| !url.is_empty()) else {
        skip("MOLECULE_TEST_POSTGRES_URL names no Postgres server; run under fixtures/with-engines");
        return None;
    };
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server: Url = server.parse().expect("MOLECULE_TEST_POSTGRES_URL is a URL");
    let name = format!("molecule_test_{}_{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut url = server.clone();
    url.set_path(&name);
    let database = TestDatabase { url, server, name };
    // A process that was killed may have left one of this name behind.
    database.on_server("DROP DATABASE IF EXISTS {} WITH (FORCE)").await;
    // Nobody can be connected to template0, which would make the copy fail.
    database.on_server("CREATE DATABASE {} TEMPLATE template0").await;
    Some(database)
}

impl TestDatabase {
    /// Cuts every connection to it, as a restart of the server does.
    pub(crate) async fn cut_connections(&self) {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'";
        self.on_server(cut).await;
    }

    /// Lets nobody in any more, or lets everyone in again.
    pub(crate) async fn let_in(&self, anybody: bool) {
        self.on_server(&format!("ALTER DATABASE {{}} ALLOW_CONNECTIONS {anybody}")).await;
    }

    async fn on_server(&self, sql: &str) {
        let mut server = PgConnection::connect(self.server.as_str()).await.expect("the Postgres server answers");
        let sql = sql.replace("{}", &self.name);
        server.execute(AssertSqlSafe(sql)).await.expect("the user of the tests may create and drop databases");
        server.close().await.expect("the Postgres server lets go");
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // The runtime of the test cannot be waited for from here, so the last statement gets one of its own.
        thread::scope(|scope| {
            let dropped = scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime starts")
                    .block_on(self.on_server("DROP DATABASE IF EXISTS {} WITH (FORCE)"));
            });
            // A second panic while the test fails would hide the first.
            if dropped.join().is_err() && !thread::panicking() {
                panic!("the database {} was not dropped", self.name);
            }
        });
    }
}
