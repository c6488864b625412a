//! The cases for a server at a base URL.

mod a2a;
mod access;
mod activity;
mod audit;
mod catalogue;
mod changes;
mod creating;
mod events;
mod inbound_secret;
mod instructions;
mod lifecycle;
mod listening;
mod mcp;
mod memory;
mod older;
mod operations;
mod records;
mod registry;
mod running;
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
        listening::cases(),
        catalogue::cases(),
        lifecycle::cases(),
        running::cases(),
        activity::cases(),
        a2a::cases(),
        changes::cases(),
        secrets::cases(),
        memory::cases(),
        older::cases(),
        mcp::cases(),
        records::cases(),
        audit::cases(),
        instructions::cases(),
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
    use crate::coverage;

    const CONTRACT: &str = include_str!("../../../../docs/contract.md");

    #[test]
    fn every_rule_has_a_case_and_every_case_a_rule() {
        let cases = coverage::tried(&all());
        let rules: BTreeSet<_> = coverage::rules(CONTRACT).into_iter().collect();
        let missing: Vec<_> = cases.symmetric_difference(&rules).collect();
        assert!(missing.is_empty(), "only in the cases or only in docs/contract.md: {missing:?}");
    }

    #[test]
    fn no_two_rules_share_an_id() {
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = coverage::rules(CONTRACT).into_iter().filter(|(id, _)| !seen.insert(*id)).collect();
        assert!(twice.is_empty(), "docs/contract.md has these twice: {twice:?}");
    }

    #[test]
    fn no_two_cases_share_a_name() {
        let names: BTreeSet<&str> = all().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all().len());
    }
}
