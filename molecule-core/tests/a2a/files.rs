//! Files to and from an agent whose secret is another than this control plane remembers.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use molecule_core::{files::Upload, secrets::Cipher};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::*;

/// The secret that the agent takes, and how many requests it refused and took.
#[derive(Debug, Default)]
struct Door {
    secret: String,
    refused: usize,
    taken: Vec<usize>,
}

/// An agent that takes files from whoever presents its secret; gone with the value.
async fn door() -> (String, Arc<Mutex<Door>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let door = Arc::new(Mutex::new(Door::default()));
    let seen = Arc::clone(&door);
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let (head, length) = loop {
                let mut chunk = [0; 8192];
                let Ok(count @ 1..) = stream.read(&mut chunk).await else { return };
                bytes.extend_from_slice(&chunk[..count]);
                let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                bytes.drain(..end + 4);
                break (head, length.unwrap_or(0));
            };
            let is_known = head.contains(&format!("bearer {}", seen.lock().unwrap().secret).to_lowercase());
            if !is_known {
                seen.lock().unwrap().refused += 1;
                drop(stream.write_all(b"HTTP/1.1 401 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await);
                continue;
            }
            while bytes.len() < length {
                let mut chunk = [0; 8192];
                let Ok(count @ 1..) = stream.read(&mut chunk).await else { return };
                bytes.extend_from_slice(&chunk[..count]);
            }
            seen.lock().unwrap().taken.push(bytes.len());
            drop(stream.write_all(b"HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").await);
        }
    });
    (url, door, server)
}

fn form(size: usize) -> Upload {
    let body = stream::iter([Ok(Bytes::from(vec![7; size]))]).boxed();
    Upload { content_type: Some("multipart/form-data; boundary=x".to_owned()), content_length: Some(size as u64), body }
}

#[tokio::test]
async fn files_reach_an_agent_whose_secret_was_changed_elsewhere_and_no_other_secret_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("molecule.db").display());
    let bench = Bench::over(Store::connect(&url).await.unwrap(), config());
    // Another server on the same database: what it remembers is its own.
    let other = Bench::over(Store::connect(&url).await.unwrap(), config());
    let (address, door, _server) = door().await;
    let target = bench.member("target", Some(address)).await;
    let (one, another) = (&bench.control_plane, bench.member("another", None).await);
    let kept = async |of: &Member| one.inbound_secret(of.id).await.unwrap().secret.expose_secret().to_owned();
    let (first, foreign) = (kept(&target).await, kept(&another).await);
    door.lock().unwrap().secret = first.clone();
    assert_eq!(one.upload(target.id, form(10)).await.unwrap().status, 200);

    for id in [target.id, another.id] {
        let changed = other.control_plane.rotate_inbound_secret(id).await.unwrap();
        if id == target.id {
            door.lock().unwrap().secret = changed.expose_secret().to_owned();
        }
    }
    assert_eq!(kept(&target).await, first, "it is remembered");
    assert_eq!(one.upload(target.id, form(20)).await.unwrap().status, 200, "it is sent with the new one");
    assert_eq!(one.download(target.id, "/workspace/a").await.unwrap().status, 200);
    {
        let door = door.lock().unwrap();
        assert_eq!((door.refused, door.taken.as_slice()), (1, [10, 20, 0].as_slice()));
    }
    assert_eq!(kept(&another).await, foreign, "one agent makes nobody forget the secret of another");

    // What is too long to be kept is for its sender to send again.
    let changed = other.control_plane.rotate_inbound_secret(target.id).await.unwrap();
    door.lock().unwrap().secret = changed.expose_secret().to_owned();
    let long = 2 * 1024 * 1024;
    let refused = one.upload(target.id, form(long)).await;
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Upstream) || door.lock().unwrap().refused == 2);
    until("it is sent with the new one", async || {
        one.upload(target.id, form(long)).await.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
    bench.down().await;
    other.down().await;
}

#[tokio::test]
async fn a_workspace_that_does_not_know_its_secret_yet_is_waited_for() {
    let store = Store::connect("sqlite::memory:").await.unwrap();
    let bench = Bench::over(store.clone(), config());
    let (address, _door, _server) = door().await;
    let target = bench.made_without_a_beat(address).await;
    let error = bench.control_plane.download(target, "/workspace/a").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Unavailable, "workspace re-registering — please retry in 30 seconds",)
    );
    let members: Vec<&str> = error.members().iter().map(|(name, _)| *name).collect();
    assert_eq!(members, ["detail", "retry_after_seconds"]);

    // A server with another key cannot read what this one keeps.
    let [ours, theirs] = ["k", "o"].map(|letter| Cipher::new(&SecretString::from(letter.repeat(32)), &[]).unwrap());
    let sealing = ControlPlane::builder(store.clone()).config(config()).cipher(ours).build().unwrap();
    sealing.rotate_inbound_secret(target).await.unwrap();
    let strange = ControlPlane::builder(store).config(config()).cipher(theirs).build().unwrap();
    strange.forget_inbound_secrets();
    for operation in ["upload", "download"] {
        let error = match operation {
            "upload" => strange.upload(target, form(1)).await.unwrap_err(),
            _ => strange.download(target, "/workspace/a").await.unwrap_err(),
        };
        let text = format!("workspace not yet enrolled in v2 {operation} (RFC #2312)");
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, text.as_str()));
    }
    bench.down().await;
}

impl Bench {
    async fn made_without_a_beat(&self, url: String) -> WorkspaceId {
        let request =
            CreateWorkspace { name: "new".to_owned(), external: true, url: Some(url), ..CreateWorkspace::default() };
        self.control_plane.create(request).await.unwrap().workspace.id
    }
}

#[tokio::test]
async fn files_go_to_no_address_that_may_not_be_called() {
    let (bench, names) = Turned::bench().await;
    let (address, door, _server) = door().await;
    let target = bench.member("target", Some(address.replace("127.0.0.1", "agent.example"))).await;
    let secret = bench.control_plane.inbound_secret(target.id).await.unwrap().secret;
    door.lock().unwrap().secret = secret.expose_secret().to_owned();
    assert_eq!(bench.control_plane.download(target.id, "/workspace/a").await.unwrap().status, 200);
    // Another address of the same agent, which would answer.
    *names.0.lock().unwrap() = Ipv4Addr::UNSPECIFIED.into();
    let error = bench.control_plane.download(target.id, "/workspace/a").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Upstream, "workspace unreachable"));
    {
        let door = door.lock().unwrap();
        assert_eq!((door.taken.len(), door.refused), (1, 0));
    }
    bench.down().await;
}
