//! Takes connections and answers on them, until it is told to stop. One on which nothing is asked does not stay.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, time::Duration};

use axum::response::Response;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the head of a request may take to come, the pause after the one before it included. Longer than agents leave
/// between two heartbeats, so that they find their connection again.
pub(crate) const HEAD_WITHIN: Duration = Duration::from_secs(75);

/// The pause where no connection can be taken, which is when there are too many.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves with `answer`, which is told where a request came from, until `stop`, and then until every request under way was
/// answered.
pub(crate) async fn serve<A, F>(
    listener: TcpListener,
    answer: A,
    head_within: Duration,
    stop: CancellationToken,
) -> io::Result<()>
where
    A: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let connections = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // Whoever left before their turn.
                Err(error) if is_theirs(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        connections.spawn(converse(stream, peer, answer.clone(), head_within, stop.clone()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn converse<A, F>(stream: TcpStream, peer: SocketAddr, answer: A, head_within: Duration, stop: CancellationToken)
where
    A: Fn(SocketAddr, Request<Incoming>) -> F,
    F: Future<Output = Response> + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_within);
    let service = service_fn(move |request| {
        let answer = answer(peer, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

fn is_theirs(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_never_says_what_they_want_is_hung_up_on_and_others_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let yes = async |_, _| "yes".into_response();
        tasks.spawn(serve(listener, yes, Duration::from_millis(100), stop.clone()));
        for said in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let mut slow = TcpStream::connect(address).await.unwrap();
            slow.write_all(said.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            slow.read_to_end(&mut heard).await.unwrap();
            assert!(!heard.starts_with(b"HTTP/1.1 200"), "{said:?}");
        }
        let mut quick = TcpStream::connect(address).await.unwrap();
        quick.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        quick.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
