//! Heartbeats of agents that are known take a shorter way than other requests (`ARCHITECTURE.md`). Nobody can tell by the
//! answer which way one took.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{Server, Setup};

/// A body whose length is not said takes the long way.
#[derive(Debug, Clone, Copy)]
enum Way {
    Short,
    Long,
}

/// An answer without what differs from one to the next.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: String,
    headers: Vec<String>,
    body: String,
}

async fn beat(server: &Server, way: Way, token: &str, more: &str, body: &str) -> Answer {
    let address = server.url().replace("http://", "");
    let (framing, body) = match way {
        Way::Short => (format!("content-length: {}", body.len()), body.to_owned()),
        Way::Long => ("transfer-encoding: chunked".to_owned(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
    };
    let request = format!(
        "POST /registry/heartbeat HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         {more}{framing}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(&address).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("the answer is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("the head ends");
    let mut lines = head.lines().map(str::to_owned);
    let status = lines.next().expect("there is a status");
    let varies = |line: &String| line.starts_with("date:") || line.starts_with("x-ratelimit-re");
    let mut headers: Vec<_> = lines.filter(|line| !varies(line)).collect();
    headers.sort();
    Answer { status, headers, body: body.to_owned() }
}

#[tokio::test]
async fn an_answer_does_not_tell_which_way_a_heartbeat_took() {
    let server = Setup::none().env("RATE_LIMIT", "40").env("CORS_ORIGINS", "https://canvas.example").start().await;
    let (id, token) = server.create_external("a", None).await;
    let (other, _) = server.create_external("b", None).await;
    let own = format!(r#"{{"workspace_id":"{id}"}}"#);
    // From here on it is known.
    beat(&server, Way::Long, &token, "", &own).await;

    let own_origin = format!("origin: {}\r\n", server.url());
    let rows = [
        ("200", "", own.clone()),
        ("200", own_origin.as_str(), own.clone()),
        ("200", "origin: https://canvas.example\r\n", own.clone()),
        ("200", "origin: https://evil.example\r\n", own.clone()),
        ("200", "", format!(r#"{{"workspace_id":"{id}","current_task":"something new"}}"#)),
        ("200", "", format!(r#"{{"workspace_id":"{id}","error_rate":0.9}}"#)),
        ("401", "", format!(r#"{{"workspace_id":"{other}"}}"#)),
        ("400", "", r#"{"workspace_id":"x"}"#.to_owned()),
        ("400", "", "[]".to_owned()),
        ("400", "", "{".to_owned()),
    ];
    for (status, more, body) in rows {
        let [short, long] =
            [beat(&server, Way::Short, &token, more, &body).await, beat(&server, Way::Long, &token, more, &body).await];
        assert!(short.status.contains(status), "{body}: {short:?}");
        assert_eq!(short, long, "{body}");
    }
    let metrics = server.get("/metrics").await.text;
    let counted = |status: &str| {
        let series =
            format!(r#"molecule_http_requests_total{{method="POST",path="/registry/heartbeat",status="{status}"}} "#);
        metrics.lines().find_map(|line| line.strip_prefix(&series)).expect("it is counted").to_owned()
    };
    assert_eq!([counted("200"), counted("401"), counted("400")], ["13", "2", "6"]);

    // Both are counted in one window.
    for _ in 0..40 {
        beat(&server, Way::Short, &token, "", &own).await;
    }
    let [short, long] =
        [beat(&server, Way::Short, &token, "", &own).await, beat(&server, Way::Long, &token, "", &own).await];
    let wait = |answer: &Answer| answer.body.contains(r#""error":"rate limit exceeded""#);
    assert!(short.status.contains("429") && long.status.contains("429"), "{short:?} {long:?}");
    assert!(wait(&short) && wait(&long), "{short:?} {long:?}");
}
