//! Calls to agents on real sockets, and the messages that are kept for those without time.

#[path = "../support/agent.rs"]
mod agent;
mod delegating;
mod elsewhere;
mod files;
mod gateway;
mod live;
mod orphans;
mod patience;
mod rows;
#[path = "../support/mod.rs"]
mod support;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use chrono::DateTime;
use futures_util::future::join_all;
use molecule_core::{
    ControlPlane, Error, ErrorKind,
    a2a::{Answer, Call, QueueItem, QueueStatus},
    activity::{Activity, ActivityQuery},
    config::Config,
    delegation::Delegate,
    id::{QueueId, WorkspaceId},
    identity::{Caller, Credential, Exposure},
    net::{Policy, Resolver},
    registry::{Heartbeat, RuntimeMetadata},
    store::Store,
    testing::ManualClock,
    workspace::CreateWorkspace,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use self::agent::{Act, Agent};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone)]
struct Bench {
    control_plane: ControlPlane,
    clock: ManualClock,
}

struct Member {
    id: WorkspaceId,
    token: SecretString,
}

fn config() -> Config {
    Config {
        address_policy: Policy::Development,
        a2a_idle: Duration::from_millis(300),
        // Swept by hand where it matters.
        queue_tick: Duration::from_secs(3600),
        ..Config::default()
    }
}

impl Bench {
    async fn new() -> Self {
        Self::over(Store::connect("sqlite::memory:").await.unwrap(), config())
    }

    fn over(store: Store, config: Config) -> Self {
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        Self::at(store, config, clock)
    }

    fn at(store: Store, config: Config, clock: ManualClock) -> Self {
        let control_plane = ControlPlane::builder(store).config(config).clock(Arc::new(clock.clone())).build().unwrap();
        Self { control_plane, clock }
    }

    /// A workspace whose agent is called at `url`; without one it asks for its messages.
    async fn member(&self, name: &str, url: Option<String>) -> Member {
        let request = CreateWorkspace { name: name.to_owned(), external: true, url, ..CreateWorkspace::default() };
        let created = self.control_plane.create(request).await.unwrap();
        let member = Member { id: created.workspace.id, token: created.auth_token.unwrap() };
        self.beat(&member).await;
        member
    }

    async fn beat_with(&self, member: &Member, beat: Heartbeat) {
        let credential = self.control_plane.authenticate(Some(member.token.expose_secret())).await.unwrap();
        self.control_plane.heartbeat(member.id, &beat, credential).await.unwrap();
    }

    async fn beat(&self, member: &Member) {
        self.beat_with(member, Heartbeat::default()).await;
    }

    async fn call(&self, target: &Member, caller: Caller, body: &Value) -> Result<Answer, Error> {
        let body = Bytes::from(body.to_string());
        self.control_plane
            .call(Call { target: target.id, sender: caller.into(), body, protocol: None, deadline: None })
            .await
    }

    async fn log(&self, of: &Member) -> Vec<Activity> {
        self.control_plane.activity(of.id, &ActivityQuery::default()).await.unwrap()
    }

    /// The newest row of the log, once there are `count`.
    async fn newest(&self, of: &Member, count: usize) -> Activity {
        until("the log has so many rows", async || {
            let log = self.log(of).await;
            (log.len() == count).then(|| log[0].clone())
        })
        .await
    }

    async fn item(&self, of: &Member, id: QueueId) -> QueueItem {
        self.control_plane.queue_item(of.id, id, Credential::Operator, Exposure::Network).await.unwrap()
    }

    async fn until_item(&self, of: &Member, id: QueueId, status: QueueStatus) -> QueueItem {
        until("the message has that status", async || {
            let item = self.item(of, id).await;
            (item.status == status).then_some(item)
        })
        .await
    }

    async fn down(&self) {
        assert!(self.control_plane.shut_down(PATIENCE).await, "a task was left behind");
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looked = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| panic!("it did not happen that {what}"))
}

fn message(id: &str) -> Value {
    json!({"method": "message/send", "params": {"message": {"role": "user", "messageId": id, "content": "hi"}}})
}

fn ok() -> Act {
    Act::Answer(200, r#"{"jsonrpc":"2.0","id":1,"result":{"parts":[{"kind":"text","text":"done"}]}}"#.to_owned())
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn queue_id(answer: &Answer) -> QueueId {
    assert_eq!(answer.status, 202, "{answer:?}");
    body(answer)["queue_id"].as_str().unwrap().parse().unwrap()
}

/// The stores of a test: each of a database of its own.
#[expect(clippy::future_not_send, reason = "a test runs on one thread")]
async fn on_both<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("molecule.db").display());
    test(Store::connect(&url).await.unwrap()).await;
    if let Some(database) = support::postgres_database().await {
        let store = Store::connect(database.url()).await.unwrap();
        test(store.clone()).await;
        store.close().await;
    }
}

#[tokio::test]
async fn whatever_an_agent_does_the_caller_is_told_and_the_log_says_so() {
    let bench = Bench::new().await;
    let lost = |confirmed: bool| json!({"error": "failed to read agent response", "delivery_confirmed": confirmed});
    let long = format!(r#"{{"result":"{}"}}"#, "x".repeat(10 * 1024 * 1024));
    let redirect =
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    // What the agent does, what the caller is told, what the log says: status and error.
    let rows = [
        (
            ok(),
            200,
            json!({"jsonrpc": "2.0", "id": 1, "result": {"parts": [{"kind": "text", "text": "done"}]}}),
            "ok",
            None,
        ),
        (Act::ByteByByte(r#"{"result":"slow"}"#.to_owned()), 200, json!({"result": "slow"}), "ok", None),
        (Act::Answer(200, "<html>".to_owned()), 200, Value::Null, "ok", None),
        (Act::Answer(201, "{}".to_owned()), 201, json!({}), "ok", None),
        (
            Act::Answer(500, r#"{"error":"no model"}"#.to_owned()),
            500,
            json!({"error": "no model"}),
            "error",
            Some("no model"),
        ),
        (
            Act::Answer(404, r#"{"error":{"code":1}}"#.to_owned()),
            404,
            json!({"error": "the agent answered with status 404"}),
            "error",
            Some("the agent answered with status 404"),
        ),
        (
            Act::Answer(502, "<html>bad gateway</html>".to_owned()),
            502,
            json!({"error": "the agent answered with status 502"}),
            "error",
            Some("the agent answered with status 502"),
        ),
        (Act::Raw(redirect.to_owned()), 302, json!({"error": "the agent answered with status 302"}), "ok", None),
        (Act::CloseAfterHead(200), 502, lost(true), "ok", None),
        (Act::CloseAfterHead(500), 502, lost(false), "error", Some("failed to read agent response")),
        (Act::LieAboutLength("{}".to_owned()), 502, lost(true), "ok", None),
        (Act::Answer(200, long), 502, lost(true), "ok", None),
    ];
    for (act, status, told, logged, detail) in rows {
        let shown: String = format!("{act:?}").chars().take(60).collect();
        let agent = Agent::start([], act).await;
        let target = bench.member("target", Some(agent.url())).await;
        let answer = match bench.call(&target, Caller::Operator, &message("m")).await {
            Ok(answer) => answer,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Upstream, "{error:?}");
                let mut body = json!({"error": error.message()});
                for (name, value) in error.members() {
                    body[*name] = value.clone();
                }
                Answer { status: 502, body: body.to_string().into(), is_events: false }
            }
        };
        assert_eq!(answer.status, status, "{shown}");
        match told {
            Value::Null => assert_eq!(answer.body, "<html>"),
            told => assert_eq!(body(&answer), told, "{shown}"),
        }
        let row = bench.newest(&target, 1).await;
        assert_eq!((row.status.as_str(), row.error_detail.as_deref()), (logged, detail), "{shown}");
        assert_eq!((row.activity_type.as_str(), row.method.as_deref()), ("a2a_receive", Some("message/send")));
        assert_eq!((row.source_id, row.target_id), (None, Some(target.id)));
        assert_eq!(row.request_body.unwrap()["params"]["message"]["parts"], json!([{"kind": "text", "text": "hi"}]));
        assert_eq!(agent.seen().len(), 1, "{shown}");
    }
    let nobody = bench.member("nobody", Some("http://127.0.0.1:1/".to_owned())).await;
    let error = bench.call(&nobody, Caller::Operator, &message("m")).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Upstream, "failed to reach workspace agent"));
    let row = bench.newest(&nobody, 1).await;
    let said = "A2A request to nobody failed: failed to reach workspace agent";
    assert_eq!((row.status.as_str(), row.summary.as_deref()), ("error", Some(said)));
    bench.down().await;
}

/// Answers with what it was told to say last.
#[derive(Debug)]
struct Turned(Mutex<IpAddr>);

impl Turned {
    /// A bench for which this host is at every name, until another is.
    async fn bench() -> (Bench, Arc<Self>) {
        let names = Arc::new(Self(Mutex::new(Ipv4Addr::LOCALHOST.into())));
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
            .config(config())
            .resolver(Arc::clone(&names) as Arc<dyn Resolver>)
            .build()
            .unwrap();
        (Bench { control_plane, clock: ManualClock::default() }, names)
    }
}

impl Resolver for Turned {
    fn addresses(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::new(*self.0.lock().unwrap(), port)])
    }
}

#[tokio::test]
async fn a_name_is_looked_up_for_each_call_and_only_what_was_checked_is_called() {
    let (bench, names) = Turned::bench().await;
    let agent = Agent::start([], ok()).await;
    // No other resolver knows the name, so that whoever is called is who was found by this one.
    let url = agent.url().replace("127.0.0.1", "agent.example");
    let target = bench.member("target", Some(url)).await;
    assert_eq!(bench.call(&target, Caller::Operator, &message("one")).await.unwrap().status, 200);
    *names.0.lock().unwrap() = "169.254.169.254".parse().unwrap();
    let error = bench.call(&target, Caller::Operator, &message("two")).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Upstream, "workspace URL is not publicly routable"));
    *names.0.lock().unwrap() = Ipv4Addr::LOCALHOST.into();
    assert_eq!(bench.call(&target, Caller::Operator, &message("three")).await.unwrap().status, 200);
    assert_eq!(agent.seen().len(), 2);
    bench.down().await;
}

#[tokio::test]
async fn what_an_answer_tells_is_kept_and_its_caller_noted() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let answer = json!({"result": {
            "metadata": {"tool_trace": [{"tool": "ls"}]}, "usage": {"input_tokens": 5, "output_tokens": 7},
        }});
        let agent = Agent::start([], Act::Answer(200, answer.to_string())).await;
        let target = bench.member("target", Some(agent.url())).await;
        let caller = bench.member("caller", None).await;
        for _ in 0..2 {
            let reply = bench.call(&target, Caller::Workspace(caller.id), &message("m")).await.unwrap();
            assert_eq!(body(&reply), answer);
        }
        let row = bench.newest(&target, 2).await;
        assert_eq!((row.source_id, row.target_id), (Some(caller.id), Some(target.id)));
        assert_eq!(row.summary.as_deref(), Some("message/send → target"));
        assert_eq!((row.tool_trace, row.response_body), (Some(json!([{"tool": "ls"}])), Some(answer)));
        assert!(row.duration_ms.is_some());
        until("both answers are counted", async || {
            let usage = bench.control_plane.usage_today(target.id).await.unwrap();
            (usage.total_calls == 2).then(|| assert_eq!((usage.input_tokens, usage.output_tokens), (10, 14)))
        })
        .await;
        let row = bench.control_plane.workspace(caller.id).await.unwrap().unwrap();
        assert!(row.last_outbound_at.is_some());
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_to_an_agent_that_asks_for_its_messages_is_there_before_the_answer() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let (target, caller) = (bench.member("target", None).await, bench.member("caller", None).await);
        let answer = bench.call(&target, Caller::Workspace(caller.id), &message("m")).await.unwrap();
        let expected = json!({"status": "queued", "delivery_mode": "poll", "method": "message/send"});
        assert_eq!((answer.status, body(&answer)), (200, expected));
        let log = bench.log(&target).await;
        assert_eq!(log[0].summary.as_deref(), Some("message/send → target (queued for poll)"));
        assert_eq!((log[0].source_id, log[0].status.as_str()), (Some(caller.id), "ok"));
        assert_eq!(log[0].request_body.as_ref().unwrap()["params"]["message"]["messageId"], "m");
        assert_eq!(log[0].response_body, None);
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_busy_agent_is_given_its_messages_when_it_has_time() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([Act::Close, Act::Hang], ok()).await;
        let target = bench.member("target", Some(agent.url())).await;
        let mut told = bench.control_plane.listen();
        let first = bench.call(&target, Caller::Operator, &message("one")).await.unwrap();
        let id = queue_id(&first);
        let expected = json!({"queued": true, "queue_id": id, "queue_depth": 1,
            "message": "workspace agent busy — request queued, will dispatch when capacity available"});
        assert_eq!(body(&first), expected);
        // The same message is the one that waits, and is not sent beside it; no answer in time is busy as well.
        assert_eq!(queue_id(&bench.call(&target, Caller::Operator, &message("one")).await.unwrap()), id);
        bench.clock.advance(Duration::from_secs(1));
        let second = bench.call(&target, Caller::Operator, &message("two")).await.unwrap();
        assert_eq!(body(&second)["queue_depth"], 2);
        let row = bench.newest(&target, 2).await;
        assert_eq!((row.summary.as_deref(), row.status.as_str()), (Some("message/send → target (queued)"), "queued"));

        bench.beat_with(&target, Heartbeat { active_tasks: 1, ..Heartbeat::default() }).await;
        assert_eq!(bench.item(&target, id).await.status, QueueStatus::Queued, "it has no time");
        bench.beat(&target).await;
        for id in [id, queue_id(&second)] {
            let item = bench.until_item(&target, id, QueueStatus::Completed).await;
            assert_eq!((item.attempts, item.last_error), (1, None));
            assert_eq!(item.response_body.unwrap()["result"]["parts"][0]["text"], "done");
            assert!(item.dispatched_at.is_some() && item.completed_at.is_some());
        }
        let sent: Vec<Value> = agent.seen().iter().map(|seen| seen["params"]["message"]["messageId"].clone()).collect();
        assert_eq!(sent, ["one", "two", "one", "two"]);
        let log = bench.log(&target).await;
        assert_eq!(log.len(), 2, "an answer comes to the row of its message");
        assert!(log.iter().all(|row| row.status == "ok" && row.response_body.is_some()), "{log:?}");
        let heard = tokio::time::timeout(PATIENCE, async {
            while told.next().await.unwrap().event.kind.as_str() != "A2A_RESPONSE" {}
        });
        heard.await.expect("the canvas is told of the late answer");
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_still_busy_keeps_its_message_and_one_that_fails_is_tried_five_times() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let busy = vec![Act::Close; 8];
        let agent = Agent::start(busy, Act::Answer(500, r#"{"error":"broken"}"#.to_owned())).await;
        let target = bench.member("target", Some(agent.url())).await;
        let id = queue_id(&bench.call(&target, Caller::Operator, &message("m")).await.unwrap());
        // A few busy tries cost nothing.
        for n in 2..=8 {
            // A beat that comes while the last try ends begins no other.
            until("it was tried", async || {
                bench.beat(&target).await;
                (agent.seen().len() >= n).then_some(())
            })
            .await;
            let item = bench.until_item(&target, id, QueueStatus::Queued).await;
            assert!(item.attempts == 0 || agent.seen().len() > 8, "{item:?}");
        }
        for n in 1..=5 {
            until("it failed", async || {
                bench.beat(&target).await;
                (bench.item(&target, id).await.attempts >= n).then_some(())
            })
            .await;
        }
        let item = bench.until_item(&target, id, QueueStatus::Failed).await;
        assert_eq!((item.attempts, item.last_error.as_deref()), (5, Some("500: broken")));
        assert_eq!(agent.seen().len(), 13);
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn what_expired_or_has_no_workspace_any_more_is_dropped() {
    on_both(async |store| {
        let bench = Bench::over(store, Config { queue_tick: Duration::from_millis(20), ..config() });
        let agent = Agent::start([], Act::Close).await;
        let (one, two) = (bench.member("one", Some(agent.url())).await, bench.member("two", Some(agent.url())).await);
        let mut brief = message("brief");
        brief["params"]["expires_in_seconds"] = 60.into();
        let brief = queue_id(&bench.call(&one, Caller::Operator, &brief).await.unwrap());
        let lasting = queue_id(&bench.call(&one, Caller::Operator, &message("lasting")).await.unwrap());
        let orphan = queue_id(&bench.call(&two, Caller::Operator, &message("orphan")).await.unwrap());
        bench.clock.advance(Duration::from_secs(61));
        bench.control_plane.delete(two.id, false, false).await.unwrap();
        bench.control_plane.start();
        let dropped = bench.until_item(&one, brief, QueueStatus::Dropped).await;
        assert!(dropped.last_error.unwrap().contains("it expired"));
        bench.until_item(&two, orphan, QueueStatus::Dropped).await;
        assert_eq!(bench.item(&one, lasting).await.status, QueueStatus::Queued);
        let error = bench.call(&two, Caller::Operator, &message("late")).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "workspace not found"));

        bench.clock.advance(Duration::from_secs(3600));
        assert_eq!(bench.control_plane.drop_stale_messages(Duration::from_secs(7200), None).await.unwrap(), 0);
        assert_eq!(bench.control_plane.drop_stale_messages(Duration::from_secs(3600), Some(two.id)).await.unwrap(), 0);
        assert_eq!(bench.control_plane.drop_stale_messages(Duration::from_secs(3600), None).await.unwrap(), 1);
        let item = bench.item(&one, lasting).await;
        assert_eq!((item.status, item.last_error.as_deref()), (QueueStatus::Dropped, Some("it waited too long")));
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_keeps_messages_itself_is_sent_none_later() {
    let bench = Bench::new().await;
    let agent = Agent::start([], Act::Hang).await;
    let target = bench.member("target", Some(agent.url())).await;
    let metadata =
        RuntimeMetadata { capabilities: [("session".to_owned(), true)].into(), idle_timeout_seconds: Some(1) };
    bench.beat_with(&target, Heartbeat { runtime_metadata: Some(metadata), ..Heartbeat::default() }).await;
    until("its runtime is known", async || {
        bench.control_plane.workspace(target.id).await.unwrap().unwrap().native_session.then_some(())
    })
    .await;
    let began = std::time::Instant::now();
    let error = bench.call(&target, Caller::Operator, &message("m")).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_secs(1), "its own idle timeout counts");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.message(), "workspace agent busy — adapter handles retry (native_session)");
    let members: Vec<(&str, Value)> = error.members().to_vec();
    assert_eq!(members, [("busy", json!(true)), ("retry_after", json!(30)), ("native_session", json!(true))]);
    bench.down().await;
}

/// One replica dies with a message on its way; what it does afterwards no longer counts.
#[tokio::test]
async fn a_message_outlives_the_server_that_was_sending_it() {
    on_both(async |store| {
        let dying = Bench::over(store.clone(), Config { a2a_idle: Duration::from_secs(3600), ..config() });
        let agent = Agent::start([Act::Close, Act::Hang], ok()).await;
        let target = dying.member("target", Some(agent.url())).await;
        let id = queue_id(&dying.call(&target, Caller::Operator, &message("m")).await.unwrap());
        dying.beat(&target).await;
        dying.until_item(&target, id, QueueStatus::Dispatched).await;
        until("it is on its way", async || (agent.seen().len() == 2).then_some(())).await;

        let clock = dying.clock.clone();
        let next = Bench::at(store, Config { queue_tick: Duration::from_millis(20), ..config() }, clock.clone());
        next.control_plane.start();
        clock.advance(Duration::from_secs(119));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(next.item(&target, id).await.status, QueueStatus::Dispatched, "its sender may live");
        clock.advance(Duration::from_secs(2));
        let item = next.until_item(&target, id, QueueStatus::Queued).await;
        assert_eq!((item.attempts, item.last_error.as_deref()), (1, Some("the server died while it was sent")));
        until("it is sent again", async || {
            next.beat(&target).await;
            (next.item(&target, id).await.status == QueueStatus::Completed).then_some(())
        })
        .await;
        assert_eq!(agent.seen().len(), 3);
        next.down().await;
    })
    .await;
}

#[tokio::test]
async fn two_replicas_send_each_message_once() {
    on_both(async |store| {
        const MESSAGES: usize = 24;
        let one = Bench::over(store.clone(), config());
        let other = Bench::at(store, Config { queue_tick: Duration::from_millis(10), ..config() }, one.clock.clone());
        let agent = Agent::start(vec![Act::Close; MESSAGES], ok()).await;
        let target = one.member("target", Some(agent.url())).await;
        let calls = (0..MESSAGES)
            .map(async |n| queue_id(&one.call(&target, Caller::Operator, &message(&format!("m{n}"))).await.unwrap()));
        let ids = join_all(calls).await;
        other.control_plane.start();
        until("all are answered", async || {
            tokio::join!(one.beat(&target), other.beat(&target));
            let items = join_all(ids.iter().map(|id| one.item(&target, *id))).await;
            items.iter().all(|item| item.status == QueueStatus::Completed).then_some(())
        })
        .await;
        let mut sent: Vec<String> = agent.seen()[MESSAGES..].iter().map(|seen| seen["params"].to_string()).collect();
        sent.sort();
        sent.dedup();
        assert_eq!((sent.len(), agent.seen().len()), (MESSAGES, 2 * MESSAGES));
        one.down().await;
        other.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_thousand_messages_reach_an_agent_that_comes_back() {
    const MESSAGES: usize = 1000;
    let bench = Bench::new().await;
    let agent = Agent::start(vec![Act::Close; MESSAGES], ok()).await;
    let target = bench.member("target", Some(agent.url())).await;
    let mut last = None;
    for n in 0..MESSAGES {
        bench.clock.advance(Duration::from_millis(1));
        last = Some(queue_id(&bench.call(&target, Caller::Operator, &message(&format!("m{n}"))).await.unwrap()));
    }
    bench.beat(&target).await;
    bench.until_item(&target, last.expect("there are some"), QueueStatus::Completed).await;
    let ids =
        |seen: &[Value]| seen.iter().map(|seen| seen["params"]["message"]["messageId"].clone()).collect::<Vec<_>>();
    let seen = agent.seen();
    assert_eq!(ids(&seen[MESSAGES..]), ids(&seen[..MESSAGES]), "each once, the oldest first");
    bench.down().await;
}
