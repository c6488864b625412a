//! The network that workspaces share with each other.

use std::net::IpAddr;

use bollard::{
    models::{Network, NetworkCreateRequest},
    query_parameters::ListNetworksOptionsBuilder,
};

use super::{DockerProvisioner, errors, names};
use crate::error::Result;

impl DockerProvisioner {
    /// Makes the workspaces' network where it is missing, and gives the address that this host has on it.
    ///
    /// There is none for networks that are no bridge, and for engines that keep it to themselves.
    pub async fn gateway(&self) -> Result<Option<IpAddr>> {
        // One at a time: engines of older versions make two networks of one name when asked at once.
        let _alone = self.making_network.lock().await;
        let network = match self.oldest_network().await? {
            Some(network) => network,
            None => self.make_network().await?,
        };
        Ok(gateway(&network))
    }

    async fn make_network(&self) -> Result<Network> {
        let name = &self.config.network;
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some([(names::MANAGED.to_owned(), names::YES.to_owned())].into()),
            ..NetworkCreateRequest::default()
        };
        let made = match self.docker.create_network(request).await {
            Ok(network) => Some(network.id),
            // Another server was faster.
            Err(error) if errors::is_conflict(&error) => None,
            Err(error) => return Err(errors::failed(format!("make the network {name}"))(error)),
        };
        let oldest = self.oldest_network().await?.unwrap_or_default();
        if let Some(made) = made.filter(|made| oldest.id.as_ref() != Some(made)) {
            // Two of one name can't be told apart by it. Everyone keeps the oldest.
            self.docker
                .remove_network(&made)
                .await
                .map_err(errors::failed(format!("remove the second network {name}")))?;
        }
        Ok(oldest)
    }

    async fn oldest_network(&self) -> Result<Option<Network>> {
        let name = &self.config.network;
        // The filter also finds names that only hold this one.
        let filters = [("name".to_owned(), vec![name.clone()])].into();
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let networks = self
            .docker
            .list_networks(Some(options))
            .await
            .map_err(errors::failed(format!("look for the network {name}")))?;
        Ok(networks
            .into_iter()
            .filter(|network| network.name.as_ref() == Some(name))
            .min_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id))))
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
