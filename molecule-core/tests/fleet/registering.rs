//! What agents say about themselves, and who is believed.

use molecule_core::{
    ErrorKind,
    config::Config,
    id::WorkspaceId,
    identity::Credential,
    net::Policy,
    registry::Register,
    testing::Operation,
    workspace::{CreateWorkspace, Status},
};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::fleet::Fleet;

#[tokio::test]
async fn nobody_takes_the_first_token_of_a_workspace_that_a_backend_brings_up() {
    let fleet = Fleet::new().await;
    let release = fleet.backend.when(Operation::Stop).hang_until_released();
    let id = fleet.create("a").await;
    let register = Register { id, url: String::new(), agent_card: json!({}), delivery_mode: None };
    let error = fleet.control_plane.register(&register, Credential::Absent).await.unwrap_err();
    assert_eq!(error.message(), "missing workspace auth token");
    release.release();
    fleet.come_online(id).await;
    fleet.down().await;
}

#[tokio::test]
async fn a_card_names_no_address_that_must_not_be_called() {
    let fleet = Fleet::new().await;
    let (id, token) = fleet.create_external("e").await;
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    let card = json!({"url": "http://169.254.169.254/latest"});
    let error = fleet.control_plane.update_card(id, &card, credential).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidInput, "workspace agent_card URL not allowed"));
    assert_eq!(fleet.row(id).await.agent_card, None);
    fleet.down().await;
}

#[tokio::test]
async fn the_card_of_a_managed_agent_names_nothing_odd() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let credential = fleet.control_plane.authenticate(Some(fleet.token(id).expose_secret())).await.unwrap();
    for url in ["http://169.254.169.254/latest", "ftp://ws-a/", "http://[fe80::1]/"] {
        let card = json!({"url": url});
        let register = Register { id, url: String::new(), agent_card: card.clone(), delivery_mode: None };
        let refused = [
            fleet.control_plane.register(&register, credential).await.unwrap_err(),
            fleet.control_plane.update_card(id, &card, credential).await.unwrap_err(),
        ];
        for error in refused {
            let expected = (ErrorKind::InvalidInput, "workspace agent_card URL not allowed");
            assert_eq!((error.kind(), error.message()), expected, "{url}");
        }
    }
    for url in ["http://ws-a:8000", "http://127.0.0.1:8000", "http://0.0.0.0:8000/"] {
        fleet.control_plane.update_card(id, &json!({"url": url}), credential).await.unwrap();
    }
    fleet.down().await;
}

#[tokio::test]
async fn an_external_agent_registers_with_its_own_token_alone() {
    let fleet = Fleet::new().await;
    let (id, token) = fleet.create_external("e").await;
    let (_, other) = fleet.create_external("o").await;
    let register = Register { id, url: "http://8.8.8.8/".to_owned(), agent_card: json!({}), delivery_mode: None };
    for (bearer, said) in [
        (None, "missing workspace auth token"),
        (Some(other.expose_secret()), "invalid workspace auth token"),
        (Some("nonsense"), "invalid workspace auth token"),
    ] {
        let credential = fleet.control_plane.authenticate(bearer).await.unwrap();
        let error = fleet.control_plane.register(&register, credential).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unauthenticated, said));
    }
    assert_eq!(fleet.row(id).await.status, Status::AwaitingAgent);
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    let registered = fleet.control_plane.register(&register, credential).await.unwrap();
    assert!(registered.auth_token.is_none(), "who has a token is given no other");
    assert_eq!(fleet.row(id).await.status, Status::Online);
    fleet.down().await;
}

#[tokio::test]
async fn an_unknown_workspace_cannot_register_itself_into_the_fleet() {
    let fleet = Fleet::new().await;
    let id: WorkspaceId = "6f9619ff-8b86-4011-b42d-00cf4fc964ff".parse().unwrap();
    let register = Register { id, url: String::new(), agent_card: json!({}), delivery_mode: None };
    let error = fleet.control_plane.register(&register, Credential::Absent).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "workspace not found"));
    assert!(fleet.control_plane.workspaces().await.unwrap().is_empty());
    fleet.down().await;
}

#[tokio::test]
async fn an_address_of_this_host_that_is_kept_is_not_replaced() {
    let fleet = Fleet::with(Config { address_policy: Policy::Development, ..Config::default() }).await;
    let kept = "http://127.0.0.1:9000/";
    let request = CreateWorkspace {
        name: "e".to_owned(),
        external: true,
        url: Some(kept.to_owned()),
        ..CreateWorkspace::default()
    };
    let created = fleet.control_plane.create(request).await.unwrap();
    let (id, token) = (created.workspace.id, created.auth_token.unwrap());
    let credential = fleet.control_plane.authenticate(Some(token.expose_secret())).await.unwrap();
    let register = Register { id, url: "http://8.8.8.8/".to_owned(), agent_card: json!({}), delivery_mode: None };
    fleet.control_plane.register(&register, credential).await.unwrap();
    assert_eq!(fleet.row(id).await.url, kept);
    let (kind, payload) = fleet.told(id).await.pop().unwrap();
    assert_eq!((kind.as_str(), &payload["url"]), ("WORKSPACE_ONLINE", &json!(kept)));
    fleet.down().await;
}

#[tokio::test]
async fn the_word_of_a_managed_agent_never_replaces_the_address_its_backend_assigned() {
    let fleet = Fleet::new().await;
    let id = fleet.create("a").await;
    fleet.come_online(id).await;
    let assigned = fleet.row(id).await.url;
    let credential = fleet.control_plane.authenticate(Some(fleet.token(id).expose_secret())).await.unwrap();
    let register =
        Register { id, url: "http://169.254.169.254/".to_owned(), agent_card: json!({}), delivery_mode: None };
    fleet.control_plane.register(&register, credential).await.unwrap();
    assert_eq!(fleet.row(id).await.url, assigned);
    fleet.down().await;
}
