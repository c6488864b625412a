//! The cases for a server at a base URL.

mod a2a;
mod access;
mod activity;
mod catalogue;
mod changes;
mod creating;
mod events;
mod inbound_secret;
mod lifecycle;
mod mcp;
mod memory;
mod older;
mod operations;
mod records;
mod registry;
mod secrets;
mod workspace_files;
mod workspaces;

use crate::{case::Case, http::Server};

/// All of them, area by area.
pub fn all() -> Vec<Case<Server>> {
    [
        access::cases(),
        operations::cases(),
        workspaces::cases(),
        creating::cases(),
        registry::cases(),
        inbound_secret::cases(),
        events::cases(),
        catalogue::cases(),
        lifecycle::cases(),
        activity::cases(),
        a2a::cases(),
        changes::cases(),
        secrets::cases(),
        memory::cases(),
        older::cases(),
        mcp::cases(),
        records::cases(),
        workspace_files::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::Level;

    const CONTRACT: &str = include_str!("../../../../docs/contract.md");

    #[test]
    fn every_rule_has_a_case_and_every_case_a_rule() {
        let level = |level| match level {
            Level::Core => "core",
            Level::Extended(feature) => feature.as_str(),
        };
        let cases: BTreeSet<(&str, &str)> = all().iter().map(|case| (case.rule, level(case.level))).collect();
        let rules: BTreeSet<(&str, &str)> = CONTRACT
            .lines()
            .filter(|line| line.starts_with("| R-"))
            .filter_map(|line| Some((line.split(" | ").next()?.strip_prefix("| ")?, line.split(" | ").nth(1)?)))
            .collect();
        let missing: Vec<_> = cases.symmetric_difference(&rules).collect();
        assert!(missing.is_empty(), "only in the cases or only in docs/contract.md: {missing:?}");
    }

    #[test]
    fn no_two_cases_share_a_name() {
        let names: BTreeSet<&str> = all().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all().len());
    }
}
