//! Agents that beat as fast as they are answered.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::Outcome;

/// Sends heartbeats of the agents in the file over so many connections, each agent once or, where it is told how long
/// that lasts, again and again; prints how many were answered per second.
pub(crate) async fn send(address: &str, agents: &Path, connections: usize, lasts: Option<Duration>) -> Outcome<()> {
    let text = std::fs::read_to_string(agents)?;
    // Ready to be sent: the load must not cost more than the server.
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(text.lines().filter_map(|line| request(line, address)).collect());
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        senders.spawn(async move {
            let mut answered = 0_u32;
            let mut buffer = Vec::with_capacity(4096);
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let over = lasts.map_or(turn >= requests.len(), |lasts| began.elapsed() >= lasts);
                if over {
                    return answered;
                }
                stream.write_all(&requests[turn % requests.len()]).await.expect("the server reads");
                answer(&mut stream, &mut buffer).await;
                answered += 1;
            }
        });
    }
    let answered: u32 = senders.join_all().await.into_iter().sum();
    println!("{}", f64::from(answered) / began.elapsed().as_secs_f64());
    Ok(())
}

fn request(line: &str, address: &str) -> Option<Vec<u8>> {
    let (id, token) = line.split_once(' ')?;
    let body = format!(
        r#"{{"workspace_id":"{id}","error_rate":0.0,"sample_error":"","active_tasks":0,"uptime_seconds":1234,"current_task":"","runtime_state":""}}"#
    );
    let head = format!(
        "POST /registry/heartbeat HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Some([head.into_bytes(), body.into_bytes()].concat())
}

/// Reads one answer to its end.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.expect("the server answers");
        assert!(read > 0, "the server hung up");
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end]).expect("heads are text");
        assert!(head.starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(buffer));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if buffer.len() >= end + 4 + length.expect("answers say how long they are") {
            return;
        }
    }
}
