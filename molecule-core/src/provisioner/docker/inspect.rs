//! Looking at workloads: which container is whose, what it does, what it wrote.

use std::collections::{BTreeSet, HashMap};

use bollard::{
    models::{ContainerInspectResponse, ContainerState},
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;

use super::{DockerProvisioner, errors, names};
use crate::{
    error::{Error, Result},
    id::WorkspaceId,
    provisioner::{EXEC_READ_LIMIT, Workload},
};

/// After this many restarts by the engine, a workload has to prove that it stays up.
const CRASH_LOOP: i64 = 3;
/// How long it has to stay up for that: longer than any crash while starting takes.
const SETTLED: TimeDelta = TimeDelta::seconds(60);

/// Which workspaces are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that another installation does not claim, where more is there than their work.
    Known,
    /// Those that this installation made.
    Own,
}

/// The container of a workspace.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) container: ContainerInspectResponse,
}

impl Found {
    pub(super) fn is_running(&self) -> bool {
        self.container.state.as_ref().and_then(|state| state.running).unwrap_or(false)
    }

    /// The port of this host that its agent was given: published, or told where it shares the network of the host.
    pub(super) fn port(&self) -> Option<u16> {
        let published = self.container.host_config.as_ref().and_then(|host| host.port_bindings.as_ref());
        let published = published.and_then(|ports| ports.values().flatten().flatten().next()?.host_port.clone());
        let told = || {
            let env = self.container.config.as_ref()?.env.as_ref()?;
            env.iter().find_map(|variable| variable.strip_prefix("PORT=").map(str::to_owned))
        };
        published.or_else(told)?.parse().ok()
    }
}

impl DockerProvisioner {
    /// The container of `id`: under its full name, or under the short one of older installations. One that this platform
    /// did not make is nobody's, whatever it is called.
    pub(super) async fn find(&self, id: WorkspaceId) -> Result<Option<Found>> {
        for name in [names::container(id), names::legacy_container(id)] {
            let found = self.look_at(&name).await?.filter(|container| {
                let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
                labels.is_some_and(|labels| names::belongs(labels, id))
            });
            if let Some(container) = found {
                return Ok(Some(Found { name, container }));
            }
        }
        Ok(None)
    }

    async fn look_at(&self, name: &str) -> Result<Option<ContainerInspectResponse>> {
        errors::found(self.docker.inspect_container(name, None::<InspectContainerOptions>).await)
            .map_err(errors::failed(format!("look for the container {name}")))
    }

    pub(super) async fn workload(&self, id: WorkspaceId) -> Result<Workload> {
        let Some(found) = self.find(id).await? else { return Ok(Workload::Absent) };
        let state = found.container.state.unwrap_or_default();
        Ok(judge(&state, found.container.restart_count.unwrap_or(0), self.config.clock.now()))
    }

    pub(super) async fn last_lines(&self, id: WorkspaceId, lines: usize) -> Result<Vec<u8>> {
        let nothing = || Error::not_found(format!("workspace {id} has no container to read logs from"));
        let found = self.find(id).await?.ok_or_else(nothing)?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let mut chunks = Box::pin(self.docker.logs(&found.name, Some(options)));
        let mut text = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => text.extend_from_slice(chunk.as_ref()),
                Err(error) if errors::is_not_found(&error) => return Err(nothing()),
                Err(error) => return Err(errors::failed(format!("read the logs of workspace {id}"))(error)),
            }
            if text.len() > 2 * EXEC_READ_LIMIT {
                text.drain(..text.len() - EXEC_READ_LIMIT);
            }
        }
        text.drain(..text.len().saturating_sub(EXEC_READ_LIMIT));
        Ok(text)
    }

    /// The workspaces that have anything on the engine.
    pub(super) async fn workspaces(&self, which: Which) -> Result<Vec<WorkspaceId>> {
        let own = self.config.installation.as_deref();
        let labels = match (which, own) {
            (Which::Known, _) => [(names::MANAGED, names::YES)],
            (Which::Own, Some(own)) => [(names::INSTALLATION, own)],
            (Which::Own, None) => return Ok(Vec::new()),
        };
        let of_another =
            |labels: &HashMap<String, String>| labels.get(names::INSTALLATION).is_some_and(|name| Some(&**name) != own);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&names::with_labels(&labels)).build();
        let containers = self.docker.list_containers(Some(options)).await;
        let containers = containers.map_err(errors::failed("list its containers"))?;
        let mut ids: BTreeSet<_> = containers
            .into_iter()
            .filter_map(|container| {
                let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
                let labels = container.labels.unwrap_or_default();
                names::owner(&labels, &name).filter(|_| !of_another(&labels))
            })
            .collect();
        let volumes = self.volumes_with(&labels).await?.into_iter().filter(|volume| !of_another(&volume.labels));
        ids.extend(volumes.filter_map(|volume| {
            let id = names::owner(&volume.labels, &volume.name)?;
            (which == Which::Own || volume.name != names::workspace_volume(id)).then_some(id)
        }));
        Ok(ids.into_iter().collect())
    }
}

/// What a container does, seen from its state, how often the engine restarted it, and the time.
fn judge(state: &ContainerState, restarts: i64, now: DateTime<Utc>) -> Workload {
    let running = state.running == Some(true);
    // Between two runs the engine calls a container both restarting and running. It is given a few runs to come up.
    let between_runs = state.restarting == Some(true);
    if between_runs && restarts < CRASH_LOOP {
        return Workload::Running;
    }
    if between_runs || !running {
        // A container that never ran says 0, too.
        let ran = time(state.finished_at.as_deref()).is_some_and(|end| end.timestamp() > 0);
        return Workload::Ended { exit_code: state.exit_code.filter(|_| ran) };
    }
    let settled = time(state.started_at.as_deref()).is_some_and(|start| now - start >= SETTLED);
    if restarts >= CRASH_LOOP && !settled {
        // The code of the run before this one is forgotten by now.
        return Workload::Ended { exit_code: None };
    }
    Workload::Running
}

fn time(text: Option<&str>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text?).ok().map(|time| time.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_workload_that_runs_from_one_that_crashes_again_and_again() {
        let state = |running, restarting, exit_code, started: &str, finished: &str| ContainerState {
            running: Some(running),
            restarting: Some(restarting),
            exit_code: Some(exit_code),
            started_at: Some(started.to_owned()),
            finished_at: Some(finished.to_owned()),
            ..ContainerState::default()
        };
        let never = "0001-01-01T00:00:00Z";
        let start = "2026-01-01T00:00:00.123456789Z";
        let now = time(Some("2026-01-01T00:00:05Z")).unwrap();
        let later = time(Some("2026-01-01T00:01:05Z")).unwrap();
        for (what, state, restarts, now, expected) in [
            ("runs", state(true, false, 0, start, never), 0, now, Workload::Running),
            ("crashed once", state(true, false, 0, start, start), 1, now, Workload::Running),
            ("crash loop, up", state(true, false, 0, start, start), 3, now, Workload::Ended { exit_code: None }),
            ("crashed long ago", state(true, false, 0, start, start), 3, later, Workload::Running),
            ("between runs", state(true, true, 3, start, start), 2, now, Workload::Running),
            (
                "crash loop, between runs",
                state(true, true, 3, start, start),
                3,
                now,
                Workload::Ended { exit_code: Some(3) },
            ),
            ("ended", state(false, false, 137, start, start), 0, now, Workload::Ended { exit_code: Some(137) }),
            ("never ran", state(false, false, 0, never, never), 0, now, Workload::Ended { exit_code: None }),
        ] {
            assert_eq!(judge(&state, restarts, now), expected, "{what}");
        }
    }
}
