//! Streams that are counted, limited and watched while they pass.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::Instant;

use super::Bits;
use crate::error::{Error, ErrorKind, Result};

/// Why a stream ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It held more than it may.
    TooLarge,
    /// Its source broke off.
    Broken,
}

#[derive(Debug)]
struct State {
    moved_at: Instant,
    end: Option<End>,
}

/// What is known of a stream while somebody else reads it.
#[derive(Debug, Clone)]
pub(super) struct Count(Arc<Mutex<State>>);

impl Count {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why the stream ended early, if it did.
    pub(super) fn end(&self) -> Option<End> {
        self.with(|state| state.end)
    }

    /// Waits for `exchange` as long as the stream moves, and `idle` after it did last.
    pub(super) async fn watch<T>(&self, exchange: impl Future<Output = Result<T>>, idle: Duration) -> Result<T> {
        let mut exchange = std::pin::pin!(exchange);
        loop {
            let until = self.with(|state| state.moved_at) + idle;
            tokio::select! {
                outcome = &mut exchange => return outcome,
                () = tokio::time::sleep_until(until) => {
                    if self.with(|state| state.moved_at) + idle <= Instant::now() {
                        return Err(Error::new(ErrorKind::Upstream, "workspace unreachable"));
                    }
                }
            }
        }
    }
}

/// A stream that fails once it holds more than its limit.
pub(super) struct Counted {
    inner: Bits,
    left: u64,
    count: Count,
}

impl Counted {
    pub(super) fn new(inner: Bits, limit: u64) -> (Self, Count) {
        let count = Count(Arc::new(Mutex::new(State { moved_at: Instant::now(), end: None })));
        (Self { inner, left: limit, count: count.clone() }, count)
    }
}

impl Stream for Counted {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.inner.poll_next_unpin(context);
        if let Poll::Ready(chunk) = &next {
            let length = chunk.as_ref().and_then(|chunk| chunk.as_ref().ok()).map_or(0, |chunk| chunk.len() as u64);
            let broken = matches!(chunk, Some(Err(_)));
            let too_large = length > self.left;
            self.left = self.left.saturating_sub(length);
            self.count.with(|state| {
                state.moved_at = Instant::now();
                state.end = if too_large { Some(End::TooLarge) } else { state.end.or(broken.then_some(End::Broken)) };
            });
            if too_large {
                return Poll::Ready(Some(Err(io::Error::other("the body is over its limit"))));
            }
        }
        next
    }
}

/// A body of which the beginning was read.
pub(super) enum Begun {
    /// All of it.
    Whole(Bytes),
    /// There is more than what is kept: it can be read once.
    Long(Bits),
}

/// Reads a body that is no longer than `most`, or what comes before the rest of a longer one.
pub(super) async fn begin(mut body: Bits, most: usize) -> Result<Begun> {
    let mut start = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Error::invalid("failed to read request body").caused_by(error))?;
        start.extend_from_slice(&chunk);
        if start.len() > most {
            let start = stream::iter([Ok(start.freeze())]);
            return Ok(Begun::Long(start.chain(body).boxed()));
        }
    }
    Ok(Begun::Whole(start.freeze()))
}

/// `inner`, which fails once nothing comes for `idle`.
pub(super) fn alive(inner: Bits, idle: Duration) -> Bits {
    stream::unfold(Some(inner), move |inner| async move {
        let mut inner = inner?;
        match tokio::time::timeout(idle, inner.next()).await {
            Ok(chunk) => chunk.map(|chunk| (chunk, Some(inner))),
            Err(_) => Some((Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came in time")), None)),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(sizes: &[usize]) -> Bits {
        let chunks: Vec<_> = sizes.iter().map(|size| Ok(Bytes::from(vec![0; *size]))).collect();
        stream::iter(chunks).boxed()
    }

    #[tokio::test]
    async fn a_stream_passes_up_to_its_limit() {
        let rows = [(vec![3, 3], None), (vec![6], None), (vec![3, 4], Some(End::TooLarge)), (vec![], None)];
        for (sizes, end) in rows {
            let (counted, count) = Counted::new(chunks(&sizes), 6);
            let passed: Vec<_> = counted.collect().await;
            assert_eq!(count.end(), end, "{sizes:?}");
            assert_eq!(passed.iter().all(Result::is_ok), end.is_none(), "{sizes:?}");
        }
    }

    #[tokio::test]
    async fn a_body_is_the_same_whether_it_is_kept_or_not() {
        for (sizes, kept) in [(vec![], true), (vec![2, 4], true), (vec![2, 4, 1], false), (vec![9, 9], false)] {
            let whole: usize = sizes.iter().sum();
            match begin(chunks(&sizes), 6).await.unwrap() {
                Begun::Whole(body) => assert_eq!((body.len(), true), (whole, kept), "{sizes:?}"),
                Begun::Long(body) => {
                    let passed: Vec<_> = body.collect().await;
                    let length: usize = passed.iter().flatten().map(Bytes::len).sum();
                    assert_eq!((length, false), (whole, kept), "{sizes:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_source_that_breaks_off_is_told_from_one_that_is_too_large() {
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(io::Error::other("gone"))]).boxed();
        let (counted, count) = Counted::new(broken, 6);
        let _: Vec<_> = counted.collect().await;
        assert_eq!(count.end(), Some(End::Broken));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_move_is_given_up() {
        let idle = Duration::from_secs(120);
        let mut stalled = alive(chunks(&[1]).chain(stream::pending()).boxed(), idle);
        assert!(stalled.next().await.unwrap().is_ok());
        assert_eq!(stalled.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(stalled.next().await.is_none());

        let (mut counted, count) = Counted::new(chunks(&[1; 10]), 99);
        let slow = async {
            for _ in 0..10 {
                tokio::time::sleep(idle / 2).await;
                let _ = counted.next().await;
            }
            Ok(7)
        };
        assert_eq!(count.watch(slow, idle).await.unwrap(), 7, "slow is not stalled");
        let silent = count.watch(std::future::pending::<Result<()>>(), idle).await;
        assert_eq!(silent.unwrap_err().message(), "workspace unreachable");
    }
}
