//! What no case has asked for, and which rules none tries.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::case::Case;

/// A rule of a page like `docs/contract.md`, or one that a case is about: its id and how much it is demanded.
pub type Rule<'a> = (&'a str, String);

/// The rules of a page, each a row of a table that begins with its id and how much it is demanded.
pub fn rules(page: &str) -> Vec<Rule<'_>> {
    let rows = page.lines().filter(|line| line.starts_with("| R-"));
    rows.filter_map(|row| {
        let mut cells = row.trim_start_matches("| ").split(" | ");
        Some((cells.next()?, cells.next()?.to_owned()))
    })
    .collect()
}

/// The rules that `cases` try.
pub fn tried<T>(cases: &[Case<T>]) -> BTreeSet<Rule<'static>> {
    cases.iter().map(|case| (case.rule, case.level.to_string())).collect()
}

/// The operations of an OpenAPI `document` that none of the `called` requests, each `METHOD /path`, was made to.
pub fn uncalled(document: &Value, called: &BTreeSet<String>) -> Vec<String> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten().map(|(method, _)| method.to_uppercase());
        methods.map(move |method| (method, path))
    });
    operations
        .filter(|(method, path)| {
            !called.iter().any(|call| call.split_once(' ').is_some_and(|(made, at)| made == method && fits(path, at)))
        })
        .map(|(method, path)| format!("{method} {path}"))
        .collect()
}

/// Whether a request to `path` is one to the route `template`, such as `/workspaces/{id}`.
fn fits(template: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let (mut parts, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (parts.next(), given.next()) {
            (None, None) => return true,
            // What follows a wildcard is its own.
            (Some(part), Some(_)) if part.starts_with("{*") => return true,
            (Some(part), Some(given)) if part == given || part.starts_with('{') && !given.is_empty() => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_is_a_row_that_begins_with_its_id() {
        let page = "# Rules\n| rule | level | what holds |\n|---|---|---|\n| R-A-1 | core | It | holds. |\n\
                    | R-B-1 | memory | So does this. |\ntext R-C-1\n";
        assert_eq!(rules(page), [("R-A-1", "core".to_owned()), ("R-B-1", "memory".to_owned())]);
    }

    #[test]
    fn a_call_covers_the_route_that_it_is_made_to() {
        let document = json!({"paths": {
            "/health": {"get": {}},
            "/workspaces": {"get": {}, "post": {}},
            "/workspaces/{id}": {"get": {}},
            "/workspaces/{id}/files/{*path}": {"get": {}, "put": {}},
        }});
        let called = ["GET /workspaces?x=1", "GET /workspaces/7?y", "PUT /workspaces/7/files/a/b"];
        let called = called.map(str::to_owned).into();
        assert_eq!(
            uncalled(&document, &called),
            ["GET /health", "POST /workspaces", "GET /workspaces/{id}/files/{*path}"]
        );
        assert_eq!(uncalled(&json!({}), &called), Vec::<String>::new());
    }
}
