//! Tokens of the organisation, those that tests are given, and who may look into a workspace.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::{
    refused::assert_tells_nothing,
    server::{Reply, Server, Setup},
    support,
};

#[tokio::test]
async fn tokens_of_the_organisation_come_and_go() {
    come_and_go(Setup::none()).await;
}

#[tokio::test]
async fn tokens_of_the_organisation_come_and_go_on_postgres() {
    if let Some(database) = support::postgres_database().await {
        come_and_go(Setup::none().database(Some(database.url()))).await;
    }
}

fn refuses(reply: &Reply, status: u16, message: &str) {
    assert_eq!((reply.status, reply.error().as_str()), (status, message), "{reply:?}");
}

async fn mint(server: &Server, bearer: Option<&str>, body: &str) -> Value {
    let minted = server.send(Method::POST, "/org/tokens", bearer, body.to_owned()).await;
    assert_eq!(minted.status, 200, "{minted:?}");
    minted.json()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("it is text")
}

async fn come_and_go(setup: Setup) {
    let server = setup.start().await;
    let empty = server.send(Method::GET, "/org/tokens", None, "").await;
    assert_eq!((empty.status, empty.text.as_str()), (200, r#"{"tokens":[],"count":0}"#));

    // The first one of a fresh install, which nothing was needed for, and which ends the freshness.
    let first = mint(&server, None, "").await;
    let members: Vec<&String> = first.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["auth_token", "id", "prefix", "warning"]);
    let (first_id, first) = (text(&first["id"]).to_owned(), text(&first["auth_token"]).to_owned());
    assert_eq!(first.len(), 43);
    refuses(&server.send(Method::GET, "/workspaces", None, "").await, 401, "admin auth required");

    let by_token = mint(&server, Some(&first), r#"{"name":"ci"}"#).await;
    assert_eq!((text(&by_token["name"]), text(&by_token["prefix"])), ("ci", &text(&by_token["auth_token"])[..8]));
    let second = text(&by_token["auth_token"]).to_owned();
    mint(&server, Some(&server.token()), "no json").await;
    let list = server.send(Method::GET, "/org/tokens", Some(&second), "").await;
    assert!(!list.text.contains(&second) && !list.text.contains(&first), "{list:?}");
    let list = list.json();
    assert_eq!(list["count"], 3);
    let rows = list["tokens"].as_array().expect("an array");
    let found = |prefix: &str| rows.iter().find(|row| row["prefix"] == prefix).expect("it is listed");
    assert_eq!(found(&second[..8])["created_by"], format!("org-token:{}", &first[..8]));
    assert_eq!(found(&first[..8]).get("created_by"), None);
    assert!(rows.iter().any(|row| row["created_by"] == "admin-token" && row.get("name").is_none()));
    assert!(rows.iter().all(|row| row.get("org_id").is_none() && row.get("last_used_at").is_none()));

    // It may do what the operator may, and speaks for no agent.
    let created = server
        .send(Method::POST, "/workspaces", Some(&second), json!({"name": "a", "external": true}).to_string())
        .await;
    assert_eq!(created.status, 201, "{created:?}");
    let id = text(&created.json()["id"]).to_owned();
    let tokens = format!("/workspaces/{id}/tokens");
    assert_eq!(server.send(Method::GET, &tokens, Some(&second), "").await.status, 200);
    assert_eq!(server.send(Method::GET, &format!("/events/{id}"), Some(&second), "").await.status, 200);
    refuses(&server.beat(&id, &second).await, 401, "invalid workspace auth token");

    let long = json!({"name": "x".repeat(101)}).to_string();
    let too_long = server.send(Method::POST, "/org/tokens", Some(&second), long).await;
    refuses(&too_long, 400, "name too long (max 100 chars)");
    mint(&server, Some(&second), &json!({"name": "ä".repeat(100)}).to_string()).await;
    mint(&server, Some(&second), &json!({"name": "a\0b"}).to_string()).await;

    let agent = server.create_external("b", None).await.1;
    let first_path = format!("/org/tokens/{first_id}");
    let refused = [
        (Method::GET, "/org/tokens", None, 401, "admin auth required"),
        (Method::POST, "/org/tokens", None, 401, "admin auth required"),
        (Method::GET, "/org/tokens", Some(agent.as_str()), 401, "invalid admin auth token"),
        (Method::POST, "/org/tokens", Some(&agent), 401, "invalid admin auth token"),
        (Method::DELETE, &first_path, Some(&agent), 401, "invalid admin auth token"),
        (Method::DELETE, "/org/tokens/7", Some(&second), 400, "invalid id"),
        (
            Method::DELETE,
            "/org/tokens/00000000-0000-4000-8000-000000000000",
            Some(&second),
            404,
            "token not found or already revoked",
        ),
    ];
    for (method, path, bearer, status, message) in refused {
        let reply = server.send(method, path, bearer, "").await;
        refuses(&reply, status, message);
        assert_tells_nothing(&server, &reply);
    }

    let revoked = server.send(Method::DELETE, &first_path, Some(&second), "").await;
    assert_eq!((revoked.status, revoked.json()), (200, json!({"revoked": first_id})));
    refuses(&server.send(Method::GET, "/workspaces", Some(&first), "").await, 401, "invalid admin auth token");
    refuses(&server.send(Method::GET, &tokens, Some(&first), "").await, 401, "invalid workspace auth token");
    refuses(
        &server.send(Method::DELETE, &first_path, Some(&second), "").await,
        404,
        "token not found or already revoked",
    );
    assert_eq!(server.send(Method::GET, "/workspaces", Some(&second), "").await.status, 200);

    // Five were minted, and one was too long.
    for _ in 0..4 {
        mint(&server, Some(&second), "").await;
    }
    let full = server.send(Method::POST, "/org/tokens", Some(&second), "").await;
    refuses(&full, 429, "rate limit exceeded");
    assert!(full.json()["retry_after"].as_u64().is_some_and(|seconds| (3000..=3600).contains(&seconds)), "{full:?}");
    assert_eq!(full.headers["retry-after"], full.json()["retry_after"].to_string());
    assert!(!server.log().contains(&second), "a token is in the log");
}

#[tokio::test]
async fn what_a_bound_token_mints_is_bound_alike_and_no_list_is_without_end() {
    let server = Setup::none().start().await;
    let (top, _) = server.create_external("top", None).await;
    let minted = mint(&server, Some(&server.token()), "").await;
    let file = format!("sqlite:{}", server.data().join("molecule.db").display());
    let mut beside = sqlx::SqliteConnection::connect(&file).await.unwrap();
    let top: uuid::Uuid = top.parse().unwrap();
    sqlx::query("UPDATE org_api_tokens SET org_id = $1").bind(top).execute(&mut beside).await.unwrap();
    let bound = text(&minted["auth_token"]).to_owned();
    mint(&server, Some(&bound), r#"{"name":"inherits"}"#).await;
    mint(&server, Some(&server.token()), r#"{"name":"free"}"#).await;
    let list = server.get("/org/tokens").await.json();
    let of = |name: &str| {
        let rows = list["tokens"].as_array().expect("an array");
        rows.iter().find(|row| row["name"] == name).expect("it is listed").get("org_id").cloned()
    };
    assert_eq!((of("inherits"), of("free")), (Some(json!(top)), None));

    let many = "INSERT INTO org_api_tokens (id, token_hash, prefix, name, created_at) \
                WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) \
                SELECT randomblob(16), randomblob(32), 'abcdefgh', 'many', '2020-01-01T00:00:00+00:00' FROM n";
    sqlx::query(many).execute(&mut beside).await.unwrap();
    let list = server.get("/org/tokens").await.json();
    let rows = list["tokens"].as_array().expect("an array");
    assert_eq!((rows.len(), &list["count"]), (500, &json!(500)));
    assert_eq!(rows[0]["name"], "free", "the newest come first");
}

#[tokio::test]
async fn a_database_that_is_away_is_no_wrong_token() {
    let Some(database) = support::postgres_database().await else { return };
    let server = Setup::none().database(Some(database.url())).start().await;
    drop(database);
    let unknown = "x".repeat(43);
    for (method, path) in [
        (Method::GET, "/workspaces"),
        (Method::GET, "/org/tokens"),
        (Method::GET, "/workspaces/00000000-0000-4000-8000-000000000000/tokens"),
    ] {
        let reply = server.send(method, path, Some(&unknown), "").await;
        refuses(&reply, 503, "platform datastore unavailable — retry shortly");
        assert_eq!(reply.json()["code"], "platform_unavailable");
    }
}

#[tokio::test]
async fn test_tokens_are_given_only_where_they_are_enabled() {
    let path = |id: &str| format!("/admin/workspaces/{id}/test-token");
    let unknown = "00000000-0000-4000-8000-000000000000";

    let server = Setup::none().env("MOLECULE_ENV", "staging").start().await;
    let (id, _) = server.create_external("a", None).await;
    for id in [id.as_str(), unknown, "7"] {
        refuses(&server.get(&path(id)).await, 404, "not found");
    }

    let server = Setup::none().env("MOLECULE_ENABLE_TEST_TOKENS", "1").env("ADMIN_TOKEN", "break-glass").start().await;
    let (id, agent) = server.create_external("a", None).await;
    let org = text(&mint(&server, Some("break-glass"), "").await["auth_token"]).to_owned();
    for bearer in [None, Some("wrong"), Some(agent.as_str()), Some(org.as_str())] {
        refuses(&server.send(Method::GET, &path(&id), bearer, "").await, 401, "admin auth required");
    }
    let bare = server.ask(Method::GET, &path(&id), &[("authorization", "break-glass")], "").await;
    refuses(&bare, 401, "admin auth required");
    let given = server.send(Method::GET, &path(&id), Some("break-glass"), "").await;
    assert_eq!((given.status, text(&given.json()["workspace_id"])), (200, id.as_str()));
    assert_eq!(server.beat(&id, text(&given.json()["auth_token"])).await.status, 200);
    refuses(&server.get(&path(unknown)).await, 404, "workspace not found");
    refuses(&server.get(&path("7")).await, 400, "invalid workspace ID");
    assert_eq!(server.delete(&format!("/workspaces/{id}")).await.status, 200);
    refuses(&server.get(&path(&id)).await, 404, "workspace not found");

    let server = Setup::none().env("MOLECULE_ENV", " Development ").start().await;
    let (id, _) = server.create_external("a", None).await;
    assert_eq!(server.send(Method::GET, &path(&id), None, "").await.status, 200);
    let foreign = server.ask(Method::GET, &path(&id), &[("origin", "https://evil.example")], "").await;
    refuses(&foreign, 401, "admin auth required");
}

#[tokio::test]
async fn who_says_it_is_another_workspace_sees_only_what_that_may() {
    let server = Setup::none().start().await;
    let (top, _) = server.create_external("top", None).await;
    let (one, own) = server.create_external("one", Some(&top)).await;
    let (beside, its_own) = server.create_external("beside", Some(&top)).await;
    let (elsewhere, _) = server.create_external("elsewhere", None).await;
    let (below, _) = server.create_external("below", Some(&elsewhere)).await;
    let operator = server.token();
    let org = text(&mint(&server, Some(&operator), "").await["auth_token"]).to_owned();
    let refusal = "not authorized to read this workspace's logs";
    let look = async |target: &str, bearer: &str, claimed: Option<&str>| {
        let authorization = format!("Bearer {bearer}");
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(claimed.map(|claimed| ("x-workspace-id", claimed)));
        server.ask(Method::GET, &format!("/workspaces/{target}/logs"), &headers, "").await
    };
    let unknown = "00000000-0000-4000-8000-000000000000";
    for bearer in [&operator, &org] {
        for claimed in [None, Some(" "), Some(one.as_str()), Some(&beside), Some(&top)] {
            let reply = look(&one, bearer, claimed).await;
            // There is nothing to be seen of a workspace that runs elsewhere, but the gates let it through.
            assert_eq!(reply.status, 501, "{claimed:?}: {reply:?}");
        }
        for claimed in [elsewhere.as_str(), &below, unknown, "nonsense"] {
            refuses(&look(&one, bearer, Some(claimed)).await, 403, refusal);
        }
        // Nothing is told of what is not there.
        refuses(&look(unknown, bearer, Some(&one)).await, 403, refusal);
    }
    assert_eq!(look(&one, &own, None).await.status, 501);
    assert_eq!(look(&one, &own, Some(&one)).await.status, 501);
    refuses(&look(&one, &own, Some(&beside)).await, 401, "invalid token for claimed workspace");
    refuses(&look(&one, &its_own, Some(&beside)).await, 401, "invalid workspace auth token");
}
