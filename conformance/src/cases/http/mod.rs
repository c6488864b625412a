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
mod organisation;
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
        organisation::cases(),
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
    fn every_promise_names_what_holds_it() {
        let (_, promised) =
            CONTRACT.split_once("\n| promise | rules | besides |\n").expect("the page has its promises");
        let rules: BTreeSet<&str> = coverage::rules(CONTRACT).into_iter().map(|(id, _)| id).collect();
        let rows: Vec<Vec<&str>> =
            promised.lines().skip(1).take_while(|row| row.starts_with("| ")).map(cells).collect();
        assert_eq!(rows.len(), PROMISES, "a promise is missing, or was added without being counted");
        for row in rows {
            let [promise, held, besides] = &row[..] else { panic!("{row:?} has other cells") };
            let named: Vec<&str> = held.split(", ").filter(|rule| *rule != "–").collect();
            assert!(named.iter().all(|rule| rules.contains(rule)), "{promise}: a rule of {named:?} is none");
            assert!(!named.is_empty() || !besides.is_empty(), "{promise}: nothing holds it");
        }
    }

    /// As many as the product makes.
    const PROMISES: usize = 38;

    fn cells(row: &str) -> Vec<&str> {
        row.trim_matches('|').split('|').map(str::trim).collect()
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
