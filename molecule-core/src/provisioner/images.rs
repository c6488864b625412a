//! Brings newer images to the backend, and to the workspaces that run them.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    workspace::{EXTERNAL_RUNTIME, Status},
};

/// How long bringing all of them may take.
const REFRESH_BUDGET: Duration = Duration::from_secs(5 * 60);

/// The images that workloads are made of, on a backend that has such.
#[async_trait]
pub trait Images: Debug + Send + Sync + 'static {
    /// Brings the published image of `runtime` to the backend, as it is now.
    async fn refresh(&self, runtime: &str) -> Result<()>;

    /// What names the published image of `runtime` as it is now, at the registry that it comes from.
    async fn newest(&self, runtime: &str) -> Result<String>;

    /// The workspaces whose workload was made of the published image of `runtime`, whatever that was then.
    async fn made_of(&self, runtime: &str) -> Result<Vec<WorkspaceId>>;
}

/// What a refresh came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// The runtimes whose image is as new as its registry's.
    pub pulled: Vec<String>,
    /// Those whose image could not be brought.
    pub failed: Vec<String>,
    /// The workspaces that are being brought up anew.
    pub recreated: Vec<WorkspaceId>,
}

/// What the watcher knows of each runtime's image.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<BTreeMap<String, String>>);

impl Seen {
    /// Takes note of what is newest. True where that is another than before: the first one only is what others are
    /// compared with.
    fn changes(&self, runtime: &str, newest: &str) -> bool {
        let before = self.lock().insert(runtime.to_owned(), newest.to_owned());
        before.is_some_and(|before| before != newest)
    }

    /// Forgets what was noted, so that the next look finds a change again.
    fn go_back(&self, runtime: &str) {
        self.lock().insert(runtime.to_owned(), String::new());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        // The map is whole whatever a panic interrupted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlPlane {
    /// Brings the newest image of `runtime`, or of every runtime, to the backend. Where `recreate`, the workspaces that run
    /// one are then brought up anew, but for those whose agent works; that goes on after the call.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with `known_runtimes` for an unknown runtime; [`ErrorKind::Unsupported`] on a backend
    /// without images.
    pub async fn refresh_images(&self, runtime: Option<&str>, recreate: bool) -> Result<Refreshed> {
        let known = self.runtimes_with_images();
        let runtimes = match runtime {
            None => known,
            Some(runtime) if known.iter().any(|known| known == runtime) => vec![runtime.to_owned()],
            Some(_) => return Err(Error::invalid("unknown runtime").with_member("known_runtimes", known)),
        };
        let images = self.images()?;
        let mut refreshed = Refreshed::default();
        let deadline = tokio::time::Instant::now() + REFRESH_BUDGET;
        for runtime in runtimes {
            let late = || Error::new(ErrorKind::Upstream, "bringing the images took too long");
            let pulled = tokio::time::timeout_at(deadline, images.refresh(&runtime)).await;
            match pulled.unwrap_or_else(|_| Err(late())) {
                Ok(()) => refreshed.pulled.push(runtime),
                Err(error) => {
                    tracing::warn!(runtime, error = error.detail(), "an image could not be brought");
                    refreshed.failed.push(runtime);
                }
            }
        }
        if recreate {
            for runtime in &refreshed.pulled {
                match self.idle_made_of(runtime).await {
                    Ok(idle) => refreshed.recreated.extend(idle),
                    Err(error) => {
                        let partial = serde_json::json!({"pulled": refreshed.pulled, "failed": refreshed.failed,
                            "recreated": refreshed.recreated});
                        return Err(error.with_member("partial_result", partial));
                    }
                }
            }
            self.roll_out(refreshed.recreated.clone());
        }
        Ok(refreshed)
    }

    /// The workspaces that run the image of `runtime` and have nothing to do.
    async fn idle_made_of(&self, runtime: &str) -> Result<Vec<WorkspaceId>> {
        let mut idle = Vec::new();
        for id in self.images()?.made_of(runtime).await? {
            let row = self.inner.store.workspace(id).await?;
            let runs = |status| matches!(status, Status::Online | Status::Degraded | Status::Offline | Status::Failed);
            if row.is_some_and(|row| runs(row.status) && row.active_tasks == 0) {
                idle.push(id);
            }
        }
        Ok(idle)
    }

    /// Looks once whether the image of any runtime changed at its registry, and brings those that did.
    pub(crate) async fn watch_images(&self, seen: &Seen) -> Result<()> {
        let images = self.images()?;
        for runtime in self.runtimes_with_images() {
            let newest = match images.newest(&runtime).await {
                Ok(newest) => newest,
                Err(error) => {
                    tracing::warn!(runtime, error = error.detail(), "the registry does not tell which image is newest");
                    continue;
                }
            };
            if !seen.changes(&runtime, &newest) {
                continue;
            }
            tracing::info!(runtime, image = newest, "there is a newer image");
            match self.refresh_images(Some(&runtime), true).await {
                Ok(refreshed) if refreshed.failed.is_empty() => {}
                Ok(_) => seen.go_back(&runtime),
                Err(error) => {
                    seen.go_back(&runtime);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn runtimes_with_images(&self) -> Vec<String> {
        let runtimes = self.inner.config.templates.runtimes().iter();
        runtimes.filter(|runtime| *runtime != EXTERNAL_RUNTIME).cloned().collect()
    }

    fn images(&self) -> Result<&dyn Images> {
        self.inner
            .images
            .as_deref()
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "workspaces are made of no images here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sight_is_no_change_and_what_failed_is_found_again() {
        let seen = Seen::default();
        assert!(!seen.changes("hermes", "a"));
        assert!(!seen.changes("hermes", "a"));
        assert!(seen.changes("hermes", "b"));
        assert!(!seen.changes("hermes", "b"));
        assert!(!seen.changes("codex", "b"), "each by itself");
        seen.go_back("hermes");
        assert!(seen.changes("hermes", "b"));
    }
}
