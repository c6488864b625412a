//! The agent's side of files: takes in what is sent to its workspace, and gives back what is asked for.
//!
//! Frontends pass on what came over HTTP and answer what is said here: the statuses and texts are those that platforms
//! know. Whoever asks proves itself, or is refused.

mod ingest;
mod name;
mod read;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{InboundSecret, StateDir, TokenStore, inbound_secret};
use crate::{clock::Entropy, error::Error};

/// The bytes of a file, or of several in one form, as they come.
pub type Bits = BoxStream<'static, io::Result<Bytes>>;

/// How many lines of a transcript are given when nothing is said, and at most.
const LINES: (usize, usize) = (100, 1000);

/// The files of one workspace, for its platform.
///
/// A clone is a handle on the same ones.
#[derive(Debug, Clone)]
pub struct Files {
    inbound: InboundSecret,
    tokens: TokenStore,
    root: PathBuf,
    entropy: Arc<dyn Entropy>,
}

/// What is answered in place of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The body: a JSON object with the member `error`.
    pub body: Value,
}

/// A file that may be read, and what is said of it.
pub struct Opened {
    /// How many bytes there are.
    pub length: u64,
    /// What its name says that it is.
    pub content_type: String,
    /// What it is called, as `Content-Disposition` says it.
    pub content_disposition: String,
    /// Its bytes. They end with an error where it turns out shorter.
    pub body: Bits,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Which lines of a transcript are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// How many lines come before.
    pub since: usize,
    /// How many are wanted.
    pub limit: usize,
}

impl Files {
    /// The files below `root`, which holds `workspace`, `configs`, `home` and `plugins`, for whoever knows the secret of
    /// `inbound`; what was said, for whoever knows the token.
    pub fn new(root: PathBuf, inbound: InboundSecret, tokens: TokenStore, entropy: Arc<dyn Entropy>) -> Self {
        Self { inbound, tokens, root, entropy }
    }

    /// Where the folders of a workspace are whose secrets are in `state`: around that, where it is called `configs` and has
    /// a folder `workspace` beside it; otherwise `/`, as in a container.
    pub fn root_beside(state: &StateDir) -> PathBuf {
        let around = state.path().parent().filter(|around| {
            state.path().file_name().is_some_and(|name| name == "configs") && around.join("workspace").is_dir()
        });
        around.unwrap_or(Path::new("/")).to_owned()
    }

    /// Which lines of the transcript to show, for whoever knows the token of the workspace.
    ///
    /// # Errors
    /// 401 where `authorization`, the whole header, is wrong; 400 for what is no number.
    pub fn transcript_page(
        &self,
        authorization: Option<&[u8]>,
        since: Option<&str>,
        limit: Option<&str>,
    ) -> Result<Page, Refusal> {
        if !self.is_own_token(authorization) {
            return Err(Refusal::unauthorized());
        }
        let number = |text: Option<&str>, default: usize| match text {
            None => Some(default),
            Some(text) => text.trim().parse::<i64>().ok().map(|number| usize::try_from(number).unwrap_or(0)),
        };
        let (Some(since), Some(limit)) = (number(since, 0), number(limit, LINES.0)) else {
            return Err(Refusal::new(400, "since and limit must be integers"));
        };
        Ok(Page { since, limit: limit.min(LINES.1) })
    }

    fn admit(&self, authorization: Option<&[u8]>) -> Result<(), Refusal> {
        if self.inbound.verify(authorization) { Ok(()) } else { Err(Refusal::unauthorized()) }
    }

    /// Whether `authorization` is `Bearer` and the token; without a token nothing is. Where it is not, another process may
    /// have kept a newer one.
    fn is_own_token(&self, authorization: Option<&[u8]>) -> bool {
        let Some(presented) = authorization else { return false };
        let is_it = |found: Result<Option<SecretString>, Error>| match found {
            Ok(token) => token.is_some_and(|token| inbound_secret::matches(presented, &token)),
            Err(error) => {
                tracing::error!(error = error.detail(), "the token cannot be read; the call is refused");
                false
            }
        };
        is_it(self.tokens.get()) || is_it(self.tokens.kept())
    }
}

impl Refusal {
    fn new(status: u16, error: &str) -> Self {
        Self { status, body: json!({"error": error}) }
    }

    fn unauthorized() -> Self {
        Self::new(401, "unauthorized")
    }
}

#[cfg(test)]
mod tests;
