//! A server as its clients see it.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Client, Method, RequestBuilder, Response, header::HeaderMap, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::case::{Feature, Target, Verdict};

/// How long the server may take to answer one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a request is repeated that came too early.
const TRIES: u32 = 2;

/// A server that is known by its base URL and, perhaps, a credential for it.
#[derive(Debug)]
pub struct Server {
    client: Client,
    base_url: String,
    token: Option<String>,
    organisation: Option<String>,
    features: BTreeSet<Feature>,
    /// The workspaces of the case under way.
    made: Mutex<Vec<Uuid>>,
    /// What was asked for so far, by method and path.
    called: Mutex<BTreeSet<String>>,
}

/// An external workspace that a case made, removed for good after it.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Its id.
    pub id: Uuid,
    /// The token of its agent.
    pub token: String,
}

/// A request that is put together.
#[derive(Debug)]
pub struct Call<'a> {
    server: &'a Server,
    name: String,
    request: RequestBuilder,
    lacks_token: bool,
}

/// An answer whose body was read to its end.
#[derive(Debug)]
pub struct Answer {
    request: String,
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Server {
    /// The server at `base_url`, with every feature. `token` is the operator's, sent by the cases that need to be let in
    /// and by no others.
    ///
    /// # Errors
    /// Where the client of this host cannot be set up.
    pub fn new(base_url: &str, token: Option<String>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        // Certificates come along, since the program may run where none are installed.
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        let base_url = base_url.trim_end_matches('/').to_owned();
        let features = Feature::ALL.iter().copied().collect();
        let (made, called) = Default::default();
        Ok(Self { client, base_url, token, organisation: None, features, made, called })
    }

    /// The same server, which is that of an organisation: every request names it.
    #[must_use]
    pub fn of_organisation(mut self, id: impl Into<String>) -> Self {
        self.organisation = Some(id.into());
        self
    }

    /// The same server, which has only these features.
    #[must_use]
    pub fn with_features(mut self, features: impl IntoIterator<Item = Feature>) -> Self {
        self.features = features.into_iter().collect();
        self
    }

    /// Where it is, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What was asked for so far, each as `METHOD /path`.
    pub fn called(&self) -> BTreeSet<String> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request to `path`, so far without a credential and a body.
    pub fn call(&self, method: Method, path: &str) -> Call<'_> {
        let name = format!("{method} {path}");
        let mut request = self.client.request(method, format!("{}{path}", self.base_url));
        if let Some(id) = &self.organisation {
            request = request.header("x-molecule-org-id", id);
        }
        Call { server: self, name, request, lacks_token: false }
    }

    /// Asks for `path` without a credential.
    pub async fn get(&self, path: &str) -> Result<Answer, Verdict> {
        self.call(Method::GET, path).send().await
    }

    /// Asks for `path` as the operator.
    pub async fn get_as_admin(&self, path: &str) -> Result<Answer, Verdict> {
        self.call(Method::GET, path).admin().send().await
    }

    /// Posts `body` to `path` as JSON, whatever it is, without a credential.
    pub async fn post(&self, path: &str, body: &'static str) -> Result<Answer, Verdict> {
        self.call(Method::POST, path).text(body).send().await
    }

    /// Posts `body` to `path` as the operator.
    pub async fn post_as_admin(&self, path: &str, body: &Value) -> Result<Answer, Verdict> {
        self.call(Method::POST, path).admin().json(body).send().await
    }

    /// Makes an external workspace, with the members of `more` besides. It waits for its agent.
    pub async fn external(&self, name: &str, more: &Value) -> Result<Workspace, Verdict> {
        let mut body = json!({"name": name, "external": true});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let answer = self.post_as_admin("/workspaces", &body).await?;
        let created = answer.json(201)?;
        let id: Uuid = created["id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| answer.wrong("an id that is a UUID"))?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        let token = created["connection"]["auth_token"].as_str();
        let token = token.ok_or_else(|| answer.wrong("connection.auth_token"))?.to_owned();
        Ok(Workspace { id, token })
    }

    /// Makes an external workspace whose agent has registered, to be polled.
    pub async fn member(&self, name: &str, more: &Value) -> Result<Workspace, Verdict> {
        let workspace = self.external(name, more).await?;
        let body = json!({
            "id": workspace.id, "url": "", "delivery_mode": "poll", "agent_card": {"name": name, "skills": []},
        });
        self.call(Method::POST, "/registry/register").bearer(&workspace.token).json(&body).send().await?.json(200)?;
        Ok(workspace)
    }

    /// Takes note of a workspace that a case made by itself, to be removed after it.
    pub fn made(&self, id: Uuid) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}

impl Target for Server {
    fn features(&self) -> &BTreeSet<Feature> {
        &self.features
    }

    async fn tidy(&self) -> Result<(), String> {
        // Children after their parents.
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for id in made {
            let path = format!("/workspaces/{id}?confirm=true&purge=true");
            match self.call(Method::DELETE, &path).admin().send().await {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => return Err(format!("{path}: {}", answer.status)),
                Err(verdict) => return Err(format!("{path}: {verdict:?}")),
            }
        }
        Ok(())
    }
}

impl Call<'_> {
    /// With the operator's token; the case is skipped where there is none.
    #[must_use]
    pub fn admin(mut self) -> Self {
        match &self.server.token {
            Some(token) => self.request = self.request.bearer_auth(token),
            None => self.lacks_token = true,
        }
        self
    }

    /// With this bearer.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.request = self.request.bearer_auth(token);
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// With this body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.text(body.to_string())
    }

    /// With this body, which is said to be JSON, whatever it is.
    #[must_use]
    pub fn text(self, body: impl Into<reqwest::Body>) -> Self {
        self.body("application/json", body)
    }

    /// With this body of this type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.header("content-type", content_type).body(body);
        self
    }

    /// Sends it and gives the answer with its body unread.
    pub(crate) async fn open(self) -> Result<Response, Verdict> {
        let Self { server, name, request, lacks_token } = self;
        if lacks_token {
            return Err(Verdict::Skipped("no token was given".to_owned()));
        }
        server.called.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        request.send().await.map_err(|error| Verdict::Failed(format!("{name}: {}", causes(&error.without_url()))))
    }

    /// Sends it and reads the answer.
    pub async fn send(self) -> Result<Answer, Verdict> {
        let Self { server, name, request, lacks_token } = self;
        if lacks_token {
            return Err(Verdict::Skipped("no token was given".to_owned()));
        }
        server.called.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let unanswered = |error: reqwest::Error| Verdict::Failed(format!("{name}: {}", causes(&error.without_url())));
        // Cases come faster than people; a server that limits requests is asked again when it says.
        for _ in 0..TRIES {
            let Some(again) = request.try_clone() else { break };
            let answer = answer_to(again, &name).await.map_err(&unanswered)?;
            let Some(pause) = answer.too_often() else { return Ok(answer) };
            tokio::time::sleep(pause).await;
        }
        answer_to(request, &name).await.map_err(&unanswered)
    }
}

async fn answer_to(request: RequestBuilder, name: &str) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { request: name.to_owned(), status, headers, body: response.text().await? })
}

/// The text of an error and of all that is behind it, in one line.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

impl Answer {
    /// For how long requests are refused, where that is all it says. Longer than a minute is about something else.
    fn too_often(&self) -> Option<Duration> {
        let limited = self.status == 429 && self.header("x-ratelimit-remaining") == Some("0");
        let seconds = self.header("retry-after")?.parse().ok()?;
        (limited && seconds <= 60).then_some(Duration::from_secs(seconds))
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body as it came.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The value of a header, where it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Demands the status, and a body in JSON, which it gives.
    pub fn json(&self, status: u16) -> Result<Value, Verdict> {
        if self.status != status {
            return Err(self.wrong(&format!("the status {status}")));
        }
        serde_json::from_str(&self.body).map_err(|_| self.wrong("a body in JSON"))
    }

    /// Demands the status and exactly this body.
    pub fn is(&self, status: u16, body: &Value) -> Result<(), Verdict> {
        if &self.json(status)? == body { Ok(()) } else { Err(self.wrong(&format!("the body {body}"))) }
    }

    /// Demands the status and this text as `error`; other members may say more.
    pub fn refuses(&self, status: u16, error: &str) -> Result<(), Verdict> {
        if self.json(status)?["error"] == error { Ok(()) } else { Err(self.wrong(&format!("the error {error:?}"))) }
    }

    /// Demands the status and that the body has these members with these values; it may have others.
    pub fn has(&self, status: u16, members: &Value) -> Result<Value, Verdict> {
        let body = self.json(status)?;
        for (name, value) in members.as_object().into_iter().flatten() {
            if &body[name] != value {
                return Err(self.wrong(&format!("{name}: {value}")));
            }
        }
        Ok(body)
    }

    /// The verdict that something else was `expected` of this answer.
    pub fn wrong(&self, expected: &str) -> Verdict {
        const SHOWN: usize = 300;
        // In one line, whatever came.
        let body: String = self.body.escape_debug().take(SHOWN).collect();
        Verdict::Failed(format!("{}: expected {expected}, got {} with \"{body}\"", self.request, self.status))
    }
}

/// A random id, which names no workspace.
pub(crate) fn unknown_id() -> Result<Uuid, Verdict> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Verdict::Skipped(format!("no randomness: {error}")))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
