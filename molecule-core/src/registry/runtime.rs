//! What the runtime of an agent does by itself, of that which the platform goes by.

use super::RuntimeMetadata;
use crate::workspace::Workspace;

/// See the module. What an agent does not say it does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Runtime {
    /// It keeps messages that come while it is busy.
    pub(crate) native_session: bool,
    /// It keeps its own times, so that schedules ask it for nothing.
    pub(crate) native_scheduler: bool,
    /// How long it may show no sign of life during a call.
    pub(crate) idle_timeout_seconds: Option<i32>,
}

impl Runtime {
    /// That of an agent which says this about it, or nothing.
    pub(crate) fn of(metadata: Option<&RuntimeMetadata>) -> Self {
        let Some(metadata) = metadata else { return Self::default() };
        let has = |name: &str| metadata.capabilities.get(name).copied().unwrap_or_default();
        let idle = metadata.idle_timeout_seconds.filter(|seconds| *seconds > 0);
        Self {
            native_session: has("session"),
            native_scheduler: has("scheduler"),
            idle_timeout_seconds: idle.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX)),
        }
    }

    /// That which is kept of a workspace.
    pub(crate) fn kept(row: &Workspace) -> Self {
        let Workspace { native_session, native_scheduler, idle_timeout_seconds, .. } = *row;
        Self { native_session, native_scheduler, idle_timeout_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_the_metadata() {
        let runtime = |native_session, native_scheduler, idle_timeout_seconds| Runtime {
            native_session,
            native_scheduler,
            idle_timeout_seconds,
        };
        for (capabilities, idle, expected) in [
            (vec![], None, Runtime::default()),
            (vec![("session", true)], Some(600), runtime(true, false, Some(600))),
            (vec![("session", false), ("scheduler", true)], Some(0), runtime(false, true, None)),
            (vec![("scheduler", false)], Some(-1), Runtime::default()),
            (vec![("other", true)], Some(i64::MAX), runtime(false, false, Some(i32::MAX))),
        ] {
            let capabilities = capabilities.into_iter().map(|(name, has)| (name.to_owned(), has)).collect();
            let metadata = RuntimeMetadata { capabilities, idle_timeout_seconds: idle };
            assert_eq!(Runtime::of(Some(&metadata)), expected, "{metadata:?}");
        }
        assert_eq!(Runtime::of(None), Runtime::default());
    }
}
