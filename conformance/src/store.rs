//! The store, on a database that is named.

use std::{any::Any, error::Error, panic::AssertUnwindSafe, time::Instant};

use futures_util::FutureExt;
use molecule_core::{store::Store, testing::store_suite::all};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use url::Url;

use crate::{
    case::{Area, Level},
    report::{Outcome, Report, Tried},
};

type Failure = Box<dyn Error + Send + Sync>;

/// Tries every case of the store, each on an empty database of its own, and shows it to `watch`.
///
/// `sqlite:` makes them in a folder that goes away; `postgres://…` needs a user who may create databases, and leaves
/// the one that it names alone.
///
/// # Errors
/// Where no empty database can be made.
pub async fn run(database_url: &str, mut watch: impl FnMut(&Tried)) -> Result<Report, Failure> {
    let scratch = Scratch::at(database_url)?;
    let mut report = Report::new(scratch.name());
    for (number, case) in all().enumerate() {
        let url = scratch.make(number).await?;
        let store = Store::connect(&url).await?;
        let began = Instant::now();
        // A case panics where the store does otherwise.
        let outcome = match AssertUnwindSafe((case.run)(store.clone())).catch_unwind().await {
            Ok(()) => Outcome::Passed,
            Err(panic) => Outcome::Failed { why: why(&*panic) },
        };
        store.close().await;
        scratch.drop(number).await?;
        let tried = Tried {
            name: case.name,
            sentence: case.name,
            area: Area::Store,
            level: Level::Core,
            rule: "molecule_core::store::Store",
            took: Some(began.elapsed()),
            outcome,
        };
        watch(&tried);
        report.add(tried);
    }
    Ok(report)
}

fn why(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or("it panicked".to_owned())
}

/// Where empty databases are made.
enum Scratch {
    Sqlite(tempfile::TempDir),
    Postgres(Box<Url>),
}

impl Scratch {
    fn at(url: &str) -> Result<Self, Failure> {
        match url.split(':').next() {
            Some("sqlite") => Ok(Self::Sqlite(tempfile::tempdir()?)),
            Some("postgres" | "postgresql") => Ok(Self::Postgres(Box::new(Url::parse(url)?))),
            _ => Err("the database URL must begin with sqlite: or postgres://".into()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "the store on SQLite",
            Self::Postgres(_) => "the store on Postgres",
        }
    }

    async fn make(&self, number: usize) -> Result<String, Failure> {
        match self {
            Self::Sqlite(folder) => Ok(format!("sqlite:{}", folder.path().join(format!("{number}.db")).display())),
            Self::Postgres(server) => {
                let name = database(number);
                execute(server, format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
                let mut url = Url::clone(server);
                url.set_path(&name);
                Ok(url.into())
            }
        }
    }

    async fn drop(&self, number: usize) -> Result<(), Failure> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(server) => {
                execute(server, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", database(number))).await
            }
        }
    }
}

fn database(number: usize) -> String {
    format!("molecule_conformance_{}_{number}", std::process::id())
}

async fn execute(server: &Url, sql: String) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(server.as_str()).await?;
    connection.execute(AssertSqlSafe(sql)).await?;
    connection.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_passes() {
        let mut seen = 0;
        let report = run("sqlite:", |_| seen += 1).await.unwrap();
        assert!(report.succeeded() && report.passed() == all().count() && seen == all().count(), "{report}");
    }

    #[tokio::test]
    async fn what_is_no_database_is_refused() {
        assert!(run("mysql://x", |_| {}).await.unwrap_err().to_string().contains("sqlite: or postgres://"));
        assert!(run("postgres://127.0.0.1:1/none", |_| {}).await.is_err());
    }
}
