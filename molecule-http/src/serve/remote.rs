//! Which other control plane provides machines, and with what it is called.

use std::sync::Arc;

use clap::Args;
use molecule_core::{
    Error,
    provisioner::remote::{RemoteConfig, RemoteProvisioner},
};
use secrecy::{ExposeSecret, SecretString};

use super::settings::Settings;

/// Where machines come from unless somebody says otherwise.
const DEFAULT_URL: &str = "https://api.moleculesai.app";

/// The flags of the control-plane backend.
#[derive(Debug, Default, Args)]
pub(crate) struct RemoteArgs {
    /// The organisation whose machines another control plane provides.
    #[arg(env = "MOLECULE_ORG_ID", long, hide = true)]
    org_id: Option<String>,

    /// The control plane that provides machines.
    #[arg(env = "CP_PROVISION_URL", long, hide = true, value_name = "URL")]
    cp_provision_url: Option<String>,

    /// The same, where --cp-provision-url says nothing.
    #[arg(env = "MOLECULE_CP_URL", long, hide = true, value_name = "URL")]
    cp_url: Option<String>,

    /// The bearer it asks for.
    #[arg(env = "MOLECULE_CP_SHARED_SECRET", long, hide = true, hide_env_values = true)]
    cp_shared_secret: Option<SecretString>,

    /// The same, where --cp-shared-secret says nothing.
    #[arg(env = "PROVISION_SHARED_SECRET", long, hide = true, hide_env_values = true)]
    provision_shared_secret: Option<SecretString>,

    /// The bearer it asks for to show a console, where that is another.
    #[arg(env = "CP_ADMIN_API_TOKEN", long, hide = true, hide_env_values = true)]
    cp_admin_api_token: Option<SecretString>,
}

impl RemoteArgs {
    /// The organisation, if one is named.
    pub(crate) fn org_id(&self) -> Option<&str> {
        self.org_id.as_deref().map(str::trim).filter(|org_id| !org_id.is_empty())
    }
}

/// The backend that `settings` name.
pub(crate) fn provisioner(settings: &Settings) -> Result<Arc<RemoteProvisioner>, Error> {
    let remote = &settings.remote;
    let url = |url: &Option<String>| url.clone().filter(|url| !url.trim().is_empty());
    let secret = |secret: &Option<SecretString>| secret.clone().filter(|secret| !secret.expose_secret().is_empty());
    let config = RemoteConfig {
        base_url: url(&remote.cp_provision_url).or(url(&remote.cp_url)).unwrap_or_else(|| DEFAULT_URL.to_owned()),
        org_id: remote.org_id().unwrap_or_default().to_owned(),
        shared_secret: secret(&remote.cp_shared_secret).or(secret(&remote.provision_shared_secret)),
        admin_api_token: secret(&remote.cp_admin_api_token),
        admin_token: settings.admin_token.clone(),
        timeout: RemoteConfig::DEFAULT_TIMEOUT,
    };
    let base_url = config.base_url.clone();
    let provisioner = RemoteProvisioner::new(config)?;
    if settings.platform_url.is_none() && settings.listen.ip().is_loopback() {
        tracing::warn!(
            "machines elsewhere cannot reach this server on loopback; say with --platform-url where they can"
        );
    }
    tracing::info!(control_plane = base_url, "workspaces run on machines of another control plane");
    Ok(Arc::new(provisioner))
}
