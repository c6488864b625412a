//! Handlers by area: each translates one request into one call of the library.

pub(crate) mod a2a;
pub(crate) mod activity;
pub(crate) mod agents;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod budget;
pub(crate) mod checkpoints;
pub(crate) mod configuration;
pub(crate) mod delegations;
pub(crate) mod directory;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod instructions;
pub(crate) mod lifecycle;
pub(crate) mod machines;
pub(crate) mod mcp;
pub(crate) mod memories;
pub(crate) mod models;
pub(crate) mod operations;
pub(crate) mod org_tokens;
pub(crate) mod patch;
pub(crate) mod registry;
pub(crate) mod schedules;
pub(crate) mod secrets;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod templates;
pub(crate) mod tokens;
pub(crate) mod values;
pub(crate) mod workspace_files;
pub(crate) mod workspaces;

use molecule_core::workspace::Status;
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::schema::{Object, ObjectBuilder, Type},
};

/// What every refusal looks like. Some add members of their own, such as `retry_after`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorView {
    /// What failed, for which input, and what to do about it.
    error: String,
}

/// The statuses that a workspace can have: those of the code, so that the document cannot say otherwise.
pub(crate) fn status_schema() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Status::ALL.map(Status::as_str))).build()
}
