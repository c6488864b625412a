//! An answer that comes bit by bit, as server-sent events: passed on as it comes, and looked at on its way.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use tokio::sync::{mpsc, oneshot};

use super::told::Told;

/// How many bits may wait for a slow reader.
const WAITING: usize = 16;

/// How long a reader may leave them waiting before it counts as gone.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// The bits of an answer, as the agent sends them. One that breaks off ends with an error.
pub type Bits = BoxStream<'static, io::Result<Bytes>>;

/// What comes in place of the next bit once there is none.
const END: Option<Bytes> = None;

/// The side of the agent: what it says is sent here. A reader that left takes nothing away from what is noted.
#[derive(Debug)]
pub(super) struct Live {
    begin: Option<oneshot::Sender<(u16, mpsc::Receiver<Option<Bytes>>)>>,
    reader: Option<mpsc::Sender<Option<Bytes>>>,
    pub(super) told: Told,
}

/// The side of the caller.
#[derive(Debug)]
pub(super) struct Reader(oneshot::Receiver<(u16, mpsc::Receiver<Option<Bytes>>)>);

pub(super) fn live() -> (Live, Reader) {
    let (begin, begun) = oneshot::channel();
    (Live { begin: Some(begin), reader: None, told: Told::default() }, Reader(begun))
}

impl Live {
    /// Lets the caller have what comes from here on.
    pub(super) fn begin(&mut self, status: u16) {
        let (sender, receiver) = mpsc::channel(WAITING);
        if self.begin.take().is_some_and(|begin| begin.send((status, receiver)).is_ok()) {
            self.reader = Some(sender);
        }
    }

    /// Whether the answer comes bit by bit.
    pub(super) fn has_begun(&self) -> bool {
        self.begin.is_none()
    }

    pub(super) async fn pass(&mut self, bit: Bytes) {
        self.told.hear(&bit);
        self.send(Some(bit)).await;
    }

    /// Says that the answer is whole. What is not ended is taken for broken off.
    pub(super) async fn end(&mut self) {
        self.send(END).await;
    }

    async fn send(&mut self, bit: Option<Bytes>) {
        let Some(reader) = &self.reader else { return };
        if reader.send_timeout(bit, READER_PATIENCE).await.is_err() {
            self.reader = None;
        }
    }
}

impl Reader {
    /// Waits for the answer to begin; `None` where it comes as a whole, or not at all.
    pub(super) async fn begun(self) -> Option<(u16, Bits)> {
        let (status, bits) = self.0.await.ok()?;
        let bits = stream::unfold(Some(bits), |bits| async move {
            let mut bits = bits?;
            match bits.recv().await {
                Some(Some(bit)) => Some((Ok(bit), Some(bits))),
                Some(END) => None,
                None => Some((Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the agent broke off")), None)),
            }
        });
        Some((status, bits.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bits: &[io::Result<Bytes>]) -> (Vec<u8>, bool) {
        let whole = bits.iter().flatten().flat_map(|bit| bit.to_vec()).collect();
        (whole, bits.iter().any(Result::is_err))
    }

    #[tokio::test]
    async fn what_breaks_off_is_told_from_what_ends() {
        for ends in [true, false] {
            let (mut live, reader) = live();
            live.begin(200);
            let (status, bits) = reader.begun().await.expect("it has begun");
            live.pass(Bytes::from_static(b"data: 1\n\n")).await;
            if ends {
                live.end().await;
            }
            drop(live);
            let bits: Vec<_> = bits.collect().await;
            assert_eq!((status, text(&bits)), (200, (b"data: 1\n\n".to_vec(), !ends)));
        }
        let (whole, reader) = live();
        drop(whole);
        assert!(reader.begun().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_who_left_or_does_not_read() {
        for stays in [true, false] {
            let (mut live, reader) = live();
            live.begin(200);
            let bits = reader.begun().await;
            let _held = stays.then_some(bits);
            let began = tokio::time::Instant::now();
            for _ in 0..1000 {
                live.pass(Bytes::from_static(b"data: 1\n\n")).await;
            }
            let waited = if stays { READER_PATIENCE } else { Duration::ZERO };
            assert_eq!(began.elapsed().as_secs(), waited.as_secs(), "{stays}");
            assert_eq!(live.told.into_kept().body.as_array().map(Vec::len), Some(1000));
        }
    }
}
