//! A backend that implements the traits, as a library call, and the built-in ones by name; and control planes of machines.

use std::{io, time::Instant};

use async_trait::async_trait;
use molecule_core::{
    id::WorkspaceId,
    provisioner::{ControlPlaneProvisioner, StartSpec},
    testing::{
        ScriptedProvisioner,
        provisioner_suite::{self, Backend, Came, Fixture, machines},
    },
    workspace::Access,
};

use crate::{
    case::{Area, Level},
    report::{Outcome, Report, Tried},
};

/// Tries every case of the traits on `backend`, whose workloads `fixture` describes; `name` says in the report what was
/// tried.
///
/// The workload must honour the variables of `molecule-core/examples/workload.rs`, as `fixture` arranges.
pub async fn run(name: &str, backend: &dyn Backend, fixture: &dyn Fixture) -> Report {
    run_watched(name, backend, fixture, |_| {}).await
}

/// The same, showing each case to `watch` as soon as it was tried.
pub async fn run_watched(
    name: &str,
    backend: &dyn Backend,
    fixture: &dyn Fixture,
    watch: impl FnMut(&Tried),
) -> Report {
    let mut notes = Notes::new(name, watch);
    provisioner_suite::run_suite_watched(backend, fixture, |name, came| notes.take(name, came)).await;
    notes.report
}

/// Tries every case of [`ControlPlaneProvisioner`] on a control plane of machines; `fixture` says what runs on them, and
/// `name` in the report what was tried.
///
/// What runs there must honour the variables of `molecule-core/examples/workload.rs`.
pub async fn run_machines(name: &str, machines: &dyn ControlPlaneProvisioner, fixture: &dyn Fixture) -> Report {
    run_machines_watched(name, machines, fixture, |_| {}).await
}

/// The same, showing each case to `watch` as soon as it was tried.
pub async fn run_machines_watched(
    name: &str,
    machines: &dyn ControlPlaneProvisioner,
    fixture: &dyn Fixture,
    watch: impl FnMut(&Tried),
) -> Report {
    let mut notes = Notes::new(name, watch);
    machines::run_suite_watched(machines, fixture, |name, came| notes.take(name, came)).await;
    notes.report
}

/// What is written down while a suite runs.
struct Notes<W> {
    report: Report,
    watch: W,
    /// When the case under way began.
    began: Instant,
}

impl<W: FnMut(&Tried)> Notes<W> {
    fn new(name: &str, watch: W) -> Self {
        Self { report: Report::new(name), watch, began: Instant::now() }
    }

    fn take(&mut self, name: &'static str, came: &Came) {
        let tried = Tried {
            name,
            sentence: name,
            area: Area::Provisioner,
            level: Level::Core,
            rule: "molecule_core::provisioner",
            took: Some(self.began.elapsed()),
            outcome: match came {
                Came::Passed => Outcome::Passed,
                Came::Failed(why) => Outcome::Failed { why: why.clone() },
                Came::Unsupported => Outcome::Unsupported { why: "its capability does not declare it".to_owned() },
            },
        };
        (self.watch)(&tried);
        self.report.add(tried);
        self.began = Instant::now();
    }
}

/// A workspace of `runtime` with nothing special about it.
#[derive(Debug, Clone)]
pub struct Plain {
    /// What names the image, on backends that run images.
    pub runtime: String,
}

impl Fixture for Plain {
    fn spec(&self, id: WorkspaceId) -> StartSpec {
        StartSpec {
            workspace_id: id,
            name: "Conformance".to_owned(),
            runtime: self.runtime.clone(),
            tier: 2,
            env: Default::default(),
            files: Vec::new(),
            workspace_dir: None,
            access: Access::None,
            platform_url: "http://127.0.0.1:8080".to_owned(),
            reset_session: false,
            command: Default::default(),
        }
    }
}

/// The workloads of a [`ScriptedProvisioner`], which answer nobody.
#[derive(Debug, Clone)]
pub struct Scripted(pub ScriptedProvisioner);

#[async_trait]
impl Fixture for Scripted {
    fn spec(&self, id: WorkspaceId) -> StartSpec {
        Plain { runtime: "claude-code".to_owned() }.spec(id)
    }

    async fn status(&self, url: &str) -> io::Result<u16> {
        if self.0.serves(url) { Ok(200) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }
}

#[cfg(test)]
mod tests {
    use molecule_core::{ErrorKind, testing::Operation};

    use super::*;

    #[tokio::test]
    async fn the_scripted_backend_passes() {
        let backend = ScriptedProvisioner::new();
        let report = run("scripted", &backend, &Scripted(backend.clone())).await;
        assert!(report.succeeded() && report.unsupported() == 1, "{report}");
    }

    #[tokio::test]
    async fn a_backend_with_one_fault_is_refused_by_name() {
        let backend = ScriptedProvisioner::new();
        backend.when(Operation::RemoveVolume).fail(ErrorKind::NotFound, "no such volume");
        let report = run("toy", &backend, &Scripted(backend.clone())).await;
        assert!(!report.succeeded());
        assert!(report.to_string().contains("FAILED      Removing what is not there succeeds."), "{report}");
    }
}
