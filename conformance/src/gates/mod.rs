//! What the sources of this repository must not do, read from their syntax trees.

mod backend_stops;
mod documents;
mod errors;
mod mutations;
mod provider_drift;
mod routes;
mod schema_names;
mod sources;
mod status_literals;
mod statuses;

use std::{path::Path, time::Instant};

pub(crate) use provider_drift::prefixes;
pub use sources::Source;

use molecule_core::testing::drift::{Violation, line_of};

use crate::{
    case::{Area, Level},
    report::{Outcome, Report, Tried},
};

/// A rule about the repository.
struct Gate {
    name: &'static str,
    /// What holds where it passes, as a sentence without its full stop.
    sentence: &'static str,
    look: Look,
}

/// How a gate looks for what breaks its rule.
enum Look {
    /// In each source by itself.
    Each(fn(&Source) -> Vec<Violation>),
    /// In all sources together.
    All(fn(&[Source]) -> Vec<Violation>),
    /// In files of the repository that must agree.
    Files(fn(&Path) -> Result<Vec<Violation>, String>),
    /// In files that must agree with the sources.
    Both(fn(&[Source], &Path) -> Result<Vec<Violation>, String>),
}

/// Every gate.
const GATES: &[Gate] = &[
    Gate {
        name: "no_status_literal",
        sentence: "No SQL text sets a status by a literal",
        look: Look::Each(status_literals::check),
    },
    Gate {
        name: "no_stop_on_the_path",
        sentence: "Nothing stops a backend on the path of a request that restarts",
        look: Look::All(backend_stops::check),
    },
    Gate {
        name: "schema_names_are_unique",
        sentence: "No two schemas of the API share a name",
        look: Look::All(schema_names::check),
    },
    Gate {
        name: "providers_agree",
        sentence: "The table of providers says what the script says that containers run",
        look: Look::Files(provider_drift::check),
    },
    Gate {
        name: "statuses_agree",
        sentence: "The statuses are the same in the code, the migrations, the document of the API and the Python package",
        look: Look::Files(statuses::check),
    },
    Gate {
        name: "routes_are_documented",
        sentence: "Every route of the server is in the document of its API, and no other",
        look: Look::All(routes::check),
    },
    Gate {
        name: "errors_have_their_lines",
        sentence: "Every kind of error has a line in the table of each frontend",
        look: Look::Files(errors::check),
    },
    Gate {
        name: "events_are_documented",
        sentence: "Every event of the code is on its page, and no other",
        look: Look::Files(documents::events),
    },
    Gate {
        name: "mutations_are_listed",
        sentence: "Every check that is taken out on trial is on its page, and no other",
        look: Look::Files(mutations::check),
    },
    Gate {
        name: "paths_exist",
        sentence: "Every path and link in the pages leads somewhere",
        look: Look::Files(documents::paths),
    },
    Gate {
        name: "names_exist",
        sentence: "Every name in ARCHITECTURE.md is in the code",
        look: Look::Both(documents::names),
    },
];

/// Holds the production sources below `root`, the root of the repository, against every gate, and compares what must agree.
///
/// # Errors
/// Where there is no source there, or one can't be read or is no Rust.
pub fn run(root: &Path) -> Result<Report, String> {
    let sources = sources::production(root)?;
    if sources.is_empty() {
        return Err(format!("{} is not the root of the repository: no source lies there", root.display()));
    }
    let mut report = Report::new(format!("{} sources below {}", sources.len(), root.display()));
    for gate in GATES {
        let began = Instant::now();
        let found = match gate.look {
            Look::Each(check) => sources.iter().flat_map(check).collect(),
            Look::All(check) => check(&sources),
            Look::Files(check) => check(root)?,
            Look::Both(check) => check(&sources, root)?,
        };
        let why: Vec<String> = found.iter().map(ToString::to_string).collect();
        report.add(Tried {
            name: gate.name,
            sentence: gate.sentence,
            area: Area::Sources,
            level: Level::Core,
            rule: "molecule_conformance::gates",
            took: Some(began.elapsed()),
            outcome: if why.is_empty() {
                Outcome::Passed
            } else {
                Outcome::Failed { why: why.join("\n              ") }
            },
        });
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_passes_every_gate() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository");
        let report = run(root).unwrap();
        assert!(report.succeeded() && report.passed() == GATES.len(), "{report}");
    }

    #[test]
    fn nothing_read_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        assert!(run(folder.path()).unwrap_err().contains("no source lies there"));
    }
}
