//! A status is written as a bound parameter of its own type, never as text in a statement: the database then refuses
//! what the code does not know, and the table of steps cannot be gone around.

use std::ops::ControlFlow;

use sqlparser::{
    ast::{
        Assignment, AssignmentTarget, Expr, Insert, SelectItem, SetExpr, Statement, TableObject, Value,
        visit_expressions, visit_statements,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use super::{Source, Violation};

const TABLE: &str = "workspaces";
const COLUMN: &str = "status";

pub(super) fn check(source: &Source) -> Vec<Violation> {
    let violation = |line, what: &str| Violation {
        file: source.file.clone(),
        line,
        what: format!("{what}; bind a Transition or a Status in its place"),
    };
    let strings = source.strings();
    let found = strings.iter().filter(|(_, text)| writes(text)).filter_map(|(line, text)| {
        match Parser::parse_sql(&PostgreSqlDialect {}, text) {
            Ok(statements) if statements.iter().any(sets_a_literal) => {
                Some(violation(*line, "this statement sets a status by a literal"))
            }
            Ok(_) => None,
            Err(error) => Some(violation(*line, &format!("this statement cannot be read ({error})"))),
        }
    });
    found.collect()
}

/// Whether `text` is a statement that may write to the table.
fn writes(text: &str) -> bool {
    let lines = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join(" ");
    let mut words = text.split_whitespace().filter(|word| *word != "/**/");
    let verb = words.next().unwrap_or_default().to_ascii_uppercase();
    matches!(verb.as_str(), "UPDATE" | "INSERT" | "WITH") && text.contains(TABLE) && text.contains(COLUMN)
}

fn sets_a_literal(statement: &Statement) -> bool {
    visit_statements(statement, |statement| {
        let sets = match statement {
            Statement::Update(update) => {
                update.table.to_string().split(' ').next().is_some_and(is_the_table)
                    && update.assignments.iter().any(assigns)
            }
            Statement::Insert(insert) => inserts(insert),
            _ => false,
        };
        if sets { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .is_break()
}

/// Whether a name, with its schema or without, is that of the table.
fn is_the_table(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.trim_matches('"') == TABLE)
}

fn assigns(assignment: &Assignment) -> bool {
    let AssignmentTarget::ColumnName(column) = &assignment.target else { return true };
    column.0.last().is_some_and(|part| part.to_string().trim_matches('"') == COLUMN) && holds_text(&assignment.value)
}

fn inserts(insert: &Insert) -> bool {
    let TableObject::TableName(table) = &insert.table else { return false };
    if !is_the_table(&table.to_string()) {
        return false;
    }
    let conflict = insert.on.as_ref().is_some_and(|on| on.to_string().contains('\''));
    let Some(position) = insert.columns.iter().position(|column| column.to_string() == COLUMN) else { return conflict };
    let rows = match insert.source.as_ref().map(|source| &*source.body) {
        Some(SetExpr::Values(values)) => values.rows.iter().map(|row| row.content.get(position)).collect(),
        // What is selected stands in the order of the columns; a wildcard takes it from a table, which holds no literal.
        Some(SetExpr::Select(select)) => vec![select.projection.get(position).and_then(|item| match item {
            SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } => Some(value),
            _ => None,
        })],
        _ => Vec::new(),
    };
    conflict || rows.into_iter().flatten().any(holds_text)
}

fn holds_text(expression: &Expr) -> bool {
    visit_expressions(expression, |part| match part {
        Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(&Source::parse("planted.rs", text).unwrap()).into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn it_fires_on_every_way_to_set_a_literal() {
        for sql in [
            "UPDATE workspaces SET status = 'failed' WHERE id = $1",
            "UPDATE workspaces SET url = $2, status = 'failed' WHERE id = $1",
            "update workspaces set status = 'failed'",
            "UPDATE workspaces AS w SET status = CASE WHEN $1 THEN 'online' ELSE status END",
            "UPDATE workspaces SET status = CAST('failed' AS workspace_status)",
            "INSERT INTO workspaces (id, status) VALUES ($1, 'online')",
            "INSERT INTO workspaces (id, status) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET status = 'online'",
            "WITH gone AS (UPDATE workspaces SET status = 'removed' RETURNING id) SELECT id FROM gone",
            "UPDATE workspaces SET (status, url) = ('failed', $1)",
            "UPDATE workspaces SET status = = 1",
            "INSERT INTO workspaces (id, status) SELECT $1, 'online'",
            "INSERT INTO workspaces (id, status) SELECT id, 'online' AS status FROM workspaces WHERE id = $1",
            "UPDATE public.workspaces SET status = 'failed'",
            "INSERT INTO public.workspaces (id, status) VALUES ($1, 'online')",
            "-- a comment\\nUPDATE workspaces SET status = 'failed'",
        ] {
            assert_eq!(lines(&format!("\nconst A: &str = \"{sql}\";")), [2], "{sql}");
            assert_eq!(lines(&format!("statements! {{\n\n A = \"{sql}\"; }}")), [3], "{sql}");
        }
    }

    #[test]
    fn it_fires_on_a_statement_in_pieces() {
        let text = "\nconst A: &str = concat!(\"UPDATE workspaces SET \", \"status = 'failed'\", \" WHERE id = $1\");";
        assert_eq!(lines(text), [2]);
        let text = "const SET: &str = \"x\";\nconst A: &str = concat!(\"UPDATE workspaces SET status = $1\", SET);";
        assert_eq!(lines(text), [0; 0]);
        let text = |status: &str| {
            format!(
                "const A: &str = concat!(\"UPDATE workspaces \", concat!(\"SET status = {status} \"), \"RETURNING \", \
                 columns!(), \", url\");"
            )
        };
        assert_eq!((lines(&text("'failed'")), lines(&text("$1"))), (vec![1], vec![]));
    }

    #[test]
    fn it_leaves_alone_what_sets_none() {
        for sql in [
            "UPDATE workspaces SET status = $2 WHERE id = $1 AND status = 'online'",
            "UPDATE workspaces SET last_sample_error = 'gone', status = $1",
            "UPDATE a2a_queue SET status = 'queued' WHERE workspace_id IN (SELECT id FROM workspaces)",
            "SELECT id FROM workspaces WHERE status = 'online'",
            "INSERT INTO workspaces (id, name, status) VALUES ($1, 'x', $2)",
            "INSERT INTO workspaces (id, name, status) SELECT $1, 'x', $2",
        ] {
            assert_eq!(lines(&format!("const A: &str = \"{sql}\";")), [0; 0], "{sql}");
        }
    }
}
