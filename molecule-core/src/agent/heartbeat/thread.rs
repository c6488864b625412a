//! Beats on a thread of their own: nothing that the rest of the process does, or waits for, delays them.

use std::{
    io,
    thread::{self, JoinHandle},
};

use tokio::{runtime::Builder, sync::oneshot};

use super::{Beat, HeartbeatLoop};
use crate::error::{Error, ErrorKind, Result};

/// A loop that runs. When it is dropped, the loop ends soon.
#[derive(Debug)]
pub struct Beating {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl HeartbeatLoop {
    /// Runs on a thread of its own, as [`HeartbeatLoop::run`] does; `beside` is carried on there as well, as long as the
    /// loop runs.
    ///
    /// The client of the loop must be no other runtime's: connections belong to the one that opened them.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] where the system gives no thread.
    pub fn spawn(
        self,
        beat: impl FnMut() -> Beat + Send + 'static,
        beside: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Beating> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Unexpected, "the heartbeat loop cannot be started").caused_by(error)
        };
        let (stop, stopped) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let run = move || {
            // Each waking of what `block_on` itself waits for is a call of the system; that of a task is none.
            let beats = runtime.spawn(async {
                let stopped = async {
                    // Told to stop, or dropped: the same.
                    let _ = stopped.await;
                };
                let beside = async {
                    beside.await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = self.run(beat, stopped) => {}
                    () = beside => {}
                }
            });
            let ended = runtime.block_on(beats);
            // A name that is being resolved is not waited for.
            runtime.shutdown_background();
            if let Err(panicked) = ended {
                std::panic::resume_unwind(panicked.into_panic());
            }
        };
        let thread = thread::Builder::new().name("molecule-heartbeat".into()).spawn(run).map_err(failed)?;
        Ok(Beating { stop, thread })
    }
}

impl Beating {
    /// Whether it still does: only a panic ends it by itself.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Stops the loop and waits until its thread is done.
    pub fn stop(self) {
        // It may have ended by itself; a panic was told by its thread.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
