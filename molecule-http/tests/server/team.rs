//! Agents of one team that hand tasks to one another through two servers, while one of these is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    agent::{Act, Agent},
    machines::Owner,
    server::{Server, until},
    support,
};

/// How many tasks each agent has for each of the others.
const TASKS: usize = 3;

/// How often the busy agent turns a call away before it has time.
const BUSY: usize = 7;

/// How long a server may be silent about what it has under way.
const LEASE: Duration = Duration::from_secs(3);

struct Member {
    name: &'static str,
    id: String,
}

/// A task, and the delegation that stands for it now.
struct Task {
    source: String,
    target: String,
    key: String,
}

impl Task {
    /// Hands it over by whichever server answers; a repeat is the same delegation. Its id, and how far it is.
    async fn hand_over(&self, servers: [&Server; 2]) -> (String, String) {
        let body = json!({"target_id": self.target, "task": format!("do {}", self.key), "idempotency_key": self.key});
        let path = format!("/workspaces/{}/delegate", self.source);
        for server in servers.iter().cycle() {
            let request = server.client().post(format!("{}{path}", server.url())).bearer_auth(server.token());
            let request = request.header("x-molecule-org-id", "org-1").json(&body);
            let Ok(answer) = request.send().await else { continue };
            let status = answer.status().as_u16();
            let Ok(answer) = answer.json::<Value>().await else { continue };
            assert!(matches!(status, 200 | 202), "{status} {answer}");
            let text = |name: &str| answer[name].as_str().expect("it is text").to_owned();
            return (text("delegation_id"), text("status"));
        }
        unreachable!("one of them answers")
    }
}

async fn rows(server: &Server, path: &str) -> Vec<Value> {
    let rows = server.get(path).await;
    assert_eq!(rows.status, 200, "{rows:?}");
    serde_json::from_str(&rows.text).expect("it is a list")
}

/// What the log of a workspace says to have received, by the id of the message.
async fn received(server: &Server, id: &str) -> BTreeMap<String, Vec<Value>> {
    let mut received: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in rows(server, &format!("/workspaces/{id}/activity?type=a2a_receive&limit=500")).await {
        let message = row["request_body"]["params"]["message"]["messageId"].as_str().expect("it has an id").to_owned();
        received.entry(message).or_default().push(row);
    }
    received
}

#[tokio::test]
async fn a_team_hands_tasks_around_while_a_server_dies() {
    let Some(database) = support::postgres_database().await else { return };
    let owner = Owner::start();
    let setup = || {
        owner
            .server()
            .database(Some(database.url()))
            .env("MOLECULE_QUEUE_LEASE_MS", &LEASE.as_millis().to_string())
            // Nobody beats by itself but the first: the test does for the others.
            .env("REMOTE_LIVENESS_STALE_AFTER", "3600")
    };
    let mut one = setup().start().await;
    let other = setup().start().await;

    // The lead sleeps, its child asks for its messages, and below that is one that is busy.
    let lead = one.create("lead").await;
    other.until_status(&lead, "online").await;
    let (poller, poller_token) = one.create_external("poller", Some(&lead)).await;
    let mut script = vec![Act::Close; BUSY];
    script.push(Act::Hang);
    let done = r#"{"jsonrpc":"2.0","id":1,"result":{"parts":[{"kind":"text","text":"done"}]}}"#;
    let worker = Agent::start(script, Act::Answer(200, done.to_owned())).await;
    let url = worker.url().replace("127.0.0.1", "localhost");
    let body = json!({"name": "worker", "external": true, "parent_id": poller, "url": url});
    let created = other.post("/workspaces", &body).await.json();
    let (busy, busy_token) = (
        created["id"].as_str().expect("it has an id").to_owned(),
        created["connection"]["auth_token"].as_str().expect("it has a token").to_owned(),
    );
    assert_eq!(one.beat(&poller, &poller_token).await.status, 200);
    assert_eq!(other.beat(&busy, &busy_token).await.status, 200);
    assert_eq!(other.post(&format!("/workspaces/{lead}/hibernate"), &json!({})).await.status, 200);
    one.until_status(&lead, "hibernated").await;

    let members = [("lead", &lead), ("poller", &poller), ("worker", &busy)];
    let members = members.map(|(name, id)| Member { name, id: id.clone() });
    let mut tasks = Vec::new();
    for (source, target) in members.iter().flat_map(|source| members.iter().map(move |target| (source, target))) {
        for number in (0..TASKS).filter(|_| source.id != target.id) {
            let key = format!("{}-{}-{number}", source.name, target.name);
            tasks.push(Task { source: source.id.clone(), target: target.id.clone(), key });
        }
    }
    assert_eq!(tasks.len(), 6 * TASKS);

    // Half of them are under way when a server dies; the one that the worker holds is among them.
    let (first, second): (Vec<_>, Vec<_>) = tasks.iter().enumerate().partition(|(number, _)| number % 2 == 0);
    for (_, task) in &first {
        task.hand_over([&one, &other]).await;
    }
    until("the worker holds a call", async || {
        // While it is busy it says so by a closed connection; what was kept comes again with a beat.
        if worker.seen().len() <= BUSY {
            one.beat(&busy, &busy_token).await;
        }
        (worker.seen().len() > BUSY).then_some(())
    })
    .await;
    one.kill9();
    for (_, task) in &second {
        task.hand_over([&one, &other]).await;
    }
    one.start_again().await;

    // What nobody can know the end of is asked for again; all else comes to its end by itself.
    let ends = until("every task came to its end", async || {
        one.beat(&busy, &busy_token).await;
        other.beat(&busy, &busy_token).await;
        let mut ends = Vec::new();
        for task in &tasks {
            let (id, status) = task.hand_over([&other, &one]).await;
            let is_over = status == "completed" || (status == "queued" && task.target == poller);
            if !is_over {
                return None;
            }
            ends.push((task, id));
        }
        Some(ends)
    })
    .await;

    let ids: BTreeSet<&String> = ends.iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), tasks.len(), "each task is a delegation of its own");
    let mut logs = BTreeMap::new();
    for member in &members {
        logs.insert(
            &member.id,
            (
                received(&one, &member.id).await,
                rows(&other, &format!("/workspaces/{}/activity?type=delegation&limit=500", member.id)).await,
            ),
        );
    }
    for (task, id) in &ends {
        // The target has the message once, and answered it unless it asks for its messages.
        let got = &logs[&task.target].0[id];
        let answered: Vec<_> = got.iter().filter(|row| row["status"] == "ok").collect();
        assert_eq!((got.len(), answered.len()), (1, 1), "{}: {got:?}", task.key);
        assert_eq!(got[0]["response_body"].is_object(), task.target != poller, "{}: {got:?}", task.key);
        assert_eq!(got[0]["source_id"], json!(task.source));
        // The source has the request and one outcome.
        let told = |method: &str| {
            let of = |row: &&Value| {
                row["method"] == method
                    && [&row["request_body"], &row["response_body"]].iter().any(|body| body["delegation_id"] == **id)
            };
            logs[&task.source].1.iter().filter(of).map(|row| row["status"].clone()).collect::<Vec<_>>()
        };
        let end = if task.target == poller { "queued" } else { "completed" };
        assert_eq!((told("delegate"), told("delegate_result")), (vec![json!(end)], vec![json!(end)]), "{}", task.key);
    }
    // The worker was given each message once, but for those that it had turned away, and the one that it held.
    let mut given: Vec<String> =
        worker.seen()[BUSY + 1..].iter().map(|seen| seen["params"]["message"]["messageId"].to_string()).collect();
    let times = given.len();
    given.sort();
    given.dedup();
    assert_eq!(times, given.len(), "{:?}", worker.seen());
    // The poller finds its messages, page by page.
    let path = format!("/workspaces/{poller}/activity?type=a2a_receive");
    let page = other.send(Method::GET, &path, Some(&poller_token), "").await;
    assert_eq!(page.json().as_array().map(Vec::len), Some(2 * TASKS));
}
