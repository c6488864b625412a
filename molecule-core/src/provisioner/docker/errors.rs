//! What the engine's errors mean here.

use bollard::errors::Error as EngineError;

use crate::error::{Error, ErrorKind};

/// Whether the engine says that the thing does not exist. Its text is never asked: it names other missing things.
pub(super) fn is_not_found(error: &EngineError) -> bool {
    status(error) == Some(404)
}

/// Whether it was so before.
pub(super) fn is_done(error: &EngineError) -> bool {
    status(error) == Some(304)
}

/// Whether the engine is already doing it, or something stands in its way.
pub(super) fn is_conflict(error: &EngineError) -> bool {
    status(error) == Some(409)
}

/// Whether the engine found something wrong with what it was asked for.
pub(super) fn is_refused(error: &EngineError) -> bool {
    status(error) == Some(400)
}

/// Whether a container could not start because its port was taken between choosing and starting.
///
/// The engine has no status of its own for it. Where its wording changes, the start fails instead of being tried anew.
pub(super) fn is_port_taken(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { message, .. }
        if message.contains("port is already allocated") || message.contains("address already in use"))
}

/// `None` for what does not exist.
pub(super) fn found<T>(answer: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(thing) => Ok(Some(thing)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says that the engine could not do `what`. Its own words stay in the source: they may hold paths of the host.
pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(EngineError) -> Error {
    let what = what.into();
    move |error| {
        match status(&error) {
            Some(code) => {
                let kind = match code {
                    400 => ErrorKind::InvalidInput,
                    404 => ErrorKind::NotFound,
                    409 => ErrorKind::Conflict,
                    _ => ErrorKind::Upstream,
                };
                Error::new(kind, format!("the docker engine could not {what} (status {code}) — the log has its answer"))
            }
            None => Error::new(
                ErrorKind::Unavailable,
                format!("the docker engine did not answer when asked to {what} — check that its daemon runs"),
            ),
        }
        .caused_by(error)
    }
}

fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> EngineError {
        EngineError::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn absence_is_told_by_the_status_alone() {
        assert!(is_not_found(&answer(404, "anything")));
        assert!(!is_not_found(&answer(500, "network molecule-monorepo-net not found")));
        assert!(found(Err::<(), _>(answer(404, ""))).unwrap().is_none());
        assert!(found(Err::<(), _>(answer(500, "not found"))).is_err());
    }

    #[test]
    fn recognises_a_taken_port_in_the_words_of_engines() {
        let prefix = "driver failed programming external connectivity on endpoint ws-1 (0a1b): ";
        for (message, taken) in [
            ("Bind for 127.0.0.1:38123 failed: port is already allocated", true),
            ("Error starting userland proxy: listen tcp4 127.0.0.1:38124: bind: address already in use", true),
            ("no such file", false),
        ] {
            assert_eq!(is_port_taken(&answer(500, &format!("{prefix}{message}"))), taken, "{message}");
        }
    }

    #[test]
    fn the_words_of_the_engine_stay_out_of_the_message() {
        let error = failed("start x")(answer(500, "/host/path"));
        assert_eq!(error.kind(), ErrorKind::Upstream);
        assert!(!error.message().contains("/host/path") && error.detail().contains("/host/path"));
        assert_eq!(failed("start x")(EngineError::RequestTimeoutError).kind(), ErrorKind::Unavailable);
    }
}
