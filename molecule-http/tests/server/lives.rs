//! One whole life, seen at what runs and not at the row alone: created, restarted, paused, resumed, hibernated, woken by a
//! message, deleted and purged.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::server::{Reply, Server, until};

/// Lives it. `running` tells which processes of the workspaces there are, `folder` where one keeps its files, and `keeps`
/// whether they stay while nothing runs: a machine that is given back takes them along.
pub(crate) async fn lived(
    server: &Server,
    running: impl Fn() -> Vec<i32> + Send + Sync,
    folder: impl Fn(&str) -> PathBuf + Send + Sync,
    keeps: bool,
) {
    let id = server.create("coder").await;
    let online = async |text: &str| {
        server.until_status(&id, "online").await;
        server.assert_answers(&id, text).await;
        let running = running();
        assert_eq!(running.len(), 1, "{running:?}");
        running[0]
    };
    let post = async |verb: &str| server.post(&format!("/workspaces/{id}/{verb}"), &json!({})).await;
    let stopped = async |status: &str, reply: Reply| {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(server.fleet().await[&id]["status"], status);
        assert_eq!((running(), server.fleet().await[&id]["url"].clone()), (Vec::new(), json!("")));
        assert!(!keeps || folder(&id).join("configs/config.yaml").is_file(), "what it keeps stays");
    };
    let first = online("good morning").await;
    assert_eq!(post("restart").await.status, 200);
    until("another one runs", async || matches!(running()[..], [one] if one != first).then_some(())).await;
    let second = online("restarted").await;
    assert_ne!(first, second);

    stopped("paused", post("pause").await).await;
    let refused = server.post(&format!("/workspaces/{id}/a2a"), &message("are you there?")).await;
    assert!(refused.status >= 400 && running().is_empty(), "a message does not resume: {refused:?}");
    let resumed = post("resume").await;
    assert_eq!(resumed.json(), json!({"status": "provisioning", "resumed_count": 1}));
    let third = online("resumed").await;
    assert_ne!(second, third);

    stopped("hibernated", post("hibernate").await).await;
    let waking = server.post(&format!("/workspaces/{id}/a2a"), &message("wake up")).await;
    assert_eq!((waking.status, &waking.json()["waking"]), (503, &json!(true)), "{waking:?}");
    assert_eq!((&waking.json()["retry_after"], &waking.headers["retry-after"]), (&json!(15), &"15".parse().unwrap()));
    let fourth = online("awake").await;
    assert_ne!(third, fourth);

    let purged = server.delete(&format!("/workspaces/{id}?purge=true")).await;
    assert_eq!((purged.status, purged.json()), (200, json!({"status": "purged", "cascade_deleted": 0})));
    assert_eq!(running(), Vec::<i32>::new());
    assert!(!folder(&id).exists());
    assert_eq!(server.get(&format!("/workspaces/{id}")).await.status, 404, "not even its row is left");
}

fn message(text: &str) -> Value {
    let message = json!({"role": "user", "parts": [{"kind": "text", "text": text}]});
    json!({"method": "message/send", "params": {"message": message}})
}
