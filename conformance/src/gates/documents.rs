//! What the pages repeat of the code: events, paths, names and links.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use molecule_core::{events::EventKind, workspace::Status};

use super::{Source, Violation, sources::Names};

const EVENTS: &str = "docs/events.md";
const KINDS: (&str, &str) = ("molecule-core/src/events.rs", "event_kinds! {");
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// Fewer are a page that was not understood.
const LEAST_NAMES: usize = 40;

pub(super) fn events(root: &Path) -> Result<Vec<Violation>, String> {
    let code = fs::read_to_string(root.join(KINDS.0)).unwrap_or_default();
    let page = fs::read_to_string(root.join(EVENTS)).unwrap_or_default();
    let kinds = EventKind::ALL.iter().map(|kind| (kind.as_str(), kind.is_recorded()));
    Ok(compare_events(&page, &code, &kinds.collect::<Vec<_>>()))
}

/// Where the page and the `kinds` of the code, each with whether it is recorded, differ.
fn compare_events(page: &str, code: &str, kinds: &[(&str, bool)]) -> Vec<Violation> {
    let written: BTreeMap<&str, &str> = page.lines().filter_map(event_row).collect();
    let mut found = Vec::new();
    for (name, recorded) in kinds {
        let kept = if *recorded { "recorded" } else { "ephemeral" };
        let near = format!("\"{name}\"");
        match written.get(name) {
            None => {
                let what = format!("{name} ({kept}) has no row in {EVENTS}: add it there");
                found.push(Violation::near(KINDS.0, code, &near, what));
            }
            Some(said) if *said != kept => {
                let what = format!("{name} is {kept}, and this says {said}: correct it");
                found.push(Violation::near(EVENTS, page, &format!("| `{name}` |"), what));
            }
            Some(_) => {}
        }
    }
    for name in written.keys().filter(|name| !kinds.iter().any(|(kind, _)| kind == *name)) {
        let what = format!("{name} is no event of the code: remove its row, or add it to {}", KINDS.0);
        found.push(Violation::near(EVENTS, page, &format!("| `{name}` |"), what));
    }
    found
}

/// Reads `| `NAME` | recorded | … |`.
fn event_row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
    Some((cells.next()?.trim_end_matches('`'), cells.next()?))
}

pub(super) fn paths(root: &Path) -> Result<Vec<Violation>, String> {
    let mut found = Vec::new();
    for page in pages(root)? {
        let text = fs::read_to_string(root.join(&page)).map_err(|error| format!("{}: {error}", page.display()))?;
        found.extend(dead_paths(&page, &text, |path| root.join(path).exists()));
        found.extend(dead_anchors(&page, &text, |path| fs::read_to_string(root.join(path)).ok()));
    }
    Ok(found)
}

/// The paths and links of a page that lead nowhere. `exists` knows paths from the root.
fn dead_paths(page: &Path, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Violation> {
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for (line, prose) in prose(text) {
        let spans = code_spans(prose).filter(|span| looks_like_a_path(span)).map(|span| (span, PathBuf::from(span)));
        let links = links(prose).filter(|link| !link.contains("://"));
        let links = links.map(|link| (link, normal(&folder.join(link.split('#').next().unwrap_or_default()))));
        for (said, _) in spans.chain(links).filter(|(_, path)| !exists(path)) {
            let what = format!("{said} leads nowhere: correct or remove it");
            found.push(Violation { file: page.display().to_string(), line, what });
        }
    }
    found
}

/// The links of a page to a heading that no page has. `read` knows paths from the root.
fn dead_anchors(page: &Path, text: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<Violation> {
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for (line, prose) in prose(text) {
        for link in links(prose).filter(|link| !link.contains("://")) {
            let Some((path, anchor)) = link.split_once('#') else { continue };
            let target = if path.is_empty() { page.to_owned() } else { normal(&folder.join(path)) };
            let Some(target) = read(&target) else { continue };
            if !anchors(&target).any(|there| there == anchor) {
                let what = format!("{link} is the anchor of no heading: correct or remove it");
                found.push(Violation { file: page.display().to_string(), line, what });
            }
        }
    }
    found
}

/// The anchors of the headings of a page, as GitHub makes them.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, heading)| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

pub(super) fn names(sources: &[Source], root: &Path) -> Result<Vec<Violation>, String> {
    let text = fs::read_to_string(root.join(ARCHITECTURE)).unwrap_or_default();
    Ok(dead_names(&text, &super::sources::names(sources), |name| root.join(name).exists()))
}

/// The names in the page that nothing has.
fn dead_names(text: &str, known: &Names, exists: impl Fn(&str) -> bool) -> Vec<Violation> {
    let is_known = |part: &str| {
        let is_type = part.starts_with(|c: char| c.is_ascii_uppercase());
        let defined = if is_type { known.words.contains(part) } else { known.functions.contains(part) };
        defined || Status::ALL.iter().any(|status| status.as_str() == part) || exists(part)
    };
    let (mut count, mut found) = (0, Vec::new());
    for (line, prose) in prose(text) {
        for name in code_spans(prose).filter(|span| looks_like_a_name(span)) {
            count += 1;
            if !name.split("::").all(is_known) {
                let what = format!("{name} is not in the code: correct or remove it");
                found.push(Violation { file: ARCHITECTURE.to_owned(), line, what });
            }
        }
    }
    if count < LEAST_NAMES {
        let what = format!("only {count} names were understood: it is not the page that it was, or cannot be read");
        found.push(Violation { file: ARCHITECTURE.to_owned(), line: 1, what });
    }
    found
}

/// Every page at the root and in `docs`, from the root.
fn pages(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let name = entry.map_err(|error| format!("{folder}: {error}"))?.file_name();
            let path = Path::new(folder).join(name);
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// The lines of a page with their numbers, without its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut within = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        within ^= fence;
        (!within && !fence).then_some((index + 1, line))
    })
}

/// What stands between backticks.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The targets of `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(normal.pop()),
            std::path::Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// A path of this repository: relative, with a folder or the extension of a source.
fn looks_like_a_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let elsewhere = span.starts_with(['/', '.', '-']) || span.starts_with("target/") || span == "text/plain";
    let media = span.starts_with("application/");
    let source = [".rs", ".md", ".toml", ".sql"].iter().any(|extension| span.ends_with(extension));
    let range = span.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '/'));
    span.chars().all(plain) && !elsewhere && !media && !range && (span.contains('/') || source)
}

/// A type, a function, a status or a folder at the root: `Type::function`, `a_function`; but no `EVENT` and no variable.
fn looks_like_a_name(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':');
    span.chars().all(plain) && span.contains(|c: char| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# Events\n\n| event | kept | |\n|---|---|---|\n| `ONE` | recorded | it |\n| `TWO` | ephemeral | it |\n";
    const CODE: &str = "event_kinds! {\n    One = \"ONE\", true;\n    Two = \"TWO\", false;\n}\n";

    fn told(found: &[Violation]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_event_on_one_side_alone_is_found() {
        let kinds = [("ONE", true), ("TWO", false)];
        assert_eq!(told(&compare_events(PAGE, CODE, &kinds)), [""; 0]);
        let fewer = told(&compare_events(PAGE, CODE, &kinds[..1]));
        assert_eq!(
            fewer,
            ["docs/events.md:6: TWO is no event of the code: remove its row, or add it to molecule-core/src/events.rs"]
        );
        let unwritten = told(&compare_events(&PAGE.replace("| `ONE` | recorded | it |\n", ""), CODE, &kinds));
        assert_eq!(
            unwritten,
            ["molecule-core/src/events.rs:2: ONE (recorded) has no row in docs/events.md: add it there"]
        );
        let other = told(&compare_events(PAGE, CODE, &[("ONE", false), ("TWO", false)]));
        assert_eq!(other, ["docs/events.md:5: ONE is ephemeral, and this says recorded: correct it"]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_found() {
        let text = "See `src/lib.rs`, `text/plain` and [here](../a.md#b).\n```\n`no/such/block`\n```\nAnd `src/gone.rs`, [there](gone.md).\n";
        let exists = |path: &Path| ["src/lib.rs", "a.md"].iter().any(|there| path == Path::new(there));
        let found = told(&dead_paths(Path::new("docs/x.md"), text, exists));
        assert_eq!(
            found,
            [
                "docs/x.md:5: src/gone.rs leads nowhere: correct or remove it",
                "docs/x.md:5: gone.md leads nowhere: correct or remove it",
            ]
        );
    }

    #[test]
    fn an_anchor_of_no_heading_is_found() {
        let text = "# One page\n\n## `GET /a`, and more\n[a](#get-a-and-more) [b](b.md#its-part) [c](b.md#gone) [d](#its-part)\n";
        let read = |path: &Path| match path.to_str() {
            Some("docs/x.md") => Some(text.to_owned()),
            Some("docs/b.md") => Some("# B\n```\n# gone\n```\n## Its part\n".to_owned()),
            _ => None,
        };
        assert_eq!(
            told(&dead_anchors(Path::new("docs/x.md"), text, read)),
            [
                "docs/x.md:4: b.md#gone is the anchor of no heading: correct or remove it",
                "docs/x.md:4: #its-part is the anchor of no heading: correct or remove it",
            ]
        );
    }

    #[test]
    fn a_name_that_nothing_has_is_found() {
        let source = Source::parse("a.rs", "pub struct Known;\nimpl Known { fn works() {} }\n").unwrap();
        let known = super::super::sources::names(&[source]);
        let text =
            format!("{}\n`Known::works` and `Known::fails`, `Unknown`, `online` and `EVENT`.\n", "`Known` ".repeat(40));
        let found = told(&dead_names(&text, &known, |_| false));
        assert_eq!(
            found,
            [
                "ARCHITECTURE.md:2: Known::fails is not in the code: correct or remove it",
                "ARCHITECTURE.md:2: Unknown is not in the code: correct or remove it",
            ]
        );
        assert_eq!(dead_names("", &known, |_| false).len(), 1, "a page that cannot be read does not pass");
    }
}
