//! Images from a registry: one in this process, which the engine pulls from as from any other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use molecule_core::{
    error::ErrorKind,
    provisioner::{
        Images, LocalProvisioner,
        docker::{DockerConfig, RegistryLogin},
    },
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::bench::{Bench, on_engine, root};

const REPOSITORY: &str = "workspace-template-fresh";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A registry with one repository, whose tag `latest` can be moved.
#[derive(Debug, Default)]
struct Registry {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    /// What `latest` names.
    manifest: Mutex<Vec<u8>>,
    /// The credentials that are asked for.
    login: Option<String>,
    /// Every path that was asked for with success.
    asked: Mutex<Vec<String>>,
}

impl Registry {
    /// Begins to serve as long as the last part lives, and gives the name under which the engine finds the repository.
    async fn start(login: Option<&str>) -> (Arc<Self>, String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let login = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
        let registry = Arc::new(Self { login, ..Self::default() });
        let serving = Arc::clone(&registry);
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let registry = Arc::clone(&serving);
                connections.spawn(async move { registry.serve(stream).await });
            }
        });
        (registry, format!("localhost:{port}/{REPOSITORY}:latest"), listening)
    }

    fn keep(&self, blob: Vec<u8>) -> (String, usize) {
        let (digest, size) = (digest(&blob), blob.len());
        self.blobs.lock().unwrap().insert(digest.clone(), blob);
        (digest, size)
    }

    /// Puts another image under `latest`, and gives its digest.
    fn publish(&self, version: &str) -> String {
        let (layer, layer_size) = self.keep(root());
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Cmd": ["/workload"], "Labels": {"version": version}},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        });
        let (config, config_size) = self.keep(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config_size, "digest": config},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": layer_size, "digest": layer}],
        });
        let manifest = manifest.to_string().into_bytes();
        let name = digest(&manifest);
        *self.manifest.lock().unwrap() = manifest;
        name
    }

    fn asked_for(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }

    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut request, mut authorization) = (String::new(), None);
            if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 || line.trim().is_empty() {
                    break;
                }
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("authorization")
                {
                    authorization = Some(value.trim().to_owned());
                }
            }
            let mut words = request.split(' ');
            let (head, path) = (words.next() == Some("HEAD"), words.next().unwrap_or_default().to_owned());
            let (status, headers, body) = self.answer(&path, authorization);
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
            let body = if head { &[] } else { body.as_slice() };
            if stream.write_all(&[text.as_bytes(), body].concat()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, path: &str, authorization: Option<String>) -> (&'static str, String, Vec<u8>) {
        if self.login.is_some() && authorization != self.login {
            return ("401 Unauthorized", "www-authenticate: Basic realm=\"test\"\r\n".to_owned(), Vec::new());
        }
        self.asked.lock().unwrap().push(path.to_owned());
        let (_, last) = path.rsplit_once('/').unwrap_or_default();
        if path == "/v2/" {
            return ("200 OK", String::new(), b"{}".to_vec());
        }
        if path.contains("/manifests/") {
            let manifest = self.manifest.lock().unwrap().clone();
            let headers = format!("content-type: {MANIFEST}\r\ndocker-content-digest: {}\r\n", digest(&manifest));
            return ("200 OK", headers, manifest);
        }
        match self.blobs.lock().unwrap().get(last) {
            Some(blob) => ("200 OK", "content-type: application/octet-stream\r\n".to_owned(), blob.clone()),
            None => ("404 Not Found", String::new(), Vec::new()),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn config(bench: &Bench, reference: &str) -> DockerConfig {
    let mut config = bench.config();
    config.images.overrides.insert("fresh".to_owned(), reference.to_owned());
    bench.forget_image(reference);
    config
}

async fn version(bench: &Bench, reference: &str) -> String {
    let image = bench.docker.inspect_image(reference).await.unwrap();
    image.config.unwrap().labels.unwrap()["version"].clone()
}

#[tokio::test]
async fn a_moved_tag_is_seen_brought_and_run() {
    on_engine(async |bench| {
        let (registry, reference, _serving) = Registry::start(None).await;
        let backend = bench.connect(config(&bench, &reference)).await;
        let (one, other) = (bench.workspace(), bench.workspace());
        let first = registry.publish("1");
        assert_eq!(backend.newest("fresh").await.unwrap(), first);
        backend.start(&bench.spec(one, "fresh")).await.unwrap();
        assert_eq!(version(&bench, &reference).await, "1");
        let local = bench.runtime().await;
        backend.start(&bench.spec(other, &local)).await.unwrap();

        let second = registry.publish("2");
        assert_ne!(first, second);
        assert_eq!(backend.newest("fresh").await.unwrap(), second);
        backend.refresh("fresh").await.unwrap();
        assert_eq!(version(&bench, &reference).await, "2");
        // Only what was made of exactly this reference, though the image behind it has moved on.
        assert_eq!(backend.made_of("fresh").await.unwrap(), [one]);
        let before = bench.inspect(one).await.image;
        backend.start(&bench.spec(one, "fresh")).await.unwrap();
        assert_ne!(bench.inspect(one).await.image, before);

        // Where the registry is away, what is there will do for a start, and a refresh says that it failed.
        registry.manifest.lock().unwrap().clear();
        registry.blobs.lock().unwrap().clear();
        assert_eq!(backend.refresh("fresh").await.unwrap_err().kind(), ErrorKind::Unavailable);
        backend.start(&bench.spec(one, "fresh")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn starts_that_need_one_image_pull_it_once() {
    on_engine(async |bench| {
        let (registry, reference, _serving) = Registry::start(None).await;
        registry.publish("1");
        let backend = bench.connect(config(&bench, &reference)).await;
        let ids: Vec<_> = (0..5).map(|_| bench.workspace()).collect();
        let starts = ids.iter().map(|id| {
            let (backend, spec) = (backend.clone(), bench.spec(*id, "fresh"));
            async move { backend.start(&spec).await }
        });
        for started in join_all(starts).await {
            started.unwrap();
        }
        assert_eq!(registry.asked_for("/manifests/"), 1, "{:?}", registry.asked.lock().unwrap());
    })
    .await;
}

#[tokio::test]
async fn the_account_is_shown_to_its_registry_and_no_other() {
    on_engine(async |bench| {
        let (registry, reference, _serving) = Registry::start(Some("agent:secret")).await;
        registry.publish("1");
        let host = reference.split_once('/').unwrap().0;
        for (named, password, welcome) in
            [("localhost:1", "secret", false), (host, "wrong", false), (host, "secret", true)]
        {
            let mut config = config(&bench, &reference);
            config.registry_login = Some(RegistryLogin {
                registry: named.to_owned(),
                username: "agent".to_owned(),
                password: password.into(),
            });
            let backend = bench.connect(config).await;
            let outcome = backend.refresh("fresh").await;
            assert_eq!(outcome.is_ok(), welcome, "{named} {password}: {outcome:?}");
            assert_eq!(backend.newest("fresh").await.is_ok(), welcome, "{named} {password}");
            if let Err(error) = outcome {
                assert!(!error.message().contains(host), "which registry that is goes to the log: {}", error.message());
            }
        }
    })
    .await;
}
