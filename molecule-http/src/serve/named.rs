//! What a path names.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use molecule_core::{
    Error,
    id::{ApprovalId, InstructionId, MemoryId, QueueId, ScheduleId, TokenId, WorkspaceId},
    provisioner::FilePath,
};

use super::{error::ApiError, state::AppState};

/// An id that has a place of its own in paths.
pub(crate) trait InPath: FromStr {
    /// What routes call its place.
    const PLACE: &'static str;

    /// What is answered where the path names none.
    fn refused() -> Error {
        Error::invalid("invalid id")
    }
}

macro_rules! in_path {
    ($($id:ty = $place:literal $(, $refused:expr)?;)*) => {
        $(impl InPath for $id {
            const PLACE: &'static str = $place;
            $(fn refused() -> Error {
                $refused
            })?
        })*
    };
}

in_path! {
    WorkspaceId = "id", Error::invalid("invalid workspace ID");
    ApprovalId = "approval_id";
    InstructionId = "instruction_id";
    MemoryId = "memory_id";
    ScheduleId = "schedule_id";
    TokenId = "token_id";
    // What names none is as good as one that is not there.
    QueueId = "queue_id", Error::not_found("queue item not found");
    DelegationName = "delegation_id", Error::not_found("delegation not found");
    SecretName = "key", Error::not_found("not found");
    FilePath = "path", Error::invalid("invalid path");
    Key = "key", Error::invalid("invalid key");
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name(pub(crate) String);

        impl FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(text.to_owned()))
            }
        })*
    };
}

texts! {
    /// The name of a delegation: whatever its caller chose.
    DelegationName;
    /// The name of a secret, which its rules judge.
    SecretName;
    /// A key: any text.
    Key;
}

/// What the path names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<T>(pub(crate) T);

impl<T: InPath> FromRequestParts<AppState> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let text = params.as_ref().and_then(|params| params.iter().find(|(name, _)| *name == T::PLACE));
        Ok(Self(text.and_then(|(_, text)| text.parse().ok()).ok_or_else(T::refused)?))
    }
}
