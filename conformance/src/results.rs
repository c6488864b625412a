//! What came of whole runs, side by side on one page for people.

use std::collections::BTreeSet;

use crate::{
    case::Area,
    report::{Outcome, Report},
};

/// The page with what came of the run `name` in place of what it said of it before.
///
/// The page marks where its two tables are: `<!-- runs -->` to `<!-- end of runs -->`, and likewise the cases that did
/// not pass. Cases that pass are not counted, so that one more of them changes nothing.
///
/// # Errors
/// Where the page does not mark its tables.
pub fn with_run(page: &str, name: &str, report: &Report) -> Result<String, String> {
    let areas: BTreeSet<Area> = report.tried().iter().map(|tried| tried.area).collect();
    let heading = format!("| run |{}", areas.iter().map(|area| format!(" {area:?} |")).collect::<String>());
    let page = with_rows(page, "runs", &heading, name, vec![row(name, &areas, report)])?;
    with_rows(&page, "cases that did not pass", "| run | case | outcome | why |", name, exceptions(name, report))
}

fn row(name: &str, areas: &BTreeSet<Area>, report: &Report) -> String {
    let cell = |area: &Area| {
        let outcomes = report.tried().iter().filter(|tried| tried.area == *area).map(|tried| &tried.outcome);
        let mut counts = [("failed", 0), ("unsupported", 0), ("skipped", 0)];
        for outcome in outcomes {
            match outcome {
                Outcome::Passed => {}
                Outcome::Failed { .. } => counts[0].1 += 1,
                Outcome::Unsupported { .. } => counts[1].1 += 1,
                Outcome::Skipped { .. } => counts[2].1 += 1,
            }
        }
        let but: Vec<String> =
            counts.iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{count} {word}")).collect();
        if but.is_empty() { " all |".to_owned() } else { format!(" all but {} |", but.join(", ")) }
    };
    format!("| {name} |{}", areas.iter().map(cell).collect::<String>())
}

fn exceptions(name: &str, report: &Report) -> Vec<String> {
    let tried = report.tried().iter().filter_map(|tried| {
        let (word, why) = match &tried.outcome {
            Outcome::Passed => return None,
            Outcome::Failed { why } => ("failed", why),
            Outcome::Unsupported { why } => ("unsupported", why),
            Outcome::Skipped { why } => ("skipped", why),
        };
        Some(format!("| {name} | `{}` | {word} | {} |", tried.name, why.replace('|', "\\|")))
    });
    tried.collect()
}

/// The page with `rows` in place of those of `name` in one of its tables, whose rows are sorted.
fn with_rows(page: &str, table: &str, heading: &str, name: &str, rows: Vec<String>) -> Result<String, String> {
    let (begin, end) = (format!("<!-- {table} -->\n"), format!("<!-- end of {table} -->"));
    let parts = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?)));
    let (before, (found, after)) = parts.ok_or_else(|| format!("the page does not mark its table of {table}"))?;
    let own = format!("| {name} |");
    // What stands above the dashes is the heading.
    let kept = found.lines().skip_while(|line| !line.starts_with("|--")).skip(1);
    let kept = kept.filter(|line| line.starts_with("| ") && !line.starts_with(&own)).map(str::to_owned);
    let mut all: Vec<String> = kept.chain(rows).collect();
    all.sort();
    let dashes = "|---".repeat(heading.matches('|').count() - 1);
    let all: String = all.iter().map(|row| format!("{row}\n")).collect();
    Ok(format!("{before}{begin}\n{heading}\n{dashes}|\n{all}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Level, Tried};

    const PAGE: &str = "# Page\n<!-- runs -->\n\n| run | Operations | Events |\n|---|---|---|\n| b | all | all |\n\n\
                        <!-- end of runs -->\ntext\n<!-- cases that did not pass -->\n\n| run | case | outcome | why |\n|---|---|---|---|\n\n\
                        <!-- end of cases that did not pass -->\n";

    fn report(outcome: Outcome) -> Report {
        let tried = |area, outcome| Tried {
            name: "one",
            sentence: "It holds",
            area,
            level: Level::Core,
            rule: "R-TEST-1",
            took: None,
            outcome,
        };
        let mut report = Report::new("x");
        report.add(tried(Area::Operations, Outcome::Passed));
        report.add(tried(Area::Events, outcome));
        report
    }

    #[test]
    fn a_run_has_a_row_and_one_for_each_case_that_did_not_pass() {
        let written = with_run(PAGE, "a", &report(Outcome::Unsupported { why: "no | such".into() })).unwrap();
        assert!(
            written.contains("|---|---|---|\n| a | all | all but 1 unsupported |\n| b | all | all |\n\n<!--"),
            "{written}"
        );
        assert!(written.contains("\n| a | `one` | unsupported | no \\| such |\n\n<!-- end"), "{written}");
        assert_eq!(with_run(&written, "a", &report(Outcome::Passed)).unwrap().replace("| a | all | all |\n", ""), PAGE);
        let again = with_run(&written, "a", &report(Outcome::Unsupported { why: "no | such".into() })).unwrap();
        assert_eq!(again, written);
    }

    #[test]
    fn a_page_without_tables_is_refused() {
        assert!(with_run("# Page\n", "a", &report(Outcome::Passed)).unwrap_err().contains("runs"));
    }
}
