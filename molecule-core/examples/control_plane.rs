//! A complete small control plane: it owns machines, and serves the API that `molecule serve --provisioner
//! control-plane` calls (`docs/control-plane-api.md`). A machine is whatever a backend of the library starts: a
//! container, or a child process.
//!
//! ```text
//! control_plane --docker
//! control_plane --process DATA_FOLDER PROGRAM [ARGUMENT...]
//! ```
//!
//! It listens on a free port of 127.0.0.1 and prints where. `DOCKER_HOST` is the engine of its containers; without it, the
//! one of this host. `CP_SECRET` is the bearer that it asks for; without it, none.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it is a program of its own")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    env,
    error::Error as StdError,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use molecule_core::{
    clock::{SystemEntropy, random_uuid},
    id::WorkspaceId,
    provisioner::{
        LocalProvisioner, StartSpec, Workload, WorkloadInspector,
        docker::{DockerConfig, DockerProvisioner},
        process::{DEFAULT_STOP_GRACE, ProcessConfig, ProcessProvisioner},
    },
    workspace::Access,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The most that a request may hold.
const BODY_LIMIT: usize = 1024 * 1024;

/// How many lines of a console are shown.
const CONSOLE_LINES: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let fleet = Arc::new(Fleet::from_arguments(env::args().skip(1).collect()).await?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let fleet = Arc::clone(&fleet);
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let fleet = Arc::clone(&fleet);
                async move { Ok::<_, Infallible>(fleet.answer(request).await) }
            });
            // A caller that hangs up in between is no failure of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// The machines, and the backend that they run on.
struct Fleet {
    provisioner: Arc<dyn LocalProvisioner>,
    inspector: Arc<dyn WorkloadInspector>,
    secret: Option<String>,
    /// Which instance each workspace has now. An older one was replaced by it, and is gone.
    instances: Mutex<BTreeMap<WorkspaceId, String>>,
}

#[derive(Deserialize)]
struct Provision {
    org_id: String,
    workspace_id: WorkspaceId,
    runtime: String,
    tier: i32,
    platform_url: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

type Answer = (StatusCode, Value);

impl Fleet {
    async fn from_arguments(arguments: Vec<String>) -> Result<Self, Box<dyn StdError>> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (provisioner, inspector): (Arc<dyn LocalProvisioner>, Arc<dyn WorkloadInspector>) = match arguments[..] {
            ["--docker"] => {
                let config = DockerConfig { docker_host: env::var("DOCKER_HOST").ok(), ..DockerConfig::default() };
                let backend = Arc::new(DockerProvisioner::connect(config).await?);
                (backend.clone(), backend)
            }
            ["--process", root, command, ref args @ ..] => {
                let backend = Arc::new(ProcessProvisioner::new(ProcessConfig {
                    root: PathBuf::from(root),
                    command: PathBuf::from(command),
                    args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                    inherit: env::var("PATH").map(|path| ("PATH".to_owned(), path)).into_iter().collect(),
                    open_files: None,
                    stop_grace: DEFAULT_STOP_GRACE,
                })?);
                (backend.clone(), backend)
            }
            _ => return Err("usage: control_plane --docker | --process DATA_FOLDER PROGRAM [ARGUMENT...]".into()),
        };
        Ok(Self { provisioner, inspector, secret: env::var("CP_SECRET").ok(), instances: Mutex::default() })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = self.route(request).await.unwrap_or_else(|refusal| refusal);
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("it is a header"));
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Answer> {
        if let Some(secret) = &self.secret
            && request.headers().get(AUTHORIZATION).is_none_or(|value| value != &format!("Bearer {secret}"))
        {
            return Err(refusal(StatusCode::UNAUTHORIZED, "unauthorized"));
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (&method, &parts[..]) {
            (&Method::POST, ["cp", "workspaces", "provision"]) => {
                let body = Limited::new(request.into_body(), BODY_LIMIT).collect().await;
                let body = body.map_err(|error| refusal(StatusCode::BAD_REQUEST, error))?.to_bytes();
                let asked = serde_json::from_slice(&body).map_err(|error| refusal(StatusCode::BAD_REQUEST, error))?;
                self.provision(asked).await
            }
            (&Method::DELETE, ["cp", "workspaces", id]) => self.stop(parse(id)?, &named_instance(&request)).await,
            (&Method::GET, ["cp", "workspaces", id, "status"]) => {
                self.status(parse(id)?, &named_instance(&request)).await
            }
            (&Method::GET, ["cp", "admin", "workspaces", id, "console"]) => self.console(parse(id)?).await,
            _ => Err(refusal(StatusCode::NOT_FOUND, "not found")),
        }
    }

    async fn provision(&self, asked: Provision) -> Result<Answer, Answer> {
        let id = asked.workspace_id;
        let spec = StartSpec {
            workspace_id: id,
            name: format!("{}/{id}", asked.org_id),
            runtime: asked.runtime,
            tier: asked.tier,
            env: asked.env,
            files: Vec::new(),
            workspace_dir: None,
            access: Access::None,
            platform_url: asked.platform_url,
            reset_session: false,
            command: Default::default(),
        };
        let url = self.provisioner.start(&spec).await.map_err(|error| refusal(StatusCode::BAD_GATEWAY, error))?;
        let instance_id = format!("i-{}", random_uuid(&SystemEntropy).simple());
        self.instances.lock().expect("nobody panics with it").insert(id, instance_id.clone());
        let address = url.and_then(|url| url::Url::parse(&url).ok()?.host_str().map(str::to_owned));
        Ok((
            StatusCode::CREATED,
            json!({"instance_id": instance_id, "private_ip": address.unwrap_or_default(), "state": "running"}),
        ))
    }

    /// Gives a machine back. One that is not there, or not there any more, is given back already.
    async fn stop(&self, id: WorkspaceId, instance: &str) -> Result<Answer, Answer> {
        if self.is_current(id, instance) {
            let stopped = async {
                self.provisioner.stop(id).await?;
                self.provisioner.purge_volumes(id).await
            };
            stopped.await.map_err(|error| refusal(StatusCode::BAD_GATEWAY, error))?;
            self.instances.lock().expect("nobody panics with it").remove(&id);
        }
        Ok((StatusCode::NO_CONTENT, Value::Null))
    }

    async fn status(&self, id: WorkspaceId, instance: &str) -> Result<Answer, Answer> {
        let state = match self.inspector.observe(id).await {
            Ok(Workload::Running) if self.is_current(id, instance) => "running",
            Ok(_) => "terminated",
            Err(error) => return Err(refusal(StatusCode::BAD_GATEWAY, error)),
        };
        Ok((StatusCode::OK, json!({"state": state})))
    }

    async fn console(&self, id: WorkspaceId) -> Result<Answer, Answer> {
        let log = self.inspector.logs(id, CONSOLE_LINES).await;
        let log = log.map_err(|error| refusal(StatusCode::NOT_FOUND, error))?;
        Ok((StatusCode::OK, json!({"output": String::from_utf8_lossy(&log)})))
    }

    fn is_current(&self, id: WorkspaceId, instance: &str) -> bool {
        self.instances.lock().expect("nobody panics with it").get(&id).is_some_and(|current| current == instance)
    }
}

fn refusal(status: StatusCode, why: impl ToString) -> Answer {
    (status, json!({"error": why.to_string()}))
}

fn parse(id: &str) -> Result<WorkspaceId, Answer> {
    id.parse().map_err(|_| refusal(StatusCode::BAD_REQUEST, "invalid workspace ID"))
}

fn named_instance(request: &Request<Incoming>) -> String {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    url::form_urlencoded::parse(query)
        .find(|(name, _)| name == "instance_id")
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
