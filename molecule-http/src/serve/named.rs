//! What a path names beside its workspace.

use std::str::FromStr;

use axum::{extract::FromRequestParts, http::request::Parts};
use molecule_core::{
    Error,
    id::{ApprovalId, MemoryId, ScheduleId},
};

use super::{error::ApiError, guard::named, state::AppState};

/// An id that has a place of its own in paths.
pub(crate) trait InPath: FromStr {
    /// What routes call its place.
    const PLACE: &'static str;
}

impl InPath for MemoryId {
    const PLACE: &'static str = "memory_id";
}

impl InPath for ApprovalId {
    const PLACE: &'static str = "approval_id";
}

impl InPath for ScheduleId {
    const PLACE: &'static str = "schedule_id";
}

/// The id that the path names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<T>(pub(crate) T);

impl<T: InPath> FromRequestParts<AppState> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let id = named(parts, state, T::PLACE).await.and_then(|id| id.parse().ok());
        Ok(Self(id.ok_or_else(|| Error::invalid("invalid id"))?))
    }
}

/// The key that the path names: any text.
#[derive(Debug, Clone)]
pub(crate) struct Key(pub(crate) String);

impl FromRequestParts<AppState> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let key = named(parts, state, "key").await;
        Ok(Self(key.ok_or_else(|| Error::invalid("invalid key"))?))
    }
}
