//! Streamable HTTP, by the SDK of the protocol: every revision that it knows, without sessions, so that any replica
//! answers any request.

use std::{fmt, sync::Arc};

use axum::{
    extract::Request,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use molecule_core::{
    ControlPlane,
    id::WorkspaceId,
    tools::{Definition, Place},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};
use tokio_util::sync::CancellationToken;

use super::{SERVER, contained, said};
use crate::serve::guard::BODY_LIMIT;

/// Answers requests of streamable HTTP.
#[derive(Clone)]
pub(crate) struct Sdk(StreamableHttpService<Tools, NeverSessionManager>);

impl Sdk {
    /// Serves the tools of `control_plane` until `stop`.
    pub(crate) fn new(control_plane: ControlPlane, stop: CancellationToken) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_cancellation_token(stop)
            .with_max_request_body_bytes(BODY_LIMIT)
            // A page of another site has no bearer to show, which is asked for before.
            .disable_allowed_hosts();
        Self(StreamableHttpService::new(move || Ok(Tools(control_plane.clone())), Arc::default(), config))
    }

    /// Answers `request` for workspace `id`.
    pub(crate) async fn answer(&self, id: WorkspaceId, mut request: Request) -> Response {
        request.extensions_mut().insert(Of(id));
        self.0.handle(request).await.into_response()
    }
}

impl fmt::Debug for Sdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sdk")
    }
}

/// The workspace for which tools are called, beside a request.
#[derive(Debug, Clone, Copy)]
struct Of(WorkspaceId);

/// The tools as the SDK asks for them.
#[derive(Debug, Clone)]
struct Tools(ControlPlane);

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let (name, version) = SERVER;
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new(name, version))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |tool: &Definition| Tool::new(tool.name, tool.description, tool.input_schema(Place::ControlPlane));
        Ok(ListToolsResult::with_all_items(self.0.tools().map(tool).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let of = context.extensions.get::<Parts>().and_then(|parts| parts.extensions.get::<Of>());
        let Of(id) = *of.ok_or_else(|| ErrorData::internal_error("the request is for no workspace", None))?;
        // That a tool failed is for the agent to read, and no failure of the protocol.
        let answered = contained(&request.name, self.0.call_tool(id, &request.name, request.arguments)).await;
        let result = match answered.map_err(|message| ErrorData::internal_error(message, None))? {
            Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
            Err(error) => CallToolResult::error(vec![ContentBlock::text(said(&request.name, &error))]),
        };
        Ok(result.into())
    }
}
