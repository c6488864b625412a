//! Takes connections and answers on them, until it is told to stop. One on which nothing is asked does not stay.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{http::header::UPGRADE, response::Response};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the head of a request may take to come, the pause after the one before it included. Longer than agents leave
/// between two heartbeats, so that they find their connection again.
pub(crate) const HEAD_WITHIN: Duration = Duration::from_secs(75);

/// How long it may take once most places are taken: who keeps one without a word makes room for others soon.
const SHORT_OF_PLACES: Duration = Duration::from_secs(5);

/// File descriptors that are for what no connection asks for: the database, the engine, messages that were kept.
const OTHERS: usize = 256;

/// How many connections there may be at once.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    all: usize,
}

impl Places {
    pub(crate) fn new(all: usize) -> Self {
        let all = all.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    /// As many as go with `descriptors` of files: each has one, and one more for the call that it may ask for.
    pub(crate) fn with(descriptors: Option<u64>) -> Self {
        let limit = descriptors.and_then(|limit| usize::try_from(limit).ok());
        let all = limit.map_or(usize::MAX, |limit| limit.saturating_sub(OTHERS).max(limit / 2) / 2);
        tracing::debug!(connections = all, "places");
        Self::new(all)
    }

    /// One of them, waiting for it, and how long who takes it may take to say what they want.
    async fn take(&self, head_within: Duration) -> (Place, Duration) {
        // It is never closed.
        let place = Place(Arc::clone(&self.free).acquire_owned().await.ok().map(Arc::new));
        let is_short = self.free.available_permits() < self.all / 10;
        (place, if is_short { head_within.min(SHORT_OF_PLACES) } else { head_within })
    }
}

/// The place of a connection, free again when all of it is dropped. A request to speak something else on the connection brings
/// it along, for whoever goes on with that.
#[derive(Debug, Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is held, and that is all")] Option<Arc<OwnedSemaphorePermit>>);

/// The pause where no connection can be taken, which is when there are too many.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves with `answer`, which is told where a request came from, until `stop`, and then until every request under way was
/// answered. Where there is no place for another connection it waits for one to end.
pub(crate) async fn serve<A, F>(
    listener: TcpListener,
    answer: A,
    places: Places,
    head_within: Duration,
    stop: CancellationToken,
) -> io::Result<()>
where
    A: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let connections = TaskTracker::new();
    loop {
        let (place, head_within) = tokio::select! {
            () = stop.cancelled() => break,
            place = places.take(head_within) => place,
        };
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
        connections.spawn(converse(stream, peer, place, answer.clone(), head_within, stop.clone()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn converse<A, F>(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    answer: A,
    head_within: Duration,
    stop: CancellationToken,
) where
    A: Fn(SocketAddr, Request<Incoming>) -> F,
    F: Future<Output = Response> + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_within);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(place.clone());
        }
        let answer = answer(peer, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // Events are small writes: none waits until the one before was acknowledged. It works without as well.
    let _ = stream.set_nodelay(true);
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
    use molecule_core::{ControlPlane, identity::Exposure, store::Store};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::serve::{front::Front, state::AppState};

    #[test]
    fn places_leave_descriptors_for_what_is_done_in_them() {
        for (descriptors, places) in [(2, 1), (256, 64), (1024, 384), (4096, 1920), (1_048_576, 524_160)] {
            assert_eq!(Places::with(Some(descriptors)).all, places, "{descriptors}");
        }
        assert_eq!(Places::with(None).all, Semaphore::MAX_PERMITS);
    }

    #[tokio::test]
    async fn who_comes_when_most_places_are_taken_is_to_say_soon_what_they_want() {
        let (places, minute) = (Places::new(20), Duration::from_secs(60));
        let mut taken = Vec::new();
        for n in 1..=20 {
            let (place, within) = places.take(minute).await;
            assert_eq!(within, if n <= 18 { minute } else { SHORT_OF_PLACES }, "{n}");
            taken.push(place);
        }
        taken.truncate(10);
        assert_eq!(places.take(minute).await.1, minute);
    }

    #[tokio::test]
    async fn a_websocket_has_its_place_until_it_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let feed = format!("ws://{}/ws", listener.local_addr().unwrap());
        let (stop, tasks, places) = (CancellationToken::new(), TaskTracker::new(), Places::new(2));
        let app =
            AppState::alone(ControlPlane::builder(Store::connect("sqlite::memory:").await.unwrap()).build().unwrap());
        let front = Front::new(app.clone());
        let answer = move |peer, request| front.clone().answer(peer, Exposure::Loopback, request);
        tasks.spawn(serve(listener, answer, places.clone(), HEAD_WITHIN, stop.clone()));
        let (mut socket, _) = tokio_tungstenite::connect_async(&feed).await.unwrap();
        // The other place is that of whoever comes next.
        tokio::time::timeout(Duration::from_millis(200), places.take(HEAD_WITHIN)).await.unwrap_err();
        socket.close(None).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), places.take(HEAD_WITHIN)).await.unwrap();
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn who_never_says_what_they_want_is_hung_up_on_and_others_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let yes = async |_, _| "yes".into_response();
        // Fewer places than there are who never say what they want.
        tasks.spawn(serve(listener, yes, Places::new(4), Duration::from_millis(100), stop.clone()));
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
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
