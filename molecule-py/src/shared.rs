//! The secrets that everything in a process shares, and the functions for whoever has no [`Agent`](crate::agent::Agent).

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use molecule_core::{
    Result,
    agent::{self, InboundSecret, Settings, StateDir, TokenStore},
    id::WorkspaceId,
};
use pyo3::{exceptions::PyValueError, prelude::*};
use secrecy::{ExposeSecret, SecretString};

use crate::errors::raised;

/// The secrets of one workspace.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    pub(crate) tokens: TokenStore,
    pub(crate) inbound: InboundSecret,
    pub(crate) folder: StateDir,
}

/// What the environment says now. The interpreter is held, so nothing changes it meanwhile.
#[expect(clippy::disallowed_methods, reason = "this is the configuration of the package")]
pub(crate) fn environment(_: Python<'_>) -> Settings {
    Settings::read(|name| std::env::var(name).ok())
}

/// The secrets in the folder that the environment named when they were first asked for.
pub(crate) fn secrets(settings: &Settings) -> Result<Secrets> {
    static SHARED: Mutex<Option<Secrets>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(secrets) = shared.as_ref() {
        return Ok(secrets.clone());
    }
    let folder = settings.state_dir()?;
    let tokens = TokenStore::file_first(&folder, settings.token.clone());
    Ok(shared.insert(Secrets { tokens, inbound: InboundSecret::new(&folder), folder }).clone())
}

/// The token of the workspace: the one in the file ``.auth_token``, else ``MOLECULE_WORKSPACE_TOKEN``, else ``None``.
///
/// It is found once and shared by everything in the process. The file lies in ``CONFIGS_DIR``, else in ``/configs`` where
/// that can be written to, else in ``~/.molecule-workspace``. One that others can read is made private first.
#[pyfunction]
pub(crate) fn get_token(py: Python<'_>) -> PyResult<Option<String>> {
    let token = secrets(&environment(py)).and_then(|secrets| secrets.tokens.get());
    Ok(plain(token.map_err(|error| raised(py, &error))?))
}

/// Uses ``token`` from now on and keeps it in the file, in one step and for the owner alone.
#[pyfunction]
pub(crate) fn save_token(py: Python<'_>, token: String) -> PyResult<()> {
    let saved = secrets(&environment(py)).and_then(|secrets| secrets.tokens.save(&SecretString::from(token)));
    saved.map_err(|error| raised(py, &error))
}

/// Forgets the token in memory, finds it anew, in the environment as it is now too, and returns it.
#[pyfunction]
pub(crate) fn refresh_cache(py: Python<'_>) -> PyResult<Option<String>> {
    let settings = environment(py);
    let token = secrets(&settings).and_then(|secrets| {
        secrets.tokens.supply(settings.token.clone());
        secrets.tokens.refresh()
    });
    Ok(plain(token.map_err(|error| raised(py, &error))?))
}

/// The headers of a call to the platform: ``Origin`` when ``PLATFORM_URL`` is set, ``Authorization`` when there is a token.
#[pyfunction]
pub(crate) fn auth_headers(py: Python<'_>) -> PyResult<BTreeMap<&'static str, String>> {
    headers(&environment(py), None).map_err(|error| raised(py, &error))
}

/// ``auth_headers()`` and who speaks.
///
/// Every message that a workspace sends for itself carries these; without them it is recorded as typed by the user.
#[pyfunction]
pub(crate) fn self_source_headers(py: Python<'_>, workspace_id: &str) -> PyResult<BTreeMap<&'static str, String>> {
    let id = workspace_id.parse().map_err(|error| raised(py, &error))?;
    headers(&environment(py), Some(id)).map_err(|error| raised(py, &error))
}

/// ``text`` with ``[REDACTED]`` in the place of what looks like a secret. A net below care, not in its place.
#[pyfunction]
pub(crate) fn redact(text: &str) -> String {
    agent::redact(text)
}

fn headers(settings: &Settings, id: Option<WorkspaceId>) -> Result<BTreeMap<&'static str, String>> {
    let platform = settings.platform_url.is_some().then(|| settings.platform_url()).transpose()?;
    let token = secrets(settings)?.tokens.get()?;
    Ok(named(&match id {
        None => agent::auth_headers(platform.as_ref(), token.as_ref())?,
        Some(id) => agent::self_source_headers(platform.as_ref(), token.as_ref(), &id)?,
    }))
}

/// `headers` under the names that people write.
pub(crate) fn named(headers: &agent::HeaderMap) -> BTreeMap<&'static str, String> {
    ["Origin", "Authorization", "X-Workspace-ID"]
        .into_iter()
        .filter_map(|name| Some((name, headers.get(name)?.to_str().ok()?.to_owned())))
        .collect()
}

pub(crate) fn plain(secret: Option<SecretString>) -> Option<String> {
    secret.map(|secret| secret.expose_secret().to_owned())
}

/// `seconds` as a time to wait.
pub(crate) fn duration(name: &str, seconds: f64) -> PyResult<std::time::Duration> {
    let duration = std::time::Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| PyValueError::new_err(format!("{name} must be a positive number of seconds, not {seconds}")))
}
