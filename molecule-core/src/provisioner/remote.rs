//! Workspaces on machines that another control plane owns, asked for over HTTP (`docs/control-plane-api.md`).

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use async_trait::async_trait;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use url::Url;

use super::{ControlPlaneProvisioner, Instance, StartSpec};
use crate::{
    error::{Error, ErrorKind, Result, Retry},
    http_client::{self, Timeouts},
    id::WorkspaceId,
};

/// The most that an answer to anything but a look at the console may hold.
const BODY_LIMIT: usize = 64 * 1024;

/// The most that a console may hold.
const CONSOLE_LIMIT: usize = 256 * 1024;

/// The most of a refusal that is repeated.
const EXCERPT: usize = 512;

/// Where the other control plane is, and how it is called.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// Where it is: `http://` or `https://`.
    pub base_url: String,
    /// The organisation that the machines are for.
    pub org_id: String,
    /// The bearer of everything that is about a machine.
    pub shared_secret: Option<SecretString>,
    /// The bearer of looks at a console; [`RemoteConfig::shared_secret`] where there is none.
    pub admin_api_token: Option<SecretString>,
    /// The operator's token of this control plane, sent as `X-Molecule-Admin-Token`.
    pub admin_token: Option<SecretString>,
    /// How long one call may take.
    pub timeout: Duration,
}

impl RemoteConfig {
    /// How long a call may take where nobody says otherwise: machines come up slowly.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
}

/// A client of the other control plane.
///
/// Cloning clones the handle. No secret and no body of an answer is logged.
#[derive(Debug, Clone)]
pub struct RemoteProvisioner {
    http: Client,
    base: Url,
    config: RemoteConfig,
}

impl RemoteProvisioner {
    /// A client of the control plane that `config` names. Nothing is called yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] without an organisation, or with a URL that is none.
    pub fn new(config: RemoteConfig) -> Result<Self> {
        if config.org_id.trim().is_empty() {
            return Err(Error::invalid("the control-plane backend needs an organisation: set MOLECULE_ORG_ID"));
        }
        let unusable = || Error::invalid(format!("{:?} is no http or https URL of a control plane", config.base_url));
        // With a slash at the end, so that what is joined to it is put below it.
        let base = Url::parse(&format!("{}/", config.base_url.trim().trim_end_matches('/')))
            .map_err(|error| unusable().caused_by(error))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(unusable());
        }
        let connect = config.timeout.min(Duration::from_secs(10));
        let http = http_client::build(Timeouts { connect, total: Some(config.timeout) })?;
        Ok(Self { http, base, config })
    }

    fn request(&self, method: Method, path: &str, instance_id: Option<&str>) -> Result<RequestBuilder> {
        let mut url = self.base.join(path).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "the URL of a call to the control plane cannot be built").caused_by(error)
        })?;
        if let Some(instance_id) = instance_id {
            url.query_pairs_mut().append_pair("instance_id", instance_id);
        }
        let bearer = match path.starts_with("cp/admin/") {
            true => given(&self.config.admin_api_token).or(given(&self.config.shared_secret)),
            false => given(&self.config.shared_secret),
        };
        let mut request = self.http.request(method, url);
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        if let Some(token) = given(&self.config.admin_token) {
            request = request.header("X-Molecule-Admin-Token", token);
        }
        Ok(request)
    }
}

#[derive(Debug, Serialize)]
struct Provision<'a> {
    org_id: &'a str,
    workspace_id: WorkspaceId,
    runtime: &'a str,
    tier: i32,
    platform_url: &'a str,
    env: &'a BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Provisioned {
    #[serde(default)]
    instance_id: String,
}

#[derive(Debug, Deserialize)]
struct Refused {
    error: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    state: String,
}

#[derive(Debug, Deserialize)]
struct Console {
    output: String,
}

#[async_trait]
impl ControlPlaneProvisioner for RemoteProvisioner {
    async fn start(&self, spec: &StartSpec) -> Result<Instance> {
        let call = Call { operation: "start", id: spec.workspace_id };
        let body = Provision {
            org_id: &self.config.org_id,
            workspace_id: spec.workspace_id,
            runtime: &spec.runtime,
            tier: spec.tier,
            platform_url: &spec.platform_url,
            env: &spec.env,
        };
        let request = self.request(Method::POST, "cp/workspaces/provision", None)?.json(&body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let asked = !error.is_connect();
                let error = call.unanswered(error);
                return Err(if asked { call.may_leave_a_machine(error) } else { error });
            }
        };
        let status = response.status();
        if status != StatusCode::CREATED {
            let why = refusal(&call.body(response, BODY_LIMIT).await?);
            return Err(call.refused(status, why));
        }
        let Provisioned { instance_id } =
            call.decode(response, BODY_LIMIT).await.map_err(|error| call.may_leave_a_machine(error))?;
        if instance_id.is_empty() {
            let error = call.failed(ErrorKind::Upstream, "the answer names no instance");
            return Err(call.may_leave_a_machine(error));
        }
        Ok(Instance { instance_id })
    }

    async fn stop(&self, id: WorkspaceId, instance_id: &str) -> Result<()> {
        if instance_id.is_empty() {
            return Ok(());
        }
        let call = Call { operation: "stop", id };
        let request = self.request(Method::DELETE, &format!("cp/workspaces/{id}"), Some(instance_id))?;
        let response = call.send(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        // What the refusal says is worth having; that it is cut off or breaks off changes nothing.
        let body = start_of(response, EXCERPT).await;
        let mut body = String::from_utf8_lossy(&body).trim().to_owned();
        // What was no text takes more room in its place.
        body.truncate(body.floor_char_boundary(EXCERPT));
        Err(call.refused(status, body))
    }

    async fn is_running(&self, id: WorkspaceId, instance_id: &str) -> Result<bool> {
        if instance_id.is_empty() {
            return Ok(false);
        }
        let call = Call { operation: "status", id };
        let request = self.request(Method::GET, &format!("cp/workspaces/{id}/status"), Some(instance_id))?;
        let response = call.success(request).await?;
        let Status { state } = call.decode(response, BODY_LIMIT).await?;
        Ok(state == "running")
    }

    async fn console_output(&self, id: WorkspaceId) -> Result<String> {
        let call = Call { operation: "console", id };
        let request = self.request(Method::GET, &format!("cp/admin/workspaces/{id}/console"), None)?;
        let response = call.success(request).await?;
        let Console { output } = call.decode(response, CONSOLE_LIMIT).await?;
        Ok(output)
    }
}

/// A call about a workspace, for what its errors say.
#[derive(Clone, Copy)]
struct Call {
    operation: &'static str,
    id: WorkspaceId,
}

impl Call {
    fn failed(self, kind: ErrorKind, why: impl Display) -> Error {
        let Self { operation, id } = self;
        Error::new(kind, format!("cp provisioner: {operation} {id}: {why}")).context("workspace.id", id)
    }

    /// The control plane answered, but not as it should.
    fn refused(self, status: StatusCode, why: impl Display) -> Error {
        let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        let retry = if passing { Retry::Maybe } else { Retry::Never };
        let status = status.as_u16();
        self.failed(ErrorKind::Upstream, format!("unexpected {status}: {why}")).with_retry(retry)
    }

    async fn send(self, request: RequestBuilder) -> Result<Response> {
        request.send().await.map_err(|error| self.unanswered(error))
    }

    fn unanswered(self, error: reqwest::Error) -> Error {
        let why = if error.is_timeout() { "it did not answer in time" } else { "it cannot be reached" };
        self.failed(ErrorKind::Unavailable, why).caused_by(error.without_url())
    }

    /// Says that a start which failed with `error` may have made a machine: without its name nobody can give it back.
    fn may_leave_a_machine(self, error: Error) -> Error {
        tracing::error!("LEAK-SUSPECT cpProv.Start workspace_id={} last_err={:?}", self.id, error.message());
        error
    }

    /// An answer of success; anything else is an error without the body, which may hold anything.
    async fn success(self, request: RequestBuilder) -> Result<Response> {
        let response = self.send(request).await?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(self.refused(status, "no success")) }
    }

    async fn body(self, response: Response, limit: usize) -> Result<Vec<u8>> {
        http_client::read_body(response, limit).await.map_err(|error| {
            let why = error.message().to_owned();
            self.failed(ErrorKind::Upstream, why).with_retry(error.retry()).caused_by(error)
        })
    }

    async fn decode<T: DeserializeOwned>(self, response: Response, limit: usize) -> Result<T> {
        let body = self.body(response, limit).await?;
        // Without what serde says: it repeats the body.
        object(&body).ok_or_else(|| {
            self.failed(ErrorKind::Upstream, format!("the answer of {} bytes cannot be understood", body.len()))
        })
    }
}

/// The `error` of a refusal; of anything else only its length, as it may hold anything.
fn refusal(body: &[u8]) -> String {
    match object(body) {
        Some(Refused { error }) => cut(error.trim(), EXCERPT).to_owned(),
        None => format!("<unstructured body, {} bytes>", body.len()),
    }
}

/// The members of a JSON object. Left to itself, serde takes a list for them as well.
fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
    serde_json::from_value(Value::Object(object)).ok()
}

/// At most the first `limit` bytes of what arrives.
async fn start_of(mut response: Response, limit: usize) -> Vec<u8> {
    let mut start = Vec::new();
    while start.len() < limit {
        let Ok(Some(chunk)) = response.chunk().await else { break };
        start.extend_from_slice(&chunk[..chunk.len().min(limit - start.len())]);
    }
    // The limit may be within a character.
    let whole = match std::str::from_utf8(&start) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => start.len(),
    };
    start.truncate(whole);
    start
}

fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

fn given(secret: &Option<SecretString>) -> Option<&str> {
    secret.as_ref().map(|secret| secret.expose_secret().trim()).filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(base_url: &str) -> RemoteConfig {
        RemoteConfig {
            base_url: base_url.to_owned(),
            org_id: "org".to_owned(),
            shared_secret: None,
            admin_api_token: None,
            admin_token: None,
            timeout: RemoteConfig::DEFAULT_TIMEOUT,
        }
    }

    #[test]
    fn what_it_cannot_work_with_is_refused_when_it_is_made() {
        for url in ["", "api.example", "ftp://api.example", "http://", "unix:///run/cp.sock"] {
            let error = RemoteProvisioner::new(config(url)).unwrap_err();
            assert_eq!(error.message(), format!("{url:?} is no http or https URL of a control plane"));
        }
        let error =
            RemoteProvisioner::new(RemoteConfig { org_id: " ".to_owned(), ..config("http://api") }).unwrap_err();
        assert_eq!(error.message(), "the control-plane backend needs an organisation: set MOLECULE_ORG_ID");
    }

    #[test]
    fn paths_go_below_that_of_the_base_and_values_are_escaped() {
        for base in ["https://api.example/v1", "https://api.example/v1//"] {
            let provisioner = RemoteProvisioner::new(config(base)).unwrap();
            let request = provisioner.request(Method::GET, "cp/x", Some("i-1&org=2 ?#")).unwrap().build().unwrap();
            assert_eq!(request.url().as_str(), "https://api.example/v1/cp/x?instance_id=i-1%26org%3D2+%3F%23");
        }
    }

    #[test]
    fn a_refusal_is_told_only_where_it_is_meant_to_be() {
        assert_eq!(refusal(br#"{"error":" no capacity ","trace":"secret"}"#), "no capacity");
        assert_eq!(refusal(b"<html>secret</html>"), "<unstructured body, 19 bytes>");
        assert_eq!(refusal(br#"{"error":7}"#), "<unstructured body, 11 bytes>");
        let long = format!(r#"{{"error":"{}"}}"#, "ü".repeat(400));
        assert_eq!(refusal(long.as_bytes()), "ü".repeat(256));
    }
}
