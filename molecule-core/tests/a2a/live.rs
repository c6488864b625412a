//! Answers that come bit by bit.

use std::sync::Arc;

use futures_util::StreamExt;
use molecule_core::{
    a2a::{Bits, Reply},
    events::EventListener,
};
use tokio::sync::Notify;

use super::*;

fn events(ends: bool, others: String) -> (Act, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let first = "data: {\"result\":{\"kind\":\"status-update\"}}\r\n\r\n".to_owned();
    (Act::Events { first, others, go_on: Arc::clone(&go_on), ends }, go_on)
}

const LAST: &str = "data: {\"result\":{\"usage\":{\"input_tokens\":2,\"output_tokens\":3}}}\n\n";

impl Bench {
    async fn stream(&self, target: &Member, caller: Caller) -> Bits {
        let body = message("m").to_string().replace("message/send", "message/stream");
        let call = Call { target: target.id, sender: caller.into(), body: body.into(), protocol: None, deadline: None };
        match self.control_plane.call_live(call).await.unwrap() {
            Reply::Live { status: 200, bits } => bits,
            other => panic!("it is not live: {other:?}"),
        }
    }
}

async fn canvas_is_told(mut told: EventListener) -> Value {
    let heard = async {
        loop {
            let heard = told.next().await.unwrap();
            if heard.event.kind.as_str() == "A2A_RESPONSE" {
                return heard.event.payload.clone();
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the canvas is told")
}

#[tokio::test]
async fn events_are_passed_on_as_they_come_and_kept_when_they_end() {
    on_both(async |store| {
        let bench = Bench::over(store, config());
        let (act, go_on) = events(true, LAST.to_owned());
        let agent = Agent::start([act], ok()).await;
        let target = bench.member("target", Some(agent.url())).await;
        let told = bench.control_plane.listen();
        let mut bits = bench.stream(&target, Caller::Operator).await;
        let first = bits.next().await.unwrap().unwrap();
        assert_eq!(first, "data: {\"result\":{\"kind\":\"status-update\"}}\r\n\r\n", "before the next is sent");
        assert_eq!(bench.log(&target).await, [], "it is not over");
        go_on.notify_one();
        assert_eq!(bits.next().await.unwrap().unwrap(), LAST);
        assert!(bits.next().await.is_none());

        let row = bench.newest(&target, 1).await;
        let said = json!([{"result": {"kind": "status-update"}},
            {"result": {"usage": {"input_tokens": 2, "output_tokens": 3}}}]);
        assert_eq!((row.status.as_str(), row.method.as_deref()), ("ok", Some("message/stream")));
        assert_eq!(row.response_body.as_ref(), Some(&said));
        let told = canvas_is_told(told).await;
        assert_eq!((&told["response_body"], &told["method"]), (&said, &json!("message/stream")));
        assert!(told["duration_ms"].is_u64() && told.as_object().map(|told| told.len()) == Some(3), "{told}");
        until("it is counted", async || {
            let usage = bench.control_plane.usage_today(target.id).await.unwrap();
            (usage.total_calls == 1).then(|| assert_eq!((usage.input_tokens, usage.output_tokens), (2, 3)))
        })
        .await;
        bench.down().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_read_to_its_end_is_kept_all_the_same() {
    let bench = Bench::new().await;
    let (act, go_on) = events(true, LAST.to_owned());
    let agent = Agent::start([act], ok()).await;
    let target = bench.member("target", Some(agent.url())).await;
    let caller = bench.member("caller", None).await;
    drop(bench.stream(&target, Caller::Workspace(caller.id)).await);
    go_on.notify_one();
    let row = bench.newest(&target, 1).await;
    assert_eq!(row.response_body.unwrap().as_array().map(Vec::len), Some(2));
    assert_eq!(row.source_id, Some(caller.id));
    bench.down().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_and_is_not_sent_again() {
    let long = format!("data: {}\n\n", "x".repeat(11 * 1024 * 1024));
    // What comes after the first event, whether the agent says that it ends, and whether it is let go on.
    for (others, ends, goes_on) in [(LAST.to_owned(), false, true), (long, true, true), (LAST.to_owned(), true, false)]
    {
        let bench = Bench::new().await;
        let (act, go_on) = events(ends, others);
        let agent = Agent::start([act], ok()).await;
        let target = bench.member("target", Some(agent.url())).await;
        let mut bits = bench.stream(&target, Caller::Operator).await;
        assert!(bits.next().await.unwrap().is_ok());
        if goes_on {
            go_on.notify_one();
        }
        let rest: Vec<_> = bits.collect().await;
        assert!(rest.last().is_some_and(Result::is_err), "{ends} {goes_on}");
        let passed: usize = rest.iter().flatten().map(Bytes::len).sum();
        assert!(passed <= 10 * 1024 * 1024, "{passed}");
        let row = bench.newest(&target, 1).await;
        assert_eq!(row.status, "ok", "it has the message");
        assert!(row.response_body.is_some());
        assert_eq!(agent.seen().len(), 1);
        bench.down().await;
    }
}

#[tokio::test]
async fn an_agent_that_goes_on_talking_is_alive() {
    let bench = Bench::new().await;
    let slow: String = (0..40).map(|n| format!("data: {n}\n\n")).collect();
    let head = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let agent = Agent::start([Act::Slowly(head.to_owned() + &slow, Duration::from_millis(20))], ok()).await;
    let target = bench.member("target", Some(agent.url())).await;
    let began = std::time::Instant::now();
    let bits: Vec<_> = bench.stream(&target, Caller::Operator).await.collect().await;
    assert!(began.elapsed() > config().a2a_idle, "longer than it may be silent");
    let whole: Vec<u8> = bits.into_iter().flat_map(|bit| bit.expect("it does not break off").to_vec()).collect();
    assert_eq!(String::from_utf8(whole).unwrap(), slow);
    bench.down().await;
}

#[tokio::test]
async fn who_waits_for_the_whole_is_given_all_events_at_once() {
    let bench = Bench::new().await;
    let (act, go_on) = events(true, LAST.to_owned());
    go_on.notify_one();
    let agent = Agent::start([act], ok()).await;
    let target = bench.member("target", Some(agent.url())).await;
    let answer = bench.call(&target, Caller::Operator, &message("m")).await.unwrap();
    assert!(answer.is_events && answer.body.ends_with(LAST.as_bytes()));
    let row = bench.newest(&target, 1).await;
    assert_eq!(row.response_body.unwrap().as_array().map(Vec::len), Some(2));
    bench.down().await;
}
