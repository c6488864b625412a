//! What the sources of this repository must not do, read from their syntax trees.

mod backend_stops;
mod provider_drift;
mod schema_names;
mod sources;
mod status_literals;

use std::{fmt, path::Path};

pub(crate) use provider_drift::prefixes;
pub use sources::Source;

/// A rule about sources.
pub struct Gate {
    /// Names it.
    pub name: &'static str,
    /// What holds where it passes.
    pub sentence: &'static str,
    /// Where it is broken in one source.
    pub check: fn(&Source) -> Vec<Violation>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every gate.
pub const GATES: &[Gate] = &[
    Gate {
        name: "no_status_literal",
        sentence: "No SQL text sets a status by a literal",
        check: status_literals::check,
    },
    Gate {
        name: "no_stop_on_the_path",
        sentence: "Nothing stops a backend on the path of a request that restarts",
        check: backend_stops::check,
    },
];

/// Says where a rule is broken that is about all sources together.
type Overview = fn(&[Source]) -> Vec<Violation>;

/// What is looked at in all sources together.
const OVERVIEWS: &[(&str, Overview)] = &[("schema_names_are_unique", schema_names::check)];

/// Reads files of the repository that must agree, and says where they do not.
type Comparison = fn(&Path) -> Result<Vec<Violation>, String>;

/// What must agree beside the sources.
const COMPARISONS: &[(&str, Comparison)] = &[("providers_agree", provider_drift::check)];

/// A place where a rule is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file, from the root of the repository.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there, and how it is mended.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// What came of the gates.
#[derive(Debug)]
pub struct Outcome {
    /// How many files were read.
    pub files: usize,
    /// Each with the name of its gate.
    pub violations: Vec<(&'static str, Violation)>,
}

impl Outcome {
    /// Whether nothing is broken and something was read.
    pub fn succeeded(&self) -> bool {
        self.violations.is_empty() && self.files > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (gate, violation) in &self.violations {
            writeln!(f, "{violation} ({gate})")?;
        }
        write!(
            f,
            "{} files, {} gates, {} violations",
            self.files,
            GATES.len() + OVERVIEWS.len() + COMPARISONS.len(),
            self.violations.len()
        )
    }
}

/// Holds the production sources below `root`, the root of the repository, against every gate, and compares what must agree.
///
/// # Errors
/// Where a source can't be read or is no Rust.
pub fn run(root: &Path) -> Result<Outcome, String> {
    let sources = sources::production(root)?;
    let violations = GATES.iter().flat_map(|gate| {
        let found = sources.iter().flat_map(gate.check);
        found.map(|violation| (gate.name, violation)).collect::<Vec<_>>()
    });
    let mut violations: Vec<_> = violations.collect();
    for (name, look) in OVERVIEWS {
        violations.extend(look(&sources).into_iter().map(|violation| (*name, violation)));
    }
    for (name, compare) in COMPARISONS {
        violations.extend(compare(root)?.into_iter().map(|violation| (*name, violation)));
    }
    Ok(Outcome { files: sources.len(), violations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_passes_every_gate() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository");
        let outcome = run(root).unwrap();
        assert!(outcome.succeeded() && outcome.files > 100, "{outcome}");
    }

    #[test]
    fn nothing_read_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!run(folder.path()).unwrap().succeeded());
    }
}
