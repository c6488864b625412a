//! How many files this process may have open at once: connections are among them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit of this process, and what it was. There may be none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors {
    /// What the processes that this one starts are to have: some fail where they may have very many.
    pub(crate) before: Option<u64>,
    pub(crate) now: Option<u64>,
}

impl Descriptors {
    /// Allows this process all that it may allow itself.
    pub(crate) fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        let most = Rlimit { current: before.maximum, maximum: before.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, most) {
            tracing::warn!(%error, limit = before.current, "the limit of file descriptors could not be raised");
        }
        Self { before: before.current, now: getrlimit(Resource::Nofile).current }
    }
}
