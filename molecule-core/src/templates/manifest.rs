//! The manifest: which runtimes there are.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use crate::workspace::{DEFAULT_RUNTIME, EXTERNAL_RUNTIME};

/// The runtimes where no manifest says otherwise.
const FALLBACK: [&str; 4] = [DEFAULT_RUNTIME, "hermes", "openclaw", "codex"];

/// What the folder of a runtime's own template may end with, after the name of the runtime.
pub(super) const VANILLA: &str = "-default";

#[derive(Debug, Deserialize)]
struct Manifest {
    workspace_templates: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
}

/// The runtimes of the manifest at `path`, and `external`.
pub(super) fn runtimes(path: Option<&Path>) -> BTreeSet<String> {
    let read = path.map(|path| {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        parse(&text)
    });
    let mut runtimes = match read {
        Some(Ok(runtimes)) => runtimes,
        Some(Err(error)) => {
            tracing::warn!(path = ?path, error, "the manifest cannot be read; the runtimes are those of this build");
            fallback()
        }
        None => fallback(),
    };
    runtimes.insert(EXTERNAL_RUNTIME.to_owned());
    runtimes
}

fn fallback() -> BTreeSet<String> {
    FALLBACK.map(str::to_owned).into()
}

fn parse(text: &str) -> Result<BTreeSet<String>, String> {
    let manifest: Manifest = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let runtime = |entry: Entry| entry.name.strip_suffix(VANILLA).unwrap_or(&entry.name).trim().to_owned();
    let runtimes: BTreeSet<String> =
        manifest.workspace_templates.into_iter().map(runtime).filter(|name| !name.is_empty()).collect();
    if runtimes.is_empty() { Err("it names no workspace_templates".to_owned()) } else { Ok(runtimes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_says_which_runtimes_there_are() {
        let text = r#"{"version": 1, "_comment": "x", "plugins": [], "workspace_templates": [
            {"name": "claude-code-default", "repo": "r", "ref": "main"}, {"name": "own", "repo": "r", "ref": "main"}]}"#;
        assert_eq!(parse(text).unwrap(), ["claude-code", "own"].map(str::to_owned).into());
        for bad in ["", "{}", r#"{"name": "a web page"}"#, r#"{"workspace_templates": []}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_manifest_the_runtimes_are_those_of_this_build() {
        let known: BTreeSet<String> =
            ["claude-code", "hermes", "openclaw", "codex", "external"].map(str::to_owned).into();
        assert_eq!(runtimes(None), known);
        assert_eq!(runtimes(Some(Path::new("/nowhere/manifest.json"))), known);
        let own = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/manifest.json"));
        assert_eq!(runtimes(Some(own)), known, "fixtures/manifest.json and the fallback say the same");
    }
}
