//! The table of providers and the script that hermes starts with say the same, both ways: what one stores and the other
//! uses would otherwise differ without a word.

use std::{collections::BTreeMap, fs, path::Path};

use brush_parser::{
    Parser, ParserOptions,
    ast::{
        AssignmentName, AssignmentValue, CaseItem, Command, CommandPrefixOrSuffixItem, CompoundCommand, CompoundList,
        SimpleCommand,
    },
};
use molecule_core::templates::derive::PROVIDERS;

use super::Violation;

const SCRIPT: &str = "fixtures/templates/hermes/scripts/derive-provider.sh";
const TABLE: &str = "molecule-core/src/templates/derive.rs";

/// The variables whose `case` says which prefix has which provider.
const MODELS: [&str; 2] = ["_HERMES_MODEL", "HERMES_DEFAULT_MODEL"];

const PROVIDER: &str = "PROVIDER";

/// Prefixes that the script decides by the keys that it finds, with all that it may decide and what the table says. Keys
/// may be set after the workspace was created, and openrouter serves these models in any case.
const ACCEPTED: [(&str, &[&str], &str); 2] =
    [("nousresearch", &["nous", "openrouter"], "openrouter"), ("openai", &["custom", "openrouter"], "openrouter")];

/// Prefixes that must be found, so that a script that was not understood does not pass.
const ANCHORS: [&str; 6] = ["anthropic", "copilot", "minimax", "openai", "openrouter", "xai"];

/// What the script does for a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    line: usize,
    /// Every provider that it may choose.
    providers: Vec<String>,
}

/// Where the two differ.
///
/// # Errors
/// Where the script can't be read or is no shell.
pub(super) fn check(root: &Path) -> Result<Vec<Violation>, String> {
    let path = root.join(SCRIPT);
    if !path.exists() {
        return Ok(vec![violation(SCRIPT, 1, "the script is missing, so that nothing can be compared".to_owned())]);
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(compare(&clauses(&text).map_err(|error| format!("{SCRIPT}: {error}"))?, PROVIDERS))
}

fn violation(file: &str, line: usize, what: String) -> Violation {
    Violation { file: file.to_owned(), line, what }
}

fn compare(script: &BTreeMap<String, Clause>, table: &[(&str, &str)]) -> Vec<Violation> {
    let mut found = Vec::new();
    for anchor in ANCHORS.iter().filter(|anchor| !script.contains_key(**anchor)) {
        found.push(violation(SCRIPT, 1, format!("no clause for {anchor}/* was understood")));
    }
    for (prefix, clause) in script {
        let says = clause.providers.join(" or ");
        let what = match table.iter().find(|(known, _)| known == prefix) {
            None => format!("the script maps {prefix}/* to {says}, and {TABLE} lacks it: add it there"),
            Some((_, provider)) => match ACCEPTED.iter().find(|(accepted, ..)| accepted == prefix) {
                Some((_, may, stored)) if clause.providers == *may && provider == stored => continue,
                None if clause.providers == [*provider] => continue,
                _ => format!("the script maps {prefix}/* to {says}, and {TABLE} to {provider}: make them agree"),
            },
        };
        found.push(violation(SCRIPT, clause.line, what));
    }
    for (prefix, provider) in table.iter().filter(|(prefix, _)| !script.contains_key(*prefix)) {
        let what = format!("{TABLE} maps {prefix} to {provider}, and the script has no clause for {prefix}/*");
        found.push(violation(SCRIPT, 1, what));
    }
    found
}

/// What the script does for each prefix.
fn clauses(script: &str) -> Result<BTreeMap<String, Clause>, String> {
    if redirects_too_high(script) {
        return Err("it redirects a descriptor that no system has".to_owned());
    }
    let program = Parser::new(script.as_bytes(), &ParserOptions::default())
        .parse_program()
        .map_err(|error| format!("it is no shell that can be read: {error}"))?;
    let mut clauses = BTreeMap::new();
    for list in &program.complete_commands {
        each_command(list, &mut |command| {
            let Command::Compound(CompoundCommand::CaseClause(case), _) = command else { return };
            let subject = case.value.value.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            if MODELS.contains(&subject.split(':').next().unwrap_or_default()) {
                case.cases.iter().for_each(|item| add(item, &mut clauses));
            }
        });
    }
    Ok(clauses)
}

/// Whether a number of ten digits or more is redirected, of which the parser makes no number.
fn redirects_too_high(script: &str) -> bool {
    // A line that goes on is one with the next.
    let script = script.replace("\\\n", "");
    script.split(['<', '>']).any(|before| before.bytes().rev().take_while(u8::is_ascii_digit).count() >= 10)
}

/// The prefixes that a script knows, each with its line.
///
/// # Errors
/// Where it is no shell that can be read.
pub(crate) fn prefixes(script: &str) -> Result<Vec<(String, usize)>, String> {
    Ok(clauses(script)?.into_iter().map(|(prefix, clause)| (prefix, clause.line)).collect())
}

fn add(item: &CaseItem, clauses: &mut BTreeMap<String, Clause>) {
    let mut providers = Vec::new();
    if let Some(list) = &item.cmd {
        each_command(list, &mut |command| {
            if let Command::Simple(simple) = command {
                providers.extend(assigned(simple));
            }
        });
    }
    providers.sort();
    providers.dedup();
    for pattern in &item.patterns {
        if let Some(prefix) = pattern.value.strip_suffix("/*") {
            let line = item.loc.as_ref().or(pattern.loc.as_ref()).map_or(1, |at| at.start.line);
            // The first clause that fits is the one that the shell takes.
            clauses.entry(prefix.to_owned()).or_insert_with(|| Clause { line, providers: providers.clone() });
        }
    }
}

/// What the command sets the provider to.
fn assigned(command: &SimpleCommand) -> Vec<String> {
    let prefix = command.prefix.iter().flat_map(|prefix| &prefix.0);
    let value = |item: &CommandPrefixOrSuffixItem| match item {
        CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) => match (&assignment.name, &assignment.value) {
            (AssignmentName::VariableName(name), AssignmentValue::Scalar(word)) if name == PROVIDER => {
                Some(word.value.trim_matches(['"', '\'']).to_owned())
            }
            _ => None,
        },
        _ => None,
    };
    prefix.filter_map(value).collect()
}

/// Shows `look` every command of `list`, and those within compound ones.
fn each_command(list: &CompoundList, look: &mut dyn FnMut(&Command)) {
    for item in &list.0 {
        for (_, pipeline) in &item.0 {
            for command in &pipeline.seq {
                look(command);
                match command {
                    Command::Compound(CompoundCommand::IfClause(clause), _) => {
                        each_command(&clause.then, look);
                        clause.elses.iter().flatten().for_each(|branch| each_command(&branch.body, look));
                    }
                    Command::Compound(CompoundCommand::BraceGroup(group), _) => each_command(&group.list, look),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPTED: &str = r#"
case "${HERMES_DEFAULT_MODEL}" in
    minimax/*) PROVIDER="minimax" ;;
    xai/* | grok/*)
        PROVIDER='xai'
        ;;
    openai/*)
        if [ -n "${OPENAI_API_KEY:-}" ]; then
            PROVIDER="custom"
        else
            PROVIDER="openrouter"
        fi
        ;;
    *) PROVIDER=auto ;;
esac
case "$OTHER" in
    other/*) PROVIDER="other" ;;
esac
"#;

    fn providers(script: &str) -> Vec<(String, String)> {
        let clauses = clauses(script).unwrap();
        clauses.into_iter().map(|(prefix, clause)| (prefix, clause.providers.join(" "))).collect()
    }

    #[test]
    fn reads_clauses_of_one_line_and_of_several() {
        let expected = [("grok", "xai"), ("minimax", "minimax"), ("openai", "custom openrouter"), ("xai", "xai")];
        assert_eq!(providers(SCRIPTED), expected.map(|(prefix, provider)| (prefix.to_owned(), provider.to_owned())));
        assert_eq!(providers(&SCRIPTED.replace("HERMES_DEFAULT_MODEL", "_HERMES_MODEL")).len(), 4);
        assert_eq!(providers(&SCRIPTED.replace("HERMES_DEFAULT_MODEL", "MODEL")).len(), 0);
        assert!(clauses("case x in").is_err());
    }

    /// What the gate says of the script after `from` was replaced by `to`.
    fn planted(from: &str, to: &str) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository");
        let script = fs::read_to_string(root.join(SCRIPT)).unwrap();
        assert!(script.contains(from), "{from}");
        let clauses = clauses(&script.replace(from, to)).unwrap();
        compare(&clauses, PROVIDERS).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_script_and_the_table_agree() {
        assert_eq!(planted("PROVIDER", "PROVIDER"), [] as [&str; 0]);
    }

    #[test]
    fn fires_where_either_side_changes_alone() {
        let at = |text: &str| {
            let script = include_str!("../../../fixtures/templates/hermes/scripts/derive-provider.sh");
            script.lines().position(|line| line.contains(text)).expect("it is there") + 1
        };
        for (from, to, line, said) in [
            ("gmi/*)", "gmi-new/* | gmi/*)", at("gmi/*)"), "maps gmi-new/* to gmi, and"),
            ("        gmi/*) PROVIDER=\"gmi\" ;;\n", "", 1, "maps gmi to gmi, and the script has no clause for gmi/*"),
            ("PROVIDER=\"zai\"", "PROVIDER=\"z-ai\"", at("zai/*"), "maps zai/* to z-ai, and"),
            // A divergence is accepted as it is, and no further.
            (
                "PROVIDER=\"custom\"\n",
                "PROVIDER=\"gemini\"\n",
                at("openai/*)"),
                "openai/* to gemini or openrouter, and",
            ),
        ] {
            let found = planted(from, to);
            assert!(found.len() == 1 && found[0].contains(said), "{from:?} -> {to:?}: {found:?}");
            assert!(found[0].starts_with(&format!("{SCRIPT}:{line}:")), "line {line}: {found:?}");
        }
    }

    #[test]
    fn a_script_that_is_not_understood_does_not_pass() {
        let found = compare(&BTreeMap::new(), &[]);
        assert_eq!(found.len(), ANCHORS.len());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(check(folder.path()).unwrap().len(), 1);
    }
}
