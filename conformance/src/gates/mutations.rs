//! The checks that are taken out on trial, and the page that lists them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::Violation;
use crate::cases;

const PAGE: &str = "docs/mutations.md";
const PATCHES: &str = "conformance/mutations";

/// Where the table of the patches is in the page.
const TABLE: (&str, &str) = ("<!-- patches -->", "<!-- end of patches -->");

/// What begins a patch.
const FIELDS: [&str; 4] = ["Without", "Setup", "Case", "Why"];

pub(super) fn check(root: &Path) -> Result<Vec<Violation>, String> {
    let unread = |error: std::io::Error| format!("{PATCHES}: {error}");
    let mut patches = BTreeMap::new();
    // Without the folder the rows of the page are those of no patch.
    for entry in fs::read_dir(root.join(PATCHES)).into_iter().flatten() {
        let path = entry.map_err(unread)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        patches.insert(format!("{PATCHES}/{name}"), fs::read_to_string(&path).map_err(unread)?);
    }
    let page = fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    let cases = cases::http::all().into_iter().map(|case| case.name).collect();
    let mut found = compare(&page, &patches, &cases);
    for (file, patch) in &patches {
        found.extend(misfits(file, patch, |path| fs::read_to_string(root.join(path)).unwrap_or_default()));
    }
    Ok(found)
}

/// The parts of a patch that its source, which `read` knows by its path from the root, has not got.
fn misfits(file: &str, patch: &str, read: impl Fn(&str) -> String) -> Vec<Violation> {
    let mut source = String::new();
    let (mut found, mut parts) = (Vec::new(), 0);
    for part in patch.split_inclusive("\n@@ ").map(|part| part.trim_end_matches("@@ ")) {
        // The first is what stands above; each other one begins with where it was.
        if parts > 0 {
            let lines = part.lines().skip(1).take_while(|line| !line.starts_with("--- "));
            let before = lines.filter_map(|line| line.strip_prefix([' ', '-']));
            let before: String = before.map(|line| format!("{line}\n")).collect();
            if before.is_empty() || !source.contains(&before) {
                let near = part.lines().next().unwrap_or_default();
                found.push(Violation::near(file, patch, near, "it does not fit any more: write it anew"));
            }
        }
        if let Some(path) = part.lines().find_map(|line| line.strip_prefix("+++ b/")) {
            source = read(path);
        }
        parts += 1;
    }
    if parts < 2 {
        found.push(Violation {
            file: file.to_owned(),
            line: 1,
            what: "it takes nothing out: write it anew".to_owned(),
        });
    }
    found
}

/// Where the page and the patches differ, and where a patch does not say what is needed to try it.
fn compare(page: &str, patches: &BTreeMap<String, String>, cases: &BTreeSet<&str>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut rows = BTreeSet::new();
    for (file, patch) in patches {
        for name in FIELDS.into_iter().filter(|name| field(patch, name).is_empty()) {
            found.push(Violation { file: file.clone(), line: 1, what: format!("it does not say its {name}: add it") });
        }
        let case = field(patch, "Case");
        if !case.is_empty() && !cases.contains(case) {
            found.push(Violation::near(file, patch, "Case: ", format!("there is no case {case}: name one")));
        }
        let row = format!("| {} | `{case}` |", field(patch, "Without"));
        if !listed(page).any(|(_, line)| line == row) {
            let what = format!("its row is missing in {PAGE}: add {row}");
            found.push(Violation { file: file.clone(), line: 1, what });
        }
        rows.insert(row);
    }
    for (line, row) in listed(page).filter(|(_, row)| !rows.contains(*row)) {
        let what = format!("no patch in {PATCHES} is this one: remove {row}, or write its patch");
        found.push(Violation { file: PAGE.to_owned(), line, what });
    }
    found
}

/// The value of a line at the beginning of a patch.
fn field<'a>(patch: &'a str, name: &str) -> &'a str {
    let head = patch.lines().take_while(|line| !line.starts_with("--- "));
    let mut values = head.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().unwrap_or_default().trim()
}

/// The rows of the table, with their lines.
fn listed(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = page.lines().enumerate().skip_while(|(_, line)| *line != TABLE.0);
    let table = lines.take_while(|(_, line)| *line != TABLE.1);
    // What stands above the dashes is the heading.
    let rows = table.skip_while(|(_, line)| !line.starts_with("|--")).skip(1);
    rows.filter(|(_, line)| line.starts_with('|')).map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "Without: all is let in\nSetup: none\nCase: nobody\nWhy: expected 401\n\n";
    const ROWS: &str = "<!-- patches -->\n\n| without | noticed by |\n|---|---|\n| all is let in | `nobody` |\n\n\
                        <!-- end of patches -->\n| by hand | `other` |\n";

    fn found(page: &str, patch: &str) -> Vec<String> {
        let patches = BTreeMap::from([("a.patch".to_owned(), patch.to_owned())]);
        compare(page, &patches, &BTreeSet::from(["nobody"])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn it_fires_on_each_way_to_differ() {
        assert_eq!(found(ROWS, PATCH), [""; 0]);
        let row = "| all is let in | `nobody` |";
        assert_eq!(found("", PATCH), [format!("a.patch:1: its row is missing in docs/mutations.md: add {row}")]);
        let more = ROWS.replace(row, &format!("{row}\n| more | `nobody` |"));
        assert_eq!(
            found(&more, PATCH),
            [
                "docs/mutations.md:6: no patch in conformance/mutations is this one: remove | more | `nobody` |, or write its patch"
            ]
        );
        assert_eq!(
            found(ROWS, &PATCH.replace("Why: expected 401\n", "Why: \n")),
            ["a.patch:1: it does not say its Why: add it"]
        );
        let other = PATCH.replace("nobody", "somebody");
        assert_eq!(
            found(&ROWS.replace("nobody", "somebody"), &other),
            ["a.patch:3: there is no case somebody: name one"]
        );
    }

    #[test]
    fn a_patch_fits_its_source() {
        let source = "fn one() {\n    check();\n\n    go_on();\n}\n";
        let patch = "--- a/x.rs\n+++ b/x.rs\n@@ -2,3 +2,2 @@\n-    check();\n \n     go_on();\n";
        let found = |patch: &str| {
            let found = misfits("a.patch", &format!("{PATCH}{patch}"), |path| {
                if path == "x.rs" { source.to_owned() } else { String::new() }
            });
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found(patch), [""; 0]);
        let misfit = ["a.patch:8: it does not fit any more: write it anew"];
        assert_eq!(found(&patch.replace("check", "look")), misfit);
        assert_eq!(found(&patch.replace("x.rs", "y.rs")), misfit);
        assert_eq!(found(""), ["a.patch:1: it takes nothing out: write it anew"]);
    }
}
