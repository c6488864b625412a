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
    /// What the case under way made, each as the path that it is deleted at.
    made: Mutex<Vec<String>>,
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
    /// The server at `base_url`, with every feature but that it is an organisation's. `token` is the operator's, sent by the cases that need to be let in
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
        let features = Feature::ALL.iter().copied().filter(|feature| *feature != Feature::Organisation).collect();
        let (made, called) = Default::default();
        Ok(Self { client, base_url, token, organisation: None, features, made, called })
    }

    /// The same server, which is that of an organisation: every request names it.
    #[must_use]
    pub fn of_organisation(mut self, id: impl Into<String>) -> Self {
        self.organisation = Some(id.into());
        self.features.insert(Feature::Organisation);
        self
    }

    /// The same server, which has only these features.
    #[must_use]
    pub fn with_features(mut self, features: impl IntoIterator<Item = Feature>) -> Self {
        self.features = features.into_iter().collect();
        self
    }

    /// Whether every request names an organisation.
    pub(crate) fn is_of_an_organisation(&self) -> bool {
        self.organisation.is_some()
    }

    /// The organisation that requests name.
    pub(crate) fn organisation(&self) -> Result<&str, Verdict> {
        let none = || Verdict::Unsupported("no organisation was named".to_owned());
        self.organisation.as_deref().ok_or_else(none)
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
        let call = self.stray(method, path);
        match &self.organisation {
            Some(id) => call.header("x-molecule-org-id", id),
            None => call,
        }
    }

    /// The same, which names no organisation.
    pub(crate) fn stray(&self, method: Method, path: &str) -> Call<'_> {
        let name = format!("{method} {path}");
        let request = self.client.request(method, format!("{}{path}", self.base_url));
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

    /// The workspace as the fleet of the operator shows it; none where it does not.
    pub(crate) async fn row(&self, id: Uuid) -> Result<Option<Value>, Verdict> {
        let answer = self.get_as_admin("/workspaces").await?;
        let Value::Array(fleet) = answer.json(200)? else { return Err(answer.wrong("an array")) };
        Ok(fleet.into_iter().find(|row| row["id"] == id.to_string()))
    }

    /// All that is kept of a workspace that an operator can see: its row but for when it was heard, and its log.
    pub(crate) async fn kept(&self, id: Uuid) -> Result<Value, Verdict> {
        let mut row = self.row(id).await?.unwrap_or_default();
        if let Some(row) = row.as_object_mut() {
            row.retain(|member, _| !member.ends_with("_at") && member != "uptime_seconds");
        }
        let log = self.get_as_admin(&format!("/events/{id}")).await?.json(200)?;
        Ok(json!({"row": row, "log": log}))
    }

    /// Takes note of what a request made or took away, to be taken back after the case whatever comes of it.
    fn note(&self, request: &str, answer: &Answer) {
        if !(200..300).contains(&answer.status) {
            return;
        }
        let Some((method, path)) = request.split_once(' ') else { return };
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |member: &str| body[member].as_str().unwrap_or_default();
        match (method, path) {
            ("POST", "/workspaces") => made.push(format!("/workspaces/{}?confirm=true&purge=true", named("id"))),
            ("POST", "/org/tokens") => made.push(format!("/org/tokens/{}", named("id"))),
            ("POST" | "PUT", "/settings/secrets" | "/admin/secrets") => {
                made.push(format!("/settings/secrets/{}", named("key")));
            }
            ("DELETE", path) => made.retain(|made| *made != path.replace("/admin/secrets/", "/settings/secrets/")),
            _ => {}
        }
    }

    /// Deletes what is at `path`, if it is still there.
    async fn take_back(&self, path: &str) -> Result<(), String> {
        match self.call(Method::DELETE, path).admin().send().await {
            Ok(answer) if matches!(answer.status, 200 | 404) => Ok(()),
            Ok(answer) => Err(format!("{path}: {}", answer.status)),
            Err(verdict) => Err(format!("{path}: {}", verdict.into_reason())),
        }
    }
}

impl Target for Server {
    fn features(&self) -> &BTreeSet<Feature> {
        &self.features
    }

    async fn tidy(&self) -> Result<(), String> {
        // Children after their parents.
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let mut left = Vec::new();
        for path in made {
            // What hinders one is perhaps gone by now, and never hinders the rest.
            if self.take_back(&path).await.is_err() {
                left.extend(self.take_back(&path).await.err());
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
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
            let Some(pause) = answer.too_often() else {
                server.note(&name, &answer);
                return Ok(answer);
            };
            tokio::time::sleep(pause).await;
        }
        let answer = answer_to(request, &name).await.map_err(&unanswered)?;
        server.note(&name, &answer);
        Ok(answer)
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;

    /// A server that makes workspaces 1, 2, 3… and a secret, and does not get rid of the second; and what it was asked.
    async fn stubborn() -> (Server, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::new(&format!("http://{}", listener.local_addr().unwrap()), Some("t".into())).unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&asked);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut made = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                let line = String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned();
                let (status, body) = if line.starts_with("POST /workspaces ") {
                    made += 1;
                    (201, json!({"id": Uuid::from_u128(made), "connection": {"auth_token": "t"}}))
                } else if line.starts_with("POST /settings/secrets ") {
                    (200, json!({"key": "K"}))
                } else if line.contains(&Uuid::from_u128(2).to_string()) {
                    (500, json!({}))
                } else if line.contains(&Uuid::from_u128(3).to_string()) {
                    (404, json!({}))
                } else {
                    (200, json!({}))
                };
                heard.lock().unwrap().push(line);
                let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: ");
                let answer = format!("{head}{}\r\n\r\n{body}", body.to_string().len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (server, asked, serving)
    }

    #[tokio::test]
    async fn tidying_goes_on_after_what_stays_and_tells_of_it() {
        let (server, asked, _serving) = stubborn().await;
        for name in ["one", "two", "three", "four"] {
            server.external(name, &Value::Null).await.unwrap();
        }
        server.post_as_admin("/settings/secrets", &json!({"key": "K", "value": "v"})).await.unwrap();
        // What the case deleted by itself is not deleted again.
        let gone = format!("/workspaces/{}?confirm=true&purge=true", Uuid::from_u128(4));
        server.call(Method::DELETE, &gone).admin().send().await.unwrap();
        asked.lock().unwrap().clear();
        let left = server.tidy().await.unwrap_err();
        assert_eq!(left, format!("/workspaces/{}?confirm=true&purge=true: 500", Uuid::from_u128(2)));
        let deletes = |what: &str| asked.lock().unwrap().iter().filter(|line| line.contains(what)).count();
        let tries = [1, 2, 3, 4].map(|n| deletes(&Uuid::from_u128(n).to_string()));
        assert_eq!((tries, deletes("DELETE /settings/secrets/K ")), ([1, 2, 1, 0], 1));
        // The next case is not blamed for it.
        server.tidy().await.unwrap();
    }
}
