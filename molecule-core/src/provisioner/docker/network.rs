//! The network that workspaces share with each other.

use std::net::IpAddr;

use bollard::{
    models::{Network, NetworkCreateRequest},
    query_parameters::ListNetworksOptionsBuilder,
};

use super::{DockerProvisioner, errors, names};
use crate::error::{Error, ErrorKind, Result};

impl DockerProvisioner {
    /// Makes the workspaces' network where it is missing, and gives the address that this host has on it.
    ///
    /// There is none for networks that are no bridge, and for engines that keep it to themselves.
    pub async fn gateway(&self) -> Result<Option<IpAddr>> {
        let this = self.clone();
        // To its end even where the caller goes away: the engine would finish making a network, and nobody would see
        // that it is the second.
        let network = self.tasks.spawn(async move { this.network().await }).await;
        let network = network.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "looking for the network broke off because of a defect").caused_by(error)
        })?;
        Ok(gateway(&network?))
    }

    async fn network(&self) -> Result<Network> {
        // One at a time: engines make two networks of one name when asked at once.
        let _alone = self.making_network.lock().await;
        let mut networks = self.networks().await?;
        if networks.is_empty() {
            self.make_network().await?;
            networks = self.networks().await?;
        }
        let mut networks = networks.into_iter();
        let oldest = networks.next().unwrap_or_default();
        // Two of one name can't be told apart by it, and no container can join either. Another server was as fast, or
        // one was killed right here. Everyone keeps the oldest.
        for id in networks.filter_map(|network| network.id) {
            if let Err(error) = errors::found(self.docker.remove_network(&id).await) {
                tracing::warn!(network = self.config.network, %error, "could not remove a second network of the same name");
            }
        }
        Ok(oldest)
    }

    async fn make_network(&self) -> Result<()> {
        let name = &self.config.network;
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some([(names::MANAGED.to_owned(), names::YES.to_owned())].into()),
            ..NetworkCreateRequest::default()
        };
        match self.docker.create_network(request).await {
            Ok(_) => Ok(()),
            // Another server was faster.
            Err(error) if errors::is_conflict(&error) => Ok(()),
            Err(error) => Err(errors::failed(format!("make the network {name}"))(error)),
        }
    }

    /// The networks of the configured name, the oldest first.
    async fn networks(&self) -> Result<Vec<Network>> {
        let name = &self.config.network;
        // The filter also finds names that only hold this one.
        let filters = [("name".to_owned(), vec![name.clone()])].into();
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let mut networks = self
            .docker
            .list_networks(Some(options))
            .await
            .map_err(errors::failed(format!("look for the network {name}")))?;
        networks.retain(|network| network.name.as_ref() == Some(name));
        networks.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        Ok(networks)
    }
}

fn gateway(network: &Network) -> Option<IpAddr> {
    let configs = network.ipam.as_ref()?.config.as_ref()?;
    // Some engines write the length of the subnet behind it.
    let gateways = configs.iter().filter_map(|config| config.gateway.as_deref()?.split('/').next()?.parse().ok());
    gateways.min_by_key(IpAddr::is_ipv6)
}

#[cfg(test)]
mod tests {
    use bollard::models::{Ipam, IpamConfig};

    use super::*;

    #[test]
    fn reads_the_gateway() {
        let network = |gateways: &[&str]| Network {
            ipam: Some(Ipam {
                config: Some(
                    gateways
                        .iter()
                        .map(|gateway| IpamConfig { gateway: Some((*gateway).to_owned()), ..IpamConfig::default() })
                        .collect(),
                ),
                ..Ipam::default()
            }),
            ..Network::default()
        };
        assert_eq!(gateway(&Network::default()), None);
        assert_eq!(gateway(&network(&[""])), None);
        assert_eq!(gateway(&network(&["172.18.0.1"])), Some("172.18.0.1".parse().unwrap()));
        assert_eq!(gateway(&network(&["fd00::1", "172.18.0.1/16"])), Some("172.18.0.1".parse().unwrap()));
    }
}
