//! Tokens of a workspace come and go over the wire.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup},
    support,
};

#[tokio::test]
async fn tokens_come_and_go() {
    come_and_go(Setup::none()).await;
}

#[tokio::test]
async fn tokens_come_and_go_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        come_and_go(Setup::none().database(Some(database.url()))).await;
    }
}

async fn call(server: &Server, method: Method, path: &str, bearer: &str) -> Reply {
    server.send(method, path, Some(bearer), "").await
}

fn text(reply: &Reply, member: &str) -> String {
    reply.json()[member].as_str().unwrap_or_else(|| panic!("no {member} in {reply:?}")).to_owned()
}

async fn come_and_go(setup: Setup) {
    let server = setup.start().await;
    let (id, first) = server.create_external("one", None).await;
    let (other_id, other) = server.create_external("two", None).await;
    let path = format!("/workspaces/{id}/tokens");

    let issued = call(&server, Method::POST, &path, &first).await;
    assert_eq!((issued.status, text(&issued, "workspace_id")), (201, id.clone()));
    assert!(!text(&issued, "message").is_empty());
    let second = text(&issued, "auth_token");
    assert_eq!(second.len(), 43);
    assert_eq!(server.beat(&id, &second).await.status, 200);
    assert_eq!(server.beat(&id, &first).await.status, 200, "the others stay good");

    let listed = call(&server, Method::GET, &path, &second).await;
    assert!(listed.status == 200 && !listed.text.contains(&second), "{listed:?}");
    let listed = listed.json();
    assert_eq!(listed["count"], 2);
    let newest = &listed["tokens"][0];
    assert_eq!(newest["prefix"], second[..8]);
    assert_eq!(newest["last_used_at"], Value::Null, "uses are saved in batches");
    assert!(newest["created_at"].as_str().is_some_and(|at| at > listed["tokens"][1]["created_at"].as_str().unwrap()));
    let page = async |query: &str| {
        let page = call(&server, Method::GET, &format!("{path}?{query}"), &first).await.json();
        let prefixes = page["tokens"].as_array().expect("an array").iter();
        prefixes.map(|token| token["prefix"].as_str().expect("it is text").to_owned()).collect::<Vec<_>>()
    };
    let (old, new) = (&first[..8], &second[..8]);
    assert_eq!(page("limit=1").await, [new]);
    assert_eq!(page("limit=1&offset=1").await, [old]);
    assert_eq!(page("offset=2").await, [] as [String; 0]);
    for odd in ["limit=0", "limit=201", "limit=-1", "limit=x", "offset=-1", "offset=x"] {
        assert_eq!(page(odd).await, [new, old], "{odd} counts as left out");
    }

    let one = format!("{path}/{}", newest["id"].as_str().unwrap());
    let elsewhere = format!("/workspaces/{other_id}/tokens/{}", newest["id"].as_str().unwrap());
    let refused = [
        (Method::POST, path.as_str(), other.as_str(), 401, "invalid workspace auth token"),
        (Method::GET, &path, &other, 401, "invalid workspace auth token"),
        (Method::DELETE, &one, &other, 401, "invalid workspace auth token"),
        (Method::DELETE, &elsewhere, &other, 404, "token not found or already revoked"),
        (Method::DELETE, &format!("{path}/7"), &first, 400, "invalid id"),
        (Method::DELETE, &format!("{path}/%20"), &first, 400, "invalid id"),
        (Method::GET, "/workspaces/7/tokens", &first, 400, "invalid workspace ID"),
        (
            Method::GET,
            "/workspaces/00000000-0000-4000-8000-000000000000/tokens",
            &server.token(),
            404,
            "workspace not found",
        ),
        (
            Method::POST,
            "/workspaces/00000000-0000-4000-8000-000000000000/tokens",
            &server.token(),
            404,
            "workspace not found",
        ),
    ];
    for (method, path, bearer, status, message) in refused {
        let reply = call(&server, method.clone(), path, bearer).await;
        assert_eq!((reply.status, reply.error().as_str()), (status, message), "{method} {path}");
        assert_tells_nothing(&server, &reply);
    }
    let without = server.send(Method::POST, &path, None, "").await;
    assert_eq!((without.status, without.error().as_str()), (401, "missing workspace auth token"));

    let revoked = call(&server, Method::DELETE, &one, &second).await;
    assert_eq!((revoked.status, revoked.json()), (200, json!({"status": "revoked"})));
    assert_eq!(server.beat(&id, &second).await.status, 401, "it is refused at once");
    assert_eq!(server.beat(&id, &first).await.status, 200, "the other one is not");
    let again = call(&server, Method::DELETE, &one, &first).await;
    assert_eq!((again.status, again.error().as_str()), (404, "token not found or already revoked"));

    let mut full = None;
    for _ in 0..50 {
        let reply = call(&server, Method::POST, &path, &first).await;
        if reply.status != 201 {
            full = Some(reply);
            break;
        }
    }
    let full = full.expect("there is a limit");
    assert_eq!((full.status, full.error().as_str()), (429, "maximum 50 active tokens per workspace"));
    assert_eq!(page("limit=200").await.len(), 50);

    assert_eq!(server.delete(&format!("/workspaces/{id}")).await.status, 200);
    for method in [Method::GET, Method::POST] {
        assert_eq!(call(&server, method, &path, &server.token()).await.status, 404);
    }
    assert!(!server.log().contains(&second), "a token is in the log");
}
