//! The event log.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use molecule_core::{
    events::{RecordedEvent, Which},
    id::WorkspaceId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Id, Operator, Params},
    state::AppState,
};

/// How many events an answer holds unless the caller asks for another number.
const DEFAULT_LIMIT: u32 = 100;
const HIGHEST_LIMIT: u32 = 500;

/// Which events to show.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct EventsQuery {
    /// At most so many, 1 to 500; 100 otherwise.
    limit: Option<u32>,
    /// Only those that happened before this time (RFC 3339).
    before: Option<DateTime<Utc>>,
    /// Only those of this kind, such as `WORKSPACE_ONLINE`.
    #[serde(rename = "type")]
    event_type: Option<String>,
}

/// A recorded event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventView {
    id: Uuid,
    /// Its kind, such as `WORKSPACE_ONLINE`.
    event_type: String,
    workspace_id: Option<Uuid>,
    /// More about it, depending on its kind.
    payload: Option<Value>,
    created_at: DateTime<Utc>,
}

impl From<RecordedEvent> for EventView {
    fn from(event: RecordedEvent) -> Self {
        Self {
            id: event.id.as_uuid(),
            event_type: event.event_type,
            workspace_id: event.workspace_id.map(|id| id.as_uuid()),
            payload: event.payload,
            created_at: event.created_at,
        }
    }
}

/// Lists the newest events of the fleet, newest first.
#[utoipa::path(get, path = "/events", tag = "events", params(EventsQuery),
    responses((status = 200, body = [EventView]), (status = 401, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    _: Operator,
    Params(query): Params<EventsQuery>,
) -> ApiResult<Json<Vec<EventView>>> {
    newest(&app, None, query).await
}

/// Lists the newest events of one workspace, newest first; none for an unknown one.
#[utoipa::path(get, path = "/events/{id}", tag = "events", params(EventsQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = [EventView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn list_of(
    State(app): State<AppState>,
    _: Operator,
    Id(id): Id,
    Params(query): Params<EventsQuery>,
) -> ApiResult<Json<Vec<EventView>>> {
    newest(&app, Some(id), query).await
}

async fn newest(app: &AppState, of: Option<WorkspaceId>, query: EventsQuery) -> ApiResult<Json<Vec<EventView>>> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, HIGHEST_LIMIT);
    let which = Which { limit, before: query.before, event_type: query.event_type };
    let events = app.control_plane.event_log(of, &which).await?;
    Ok(Json(events.into_iter().map(EventView::from).collect()))
}
