//! What workspaces and the Docker backend are told.

use clap::Args;
use molecule_core::provisioner::docker::{DockerConfig, Limit, RegistryLogin};
use secrecy::{ExposeSecret, SecretString};

/// The registry that published images come from.
const REGISTRY: &str = "ghcr.io";

/// The flags of the Docker backend.
#[derive(Debug, Default, Args)]
pub(crate) struct DockerArgs {
    /// The account that images are pulled with from ghcr.io, together with --ghcr-token.
    #[arg(env = "GHCR_USER", long, hide = true)]
    ghcr_user: Option<String>,

    /// The token of that account.
    #[arg(env = "GHCR_TOKEN", long, hide = true, hide_env_values = true)]
    ghcr_token: Option<SecretString>,

    /// `true` looks for newer images every five minutes, and brings idle workspaces up anew with them.
    #[arg(env = "IMAGE_AUTO_REFRESH", long, hide = true)]
    image_auto_refresh: Option<String>,

    /// The platform of images, such as `linux/amd64`; empty leaves it to the engine.
    #[arg(env = "MOLECULE_IMAGE_PLATFORM", long, hide = true)]
    image_platform: Option<String>,

    /// `true` where this server runs in a container on the network of its workspaces: it calls them by name there.
    #[arg(env = "MOLECULE_IN_DOCKER", long, hide = true)]
    in_docker: Option<String>,

    /// Where agents find the awareness of their fleet: told to each as `AWARENESS_URL`.
    #[arg(env = "AWARENESS_URL", long, hide = true, value_name = "URL")]
    awareness_url: Option<String>,

    /// The memory of tier 2, in mebibytes.
    #[arg(env = "TIER2_MEMORY_MB", long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    tier2_memory_mb: Option<u32>,

    /// The processor time of tier 2; 1024 is one processor.
    #[arg(env = "TIER2_CPU_SHARES", long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    tier2_cpu_shares: Option<u32>,

    /// The memory of tier 3, in mebibytes.
    #[arg(env = "TIER3_MEMORY_MB", long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    tier3_memory_mb: Option<u32>,

    /// The processor time of tier 3; 1024 is one processor.
    #[arg(env = "TIER3_CPU_SHARES", long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    tier3_cpu_shares: Option<u32>,

    /// The memory of tier 4, in mebibytes.
    #[arg(env = "TIER4_MEMORY_MB", long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    tier4_memory_mb: Option<u32>,

    /// The processor time of tier 4; 1024 is one processor.
    #[arg(env = "TIER4_CPU_SHARES", long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    tier4_cpu_shares: Option<u32>,
}

impl DockerArgs {
    /// Where agents find the awareness of their fleet, where there is one.
    pub(crate) fn awareness_url(&self) -> Option<String> {
        self.awareness_url
            .as_deref()
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty())
    }

    /// Whether newer images are looked for.
    pub(crate) fn watches_images(&self) -> bool {
        self.image_auto_refresh.as_deref().is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
    }

    /// Tells `config` what was said.
    pub(crate) fn apply(&self, config: &mut DockerConfig) {
        let user = self.ghcr_user.as_deref().map(str::trim).filter(|user| !user.is_empty());
        let token = self.ghcr_token.as_ref().filter(|token| !token.expose_secret().trim().is_empty());
        if let (Some(user), Some(token)) = (user, token) {
            config.registry_login = Some(RegistryLogin {
                registry: REGISTRY.to_owned(),
                username: user.to_owned(),
                password: token.clone(),
            });
        }
        let says_so = |text: &str| matches!(text.trim().to_ascii_lowercase().as_str(), "true" | "1");
        config.in_container = self.in_docker.as_deref().is_some_and(says_so);
        config.platform =
            platform(self.image_platform.as_deref(), cfg!(all(target_os = "macos", target_arch = "aarch64")));
        let limit = |limit: &mut Limit, memory_mb: Option<u32>, cpu_shares: Option<u32>| {
            limit.memory_mb = memory_mb.unwrap_or(limit.memory_mb);
            limit.cpu_shares = cpu_shares.unwrap_or(limit.cpu_shares);
        };
        limit(&mut config.limits.tier2, self.tier2_memory_mb, self.tier2_cpu_shares);
        limit(&mut config.limits.tier3, self.tier3_memory_mb, self.tier3_cpu_shares);
        limit(&mut config.limits.tier4, self.tier4_memory_mb, self.tier4_cpu_shares);
    }
}

/// The platform of images where this one is named, if any. Empty leaves it to the engine.
fn platform(named: Option<&str>, on_apple_silicon: bool) -> Option<String> {
    match named.map(str::trim) {
        Some("") => None,
        Some(platform) => Some(platform.to_owned()),
        // No image is published for that one.
        None => on_apple_silicon.then(|| "linux/amd64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_needs_both_its_parts_and_limits_are_each_their_own() {
        for (user, token, login) in [("u", "t", true), ("u", " ", false), ("", "t", false)] {
            let args = DockerArgs {
                ghcr_user: Some(user.to_owned()),
                ghcr_token: Some(token.into()),
                image_platform: Some(" linux/arm64 ".to_owned()),
                tier3_memory_mb: Some(7),
                tier4_cpu_shares: Some(9),
                ..DockerArgs::default()
            };
            let mut config = DockerConfig::default();
            args.apply(&mut config);
            assert_eq!(config.registry_login.is_some(), login, "{user:?} {token:?}");
            assert_eq!(config.platform.as_deref(), Some("linux/arm64"));
            assert_eq!((config.limits.tier3.memory_mb, config.limits.tier3.cpu_shares), (7, 2048));
            assert_eq!((config.limits.tier4.memory_mb, config.limits.tier4.cpu_shares), (4096, 9));
            assert_eq!(config.limits.tier2, DockerConfig::default().limits.tier2);
        }
        let mut config = DockerConfig { platform: Some("x".to_owned()), ..DockerConfig::default() };
        DockerArgs { image_platform: Some(String::new()), ..DockerArgs::default() }.apply(&mut config);
        assert_eq!(config.platform, None, "set but empty leaves it to the engine");
    }

    #[test]
    fn images_are_of_the_platform_that_is_named_and_else_of_the_engine_or_of_what_is_published() {
        for (named, on_apple_silicon, expected) in [
            (None, false, None),
            (None, true, Some("linux/amd64")),
            (Some(""), false, None),
            (Some(" "), true, None),
            (Some(" linux/arm64 "), true, Some("linux/arm64")),
        ] {
            assert_eq!(platform(named, on_apple_silicon).as_deref(), expected, "{named:?} {on_apple_silicon}");
        }
    }

    #[test]
    fn a_server_in_a_container_says_so() {
        for (text, inside) in [(None, false), (Some(" True "), true), (Some("1"), true), (Some("no"), false)] {
            let args = DockerArgs { in_docker: text.map(str::to_owned), ..DockerArgs::default() };
            let mut config = DockerConfig::default();
            args.apply(&mut config);
            assert_eq!(config.in_container, inside, "{text:?}");
        }
    }

    #[test]
    fn only_true_watches() {
        for (text, watches) in [(None, false), (Some("true"), true), (Some("TRUE"), true), (Some("1"), false)] {
            let args = DockerArgs { image_auto_refresh: text.map(str::to_owned), ..DockerArgs::default() };
            assert_eq!(args.watches_images(), watches, "{text:?}");
        }
    }
}
