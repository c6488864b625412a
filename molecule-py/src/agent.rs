//! One workspace as its agent sees it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use molecule_core::{
    Error, Result,
    agent::{self, AgentCard, Delivery, InboundSecret, PlatformClient, PlatformUrl, Settings, TokenStore},
    http_client::Way,
    id::WorkspaceId,
};
use pyo3::{IntoPyObjectExt, prelude::*};
use secrecy::SecretString;
use serde_json::Value;

use crate::{
    errors::raised,
    per_process::PerProcess,
    runtime::{on_a_thread, wait},
    shared::{self, Secrets},
};

/// One workspace as its agent sees it: its token, its headers, and its place on the platform.
///
/// What is not given is read from ``WORKSPACE_ID``, ``PLATFORM_URL``, ``MOLECULE_WORKSPACE_TOKEN`` and ``CONFIGS_DIR``. A
/// ``token`` given here goes before the file; one from the environment comes after it. Agents without ``token`` and
/// ``configs_dir`` share the token of the process; give each of several workspaces a ``configs_dir`` of its own.
/// ``timeout`` is in seconds, for each call.
///
/// Raises ``InvalidInputError`` when a setting is missing or cannot be read.
#[pyclass(frozen, module = "molecule")]
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: WorkspaceId,
    platform: PlatformUrl,
    pub(crate) secrets: Secrets,
    card: AgentCard,
    way: Way,
    timeout: Duration,
    /// For the calls of Python; each heartbeat loop has connections of its own.
    client: PerProcess<PlatformClient>,
}

#[pymethods]
impl Agent {
    #[new]
    #[pyo3(signature = (*, workspace_id=None, platform_url=None, token=None, configs_dir=None, timeout=10.0))]
    fn new(
        py: Python<'_>,
        workspace_id: Option<String>,
        platform_url: Option<String>,
        token: Option<String>,
        configs_dir: Option<PathBuf>,
        timeout: f64,
    ) -> PyResult<Self> {
        let timeout = shared::duration("timeout", timeout)?;
        let mut settings = shared::environment(py);
        settings.workspace_id = workspace_id.or(settings.workspace_id);
        settings.platform_url = platform_url.or(settings.platform_url);
        Self::build(settings, token.map(SecretString::from), configs_dir, timeout).map_err(|error| raised(py, &error))
    }

    /// The workspace this agent is.
    #[getter]
    fn workspace_id(&self) -> String {
        self.id.to_string()
    }

    /// Where the platform is, without a slash at the end.
    #[getter]
    fn platform_url(&self) -> &str {
        self.platform.as_str()
    }

    /// The token this agent proves itself with, if there is one.
    fn get_token(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.secrets.tokens.get().map(shared::plain).map_err(|error| raised(py, &error))
    }

    /// Uses ``token`` from now on, in running loops too, and keeps it in the file.
    ///
    /// It is in use even when the file cannot be written, which raises ``MoleculeError``.
    fn save_token(&self, py: Python<'_>, token: String) -> PyResult<()> {
        self.secrets.tokens.save(&SecretString::from(token)).map_err(|error| raised(py, &error))
    }

    /// The headers of a call to the platform: ``Origin``, and ``Authorization`` when there is a token.
    fn auth_headers(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, String>> {
        let headers =
            self.secrets.tokens.get().and_then(|token| agent::auth_headers(Some(&self.platform), token.as_ref()));
        headers.map(|headers| shared::named(&headers)).map_err(|error| raised(py, &error))
    }

    /// ``auth_headers()`` and who speaks: for every message that the workspace sends for itself.
    fn self_source_headers(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, String>> {
        let headers = self
            .secrets
            .tokens
            .get()
            .and_then(|token| agent::self_source_headers(Some(&self.platform), token.as_ref(), &self.id));
        headers.map(|headers| shared::named(&headers)).map_err(|error| raised(py, &error))
    }

    /// Makes the workspace known, and says how the platform delivers its messages: ``push`` or ``poll``.
    ///
    /// With ``url`` the platform calls the agent there; without, the agent asks for its messages. ``card`` is the A2A card
    /// of the agent; without one it is made of ``MOLECULE_AGENT_NAME``, ``MOLECULE_AGENT_DESCRIPTION`` and
    /// ``MOLECULE_AGENT_SKILLS``. Secrets that the platform answers with are kept. Repeating it is safe.
    ///
    /// Raises ``MoleculeError``; ``retryable`` tells whether to try again.
    #[pyo3(signature = (card=None, *, url=None))]
    fn register(
        &self,
        py: Python<'_>,
        card: Option<&Bound<'_, PyAny>>,
        url: Option<String>,
    ) -> PyResult<Option<String>> {
        let client = self.client.get_or_try_init(|| self.client()).map_err(|error| raised(py, &error))?;
        wait(py, register((*client).clone(), self.described(py, card)?, url))
    }

    /// ``register()`` for asyncio.
    #[pyo3(signature = (card=None, *, url=None))]
    fn register_async<'py>(
        this: &Bound<'py, Self>,
        card: Option<Bound<'py, PyAny>>,
        url: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let arguments = [("card", card.into_bound_py_any(py)?), ("url", url.into_bound_py_any(py)?)];
        on_a_thread(this, "register", &arguments)
    }

    /// Whether ``authorization``, a whole header, is ``Bearer`` and the secret the platform proves itself with.
    ///
    /// Without a secret nothing passes. The comparison takes the same time wherever the two differ.
    #[pyo3(signature = (authorization))]
    fn verify_inbound(&self, authorization: Option<Header>) -> bool {
        self.secrets.inbound.verify(authorization.as_ref().map(Header::bytes))
    }

    /// Keeps the secret that the platform proves itself with; loops and ``register()`` do so by themselves.
    fn save_inbound_secret(&self, py: Python<'_>, secret: String) -> PyResult<()> {
        self.secrets.inbound.save(&SecretString::from(secret)).map_err(|error| raised(py, &error))
    }

    fn __repr__(&self) -> String {
        format!("Agent(workspace_id='{}', platform_url='{}')", self.id, self.platform)
    }
}

impl Agent {
    /// The agent that the environment describes.
    pub(crate) fn from_environment(py: Python<'_>) -> PyResult<Self> {
        Self::new(py, None, None, None, None, 10.0)
    }

    /// Calls the platform with the secrets of this agent, over connections of its own.
    pub(crate) fn client(&self) -> Result<PlatformClient> {
        client(&self.platform, self.id, &self.secrets, &self.way, self.timeout)
    }

    fn build(
        settings: Settings,
        token: Option<SecretString>,
        configs_dir: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self> {
        let (id, platform) = (settings.workspace_id()?, settings.platform_url()?);
        let secrets = if token.is_none() && configs_dir.is_none() {
            shared::secrets(&settings)?
        } else {
            let folder = Settings { configs_dir: configs_dir.or(settings.configs_dir.clone()), ..settings.clone() }
                .state_dir()?;
            let tokens = match token {
                Some(token) => TokenStore::supplied_first(&folder, Some(token)),
                None => TokenStore::file_first(&folder, settings.token.clone()),
            };
            Secrets { tokens, inbound: InboundSecret::new(&folder), folder }
        };
        let card = settings.card("molecule-agent", &id);
        Ok(Self { id, platform, secrets, card, way: settings.way, timeout, client: PerProcess::new() })
    }

    /// `card` as JSON, or the one that the environment describes.
    fn described(&self, py: Python<'_>, card: Option<&Bound<'_, PyAny>>) -> PyResult<Value> {
        let value = match card {
            None => serde_json::to_value(&self.card).ok(),
            Some(card) => {
                let text: String = py.import("json")?.call_method1("dumps", (card,))?.extract()?;
                serde_json::from_str(&text).ok()
            }
        };
        let object = value.filter(Value::is_object);
        object.ok_or_else(|| raised(py, &Error::invalid("an agent card is a dictionary of what JSON can hold")))
    }
}

/// A header as frameworks give it.
#[derive(FromPyObject)]
pub(crate) enum Header {
    Text(String),
    Bytes(Vec<u8>),
}

impl Header {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

fn client(
    platform: &PlatformUrl,
    id: WorkspaceId,
    secrets: &Secrets,
    way: &Way,
    timeout: Duration,
) -> Result<PlatformClient> {
    let (tokens, inbound) = (secrets.tokens.clone(), secrets.inbound.clone());
    Ok(PlatformClient::new(platform.clone(), id, tokens, inbound, way)?.with_timeout(timeout))
}

async fn register(client: PlatformClient, card: Value, url: Option<String>) -> Result<Option<String>> {
    let delivery = url.map_or(Delivery::Poll, |url| Delivery::Push { url });
    client.register(&card, &delivery).await.into_result()
}
