//! A server that lacks some of the routes of another: it stands before it, and answers for them as for any that is none.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::server::Server;

/// What the server answers where there is no route.
const NOTHING: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\
    x-content-type-options: nosniff\r\nx-frame-options: DENY\r\nconnection: close\r\n\r\n{\"error\":\"not found\"}";

/// Gone with the value.
pub(crate) struct Without {
    url: String,
    _passing: JoinSet<()>,
}

impl Without {
    /// Stands before `server`, and lacks every route with one of `words` in its path.
    pub(crate) async fn of(server: &Server, words: Vec<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let behind = server.url().trim_start_matches("http://").to_owned();
        let mut passing = JoinSet::new();
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (behind, words) = (behind.clone(), words.clone());
                // Either side may go away at any time.
                connections.spawn(async move { pass(stream, &behind, &words).await.ok() });
            }
        });
        Self { url, _passing: passing }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// Answers the one request of a connection, or has it answered.
async fn pass(mut stream: TcpStream, behind: &str, words: &[&str]) -> std::io::Result<()> {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    let line_ends = read.iter().position(|byte| *byte == b'\n').expect("a head has lines") + 1;
    let line = String::from_utf8_lossy(&read[..line_ends]).into_owned();
    let path = line.split([' ', '?']).nth(1).unwrap_or_default();
    if path.split('/').any(|part| words.contains(&part)) {
        stream.write_all(NOTHING).await?;
        stream.shutdown().await?;
        // Whoever still sends would otherwise be cut off before it reads.
        return tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop);
    }
    let mut to = TcpStream::connect(behind).await?;
    to.write_all(&read[..line_ends]).await?;
    // The next request of the same connection would go by unseen.
    if !String::from_utf8_lossy(&read).to_ascii_lowercase().contains("\r\nupgrade:") {
        to.write_all(b"connection: close\r\n").await?;
    }
    to.write_all(&read[line_ends..]).await?;
    copy_bidirectional(&mut stream, &mut to).await.map(drop)
}
