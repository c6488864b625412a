//! What every control plane of machines does, as cases over [`ControlPlaneProvisioner`].
//!
//! Each line under *Behavior* of that trait has a case of the same words. What runs on a machine is what the spec of a
//! [`Fixture`] asks for: the program `examples/workload.rs` of this library, or something that honours the same
//! variables.

use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::{
    Came, Fixture, Report,
    bench::{Failure, PATIENCE, POLL, Proof, ensure},
    contain,
};
use crate::{
    clock::{SystemEntropy, random_uuid},
    id::WorkspaceId,
    provisioner::ControlPlaneProvisioner,
};

/// A name that no machine has.
const NOBODY: &str = "no-such-machine";

/// One thing that a control plane of machines does.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The sentence it proves.
    pub name: &'static str,
    run: for<'a> fn(&'a Bench<'a>) -> BoxFuture<'a, Proof>,
}

/// Every case. What is not in this list is not run.
pub const CASES: &[Case] = &[
    Case {
        name: "The machine comes to run, under a name that no other has, nor one before it.",
        run: |bench| Box::pin(each_machine_has_a_name(bench)),
    },
    Case {
        name: "Its agent has the variables of the spec, but its own id as WORKSPACE_ID and the URL of the spec as \
               PLATFORM_URL.",
        run: |bench| Box::pin(the_agent_is_told_who_it_is(bench)),
    },
    Case {
        name: "A machine that is given back comes to its end.",
        run: |bench| Box::pin(what_is_given_back_ends(bench)),
    },
    Case {
        name: "Giving back what was given back, was never there or has no name succeeds.",
        run: |bench| Box::pin(giving_back_repeats(bench)),
    },
    Case {
        name: "A machine that came later for the same workspace is left alone.",
        run: |bench| Box::pin(a_later_machine_is_left_alone(bench)),
    },
    Case {
        name: "A machine that was never there or has no name does not run.",
        run: |bench| Box::pin(nobody_does_not_run(bench)),
    },
    Case {
        name: "The console holds what the agent wrote, in its order.",
        run: |bench| Box::pin(the_console_holds_what_was_written(bench)),
    },
    Case {
        name: "A workspace without a machine has no console: an error.",
        run: |bench| Box::pin(no_machine_has_no_console(bench)),
    },
];

/// Runs every case on `machines`, one after the other, each with a workspace of its own whose machines are given back
/// afterwards.
pub async fn run_suite(machines: &dyn ControlPlaneProvisioner, fixture: &dyn Fixture) -> Report {
    run_suite_watched(machines, fixture, |_, _| {}).await
}

/// The same, showing each case to `watch` as soon as it was tried.
pub async fn run_suite_watched(
    machines: &dyn ControlPlaneProvisioner,
    fixture: &dyn Fixture,
    mut watch: impl FnMut(&'static str, &Came),
) -> Report {
    let mut report = Report::default();
    for case in CASES {
        let id = WorkspaceId::from_uuid(random_uuid(&SystemEntropy));
        let bench = Bench { machines, fixture, id, given: Mutex::default() };
        let run = contain((case.run)(&bench)).await;
        let came = Came::of(run.and(contain(bench.give_back_all()).await));
        watch(case.name, &came);
        report.add(case.name, came);
    }
    report
}

/// What a case works with.
struct Bench<'a> {
    machines: &'a dyn ControlPlaneProvisioner,
    fixture: &'a dyn Fixture,
    id: WorkspaceId,
    /// Every machine that was given so far.
    given: Mutex<Vec<String>>,
}

impl Bench<'_> {
    /// Starts a machine with variables for its workload, and gives its name.
    async fn start(&self, variables: &[(&str, &str)]) -> Result<String, Failure> {
        let mut spec = self.fixture.spec(self.id);
        spec.env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let name = self.machines.start(&spec).await?.instance_id;
        self.given.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Ok(name)
    }

    async fn comes_to(&self, running: bool, instance_id: &str) -> Proof {
        let deadline = Instant::now() + PATIENCE;
        while self.machines.is_running(self.id, instance_id).await? != running {
            ensure!(
                Instant::now() < deadline,
                "{instance_id} should come to {}",
                if running { "run" } else { "its end" }
            );
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until the console holds a line, and gives the whole of it.
    async fn console_with(&self, wanted: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let console = self.machines.console_output(self.id).await?;
            if console.lines().any(|line| line == wanted) {
                return Ok(console);
            }
            ensure!(Instant::now() < deadline, "no line {wanted:?} came; the console is {console:?}");
            sleep(POLL).await;
        }
    }

    async fn give_back_all(&self) -> Proof {
        let given = std::mem::take(&mut *self.given.lock().unwrap_or_else(PoisonError::into_inner));
        for name in given {
            self.machines.stop(self.id, &name).await?;
        }
        Ok(())
    }
}

async fn each_machine_has_a_name(bench: &Bench<'_>) -> Proof {
    let first = bench.start(&[]).await?;
    ensure!(!first.is_empty(), "the machine has no name");
    bench.comes_to(true, &first).await?;
    bench.machines.stop(bench.id, &first).await?;
    let second = bench.start(&[]).await?;
    ensure!(first != second, "both machines are {first}");
    bench.comes_to(true, &second).await
}

async fn the_agent_is_told_who_it_is(bench: &Bench<'_>) -> Proof {
    let forged = [("WORKSPACE_ID", "forged"), ("PLATFORM_URL", "forged"), ("OTHER", "kept")];
    bench.start(&[&forged[..], &[("MOLECULE_TEST_ENV", "1"), ("MOLECULE_TEST_LINES", "1")]].concat()).await?;
    let console = bench.console_with("line 1").await?;
    let (id, url) = (bench.id.to_string(), bench.fixture.spec(bench.id).platform_url);
    for (name, value) in [("WORKSPACE_ID", id.as_str()), ("PLATFORM_URL", &url), ("OTHER", "kept")] {
        let prefix = format!("env {name}=");
        let found: Vec<_> = console.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        ensure!(found == [value], "{name} should be {value:?} and is {found:?}");
    }
    Ok(())
}

async fn what_is_given_back_ends(bench: &Bench<'_>) -> Proof {
    let machine = bench.start(&[]).await?;
    bench.comes_to(true, &machine).await?;
    bench.machines.stop(bench.id, &machine).await?;
    bench.comes_to(false, &machine).await
}

async fn giving_back_repeats(bench: &Bench<'_>) -> Proof {
    for name in [NOBODY, ""] {
        bench.machines.stop(bench.id, name).await?;
    }
    let machine = bench.start(&[]).await?;
    bench.machines.stop(bench.id, &machine).await?;
    bench.machines.stop(bench.id, &machine).await?;
    Ok(())
}

async fn a_later_machine_is_left_alone(bench: &Bench<'_>) -> Proof {
    let first = bench.start(&[]).await?;
    let second = bench.start(&[]).await?;
    bench.comes_to(true, &second).await?;
    for name in [first.as_str(), NOBODY, ""] {
        bench.machines.stop(bench.id, name).await?;
        ensure!(bench.machines.is_running(bench.id, &second).await?, "{second} ended when {name:?} was given back");
    }
    bench.comes_to(false, &first).await
}

async fn nobody_does_not_run(bench: &Bench<'_>) -> Proof {
    for name in [NOBODY, ""] {
        ensure!(!bench.machines.is_running(bench.id, name).await?, "{name:?} runs, and nothing was started");
    }
    let machine = bench.start(&[]).await?;
    bench.comes_to(true, &machine).await?;
    for name in [NOBODY, ""] {
        ensure!(!bench.machines.is_running(bench.id, name).await?, "{name:?} runs, and only {machine} was started");
    }
    Ok(())
}

async fn the_console_holds_what_was_written(bench: &Bench<'_>) -> Proof {
    bench.start(&[("MOLECULE_TEST_LINES", "3")]).await?;
    let console = bench.console_with("line 3").await?;
    let lines: Vec<&str> = console.lines().filter(|line| line.starts_with("line ")).collect();
    ensure!(lines == ["line 1", "line 2", "line 3"], "the console holds {lines:?}");
    Ok(())
}

async fn no_machine_has_no_console(bench: &Bench<'_>) -> Proof {
    let shown = bench.machines.console_output(bench.id).await;
    ensure!(shown.is_err(), "nothing was started, and the console is {shown:?}");
    Ok(())
}
