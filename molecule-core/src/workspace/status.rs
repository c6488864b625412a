//! The status of a workspace: its values, their names, and which may follow which.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

macro_rules! statuses {
    ($($(#[$doc:meta])* $status:ident = $name:literal,)*) => {
        /// Where a workspace is in its life.
        ///
        /// The set is complete: stores hold exactly these values, and a test compares them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Status {
            $($(#[$doc])* $status,)*
        }

        impl Status {
            /// The canonical list: every status once.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$status,)*];

            /// The name in stores, on the wire and in documents.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$status => $name,)*
                }
            }
        }
    };
}

statuses! {
    /// Being brought up; nothing has been heard from the agent of this try yet.
    Provisioning = "provisioning",
    /// The agent reports in and is well.
    Online = "online",
    /// The agent was lost.
    Offline = "offline",
    /// The agent reports in and says that it is not well.
    Degraded = "degraded",
    /// The last try at bringing the workspace up did not succeed.
    Failed = "failed",
    /// Gone for good.
    Removed = "removed",
    /// Stopped until someone resumes it.
    Paused = "paused",
    /// Stopped for being idle; the next message wakes it.
    Hibernated = "hibernated",
    /// Being stopped for being idle.
    Hibernating = "hibernating",
    /// An external workspace that waits for its agent to report in.
    AwaitingAgent = "awaiting_agent",
}

impl Status {
    /// The statuses that may follow this one. The table of `docs/statuses.md` is the same, and a test says so.
    pub const fn successors(self) -> &'static [Self] {
        use Status::{
            AwaitingAgent, Degraded, Failed, Hibernated, Hibernating, Offline, Online, Paused, Provisioning, Removed,
        };
        match self {
            // A restart during provisioning starts a new try, hence the loop.
            Provisioning => &[Provisioning, Online, AwaitingAgent, Failed, Paused, Removed],
            Online => &[Degraded, Offline, AwaitingAgent, Hibernating, Provisioning, Paused, Removed],
            Degraded => &[Online, Offline, AwaitingAgent, Hibernating, Provisioning, Paused, Removed],
            Offline => &[Online, Provisioning, Paused, Removed],
            AwaitingAgent => &[Online, Provisioning, Paused, Removed],
            Failed => &[Online, Provisioning, Paused, Removed],
            Paused => &[Provisioning, AwaitingAgent, Removed],
            Hibernating => &[Hibernated, Provisioning, Paused, Removed],
            Hibernated => &[Provisioning, Paused, Removed],
            Removed => &[],
        }
    }

    /// Whether `next` may follow this status.
    pub fn can_become(self, next: Self) -> bool {
        self.successors().contains(&next)
    }

    /// The step from this status to `next`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the table does not allow it.
    pub fn to(self, next: Self) -> Result<Transition> {
        if self.can_become(next) {
            Ok(Transition { from: self, to: next })
        } else {
            Err(Error::new(ErrorKind::Conflict, format!("a workspace that is {self} cannot become {next}")))
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| Error::invalid(format!("{text:?} is not a workspace status")))
    }
}

/// A step that the table allows. Stores change a status only by one of these, and only from its `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    from: Status,
    to: Status,
}

impl Transition {
    /// The status that the row must have for the step to be taken.
    pub const fn from(self) -> Status {
        self.from
    }

    /// The status that the row has afterwards.
    pub const fn to(self) -> Status {
        self.to
    }
}

mod sql {
    use sqlx::{
        Decode, Encode, Postgres, Sqlite, Type,
        encode::IsNull,
        error::BoxDynError,
        postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef},
        sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef},
    };

    use super::Status;

    // A real enum type: a plain text parameter is refused there.
    impl Type<Postgres> for Status {
        fn type_info() -> PgTypeInfo {
            PgTypeInfo::with_name("workspace_status")
        }
    }

    impl Encode<'_, Postgres> for Status {
        fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
            <&str as Encode<Postgres>>::encode(self.as_str(), buf)
        }
    }

    impl<'r> Decode<'r, Postgres> for Status {
        fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
            Ok(<&str as Decode<Postgres>>::decode(value)?.parse()?)
        }
    }

    // Text under a CHECK.
    impl Type<Sqlite> for Status {
        fn type_info() -> SqliteTypeInfo {
            <str as Type<Sqlite>>::type_info()
        }

        fn compatible(ty: &SqliteTypeInfo) -> bool {
            <str as Type<Sqlite>>::compatible(ty)
        }
    }

    impl Encode<'_, Sqlite> for Status {
        fn encode_by_ref(&self, buf: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
            <&'static str as Encode<Sqlite>>::encode(self.as_str(), buf)
        }
    }

    impl<'r> Decode<'r, Sqlite> for Status {
        fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
            Ok(<&str as Decode<Sqlite>>::decode(value)?.parse()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_name_everywhere() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse::<Status>().unwrap(), status);
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert!("Online".parse::<Status>().is_err());
        assert!("".parse::<Status>().is_err());
    }

    #[test]
    fn removed_is_the_end_and_always_reachable() {
        assert!(Status::Removed.successors().is_empty());
        for status in Status::ALL {
            assert_eq!(status.can_become(Status::Removed), status != Status::Removed, "{status}");
        }
    }

    #[test]
    fn anything_but_removed_can_be_started_again() {
        for status in Status::ALL {
            assert_eq!(status.can_become(Status::Provisioning), status != Status::Removed, "{status}");
        }
    }

    #[test]
    fn an_illegal_step_cannot_be_written_down() {
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(from.to(to).is_ok(), from.can_become(to), "{from} -> {to}");
            }
        }
        let error = Status::Removed.to(Status::Online).unwrap_err();
        assert_eq!(error.message(), "a workspace that is removed cannot become online");
    }
}
