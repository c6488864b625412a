//! What every provisioner of this host does, as cases over the traits.
//!
//! Each line under *Behavior* of [`LocalProvisioner`] has a case of the same words. The workloads are those of a
//! [`Fixture`]: the program `examples/workload.rs` of this library, or something that honours the same variables.

mod bench;
mod cases;
pub mod machines;

use std::{fmt, future::Future, io, panic::AssertUnwindSafe, time::Duration};

use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;

use self::bench::{Bench, Failure, Proof, clean_up, http_status};
use crate::{
    clock::{SystemEntropy, random_uuid},
    id::WorkspaceId,
    provisioner::{Capability, LocalProvisioner, StartSpec, WorkloadInspector, WorkspaceFiles},
};

/// How long one case may take.
const CASE_LIMIT: Duration = Duration::from_secs(180);

/// What the suite is run on. Every type that has all three traits has this one.
pub trait Backend: LocalProvisioner + WorkloadInspector + WorkspaceFiles {}

impl<T: LocalProvisioner + WorkloadInspector + WorkspaceFiles> Backend for T {}

/// Tells the suite how to have its workloads run by a backend.
#[async_trait]
pub trait Fixture: Sync {
    /// A spec whose workload stays up, and honours the variables of `examples/workload.rs`. The suite adds files to
    /// it and variables whose names begin with `MOLECULE_TEST_`.
    fn spec(&self, id: WorkspaceId) -> StartSpec;

    /// The HTTP status that `url` answers with.
    async fn status(&self, url: &str) -> io::Result<u16> {
        http_status(url).await
    }
}

/// One thing that a backend does.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The sentence it proves.
    pub name: &'static str,
    /// Whether a backend of this capability claims it.
    pub requires: fn(&Capability) -> bool,
    run: for<'a> fn(Bench<'a>) -> BoxFuture<'a, Proof>,
}

/// Every case. What is not in this list is not run.
pub const CASES: &[Case] = &[
    Case {
        name: "What runs is left alone.",
        requires: always,
        run: |bench| Box::pin(cases::preparing_leaves_alone_what_runs(bench)),
    },
    Case {
        name: "Files of the spec are in place before the agent's first instruction, private ones readable by it alone.",
        requires: always,
        run: |bench| Box::pin(cases::files_are_in_place(bench)),
    },
    Case {
        name: "An earlier workload of the same workspace is replaced; its volume is kept.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::an_earlier_workload_is_replaced(bench)),
    },
    Case {
        name: "A failed start leaves no workload behind.",
        requires: always,
        run: |bench| Box::pin(cases::a_failed_start_leaves_nothing(bench)),
    },
    Case {
        name: "The URL is there when Capability::assigns_url is, and names an address of this host.",
        requires: always,
        run: |bench| Box::pin(cases::the_url_is_as_declared(bench)),
    },
    Case {
        name: "The backend's own variables win over these.",
        requires: always,
        run: |bench| Box::pin(cases::own_variables_win(bench)),
    },
    Case {
        name: "Stopping a stopped or unknown workspace succeeds.",
        requires: always,
        run: |bench| Box::pin(cases::stopping_repeats(bench)),
    },
    Case {
        name: "Nothing of it runs afterwards, nor begins again by itself.",
        requires: always,
        run: |bench| Box::pin(cases::what_is_halted_stays_so(bench)),
    },
    Case {
        name: "Its log can be read as before.",
        requires: always,
        run: |bench| Box::pin(cases::what_is_halted_keeps_its_log(bench)),
    },
    Case {
        name: "What runs is called where its start said.",
        requires: |capability| capability.assigns_url,
        run: |bench| Box::pin(cases::tells_where_an_agent_is_called(bench)),
    },
    Case {
        name: "Returns once no process of the workspace runs.",
        requires: always,
        run: |bench| Box::pin(cases::stop_waits(bench)),
    },
    Case {
        name: "An unknown workspace does not run.",
        requires: always,
        run: |bench| Box::pin(cases::an_unknown_workspace_does_not_run(bench)),
    },
    Case {
        name: "Reads a file as the running workload sees it, at most EXEC_READ_LIMIT bytes.",
        requires: |capability| capability.exec,
        run: |bench| Box::pin(cases::reads_up_to_the_limit(bench)),
    },
    Case {
        name: "ErrorKind::NotFound for a missing file or a workload that does not run",
        requires: |capability| capability.exec,
        run: |bench| Box::pin(cases::reading_what_is_not_there(bench)),
    },
    Case {
        name: "Removing what is not there succeeds.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::removing_repeats(bench)),
    },
    Case {
        name: "Afterwards the workspace is not in the inventory, and has no configuration.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::no_configuration_is_left(bench)),
    },
    Case {
        name: "Purging what is not there, or was removed, succeeds.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::purging_repeats(bench)),
    },
    Case {
        name: "Afterwards nothing of the workspace is left on the backend.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::nothing_is_left(bench)),
    },
    Case {
        name: "Without a volume the answer is no.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::no_volume_has_no_file(bench)),
    },
    Case {
        name: "Whether the configuration folder holds path, relative to it.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::a_volume_tells_its_files(bench)),
    },
    Case {
        name: "Works while nothing runs, and replaces an earlier token.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::a_token_is_replaced(bench)),
    },
    Case {
        name: "The token never appears in an argument, an environment or an inspectable setting.",
        requires: |capability| capability.volumes,
        run: |bench| Box::pin(cases::a_token_stays_in_its_file(bench)),
    },
    Case {
        name: "What the workload of id does now.",
        requires: always,
        run: |bench| Box::pin(cases::observes_what_a_workload_does(bench)),
    },
    Case {
        name: "The last lines lines that the workload wrote, oldest first; also after it ended, until it is removed.",
        requires: always,
        run: |bench| Box::pin(cases::logs_end_with_the_last_line(bench)),
    },
    Case {
        name: "ErrorKind::NotFound where there is no workload to read from.",
        requires: always,
        run: |bench| Box::pin(cases::no_workload_has_no_log(bench)),
    },
    Case {
        name: "The workspaces that have anything on this backend: a workload in whatever state, or a volume.",
        requires: always,
        run: |bench| Box::pin(cases::the_inventory_lists_everything(bench)),
    },
    Case {
        name: "Of what runs it holds nothing that the inventory does not hold.",
        requires: always,
        run: |bench| Box::pin(cases::what_is_our_own_is_listed_as_well(bench)),
    },
    Case {
        name: "A listing has regular files and folders, by their path, and neither links nor what nobody looks for.",
        requires: |capability| capability.files,
        run: |bench| Box::pin(cases::files_are_listed(bench)),
    },
    Case {
        name: "Files are read byte by byte as they are, whether the workload runs or not.",
        requires: |capability| capability.files,
        run: |bench| Box::pin(cases::files_are_read_as_they_are(bench)),
    },
    Case {
        name: "Files are written as they are, whether the workload runs or not, in the place of what was there.",
        requires: |capability| capability.files,
        run: |bench| Box::pin(cases::files_are_written(bench)),
    },
    Case {
        name: "Deleting a file that is not there succeeds; a folder is refused.",
        requires: |capability| capability.files,
        run: |bench| Box::pin(cases::files_are_deleted(bench)),
    },
    Case {
        name: "What is not declared is refused as unsupported.",
        requires: |capability| !capability.exec || !capability.volumes || !capability.files,
        run: |bench| Box::pin(cases::the_undeclared_is_refused(bench)),
    },
];

/// Runs every case that `backend` claims, one after the other, each with a workspace of its own that is removed
/// afterwards.
pub async fn run_suite(backend: &dyn Backend, fixture: &dyn Fixture) -> Report {
    run_suite_watched(backend, fixture, |_, _| {}).await
}

/// The same, showing each case to `watch` as soon as it was tried.
pub async fn run_suite_watched(
    backend: &dyn Backend,
    fixture: &dyn Fixture,
    mut watch: impl FnMut(&'static str, &Came),
) -> Report {
    let capability = backend.capability();
    let mut report = Report::default();
    for case in CASES {
        let came = if (case.requires)(&capability) {
            let id = WorkspaceId::from_uuid(random_uuid(&SystemEntropy));
            let run = contain((case.run)(Bench { backend, fixture, id })).await;
            Came::of(run.and(contain(clean_up(backend, id)).await))
        } else {
            Came::Unsupported
        };
        watch(case.name, &came);
        report.add(case.name, came);
    }
    report
}

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// It holds.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// The backend does not claim it.
    Unsupported,
}

impl Came {
    fn of(proof: Proof) -> Self {
        match proof {
            Ok(()) => Self::Passed,
            Err(Failure(reason)) => Self::Failed(reason),
        }
    }
}

/// What came of a run of the suite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The cases that passed.
    pub passed: Vec<&'static str>,
    /// The cases that failed, and why.
    pub failed: Vec<(&'static str, String)>,
    /// The cases that the backend does not claim.
    pub unsupported: Vec<&'static str>,
}

impl Report {
    fn add(&mut self, name: &'static str, came: Came) {
        match came {
            Came::Passed => self.passed.push(name),
            Came::Failed(reason) => self.failed.push((name, reason)),
            Came::Unsupported => self.unsupported.push(name),
        }
    }

    /// Whether every claimed case passed, of which there must be one.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty() && !self.passed.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, unsupported } = self;
        writeln!(f, "{} passed, {} failed, {} unsupported", passed.len(), failed.len(), unsupported.len())?;
        failed.iter().try_for_each(|(name, reason)| writeln!(f, "failed: {name}\n    {reason}"))?;
        unsupported.iter().try_for_each(|name| writeln!(f, "unsupported: {name}"))
    }
}

fn always(_: &Capability) -> bool {
    true
}

async fn contain(run: impl Future<Output = Proof> + Send) -> Proof {
    match timeout(CASE_LIMIT, AssertUnwindSafe(run).catch_unwind()).await {
        Ok(Ok(proof)) => proof,
        Ok(Err(_)) => Err(Failure("it panicked".to_owned())),
        Err(_) => Err(Failure(format!("it took longer than {CASE_LIMIT:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines under *Behavior* of a trait, each as one sentence without its links.
    fn behaviors(source: &str) -> Vec<String> {
        let (mut found, mut within): (Vec<String>, bool) = (Vec::new(), false);
        for line in source.lines().map(str::trim) {
            match line.strip_prefix("///").map(str::trim) {
                Some(title) if title.starts_with('#') => within = title == "# Behavior",
                Some(text) if within => match (text.strip_prefix("- "), found.last_mut()) {
                    (Some(sentence), _) => found.push(sentence.to_owned()),
                    (None, Some(last)) if !text.is_empty() => *last += &format!(" {text}"),
                    _ => {}
                },
                _ => within = false,
            }
        }
        found.iter().map(|sentence| sentence.replace(['[', ']', '`'], "")).collect()
    }

    #[test]
    fn every_promise_of_the_traits_has_a_case() {
        let mut promises = behaviors(include_str!("../../provisioner/mod.rs"));
        promises.extend(behaviors(include_str!("../../provisioner/files/mod.rs")));
        assert!(promises.len() >= 20, "only {promises:?} found");
        let names = CASES.iter().map(|case| case.name).chain(machines::CASES.iter().map(|case| case.name));
        let names: Vec<&str> = names.collect();
        for promise in promises {
            assert!(names.contains(&promise.as_str()), "no case is named {promise:?}");
        }
    }

    #[test]
    fn nothing_run_is_a_failure() {
        assert!(!Report::default().is_success());
        assert!(Report { passed: vec!["x"], ..Report::default() }.is_success());
        assert!(!Report { passed: vec!["x"], failed: vec![("y", String::new())], ..Report::default() }.is_success());
    }
}
