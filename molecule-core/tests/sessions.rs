//! How long the word of a control plane that signs people in is taken.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::DateTime;
use futures_util::future::join_all;
use molecule_core::{
    ControlPlane, ErrorKind,
    config::Config,
    identity::{Credential, SessionSource},
    store::Store,
    testing::ManualClock,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

/// Says of the cookie `yes` that it is a member's, and of others that they are not.
async fn upstream(listener: TcpListener, asked: Arc<AtomicUsize>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        asked.fetch_add(1, Ordering::SeqCst);
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap_or_default();
        let member = String::from_utf8_lossy(&request[..length]).contains("cookie: yes\r\n");
        let body = format!(r#"{{"member":{member},"user_id":"u"}}"#);
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

struct Bench {
    control_plane: ControlPlane,
    clock: ManualClock,
    asked: Arc<AtomicUsize>,
    task: JoinSet<()>,
}

impl Bench {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream_url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<AtomicUsize>::default();
        let mut task = JoinSet::new();
        task.spawn(upstream(listener, Arc::clone(&asked)));
        let source = SessionSource { upstream_url, org_slug: "acme".to_owned(), cookie_name: None };
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let control_plane = ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap())
            .config(Config { sessions: Some(source), ..Config::default() })
            .clock(Arc::new(clock.clone()))
            .build()
            .unwrap();
        Self { control_plane, clock, asked, task }
    }

    async fn show(&self, cookies: &str) -> Credential {
        self.control_plane.authenticate_session(cookies).await.unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_yes_holds_for_thirty_seconds_and_a_no_for_five() {
    let bench = Bench::new().await;
    let seconds = Duration::from_secs;
    assert_eq!((bench.show("yes").await, bench.show("no").await), (Credential::Session, Credential::Absent));
    assert_eq!(bench.asked(), 2);
    bench.clock.advance(seconds(4));
    assert_eq!((bench.show("yes").await, bench.show("no").await), (Credential::Session, Credential::Absent));
    assert_eq!(bench.asked(), 2);
    bench.clock.advance(seconds(1));
    assert_eq!((bench.show("yes").await, bench.show("no").await), (Credential::Session, Credential::Absent));
    assert_eq!(bench.asked(), 3, "the no was asked for again");
    bench.clock.advance(seconds(24));
    assert_eq!(bench.show("yes").await, Credential::Session);
    assert_eq!(bench.asked(), 3);
    bench.clock.advance(seconds(1));
    assert_eq!(bench.show("yes").await, Credential::Session);
    assert_eq!(bench.asked(), 4, "the yes was asked for again");
}

#[tokio::test]
async fn those_who_come_at_once_are_one_question() {
    let bench = Bench::new().await;
    let all = join_all((0..50).map(|_| bench.show("yes"))).await;
    assert!(all.iter().all(|credential| *credential == Credential::Session));
    assert_eq!(bench.asked(), 1);
}

#[tokio::test]
async fn what_could_not_be_asked_is_not_remembered() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.show("yes").await, Credential::Session);
    bench.task.shutdown().await;
    assert_eq!(bench.show("yes").await, Credential::Session, "what was said a moment ago still holds");
    let error = bench.control_plane.authenticate_session("another").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    bench.clock.advance(Duration::from_secs(30));
    assert!(bench.control_plane.authenticate_session("yes").await.is_err(), "but not for ever");
}
