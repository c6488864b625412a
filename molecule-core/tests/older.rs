//! What earlier versions left behind is still understood: a database, the state of a client, and the answers that a server
//! gave. The recordings lie in `fixtures/wire` and stay as they are; a change of the format adds one.
#![cfg(feature = "server")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use molecule_core::{
    ControlPlane,
    agent::{AgentCard, Beat, Delivery, InboundSecret, PlatformClient, PlatformUrl, StateDir, TokenStore},
    config::Config,
    events::Which,
    http_client::Way,
    id::WorkspaceId,
    identity::Credential,
    store::Store,
    testing::ScriptedProvisioner,
    workspace::Status,
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/wire").join(name)
}

/// The id of the workspace of the recordings that is online.
fn online() -> WorkspaceId {
    WorkspaceId::from_uuid(Uuid::parse_str("00000000-0000-4000-8000-000000000002").expect("it is a UUID"))
}

#[tokio::test]
async fn a_database_of_the_first_version_still_opens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("molecule.db");
    fs::copy(recorded("molecule-0001.db"), &file).expect("the recording is there");
    let store = Store::connect(&format!("sqlite:{}", file.display())).await.expect("it is brought up to date");
    let control_plane = ControlPlane::builder(store)
        .config(Config::default())
        .local_backend(Arc::new(ScriptedProvisioner::new()))
        .build()
        .expect("it is complete");

    for (number, status) in (1..).zip(Status::ALL) {
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        let id = WorkspaceId::from_uuid(Uuid::parse_str(&id).expect("it is a UUID"));
        let workspace = control_plane.workspace(id).await.expect("it can be read").expect("it is there");
        assert_eq!((workspace.status, workspace.name), (status, format!("old {status}")));
    }
    let workspace = control_plane.workspace(online()).await.expect("it can be read").expect("it is there");
    assert_eq!(workspace.agent_card.expect("it has a card")["name"], "old");
    assert_eq!((workspace.url.as_str(), workspace.tier), ("http://127.0.0.1:9000", 2));
    let log = control_plane.event_log(Some(online()), &Which { limit: 9, ..Which::default() }).await.expect("a log");
    let kinds: Vec<&str> = log.iter().map(|event| event.event_type.as_str()).collect();
    // What no version knows any more is shown as it was.
    assert_eq!(kinds, ["CANVAS_MOVED", "WORKSPACE_ONLINE", "WORKSPACE_PROVISIONING"]);

    match control_plane.authenticate(Some("older-token-of-forty-three-characters-00000")).await {
        Ok(Credential::Workspace(owner)) => assert_eq!(owner.workspace_id, online()),
        other => panic!("the token of an older version is not taken: {other:?}"),
    }
    let revoked = control_plane.authenticate(Some("older-token-that-was-revoked-00000000000000")).await;
    assert!(!matches!(revoked, Ok(Credential::Workspace(_))), "a token that was revoked is taken: {revoked:?}");
    assert_eq!(control_plane.tokens(online(), 9, 0).await.expect("they can be listed").len(), 1);
    control_plane.delete(online(), true, true).await.expect("what is old can be removed");
    assert!(control_plane.workspace(online()).await.expect("it can be read").is_none());
}

#[test]
fn what_a_client_kept_is_still_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["auth_token", "platform_inbound_secret"] {
        fs::copy(recorded("client").join(name), folder.path().join(format!(".{name}")))
            .expect("the recording is there");
    }
    let state = StateDir::resolve(Some(folder.path()), None).expect("the folder is taken");
    let token = TokenStore::file_first(&state, None).get().expect("it can be read").expect("it is there");
    assert_eq!(token.expose_secret(), "an-older-token");
    assert!(InboundSecret::new(&state).verify(Some(b"Bearer an-older-inbound-secret")));
}

/// What a server answered, and what its client made of it.
#[derive(Deserialize)]
struct Answer {
    what: String,
    call: String,
    status: u16,
    body: Value,
    outcome: String,
    token: Option<String>,
    inbound: Option<String>,
}

/// Answers one request, and gives where it is asked.
fn answers_once(answer: &Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    let (status, body) = (answer.status, answer.body.to_string());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it is asked");
        let mut read = Vec::new();
        let mut chunk = [0; 4096];
        // Until the body is there, which is an object.
        while !read.ends_with(b"}") {
            let length = stream.read(&mut chunk).expect("it is asked");
            assert!(length > 0, "it asks to the end");
            read.extend_from_slice(&chunk[..length]);
        }
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n");
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("it listens");
    });
    url
}

#[tokio::test]
async fn answers_of_older_servers_are_still_understood() {
    let text = fs::read_to_string(recorded("answers.json")).expect("the recording is there");
    let answers: Vec<Answer> = serde_json::from_str(&text).expect("it is JSON");
    assert!(answers.len() >= 10);
    for answer in answers {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = StateDir::resolve(Some(folder.path()), None).expect("the folder is taken");
        let (tokens, inbound) = (TokenStore::file_first(&state, None), InboundSecret::new(&state));
        let platform = answers_once(&answer).parse::<PlatformUrl>().expect("it is a URL");
        let client = PlatformClient::new(platform, online(), tokens.clone(), inbound.clone(), &Way::default())
            .expect("a client");
        let card = AgentCard { name: "old".to_owned(), ..AgentCard::default() };
        let outcome = match &*answer.call {
            "register" => client.register(&card, &Delivery::Poll).await.to_string(),
            _ => client.heartbeat(&Beat::default()).await.name().to_owned(),
        };
        assert_eq!(outcome, answer.outcome, "{}", answer.what);
        if let Some(expected) = &answer.token {
            let kept = tokens.get().expect("it can be read").expect("it was kept");
            assert_eq!(kept.expose_secret(), expected, "{}", answer.what);
        }
        if let Some(expected) = &answer.inbound {
            assert!(inbound.verify(Some(format!("Bearer {expected}").as_bytes())), "{}", answer.what);
        }
    }
}
