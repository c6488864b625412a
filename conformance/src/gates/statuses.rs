//! The statuses are the same ten everywhere: in the code, in both first migrations, in the Python package, and wherever the
//! document of the API lists them. That the databases have what the migrations say is looked at on live ones, beside the store.

use std::{collections::BTreeSet, fs, path::Path};

use molecule_core::workspace::Status;
use serde_json::Value;

use super::Violation;

const CODE: &str = "molecule-core/src/workspace/status.rs";
const DOCUMENT: &str = "molecule-http/openapi.json";
const PYTHON: &str = "molecule-py/python/molecule/_statuses.py";

/// What stands before the list of the Python package.
const CLASS: &str = "class WorkspaceStatus(";

/// Each migration, and what stands before its list.
const MIGRATIONS: [(&str, &str); 2] = [
    ("molecule-core/migrations/postgres/0001_init.sql", "CREATE TYPE workspace_status AS ENUM ("),
    ("molecule-core/migrations/sqlite/0001_init.sql", "CHECK (status IN ("),
];

/// What must list them in the document: the schema and its member.
const LISTED: [&str; 3] = ["WorkspaceView", "PeerView", "StateView"];

pub(super) fn check(root: &Path) -> Result<Vec<Violation>, String> {
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let statuses = Status::ALL.map(Status::as_str);
    let mut found = Vec::new();
    for (file, before) in MIGRATIONS {
        found.extend(compare_list(file, &read(file), before, &statuses));
    }
    found.extend(compare_document(&read(DOCUMENT), &statuses));
    found.extend(compare_class(&read(PYTHON), &statuses));
    Ok(found)
}

/// Where the list that follows `before` differs from `statuses`.
fn compare_list(file: &str, text: &str, before: &str, statuses: &[&str]) -> Vec<Violation> {
    let listed = text.split_once(before).and_then(|(_, rest)| rest.split_once(')')).map(|(list, _)| list);
    let Some(listed) = listed else {
        return vec![Violation::near(file, text, before, format!("no list `{before}…)` was found: restore it"))];
    };
    let listed: BTreeSet<&str> = listed.split(',').map(|value| value.trim().trim_matches('\'')).collect();
    differences(file, text, before, &listed, statuses)
}

fn differences(file: &str, text: &str, near: &str, listed: &BTreeSet<&str>, statuses: &[&str]) -> Vec<Violation> {
    let code: BTreeSet<&str> = statuses.iter().copied().collect();
    let lacks = code.difference(listed).map(|status| format!("{status} is missing here: {CODE} has it"));
    let more =
        listed.difference(&code).map(|status| format!("{CODE} does not know {status}: take it out, or add it there"));
    lacks.chain(more).map(|what| Violation::near(file, text, near, what)).collect()
}

/// Where a list of the document differs, and which must list them and does not.
fn compare_document(text: &str, statuses: &[&str]) -> Vec<Violation> {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let schemas = &document["components"]["schemas"];
    let mut found = Vec::new();
    for name in LISTED {
        let near = format!("\"{name}\": {{");
        let listed = schemas[name]["properties"]["status"]["enum"].as_array();
        match listed {
            None => {
                let what =
                    format!("{name} does not list the statuses: say `schema_with = status_schema` of its member");
                found.push(Violation::near(DOCUMENT, text, &near, what));
            }
            Some(listed) => {
                let listed = listed.iter().filter_map(Value::as_str).collect();
                let of_schema = differences(DOCUMENT, text, &near, &listed, statuses);
                found.extend(of_schema.into_iter().map(|violation| Violation {
                    what: format!("{name}: {} (`make update` writes the document)", violation.what),
                    ..violation
                }));
            }
        }
    }
    found
}

/// Where the class of the Python package differs: each member is a status, by the name of it in capitals.
fn compare_class(text: &str, statuses: &[&str]) -> Vec<Violation> {
    let mut listed = BTreeSet::new();
    let mut found = Vec::new();
    let body = text.split_once(CLASS).map_or("", |(_, body)| body);
    for line in body.lines().skip(1).take_while(|line| line.is_empty() || line.starts_with(' ')) {
        let Some((name, value)) = line.trim().split_once(" = \"") else { continue };
        let value = value.trim_end_matches('"');
        let due = value.to_uppercase();
        if name != due {
            found.push(Violation::near(PYTHON, text, line, format!("{value} is named {name} here: name it {due}")));
        }
        listed.insert(value);
    }
    if listed.is_empty() {
        return vec![Violation::near(PYTHON, text, CLASS, format!("no list `{CLASS}…` was found: restore it"))];
    }
    found.extend(differences(PYTHON, text, CLASS, &listed, statuses));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(found: &[Violation]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_that_lacks_one_or_has_one_more_is_found() {
        let text = "CREATE TABLE x (\n    status TEXT CHECK (status IN ('one', 'two')),\n    y TEXT\n);\n";
        let compare = |statuses: &[&str]| told(&compare_list("m.sql", text, "CHECK (status IN (", statuses));
        assert_eq!(compare(&["one", "two"]), [""; 0]);
        let code = "molecule-core/src/workspace/status.rs";
        assert_eq!(compare(&["one", "two", "three"]), [format!("m.sql:2: three is missing here: {code} has it")]);
        let more = format!("m.sql:2: {code} does not know two: take it out, or add it there");
        assert_eq!(compare(&["one"]), [more]);
        assert_eq!(
            told(&compare_list("m.sql", "", "CHECK (", &["one"])),
            ["m.sql:1: no list `CHECK (…)` was found: restore it"]
        );
    }

    #[test]
    fn a_schema_that_lists_others_or_none_is_found() {
        let status = json!({"properties": {"status": {"enum": ["one", "two"]}}});
        let schemas = json!({"WorkspaceView": status, "PeerView": status, "StateView": {"properties": {"status": {"type": "string"}}}});
        let text = serde_json::to_string_pretty(&json!({"components": {"schemas": schemas}})).unwrap();
        let found = told(&compare_document(&text, &["one"]));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().all(|told| told.starts_with("molecule-http/openapi.json:")), "{found:?}");
        assert!(
            found[0].contains("WorkspaceView: molecule-core/src/workspace/status.rs does not know two"),
            "{found:?}"
        );
        assert!(found[2].contains("StateView does not list the statuses: say `schema_with"), "{found:?}");
        assert_eq!(compare_document("", &["one"]).len(), LISTED.len(), "a document that is not there does not pass");
    }

    #[test]
    fn a_class_that_lacks_one_has_one_more_or_misnames_one_is_found() {
        let text = "import x\n\n\nclass WorkspaceStatus(str, Enum):\n    \"\"\"What it is.\"\"\"\n\n    ONE = \"one\"\n    \"\"\"The first.\"\"\"\n\n    \
                    TWO = \"two_three\"\n\n    def __str__(self) -> str:\n        return self.value\n\n\nOTHER = \"four\"\n";
        let file = "molecule-py/python/molecule/_statuses.py";
        let misnamed = format!("{file}:10: two_three is named TWO here: name it TWO_THREE");
        assert_eq!(told(&compare_class(text, &["one", "two_three"])), [misnamed.as_str()]);
        let named = text.replace("TWO =", "TWO_THREE =");
        assert_eq!(told(&compare_class(&named, &["one", "two_three"])), [""; 0]);
        let lacking = format!("{file}:4: three is missing here: molecule-core/src/workspace/status.rs has it");
        assert_eq!(told(&compare_class(&named, &["one", "two_three", "three"])), [lacking]);
        let more = "molecule-core/src/workspace/status.rs does not know two_three: take it out, or add it there";
        assert_eq!(told(&compare_class(&named, &["one"])), [format!("{file}:4: {more}")]);
        assert_eq!(
            told(&compare_class("", &["one"])),
            [format!("{file}:1: no list `class WorkspaceStatus(…` was found: restore it")]
        );
    }
}
