//! The cases for a server at a base URL.

mod a2a;
mod access;
mod activity;
mod changes;
mod events;
mod inbound_secret;
mod lifecycle;
mod memory;
mod operations;
mod records;
mod registry;
mod secrets;
mod workspaces;

use crate::{case::Case, http::Server};

/// All of them, area by area.
pub fn all() -> Vec<Case<Server>> {
    [
        access::cases(),
        operations::cases(),
        workspaces::cases(),
        registry::cases(),
        inbound_secret::cases(),
        events::cases(),
        lifecycle::cases(),
        activity::cases(),
        a2a::cases(),
        changes::cases(),
        secrets::cases(),
        memory::cases(),
        records::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CONTRACT: &str = include_str!("../../../../docs/contract.md");

    #[test]
    fn every_rule_has_a_case_and_every_case_a_rule() {
        let cases: BTreeSet<&str> = all().iter().map(|case| case.rule).collect();
        let rules: BTreeSet<&str> =
            CONTRACT.lines().filter_map(|line| line.strip_prefix("| R-")?.split(' ').next()).collect();
        let rules: BTreeSet<String> = rules.into_iter().map(|rule| format!("R-{rule}")).collect();
        assert_eq!(
            cases,
            rules.iter().map(String::as_str).collect(),
            "cases on the left, docs/contract.md on the right"
        );
    }

    #[test]
    fn no_two_cases_share_a_name() {
        let names: BTreeSet<&str> = all().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all().len());
    }
}
