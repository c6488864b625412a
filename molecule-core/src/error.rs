//! The one error type of the library.
//!
//! Callers match on [`Error::kind`]; [`Error::retry`] says whether to try again. [`Error::message`] may be shown to anyone who
//! made the call; the operation, the context and the source are for the log of whoever runs the control plane.

use std::{borrow::Cow, error::Error as StdError, fmt};

use serde_json::Value;

/// A [`std::result::Result`] whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// What went wrong, as far as a caller can act on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$doc])* $kind,)*
        }

        impl ErrorKind {
            /// Every kind once, for tables that must be complete.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];
        }
    };
}

error_kinds! {
    /// The input breaks a rule; the message names it.
    InvalidInput,
    /// No credential was given, or it is wrong.
    Unauthenticated,
    /// The credential is good and does not allow this.
    PermissionDenied,
    /// The workspace has spent what it may spend.
    BudgetExceeded,
    /// The named thing does not exist.
    NotFound,
    /// The named thing existed and was removed for good.
    Removed,
    /// The state of the thing does not allow this now.
    Conflict,
    /// The input is over its limit.
    TooLarge,
    /// There are as many as there may be, or it was asked for too often.
    LimitReached,
    /// The configured parts cannot do this.
    Unsupported,
    /// A part this depends on is away for now: the store, the backend, an agent without an address.
    Unavailable,
    /// An agent or a backend answered wrongly or not at all.
    Upstream,
    /// A defect, or a failure nobody foresaw.
    Unexpected,
}

/// Whether the same call can succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It fails again until something about the call changes.
    Never,
    /// It may succeed after a pause.
    Maybe,
    /// It was tried as often as is sensible already.
    Exhausted,
}

/// A failed operation.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    message: Cow<'static, str>,
    members: Vec<(&'static str, Value)>,
    operation: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind` whose `message` says what failed for which input: lower case, no full stop.
    ///
    /// The message is shown to callers. Anything they must not see belongs into [`Error::caused_by`] or
    /// [`Error::context`].
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::Upstream => Retry::Maybe,
            _ => Retry::Never,
        };
        Self(Box::new(Inner {
            kind,
            retry,
            message: message.into(),
            members: Vec::new(),
            operation: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// An [`ErrorKind::InvalidInput`] error.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// An [`ErrorKind::NotFound`] error.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Says whether trying again can help, where the kind alone does not.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Replaces the message, keeping everything else: for a caller that promises a text of its own.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Adds a member that frontends show beside the message, such as `retry_after`.
    #[must_use]
    pub fn with_member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.members.push((name, value.into()));
        self
    }

    /// Names the operation that failed, for the log.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.0.operation = Some(operation);
        self
    }

    /// Adds a field for the log, such as the id of the workspace.
    #[must_use]
    pub fn context(mut self, name: &'static str, value: impl ToString) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Keeps the underlying error, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Whether it came from `operation`.
    #[cfg(feature = "server")]
    pub(crate) fn is_during(&self, operation: &str) -> bool {
        self.0.operation == Some(operation)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed later.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// What failed for which input, fit to be shown to the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Members that frontends show beside the message, in the order they were added.
    pub fn members(&self) -> &[(&'static str, Value)] {
        &self.0.members
    }

    /// Everything known, in one line, for the log of whoever runs the control plane.
    pub fn detail(&self) -> String {
        let mut line = String::new();
        if let Some(operation) = self.0.operation {
            line.push_str(operation);
            line.push_str(": ");
        }
        line.push_str(&self.0.message);
        for (name, value) in &self.0.context {
            line.push_str(&format!(" {name}={value}"));
        }
        let mut source = self.0.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = source {
            line.push_str(&format!(": {error}"));
            source = error.source();
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.detail())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_message_and_keeps_the_rest_for_the_log() {
        let error = Error::new(ErrorKind::Unavailable, "workspace start failed")
            .during("provision")
            .context("workspace.id", "w1")
            .caused_by(std::io::Error::other("no space left"));
        assert_eq!(error.to_string(), "workspace start failed");
        assert_eq!(error.detail(), "provision: workspace start failed workspace.id=w1: no space left");
        assert_eq!(error.retry(), Retry::Maybe);
    }
}
