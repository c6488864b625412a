//! Templates: what workspaces can be made from.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use molecule_core::templates::{Import, ModelOption, ProviderEntry, Template};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Operator},
    state::AppState,
};

/// A template, as it is offered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TemplateView {
    /// The name of its folder: what `POST /workspaces` takes as `template`.
    id: String,
    name: String,
    description: String,
    /// 0 where it does not say.
    tier: i32,
    runtime: String,
    /// The model that is used where none is chosen.
    model: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<ModelOptionView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_env: Vec<String>,
    /// The providers to choose from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    providers: Vec<String>,
    /// What is known of providers; not the same list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    provider_registry: Vec<ProviderView>,
    skills: Vec<String>,
    skill_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    provision_timeout_seconds: Option<u64>,
}

/// A model to choose.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TemplateModelView)]
pub(crate) struct ModelOptionView {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_env: Vec<String>,
}

/// What a template says of a provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TemplateProviderView)]
pub(crate) struct ProviderView {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    auth_mode: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    model_prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    model_aliases: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    base_url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    auth_env: Vec<String>,
}

impl From<Template> for TemplateView {
    fn from(template: Template) -> Self {
        Self {
            id: template.id,
            name: template.name,
            description: template.description,
            tier: template.tier,
            runtime: template.runtime,
            model: template.model,
            models: template.models.into_iter().map(ModelOptionView::from).collect(),
            required_env: template.required_env,
            providers: template.providers,
            provider_registry: template.provider_registry.into_iter().map(ProviderView::from).collect(),
            skill_count: template.skills.len(),
            skills: template.skills,
            provision_timeout_seconds: template.provision_timeout.map(|timeout| timeout.as_secs()),
        }
    }
}

impl From<ModelOption> for ModelOptionView {
    fn from(model: ModelOption) -> Self {
        Self { id: model.id, name: model.name, required_env: model.required_env }
    }
}

impl From<ProviderEntry> for ProviderView {
    fn from(entry: ProviderEntry) -> Self {
        let ProviderEntry { name, auth_mode, model_prefixes, model_aliases, base_url, auth_env } = entry;
        Self { name, auth_mode, model_prefixes, model_aliases, base_url, auth_env }
    }
}

/// A template to keep.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ImportRequest {
    name: String,
    /// What each file holds, by its path. Without a `config.yaml` one is made.
    files: BTreeMap<String, String>,
}

/// A template that was kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportedTemplateView {
    /// `imported`.
    status: &'static str,
    id: String,
    name: String,
}

/// Lists the templates that can be read, by id.
#[utoipa::path(get, path = "/templates", tag = "templates",
    responses((status = 200, body = [TemplateView]), (status = 401, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, _: Operator) -> ApiResult<Json<Vec<TemplateView>>> {
    Ok(Json(app.control_plane.templates().await.into_iter().map(TemplateView::from).collect()))
}

/// Keeps a template, whole or not at all.
#[utoipa::path(post, path = "/templates/import", tag = "templates", request_body = ImportRequest,
    responses((status = 201, body = ImportedTemplateView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 409, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 501, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn import(
    State(app): State<AppState>,
    _: Operator,
    body: Body,
) -> ApiResult<(StatusCode, Json<ImportedTemplateView>)> {
    let ImportRequest { name, files } = body.parse("invalid request body")?;
    let imported = app.control_plane.import_template(Import { name, files }).await?;
    Ok((StatusCode::CREATED, Json(ImportedTemplateView { status: "imported", id: imported.id, name: imported.name })))
}
