//! Every kind of error has its line in the table of each frontend: what has none is a defect to its callers.

use std::{fs, path::Path};

use molecule_core::ErrorKind;
use syn::visit::{self, Visit};

use super::Violation;

/// The table of each frontend: its file and the function that is it.
const TABLES: [(&str, &str); 2] =
    [("molecule-http/src/serve/error.rs", "status_of"), ("molecule-py/src/errors.rs", "class_and_code")];

/// What a table may leave to its last arm.
const LEFT_OVER: &str = "Unexpected";

pub(super) fn check(root: &Path) -> Result<Vec<Violation>, String> {
    let kinds: Vec<String> = ErrorKind::ALL.iter().map(|kind| format!("{kind:?}")).collect();
    let mut found = Vec::new();
    for (file, function) in TABLES {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        found.extend(compare(file, function, &text, &kinds)?);
    }
    Ok(found)
}

/// Where the table and the `kinds` of the core differ.
fn compare(file: &str, function: &str, text: &str, kinds: &[String]) -> Result<Vec<Violation>, String> {
    let tree = syn::parse_file(text).map_err(|error| format!("{file}: {error}"))?;
    let mut table = Table { function, within: false, lines: Vec::new() };
    table.visit_file(&tree);
    let mut found = Vec::new();
    for kind in kinds.iter().filter(|kind| *kind != LEFT_OVER) {
        match table.lines.iter().filter(|(_, named)| named == kind).count() {
            1 => {}
            0 => {
                let what = format!("{function} has no line for ErrorKind::{kind}: add one");
                found.push(Violation::near(file, text, &format!("fn {function}("), what));
            }
            _ => {
                let what = format!("{function} has ErrorKind::{kind} twice: remove one");
                found.push(Violation::near(file, text, &format!("ErrorKind::{kind}"), what));
            }
        }
    }
    for (line, named) in table.lines.iter().filter(|(_, named)| !kinds.contains(named)) {
        let what = format!("{function} has a line for ErrorKind::{named}, which is no kind: remove it");
        found.push(Violation { file: file.to_owned(), line: *line, what });
    }
    Ok(found)
}

/// The kinds that the patterns of a function name, each with its line.
struct Table<'a> {
    function: &'a str,
    within: bool,
    lines: Vec<(usize, String)>,
}

impl<'ast> Visit<'ast> for Table<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let before = std::mem::replace(&mut self.within, item.sig.ident == self.function);
        visit::visit_item_fn(self, item);
        self.within = before;
    }

    fn visit_pat(&mut self, pattern: &'ast syn::Pat) {
        if let syn::Pat::Path(path) = pattern
            && self.within
            && let [.., kind, variant] = &*path.path.segments.iter().collect::<Vec<_>>()
            && kind.ident == "ErrorKind"
        {
            self.lines.push((variant.ident.span().start().line, variant.ident.to_string()));
        }
        visit::visit_pat(self, pattern);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_without_a_line_and_a_line_without_a_kind_are_found() {
        let kinds = ["NotFound", "Conflict", "Unexpected"].map(str::to_owned);
        let text = "fn status_of(kind: ErrorKind) -> u16 {\n    match kind {\n        ErrorKind::NotFound => 404,\n        \
                    ErrorKind::Conflict => 409,\n        _ => 500,\n    }\n}\nfn other(kind: ErrorKind) { let \
                    ErrorKind::Other = kind else { return }; }\n";
        let told = |text: &str, kinds: &[String]| -> Vec<String> {
            compare("e.rs", "status_of", text, kinds).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(told(text, &kinds), [""; 0]);
        let fewer = text.replace("        ErrorKind::Conflict => 409,\n", "");
        assert_eq!(told(&fewer, &kinds), ["e.rs:1: status_of has no line for ErrorKind::Conflict: add one"]);
        let gone = ["NotFound", "Unexpected"].map(str::to_owned);
        let expected = "e.rs:4: status_of has a line for ErrorKind::Conflict, which is no kind: remove it";
        assert_eq!(told(text, &gone), [expected]);
        assert!(!told("", &kinds).is_empty(), "a file that is not there does not pass");
    }
}
