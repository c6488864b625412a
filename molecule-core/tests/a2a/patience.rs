//! Callers that wait for less than the work lasts, messages that their agent cannot stand, and agents with time for several.

use std::sync::Arc;

use molecule_core::{registry::Register, workspace::DeliveryMode};
use serde_json::Map;
use tokio::sync::Notify;

use super::*;

const SHORT: Duration = Duration::from_millis(150);

fn done() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "result": {"parts": [{"kind": "text", "text": "done"}]}}).to_string()
}

/// An agent that answers once it is told to.
async fn slow_agent() -> (Agent, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    (Agent::start([], Act::WhenTold(Arc::clone(&go_on), done())).await, go_on)
}

fn patient() -> Config {
    Config { a2a_idle: Duration::from_secs(60), tool_patience: SHORT, ..config() }
}

impl Bench {
    async fn call_for(&self, target: &Member, id: &str, deadline: Duration) -> Result<Answer, Error> {
        let (sender, body) = (Caller::Operator.into(), Bytes::from(message(id).to_string()));
        let call = Call { target: target.id, sender, body, protocol: None, deadline: Some(Some(deadline)) };
        self.control_plane.call(call).await
    }

    async fn made(&self, request: CreateWorkspace) -> Member {
        let created = self.control_plane.create(request).await.unwrap();
        let member = Member { id: created.workspace.id, token: created.auth_token.unwrap() };
        self.beat(&member).await;
        member
    }
}

fn called_at(agent: &Agent) -> CreateWorkspace {
    let url = Some(agent.url());
    CreateWorkspace { name: "target".to_owned(), external: true, url, ..CreateWorkspace::default() }
}

#[tokio::test]
async fn a_caller_that_waits_no_longer_does_not_make_the_agent_do_it_twice() {
    on_both(async |store| {
        let bench = Bench::over(store, patient());
        let (agent, go_on) = slow_agent().await;
        let target = bench.made(called_at(&agent)).await;
        let mut told = bench.control_plane.listen();
        let id = queue_id(&bench.call_for(&target, "m", SHORT).await.unwrap());
        let item = bench.item(&target, id).await;
        assert_eq!((item.status, item.attempts), (QueueStatus::Dispatched, 1));
        // Whatever comes while it is at work brings it nothing new.
        assert_eq!(queue_id(&bench.call_for(&target, "m", SHORT).await.unwrap()), id);
        for _ in 0..3 {
            bench.beat(&target).await;
        }
        assert_eq!(bench.item(&target, id).await.status, QueueStatus::Dispatched);
        go_on.notify_one();
        let item = bench.until_item(&target, id, QueueStatus::Completed).await;
        assert_eq!(item.response_body.unwrap()["result"]["parts"][0]["text"], "done");
        let row = bench.newest(&target, 1).await;
        assert_eq!((row.status.as_str(), row.response_body.is_some()), ("ok", true));
        let heard = async { while told.next().await.unwrap().event.kind.as_str() != "A2A_RESPONSE" {} };
        tokio::time::timeout(PATIENCE, heard).await.expect("the canvas is told of the late answer");
        bench.beat(&target).await;
        assert_eq!(agent.seen().len(), 1);
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_of_another_sender_is_another_one_whatever_its_id() {
    on_both(async |store| {
        let bench = Bench::over(store, patient());
        let (agent, go_on) = slow_agent().await;
        let (source, target) = (bench.member("lead", None).await, bench.made(called_at(&agent)).await);
        let id = queue_id(&bench.call_for(&target, "m", SHORT).await.unwrap());
        let (sender, body) = (Caller::Workspace(source.id).into(), Bytes::from(message("m").to_string()));
        let call = Call { target: target.id, sender, body, protocol: None, deadline: Some(Some(SHORT)) };
        assert_eq!(bench.control_plane.call(call).await.unwrap().status, 202);
        assert_eq!(agent.seen().len(), 2);
        go_on.notify_one();
        go_on.notify_one();
        bench.until_item(&target, id, QueueStatus::Completed).await;
        until("both answers are in the log", async || {
            let log = bench.log(&target).await;
            (log.len() == 2 && log.iter().all(|row| row.response_body.is_some())).then_some(())
        })
        .await;
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn what_ends_without_an_answer_after_its_caller_left_waits_for_the_agent() {
    let bench =
        Bench::over(Store::connect("sqlite::memory:").await.unwrap(), Config { a2a_idle: SHORT * 3, ..patient() });
    let agent = Agent::start([Act::Hang], ok()).await;
    let target = bench.made(called_at(&agent)).await;
    let id = queue_id(&bench.call_for(&target, "m", SHORT).await.unwrap());
    assert_eq!(bench.item(&target, id).await.status, QueueStatus::Dispatched);
    let item = bench.until_item(&target, id, QueueStatus::Queued).await;
    assert_eq!((item.attempts, item.last_error.as_deref()), (0, Some("busy: no answer in time")));
    bench.beat(&target).await;
    bench.until_item(&target, id, QueueStatus::Completed).await;
    bench.down().await;
}

#[tokio::test]
async fn an_agent_that_keeps_messages_itself_goes_on_with_what_it_has() {
    let bench = Bench::over(Store::connect("sqlite::memory:").await.unwrap(), patient());
    let (agent, go_on) = slow_agent().await;
    let target = bench.made(called_at(&agent)).await;
    let metadata = RuntimeMetadata { capabilities: [("session".to_owned(), true)].into(), idle_timeout_seconds: None };
    bench.beat_with(&target, Heartbeat { runtime_metadata: Some(metadata), ..Heartbeat::default() }).await;
    until("its runtime is known", async || {
        bench.control_plane.workspace(target.id).await.unwrap().unwrap().native_session.then_some(())
    })
    .await;
    let error = bench.call_for(&target, "m", SHORT).await.unwrap_err();
    assert_eq!(error.message(), "workspace agent busy — adapter handles retry (native_session)");
    go_on.notify_one();
    let row = bench.newest(&target, 1).await;
    assert_eq!((row.status.as_str(), row.response_body.is_some()), ("ok", true));
    assert_eq!(agent.seen().len(), 1);
    bench.down().await;
}

#[tokio::test]
async fn a_task_given_by_a_tool_is_done_once_and_its_late_reply_is_found() {
    on_both(async |store| {
        let bench = Bench::over(store, patient());
        let (agent, go_on) = slow_agent().await;
        let (source, target) = (bench.member("lead", None).await, bench.made(called_at(&agent)).await);
        let tool = async |name: &str, arguments: Value| {
            let arguments: Map<String, Value> = serde_json::from_value(arguments).unwrap();
            bench.control_plane.call_tool(source.id, name, Some(arguments)).await.unwrap()
        };
        let said = tool("delegate_task", json!({"workspace_id": target.id, "task": "count"})).await;
        assert!(said.starts_with("Queued: ") && said.contains("Do not send it again"), "{said}");
        let (_, rest) = said.split_once("task_id ").unwrap();
        let task_id = rest.split(' ').next().unwrap();
        bench.beat(&target).await;
        go_on.notify_one();
        bench.until_delegation(&source, "completed").await;
        let status: Value =
            serde_json::from_str(&tool("check_task_status", json!({"task_id": task_id})).await).unwrap();
        assert_eq!((&status["status"], &status["result"]), (&json!("completed"), &json!("done")));
        go_on.notify_one();
        assert_eq!(tool("delegate_task", json!({"workspace_id": target.id, "task": "count"})).await, "done");
        assert_eq!(agent.seen().len(), 2, "each task once");
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_its_agent_cannot_stand_holds_up_no_other() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([Act::Close, Act::Close, Act::Close], Act::CloseOn("bad", done())).await;
        let target = bench.made(called_at(&agent)).await;
        let mut ids = Vec::new();
        for id in ["bad", "one", "two"] {
            ids.push(queue_id(&bench.call(&target, Caller::Operator, &message(id)).await.unwrap()));
            bench.clock.advance(Duration::from_secs(1));
        }
        // The first beat tries the one, the second brings the others.
        let beat_until = async |id: QueueId, status: QueueStatus| {
            until("it is settled", async || {
                bench.clock.advance(Duration::from_secs(1));
                bench.beat(&target).await;
                let item = bench.item(&target, id).await;
                (item.status == status).then_some(item)
            })
            .await
        };
        for id in &ids[1..] {
            beat_until(*id, QueueStatus::Completed).await;
        }
        assert_ne!(bench.item(&target, ids[0]).await.status, QueueStatus::Failed, "it may have been the agent");
        let given_up = beat_until(ids[0], QueueStatus::Failed).await;
        assert!(given_up.last_error.unwrap().starts_with("busy: "));
        let tries = agent.seen().iter().filter(|seen| seen["params"]["message"]["messageId"] == "bad").count();
        assert_eq!(tries, 21, "the call, and twenty more");
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_with_time_for_several_is_sent_several() {
    on_both(async |store| {
        let bench = Bench::over(store, patient());
        let go_on = Arc::new(Notify::new());
        let slow = Act::WhenTold(Arc::clone(&go_on), done());
        let agent = Agent::start(vec![Act::Close; 5], slow).await;
        let target = bench.made(CreateWorkspace { max_concurrent_tasks: 3, ..called_at(&agent) }).await;
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(queue_id(&bench.call(&target, Caller::Operator, &message(&format!("m{n}"))).await.unwrap()));
        }
        until("three are with it", async || {
            let active_tasks = i32::try_from(agent.seen().len() - 5).unwrap();
            bench.beat_with(&target, Heartbeat { active_tasks, ..Heartbeat::default() }).await;
            (active_tasks == 3).then_some(())
        })
        .await;
        bench.beat_with(&target, Heartbeat { active_tasks: 2, ..Heartbeat::default() }).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(agent.seen().len(), 8, "it has time for no more");
        until("all are answered", async || {
            go_on.notify_waiters();
            bench.beat(&target).await;
            let items = join_all(ids.iter().map(|id| bench.item(&target, *id))).await;
            items.iter().all(|item| item.status == QueueStatus::Completed).then_some(())
        })
        .await;
        assert_eq!(agent.seen().len(), 10);
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn who_has_spent_its_budget_works_off_no_queue() {
    let bench = Bench::new().await;
    let agent = Agent::start([Act::Close], ok()).await;
    let target = bench.made(called_at(&agent)).await;
    let id = queue_id(&bench.call(&target, Caller::Operator, &message("m")).await.unwrap());
    bench.control_plane.set_budget(target.id, Some(100)).await.unwrap();
    let spent = |monthly_spend| Heartbeat { monthly_spend, ..Heartbeat::default() };
    bench.clock.advance(Duration::from_secs(1));
    bench.beat_with(&target, spent(100)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.item(&target, id).await.status, QueueStatus::Queued);
    assert_eq!(agent.seen().len(), 1);
    bench.clock.advance(Duration::from_secs(1));
    bench.beat_with(&target, spent(99)).await;
    bench.until_item(&target, id, QueueStatus::Completed).await;

    // What was spent in one month is nothing to the next, also while the agent says nothing of it.
    bench.clock.advance(Duration::from_secs(1));
    bench.beat_with(&target, spent(100)).await;
    let refused = bench.call(&target, Caller::Operator, &message("n")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BudgetExceeded);
    bench.clock.advance(Duration::from_secs(31 * 24 * 3600));
    assert_eq!(bench.control_plane.budget(target.id).await.unwrap().spent, 0);
    assert_eq!(bench.call(&target, Caller::Operator, &message("n")).await.unwrap().status, 200);
    bench.beat_with(&target, spent(0)).await;
    assert_eq!(bench.control_plane.budget(target.id).await.unwrap().spent, 0);
    bench.beat_with(&target, spent(7)).await;
    bench.clock.advance(Duration::from_secs(1));
    bench.beat_with(&target, spent(0)).await;
    assert_eq!(bench.control_plane.budget(target.id).await.unwrap().spent, 7);
    bench.down().await;
}

#[tokio::test]
async fn an_agent_that_begins_to_ask_for_its_messages_finds_each_once() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let agent = Agent::start([], Act::Close).await;
        let (source, target) = (bench.member("lead", None).await, bench.made(called_at(&agent)).await);
        let id = queue_id(&bench.call(&target, Caller::Workspace(source.id), &message("m")).await.unwrap());
        let seen_before = bench.newest(&target, 1).await;
        let register = Register {
            id: target.id,
            url: String::new(),
            agent_card: json!({"name": "target"}),
            delivery_mode: Some(DeliveryMode::Poll),
        };
        let credential = bench.control_plane.authenticate(Some(target.token.expose_secret())).await.unwrap();
        bench.control_plane.register(&register, credential).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
        bench.beat(&target).await;
        let item = bench.until_item(&target, id, QueueStatus::Completed).await;
        assert_eq!(item.response_body.unwrap()["delivery_mode"], "poll");
        let row = bench.newest(&target, 1).await;
        assert_eq!(row.summary.as_deref(), Some("message/send → target (queued for poll)"));
        assert_eq!((row.status.as_str(), row.response_body), ("ok", None));
        assert!(row.created_at > seen_before.created_at, "whoever reads on finds it");

        // Sent again, because an answer was lost, it is there once; something else by that id is something else.
        for _ in 0..3 {
            bench.call(&target, Caller::Workspace(source.id), &message("again")).await.unwrap();
        }
        assert_eq!(bench.log(&target).await.len(), 2);
        let mut other = message("again");
        other["params"]["message"]["content"] = "something else".into();
        bench.call(&target, Caller::Workspace(source.id), &other).await.unwrap();
        bench.call(&target, Caller::Operator, &message("again")).await.unwrap();
        assert_eq!(bench.log(&target).await.len(), 4);
        bench.clock.advance(Duration::from_secs(11 * 60));
        bench.call(&target, Caller::Workspace(source.id), &message("again")).await.unwrap();
        assert_eq!(bench.log(&target).await.len(), 5, "so much later it is meant");
        bench.down().await;
    })
    .await;
}
