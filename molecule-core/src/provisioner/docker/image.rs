//! Images: which one a runtime runs, and bringing it to the engine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::{
    auth::DockerCredentials,
    errors::Error as EngineError,
    query_parameters::CreateImageOptionsBuilder,
    query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder},
};
use futures_util::TryStreamExt;
use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use super::{DockerProvisioner, errors, names};
use crate::{
    error::{Error, ErrorKind, Result},
    id::WorkspaceId,
    provisioner::image_ref,
};

/// The pulls under way, by reference: starts that need the same image wait for one pull.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<HashMap<String, Arc<Pull>>>);

type Pull = OnceCell<Result<(), Arc<PullError>>>;

#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("the pull took longer than {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl DockerProvisioner {
    /// Makes sure that the engine has the image of `runtime`, as fresh as its tag promises, and gives its reference.
    ///
    /// Where a moving tag can't be pulled, the cached image will do.
    pub(super) async fn ensure_image(&self, runtime: &str) -> Result<String> {
        let candidates = self.config.images.candidates(runtime)?;
        if let Some(local) = candidates.local
            && self.has_image(&local).await?
        {
            return Ok(local);
        }
        let reference = candidates.published;
        let cached = self.has_image(&reference).await?;
        if cached && !image_ref::is_moving(&reference) {
            return Ok(reference);
        }
        match self.pull(&reference).await {
            Ok(()) => Ok(reference),
            Err(error) if cached => {
                tracing::warn!(
                    image = reference,
                    error = %error,
                    "could not pull the image; the cached one is used and may be out of date"
                );
                Ok(reference)
            }
            Err(error) => Err(not_pulled(runtime, &reference, error)),
        }
    }

    /// The image of `runtime` that the engine has, as fresh as it was brought; brought now where there is none.
    pub(super) async fn image_at_hand(&self, runtime: &str) -> Result<String> {
        let candidates = self.config.images.candidates(runtime)?;
        for reference in candidates.local.into_iter().chain([candidates.published]) {
            if self.has_image(&reference).await? {
                return Ok(reference);
            }
        }
        self.ensure_image(runtime).await
    }

    /// An image that is on the engine already and that a container can be made of: that of `runtime` where possible.
    ///
    /// The second value says whether it is that of `runtime`.
    pub(super) async fn any_local_image(&self, runtime: Option<&str>) -> Result<(String, bool)> {
        if let Some(candidates) = runtime.and_then(|runtime| self.config.images.candidates(runtime).ok()) {
            for reference in candidates.local.into_iter().chain([candidates.published]) {
                if self.has_image(&reference).await? {
                    return Ok((reference, true));
                }
            }
        }
        let options = ListImagesOptionsBuilder::new().build();
        let images = self.docker.list_images(Some(options)).await.map_err(errors::failed("list its images"))?;
        images.into_iter().next().map(|image| (image.id, false)).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the docker engine has no image to reach a volume with — run make image")
        })
    }

    /// Pulls the published image of `runtime`, whatever the engine has of it.
    pub(super) async fn refresh_image(&self, runtime: &str) -> Result<()> {
        let reference = self.config.images.candidates(runtime)?.published;
        self.pull(&reference).await.map_err(|error| not_pulled(runtime, &reference, error))
    }

    /// The digest of the published image of `runtime` at its registry. The engine asks there.
    pub(super) async fn newest_digest(&self, runtime: &str) -> Result<String> {
        let reference = self.config.images.candidates(runtime)?.published;
        let failed = errors::failed("ask the registry for the newest image");
        let found = self.docker.inspect_registry_image(&reference, self.login(&reference)).await;
        let found = found.map_err(failed).map_err(|error| error.context("image", reference))?;
        found.descriptor.digest.ok_or_else(|| Error::new(ErrorKind::Upstream, "the registry names no digest"))
    }

    /// The workspaces of this installation whose container was made of exactly the published image of `runtime`.
    pub(super) async fn made_of_image(&self, runtime: &str) -> Result<Vec<WorkspaceId>> {
        let reference = self.config.images.candidates(runtime)?.published;
        let mut labels = vec![(names::MANAGED, names::YES)];
        labels.extend(self.config.installation.as_deref().map(|installation| (names::INSTALLATION, installation)));
        let options = ListContainersOptionsBuilder::new().all(true).filters(&names::with_labels(&labels)).build();
        let containers = self.docker.list_containers(Some(options)).await;
        let containers = containers.map_err(errors::failed("list its containers"))?;
        let mut found = Vec::new();
        for container in containers {
            let labels = container.labels.unwrap_or_default();
            let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            let Some(id) = names::owner(&labels, &name) else { continue };
            // The list shows what the image is called now; what the container was made of is in the container.
            let made_of = self.find(id).await?.and_then(|found| found.container.config?.image);
            if made_of.is_some_and(|made_of| made_of == reference) {
                found.push(id);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn has_image(&self, reference: &str) -> Result<bool> {
        errors::found(self.docker.inspect_image(reference).await)
            .map(|image| image.is_some())
            .map_err(errors::failed("look for an image"))
            .map_err(|error| error.context("image", reference))
    }

    async fn pull(&self, reference: &str) -> Result<(), Arc<PullError>> {
        let pull = Arc::clone(self.pulls.lock().entry(reference.to_owned()).or_default());
        // A caller that gives up half way leaves the pull to the next one that waits.
        let outcome = pull.get_or_init(|| self.pull_now(reference)).await.clone();
        let mut pulls = self.pulls.lock();
        if pulls.get(reference).is_some_and(|latest| Arc::ptr_eq(latest, &pull)) {
            pulls.remove(reference);
        }
        outcome
    }

    async fn pull_now(&self, reference: &str) -> Result<(), Arc<PullError>> {
        tracing::info!(image = reference, "pulling the image");
        let budget = self.config.pull_timeout;
        match tokio::time::timeout(budget, self.drain_pull(reference)).await {
            Ok(outcome) => outcome.map_err(|error| Arc::new(error.into())),
            Err(_) => Err(Arc::new(PullError::TimedOut(budget))),
        }
    }

    async fn drain_pull(&self, reference: &str) -> Result<(), EngineError> {
        let mut options = CreateImageOptionsBuilder::new().from_image(reference);
        if image_ref::tag(reference).is_none() && !reference.contains('@') {
            // Without a tag the engine would pull every tag there is.
            options = options.tag("latest");
        }
        if let Some(platform) = &self.config.platform {
            options = options.platform(platform);
        }
        // The budget around this call is the one that counts; this one knows whole seconds only.
        let patient = self.docker.clone().with_timeout(self.config.pull_timeout + Duration::from_secs(1));
        // The engine stops pulling when nobody listens, and tells of a failure only along the way.
        patient
            .create_image(Some(options.build()), None, self.login(reference))
            .try_for_each(|_| async { Ok(()) })
            .await
    }

    fn login(&self, reference: &str) -> Option<DockerCredentials> {
        let login = self.config.registry_login.as_ref()?;
        let (registry, _repository) = reference.split_once('/')?;
        (registry == login.registry).then(|| DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.expose_secret().to_owned()),
            serveraddress: Some(login.registry.clone()),
            ..DockerCredentials::default()
        })
    }
}

/// The error of a start whose image is nowhere. Which one that is goes to the log: the message is shown to everyone.
pub(super) fn not_found(runtime: &str, reference: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the image of runtime {runtime} is not on this Docker engine and could not be pulled — build it with \
             make image, or check the registry"
        ),
    )
    .context("image", reference)
}

/// The error of an image that could not be brought.
fn not_pulled(runtime: &str, reference: &str, error: Arc<PullError>) -> Error {
    let failure = match *error {
        PullError::TimedOut(budget) => {
            let text = format!(
                "the image of runtime {runtime} is not on this Docker engine and was not pulled within {} s — build it \
                 with make image, or check the registry",
                budget.as_secs()
            );
            Error::new(ErrorKind::Unavailable, text).context("image", reference)
        }
        PullError::Engine(_) => not_found(runtime, reference),
    };
    failure.caused_by(error)
}

impl Pulls {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Pull>>> {
        // The map is whole whatever a panic interrupted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
