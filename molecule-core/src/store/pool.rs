//! One pool type over both databases, and the macros that run one statement on either.

use std::{io, time::Duration};

use sqlx::{PgPool, Postgres, SqlitePool, Transaction};

/// How long Postgres may take over what it is asked, a connection for it included. Longer than it takes to give up on a
/// statement by itself: this is for a network that carries nothing any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answer of Postgres, which may be at the other end of a connection that died without a word.
pub(crate) async fn answered<T, E: From<sqlx::Error>>(asked: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let late = |_| sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(PATIENCE, asked).await.map_err(late)?
}

/// Begins a transaction, to its end whoever leaves meanwhile: the driver rolls back what it knows to have begun, and a
/// connection that was given back in between would keep what others write on it to itself.
#[expect(
    clippy::disallowed_methods,
    reason = "it ends by itself, and what it gives is rolled back where nobody waits for it"
)]
pub(crate) async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin().await });
    begun.await.unwrap_or_else(|error| Err(sqlx::Error::Io(io::Error::other(error))))
}

/// A pool of connections to whichever database is configured.
#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Runs the body with `$p` bound to the pool of the configured driver.
///
/// The body is expanded once for each driver, so that types stay real and one text serves both.
macro_rules! on_pool {
    ($pool:expr, |$p:ident| $body:expr) => {
        match $pool {
            $crate::store::pool::Pool::Sqlite($p) => $body,
            $crate::store::pool::Pool::Postgres($p) => $crate::store::pool::answered(async { $body }).await,
        }
    };
}

/// Runs the body in a write transaction, with `$tx` bound to its connection, and commits when it gives `Ok`.
///
/// SQLite begins `IMMEDIATE`: a transaction that first reads and then writes would otherwise fail under
/// concurrency. The body is an async block of its own, so `?` leaves the transaction, which rolls back.
macro_rules! in_transaction {
    ($pool:expr, |$tx:ident| $body:block) => {
        match $pool {
            $crate::store::pool::Pool::Sqlite(pool) => {
                $crate::store::pool::in_transaction!(@run pool.begin_with("BEGIN IMMEDIATE"), |$tx| $body)
            }
            $crate::store::pool::Pool::Postgres(pool) => {
                $crate::store::pool::answered(async {
                    $crate::store::pool::in_transaction!(@run $crate::store::pool::begin(pool), |$tx| $body)
                })
                .await
            }
        }
    };
    (@run $begin:expr, |$tx:ident| $body:block) => {{
        let result: $crate::error::Result<_> = async {
            let mut transaction = $begin.await?;
            let $tx = &mut *transaction;
            let value: $crate::error::Result<_> = async { $body }.await;
            let value = value?;
            transaction.commit().await?;
            Ok(value)
        }
        .await;
        result
    }};
}

/// Declares a module's SQL texts and gathers them for the gate that prepares each on both databases.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(in crate::store) const $name: &str = $sql;)*
        pub(in crate::store) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// Declares a struct that both drivers read rows into, column by field name.
macro_rules! row {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $ty:ty,)*
    }) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $ty,)*
        }

        impl<'r, R> sqlx::FromRow<'r, R> for $name
        where
            R: sqlx::Row,
            &'static str: sqlx::ColumnIndex<R>,
            $($ty: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
        {
            fn from_row(row: &'r R) -> sqlx::Result<Self> {
                Ok(Self { $($field: row.try_get(stringify!($field))?,)* })
            }
        }
    };
}

/// Declares an enum that is kept as text, with one name for each value everywhere.
macro_rules! text_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$value_meta:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        $vis enum $name {
            $($(#[$value_meta])* #[serde(rename = $text)] $value,)*
        }

        impl $name {
            /// Every value once.
            pub const ALL: &[Self] = &[$(Self::$value,)*];

            /// The name in stores, on the wire and in documents.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    $crate::error::Error::invalid(format!(
                        "{text:?} is none of {}",
                        [$($text),*].join(", ")
                    ))
                })
            }
        }

        impl<DB: sqlx::Database> sqlx::Type<DB> for $name
        where
            str: sqlx::Type<DB>,
        {
            fn type_info() -> DB::TypeInfo {
                <str as sqlx::Type<DB>>::type_info()
            }

            fn compatible(ty: &DB::TypeInfo) -> bool {
                <str as sqlx::Type<DB>>::compatible(ty)
            }
        }

        impl<'q, DB: sqlx::Database> sqlx::Encode<'q, DB> for $name
        where
            &'static str: sqlx::Encode<'q, DB>,
        {
            fn encode_by_ref(
                &self,
                buf: &mut DB::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                <&'static str as sqlx::Encode<'q, DB>>::encode(self.as_str(), buf)
            }
        }

        impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for $name
        where
            &'r str: sqlx::Decode<'r, DB>,
        {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                Ok(<&'r str as sqlx::Decode<'r, DB>>::decode(value)?.parse()?)
            }
        }
    };
}

pub(crate) use {in_transaction, on_pool, row, statements, text_enum};

/// A lost race for a key is told by the database.
pub(super) fn is_taken(error: &crate::error::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(sqlx::Error::Database(cause)) = cause.downcast_ref::<sqlx::Error>() {
            return cause.is_unique_violation();
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[tokio::test(start_paused = true)]
    async fn a_database_that_never_answers_is_away() {
        let asked = std::future::pending::<Result<(), Error>>();
        assert_eq!(answered(asked).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(answered(async { Ok::<_, Error>(1) }).await.unwrap(), 1);
    }
}
