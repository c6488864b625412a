//! Identifiers: UUIDs in their canonical form, each with a type of its own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// The id made of `uuid`.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The id as a UUID.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Accepts the hyphenated form of 36 characters in either case, and no other.
            fn from_str(text: &str) -> Result<Self> {
                parse(text).map(Self).ok_or_else(|| Error::invalid(concat!("invalid ", $what)))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        #[cfg(feature = "server")]
        const _: () = {
            use sqlx::{Database, Decode, Encode, Type, encode::IsNull, error::BoxDynError};

            impl<DB: Database> Type<DB> for $name
            where
                Uuid: Type<DB>,
            {
                fn type_info() -> DB::TypeInfo {
                    <Uuid as Type<DB>>::type_info()
                }

                fn compatible(ty: &DB::TypeInfo) -> bool {
                    <Uuid as Type<DB>>::compatible(ty)
                }
            }

            impl<'q, DB: Database> Encode<'q, DB> for $name
            where
                Uuid: Encode<'q, DB>,
            {
                fn encode_by_ref(&self, buf: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
                    self.0.encode_by_ref(buf)
                }
            }

            impl<'r, DB: Database> Decode<'r, DB> for $name
            where
                Uuid: Decode<'r, DB>,
            {
                fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
                    Ok(Self(Uuid::decode(value)?))
                }
            }
        };
    };
}

fn parse(text: &str) -> Option<Uuid> {
    // The parser of the uuid crate also takes braces, URNs and the form without hyphens.
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

id! {
    /// Names a workspace for its whole life and after it.
    WorkspaceId, "workspace ID"
}
id! {
    /// Names a token, never revealing it.
    TokenId, "token ID"
}
id! {
    /// Names what the operator tells agents.
    InstructionId, "instruction ID"
}
id! {
    /// Names a recorded event.
    EventId, "event ID"
}
id! {
    /// Names one try at bringing a workspace up, so that a late result of an earlier try is recognised.
    AttemptId, "attempt ID"
}
id! {
    /// Names the record of an agent.
    AgentId, "agent ID"
}

id! {
    /// Names a row of the activity log.
    ActivityId, "activity ID"
}
id! {
    /// Names a memory.
    MemoryId, "memory ID"
}
id! {
    /// Names a request for leave.
    ApprovalId, "approval ID"
}
id! {
    /// Names a step of a workflow that is done.
    CheckpointId, "checkpoint ID"
}
id! {
    /// Names what an agent is asked for at set times.
    ScheduleId, "schedule ID"
}

id! {
    /// Names a message that is kept for an agent.
    QueueId, "queue ID"
}

impl WorkspaceId {
    /// The first 12 characters: how older installations named containers.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_the_canonical_form() {
        let id: WorkspaceId = "6F9619FF-8B86-D011-B42D-00CF4FC964FF".parse().unwrap();
        assert_eq!(id.to_string(), "6f9619ff-8b86-d011-b42d-00cf4fc964ff");
        assert_eq!(id.short(), "6f9619ff-8b8");
        for text in [
            "",
            "x",
            "6f9619ff8b86d011b42d00cf4fc964ff",
            "{6f9619ff-8b86-d011-b42d-00cf4fc964ff}",
            "urn:uuid:6f9619ff-8b86-d011-b42d-00cf4fc964ff",
            "6f9619ff-8b86-d011-b42d-00cf4fc964f'",
        ] {
            let error = text.parse::<WorkspaceId>().unwrap_err();
            assert_eq!(error.message(), "invalid workspace ID", "{text}");
        }
    }
}
