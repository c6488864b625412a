//! Tiers: how much a workspace may use and do.

use std::collections::HashMap;

use bollard::models::HostConfig;

use super::config::{Limit, TierLimits};

/// One processor, as engines count processor time.
const NANO: i64 = 1_000_000_000;

/// A tier whose settings are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// A read-only file system and nothing of the host.
    Sandboxed,
    /// An ordinary container.
    Plain,
    /// Privileged, seeing the processes of the host.
    Privileged,
    /// As privileged as the host itself: its network, and its engine.
    Host,
}

impl Tier {
    /// The tier that `asked` gets where `most` is the highest granted one. An unknown number asks for tier 2.
    pub(super) fn granted(asked: i32, most: i32) -> Self {
        let asked = if (1..=4).contains(&asked) { asked } else { 2 };
        match asked.min(most) {
            ..=1 => Self::Sandboxed,
            2 => Self::Plain,
            3 => Self::Privileged,
            4.. => Self::Host,
        }
    }

    pub(super) fn number(self) -> i32 {
        match self {
            Self::Sandboxed => 1,
            Self::Plain => 2,
            Self::Privileged => 3,
            Self::Host => 4,
        }
    }

    /// Whether the workload uses the network of the host instead of one of its own.
    pub(super) fn shares_host_network(self) -> bool {
        self == Self::Host
    }

    /// Whether the workload has a folder to work in besides its configuration.
    pub(super) fn has_workspace(self) -> bool {
        self != Self::Sandboxed
    }

    /// Puts what this tier may use and do into `host`, on an engine with so many `cpus`.
    pub(super) fn apply(self, host: &mut HostConfig, limits: &TierLimits, cpus: Option<i64>) {
        match self {
            Self::Sandboxed => {
                host.readonly_rootfs = Some(true);
                host.tmpfs = Some(HashMap::from([("/tmp".to_owned(), "rw,noexec,nosuid,size=64m".to_owned())]));
            }
            Self::Plain => limit(host, limits.tier2, cpus),
            Self::Privileged => {
                own_the_host(host);
                limit(host, limits.tier3, cpus);
            }
            Self::Host => {
                own_the_host(host);
                limit(host, limits.tier4, cpus);
            }
        }
    }
}

fn own_the_host(host: &mut HostConfig) {
    host.privileged = Some(true);
    host.pid_mode = Some("host".to_owned());
}

fn limit(host: &mut HostConfig, limit: Limit, cpus: Option<i64>) {
    host.memory = Some(i64::from(limit.memory_mb) * 1024 * 1024);
    let wanted = i64::from(limit.cpu_shares) * NANO / 1024;
    // An engine refuses a limit above what its machine has, instead of taking it for no limit.
    host.nano_cpus = Some(cpus.map_or(wanted, |cpus| wanted.min(cpus * NANO)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_no_more_than_the_highest_tier() {
        for (asked, most, granted) in [
            (1, 2, Tier::Sandboxed),
            (2, 2, Tier::Plain),
            (3, 2, Tier::Plain),
            (4, 2, Tier::Plain),
            (3, 3, Tier::Privileged),
            (4, 3, Tier::Privileged),
            (4, 4, Tier::Host),
            (0, 4, Tier::Plain),
            (-1, 4, Tier::Plain),
            (5, 4, Tier::Plain),
            (0, 1, Tier::Sandboxed),
            (4, 9, Tier::Host),
            (4, 0, Tier::Sandboxed),
        ] {
            assert_eq!(Tier::granted(asked, most), granted, "{asked} of at most {most}");
        }
    }

    #[test]
    fn only_privileged_tiers_touch_the_host() {
        for (tier, privileged, memory, cpus) in [
            (Tier::Sandboxed, None, None, None),
            (Tier::Plain, None, Some(512), Some(1)),
            (Tier::Privileged, Some(true), Some(2048), Some(2)),
            (Tier::Host, Some(true), Some(4096), Some(4)),
        ] {
            let mut host = HostConfig::default();
            tier.apply(&mut host, &TierLimits::default(), None);
            assert_eq!(host.privileged, privileged, "{tier:?}");
            assert_eq!(host.pid_mode.is_some(), privileged.is_some(), "{tier:?}");
            assert_eq!(host.memory, memory.map(|mebibytes: i64| mebibytes * 1024 * 1024), "{tier:?}");
            assert_eq!(host.nano_cpus, cpus.map(|whole: i64| whole * 1_000_000_000), "{tier:?}");
            assert_eq!(host.readonly_rootfs.is_some(), tier == Tier::Sandboxed, "{tier:?}");
        }
    }

    #[test]
    fn asks_for_no_more_processors_than_there_are() {
        for (tier, cpus, asked) in [(Tier::Host, 2, 2), (Tier::Host, 8, 4), (Tier::Plain, 2, 1)] {
            let mut host = HostConfig::default();
            tier.apply(&mut host, &TierLimits::default(), Some(cpus));
            assert_eq!(host.nano_cpus, Some(asked * NANO), "{tier:?} of {cpus}");
        }
    }
}
