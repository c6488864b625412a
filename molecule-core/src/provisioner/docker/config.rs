//! The settings of the Docker backend.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;

use super::names;
use crate::{
    clock::{Clock, SystemClock},
    error::{Error, Result},
    id::WorkspaceId,
    provisioner::image_ref,
};

/// Everything the Docker backend can be told.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The engine: `unix://`, `tcp://` or `http://` and its address. The engine of this host where there is none.
    pub docker_host: Option<String>,
    /// The control plane runs in a container on that network, so that it calls agents by the names of their containers
    /// and not by ports of the host.
    pub in_container: bool,
    /// The network that workspaces share. It is made at the first start where it is missing.
    pub network: String,
    /// Tells what this installation made from what others on the same engine made. Without one it is never known, and
    /// nothing is cleared up that no row knows.
    pub installation: Option<String>,
    /// The highest tier whose settings are granted; a workspace of a higher one runs with the settings of this.
    ///
    /// Tiers 3 and 4 are privileged: whoever talks such an agent into something owns the host.
    pub max_tier: i32,
    /// What the tiers may use.
    pub limits: TierLimits,
    /// Which image a runtime runs.
    pub images: ImageNames,
    /// The platform to pull and run, such as `linux/amd64`. The engine's own where there is none.
    pub platform: Option<String>,
    /// The account that images are pulled with. None pulls anonymously.
    pub registry_login: Option<RegistryLogin>,
    /// How long one pull may take, apart from the start that waits for it.
    pub pull_timeout: Duration,
    /// How long the engine may take to answer anything but a pull. Whole seconds, at least one.
    pub request_timeout: Duration,
    /// Tells how long a workload has been up.
    pub clock: Arc<dyn Clock>,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            docker_host: None,
            in_container: false,
            network: "molecule-monorepo-net".to_owned(),
            installation: None,
            max_tier: 2,
            limits: TierLimits::default(),
            images: ImageNames::default(),
            platform: None,
            registry_login: None,
            pull_timeout: Duration::from_secs(10 * 60),
            request_timeout: Duration::from_secs(60),
            clock: Arc::new(SystemClock),
        }
    }
}

impl DockerConfig {
    /// The labels of everything that is made for `id`.
    pub(super) fn labels(&self, id: WorkspaceId) -> HashMap<String, String> {
        let mut labels = names::labels(id);
        labels.extend(self.installation.clone().map(|installation| (names::INSTALLATION.to_owned(), installation)));
        labels
    }
}

/// What workspaces of the tiers 2 to 4 may use. Tier 1 is limited by what it may do, not by these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierLimits {
    /// Of tier 2, and of unknown tiers.
    pub tier2: Limit,
    /// Of tier 3.
    pub tier3: Limit,
    /// Of tier 4.
    pub tier4: Limit,
}

impl Default for TierLimits {
    fn default() -> Self {
        Self {
            tier2: Limit { memory_mb: 512, cpu_shares: 1024 },
            tier3: Limit { memory_mb: 2048, cpu_shares: 2048 },
            tier4: Limit { memory_mb: 4096, cpu_shares: 4096 },
        }
    }
}

/// Memory and processor time of one workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Mebibytes of memory.
    pub memory_mb: u32,
    /// Processor time; 1024 is one processor.
    pub cpu_shares: u32,
}

/// An account at the registry that images come from.
#[derive(Debug, Clone)]
pub struct RegistryLogin {
    /// The host of the registry, such as `ghcr.io`: pulls from other registries do not send the login.
    pub registry: String,
    /// The name of the account.
    pub username: String,
    /// Its password or token.
    pub password: SecretString,
}

/// Says which image a runtime runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageNames {
    /// The repository of images built on this host; one tagged with the runtime wins over the published one.
    pub local_repository: String,
    /// The repository of published images, to which the runtime is appended.
    pub published_prefix: String,
    /// The tag of published images.
    pub published_tag: String,
    /// Whole references by runtime, which win over everything else.
    pub overrides: BTreeMap<String, String>,
}

impl Default for ImageNames {
    fn default() -> Self {
        Self {
            local_repository: "workspace-template".to_owned(),
            published_prefix: "ghcr.io/molecule-ai/workspace-template-".to_owned(),
            published_tag: "latest".to_owned(),
            overrides: BTreeMap::new(),
        }
    }
}

/// The references to try for a runtime, best first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    /// Taken where the engine has it, never pulled.
    pub(super) local: Option<String>,
    /// Pulled where it is missing.
    pub(super) published: String,
}

impl ImageNames {
    pub(super) fn candidates(&self, runtime: &str) -> Result<Candidates> {
        if let Some(reference) = self.overrides.get(runtime) {
            return Ok(Candidates { local: None, published: reference.clone() });
        }
        if !image_ref::is_reference_part(runtime) {
            return Err(Error::invalid(format!("runtime {runtime:?} cannot name an image")));
        }
        Ok(Candidates {
            local: Some(format!("{}:{runtime}", self.local_repository)),
            published: format!("{}{runtime}:{}", self.published_prefix, self.published_tag),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_images_of_a_runtime() {
        let mut names = ImageNames::default();
        names.overrides.insert("own".to_owned(), "registry.example/own:1".to_owned());
        let hermes = names.candidates("hermes").unwrap();
        assert_eq!(hermes.local.as_deref(), Some("workspace-template:hermes"));
        assert_eq!(hermes.published, "ghcr.io/molecule-ai/workspace-template-hermes:latest");
        assert_eq!(
            names.candidates("own").unwrap(),
            Candidates { local: None, published: "registry.example/own:1".to_owned() }
        );
        assert_eq!(names.candidates("a b").unwrap_err().message(), "runtime \"a b\" cannot name an image");
    }
}
