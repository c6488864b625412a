//! What the runtime of an agent does by itself, of that which calls to the agent depend on.

use std::sync::PoisonError;

use super::RuntimeMetadata;
use crate::{control_plane::ControlPlane, id::WorkspaceId};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// It keeps messages that come while it is busy.
    pub(crate) native_session: bool,
    /// How long it may show no sign of life during a call.
    pub(crate) idle_timeout_seconds: Option<i32>,
}

impl From<&RuntimeMetadata> for Runtime {
    fn from(metadata: &RuntimeMetadata) -> Self {
        let idle = metadata.idle_timeout_seconds.filter(|seconds| *seconds > 0);
        Self {
            native_session: metadata.capabilities.get("session").copied().unwrap_or_default(),
            idle_timeout_seconds: idle.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX)),
        }
    }
}

impl ControlPlane {
    /// Saves what a heartbeat says of the runtime, in a task of its own, where that is not what was saved last.
    pub(super) fn hear_runtime(&self, id: WorkspaceId, metadata: Option<&RuntimeMetadata>) {
        let Some(runtime) = metadata.map(Runtime::from) else { return };
        let known = || self.inner.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        if known().insert(id, runtime) == Some(runtime) {
            return;
        }
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            if let Err(error) = this.inner.store.keep_runtime(id, runtime).await {
                // The next heartbeat tries again.
                this.inner.runtimes.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                tracing::warn!(workspace.id = %id, error = error.detail(), "what a runtime does could not be kept");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_kept_of_the_metadata() {
        for (session, idle, expected) in [
            (None, None, (false, None)),
            (Some(true), Some(600), (true, Some(600))),
            (Some(false), Some(0), (false, None)),
            (None, Some(-1), (false, None)),
            (None, Some(i64::MAX), (false, Some(i32::MAX))),
        ] {
            let capabilities = session.map(|has| ("session".to_owned(), has)).into_iter().collect::<BTreeMap<_, _>>();
            let runtime = Runtime::from(&RuntimeMetadata { capabilities, idle_timeout_seconds: idle });
            assert_eq!((runtime.native_session, runtime.idle_timeout_seconds), expected, "{session:?} {idle:?}");
        }
    }
}
