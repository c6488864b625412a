//! What a workspace's container is made of: pure, from the spec and the settings to the engine's request.

use std::{collections::HashMap, net::IpAddr};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, Mount, MountType, NetworkingConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::{config::DockerConfig, names, tier::Tier, volumes::Volumes};
use crate::{id::WorkspaceId, provisioner::StartSpec, workspace::Access};

/// Where the configuration volume is mounted.
pub(super) const CONFIG_DIR: &str = "/configs";
/// Where the agent works.
const WORKSPACE_DIR: &str = "/workspace";
/// Where Claude Code keeps its conversations.
const SESSION_DIR: &str = "/root/.claude/sessions";
/// Where agents listen, unless they share the network of the host.
const AGENT_PORT: u16 = 8000;
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where the agent of `id` is called on the network of the workspaces.
pub(super) fn address(id: WorkspaceId) -> String {
    format!("http://{}:{AGENT_PORT}", names::container(id))
}

/// Everything that a container is decided by.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) spec: &'a StartSpec,
    pub(super) config: &'a DockerConfig,
    pub(super) tier: Tier,
    pub(super) image: &'a str,
    pub(super) volumes: &'a Volumes,
    /// The address of this host on the workspaces' network.
    pub(super) gateway: Option<IpAddr>,
    /// How many processors the engine's machine has, where it says so.
    pub(super) cpus: Option<i64>,
    /// The port of this host under which the agent is reached.
    pub(super) port: u16,
}

impl Plan<'_> {
    /// The request that makes the container.
    pub(super) fn body(&self) -> ContainerCreateBody {
        let mut host = HostConfig {
            mounts: Some(self.mounts()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            extra_hosts: Some(vec![format!("host.docker.internal:{}", self.host_address())]),
            ..HostConfig::default()
        };
        self.tier.apply(&mut host, &self.config.limits, self.cpus);

        let mut networking = None;
        let mut exposed_ports = None;
        if self.tier.shares_host_network() {
            // Endpoints and published ports have no meaning there, and some engines refuse them.
            host.network_mode = Some("host".to_owned());
        } else {
            let port = format!("{AGENT_PORT}/tcp");
            let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(self.port.to_string()) };
            host.network_mode = Some(self.config.network.clone());
            host.port_bindings = Some(HashMap::from([(port.clone(), Some(vec![binding]))]));
            exposed_ports = Some(vec![port]);
            networking = Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(
                    self.config.network.clone(),
                    EndpointSettings {
                        aliases: Some(vec![names::container(self.spec.workspace_id)]),
                        ..EndpointSettings::default()
                    },
                )])),
            });
        }

        ContainerCreateBody {
            image: Some(self.image.to_owned()),
            env: Some(self.env()),
            labels: Some(self.config.labels(self.spec.workspace_id)),
            exposed_ports,
            host_config: Some(host),
            networking_config: networking,
            ..ContainerCreateBody::default()
        }
    }

    fn host_address(&self) -> String {
        match self.gateway {
            _ if self.tier.shares_host_network() => "127.0.0.1".to_owned(),
            Some(gateway) => gateway.to_string(),
            None => "host-gateway".to_owned(),
        }
    }

    fn env(&self) -> Vec<String> {
        let mut env = self.spec.env.clone();
        let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
        // Last, so that no secret of the same name takes their place.
        set("WORKSPACE_ID", self.spec.workspace_id.to_string());
        set("WORKSPACE_CONFIG_PATH", CONFIG_DIR.to_owned());
        set("CONFIGS_DIR", CONFIG_DIR.to_owned());
        set("PLATFORM_URL", self.spec.platform_url.clone());
        set("MOLECULE_URL", self.spec.platform_url.clone());
        set("TIER", self.tier.number().to_string());
        set("PLUGINS_DIR", format!("{CONFIG_DIR}/plugins"));
        set("PYTHONPATH", "/app".to_owned());
        if self.tier.shares_host_network() {
            set("PORT", self.port.to_string());
        }
        env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn mounts(&self) -> Vec<Mount> {
        let mut mounts = vec![volume(&self.volumes.config, CONFIG_DIR)];
        if self.tier.has_workspace() {
            mounts.push(self.workspace());
        }
        if let Some(session) = &self.volumes.session {
            mounts.push(volume(session, SESSION_DIR));
        }
        if self.tier == Tier::Host {
            let socket = self.config.docker_host.as_deref().and_then(|host| host.strip_prefix("unix://"));
            mounts.push(bind(socket.unwrap_or(DEFAULT_SOCKET), DEFAULT_SOCKET, false));
        }
        mounts
    }

    fn workspace(&self) -> Mount {
        match (&self.spec.workspace_dir, self.spec.access) {
            (Some(dir), Access::ReadOnly) => bind(&dir.to_string_lossy(), WORKSPACE_DIR, true),
            (Some(dir), Access::ReadWrite) => bind(&dir.to_string_lossy(), WORKSPACE_DIR, false),
            (None, _) | (Some(_), Access::None) => volume(&self.volumes.workspace, WORKSPACE_DIR),
        }
    }
}

/// A mount of the volume `name` at `target`.
pub(super) fn volume(name: &str, target: &str) -> Mount {
    Mount {
        source: Some(name.to_owned()),
        target: Some(target.to_owned()),
        typ: Some(MountType::VOLUME),
        ..Mount::default()
    }
}

fn bind(source: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn spec() -> StartSpec {
        StartSpec {
            workspace_id: "6f9619ff-8b86-4011-b42d-00cf4fc964ff".parse().unwrap(),
            name: "Ada".to_owned(),
            runtime: "hermes".to_owned(),
            tier: 2,
            env: [("PLATFORM_URL", "http://evil"), ("TIER", "9"), ("MODEL", "m")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            files: Vec::new(),
            workspace_dir: None,
            access: Access::None,
            platform_url: "http://host.docker.internal:8080".to_owned(),
            reset_session: false,
            command: Default::default(),
        }
    }

    fn body(spec: &StartSpec, tier: Tier, gateway: Option<&str>) -> ContainerCreateBody {
        let volumes = Volumes {
            config: "c".to_owned(),
            workspace: "w".to_owned(),
            session: (spec.runtime == "claude-code").then(|| "s".to_owned()),
        };
        Plan {
            spec,
            config: &DockerConfig::default(),
            tier,
            image: "i:1",
            volumes: &volumes,
            gateway: gateway.map(|address| address.parse().unwrap()),
            cpus: None,
            port: 40_000,
        }
        .body()
    }

    fn targets(body: &ContainerCreateBody) -> Vec<String> {
        let mounts = body.host_config.as_ref().unwrap().mounts.as_ref().unwrap();
        mounts
            .iter()
            .map(|mount| {
                let mode = if mount.read_only == Some(true) { ":ro" } else { "" };
                format!("{}:{}{mode}", mount.source.as_ref().unwrap(), mount.target.as_ref().unwrap())
            })
            .collect()
    }

    #[test]
    fn the_variables_of_the_platform_win() {
        let env = body(&spec(), Tier::Plain, None).env.unwrap();
        assert_eq!(
            env,
            [
                "CONFIGS_DIR=/configs",
                "MODEL=m",
                "MOLECULE_URL=http://host.docker.internal:8080",
                "PLATFORM_URL=http://host.docker.internal:8080",
                "PLUGINS_DIR=/configs/plugins",
                "PYTHONPATH=/app",
                "TIER=2",
                "WORKSPACE_CONFIG_PATH=/configs",
                "WORKSPACE_ID=6f9619ff-8b86-4011-b42d-00cf4fc964ff",
            ]
        );
    }

    #[test]
    fn mounts_what_tier_and_access_allow() {
        let mut spec = spec();
        assert_eq!(targets(&body(&spec, Tier::Plain, None)), ["c:/configs", "w:/workspace"]);
        spec.workspace_dir = Some(PathBuf::from("/srv/ada"));
        assert_eq!(targets(&body(&spec, Tier::Plain, None)), ["c:/configs", "w:/workspace"]);
        spec.access = Access::ReadOnly;
        assert_eq!(targets(&body(&spec, Tier::Plain, None)), ["c:/configs", "/srv/ada:/workspace:ro"]);
        spec.access = Access::ReadWrite;
        assert_eq!(targets(&body(&spec, Tier::Plain, None)), ["c:/configs", "/srv/ada:/workspace"]);
        spec.runtime = "claude-code".to_owned();
        assert_eq!(targets(&body(&spec, Tier::Sandboxed, None)), ["c:/configs", "s:/root/.claude/sessions"]);
        let host = targets(&body(&spec, Tier::Host, None));
        assert_eq!(host.last().unwrap(), "/var/run/docker.sock:/var/run/docker.sock");
    }

    #[test]
    fn publishes_on_loopback_only() {
        let body = body(&spec(), Tier::Plain, Some("172.18.0.1"));
        let host = body.host_config.unwrap();
        let bindings = host.port_bindings.unwrap()["8000/tcp"].clone().unwrap();
        assert_eq!(bindings[0].host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(bindings[0].host_port.as_deref(), Some("40000"));
        assert_eq!(host.extra_hosts.unwrap(), ["host.docker.internal:172.18.0.1"]);
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::UNLESS_STOPPED));
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        let aliases = endpoints["molecule-monorepo-net"].aliases.clone().unwrap();
        assert_eq!(aliases, ["ws-6f9619ff-8b86-4011-b42d-00cf4fc964ff"]);
    }

    #[test]
    fn on_the_network_of_the_host_each_agent_has_its_own_port() {
        let body = body(&spec(), Tier::Host, Some("172.18.0.1"));
        assert!(body.env.unwrap().contains(&"PORT=40000".to_owned()));
        assert!(body.networking_config.is_none() && body.exposed_ports.is_none());
        let host = body.host_config.unwrap();
        assert!(host.port_bindings.is_none());
        assert_eq!(host.network_mode.as_deref(), Some("host"));
        assert_eq!(host.extra_hosts.unwrap(), ["host.docker.internal:127.0.0.1"]);
    }

    #[test]
    fn without_a_known_gateway_the_engine_finds_it() {
        let host = body(&spec(), Tier::Plain, None).host_config.unwrap();
        assert_eq!(host.extra_hosts.unwrap(), ["host.docker.internal:host-gateway"]);
    }
}
