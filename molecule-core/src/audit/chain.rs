//! Whether rows of the ledger are those that were signed.

use super::AuditKey;
use crate::store::AuditRow;

/// Whether each of `rows` is what was signed, and stands behind the row that it was signed behind. None where a row that
/// nobody signed leaves that open.
///
/// Rows that are missing from the end of a chain leave no trace in it.
pub(crate) fn judge(key: &AuditKey, rows: &[AuditRow]) -> Option<bool> {
    let mut all_signed = true;
    for row in rows {
        match &row.event.hmac {
            None => all_signed = false,
            Some(hmac) if row.linked && row.alone && key.sign(&row.event) == *hmac => {}
            Some(_) => return Some(false),
        }
    }
    all_signed.then_some(true)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::audit::{
        AuditEvent, Operation,
        key::tests::{key, rows},
    };

    /// The name of a member, and what changes it.
    type Change<'a> = (&'a str, &'a dyn Fn(&mut AuditEvent));

    fn row(event: AuditEvent) -> AuditRow {
        AuditRow { event, linked: true, alone: true }
    }

    #[test]
    fn a_chain_is_judged_row_by_row() {
        let key = key();
        let whole = || rows().map(row);
        assert_eq!(judge(&key, &[]), Some(true));
        assert_eq!(judge(&key, &whole()), Some(true));
        let with = |change: &dyn Fn(&mut AuditRow)| {
            let mut rows = whole();
            change(&mut rows[1]);
            judge(&key, &rows)
        };
        let changes: [Change<'_>; 12] = [
            ("id", &|event| event.id.push('0')),
            ("timestamp", &|event| event.timestamp += TimeDelta::seconds(1)),
            ("agent_id", &|event| event.agent_id.clear()),
            ("session_id", &|event| event.session_id.push('s')),
            ("operation", &|event| event.operation = Operation::ToolCall),
            ("input_hash", &|event| event.input_hash = None),
            ("output_hash", &|event| event.output_hash = Some(String::new())),
            ("model_used", &|event| event.model_used = Some("modele".into())),
            ("human_oversight_flag", &|event| event.human_oversight_flag = false),
            ("risk_flag", &|event| event.risk_flag = false),
            ("prev_hmac", &|event| event.prev_hmac = None),
            ("hmac", &|event| event.hmac = Some("00".repeat(32))),
        ];
        for (name, change) in changes {
            assert_eq!(with(&|row| change(&mut row.event)), Some(false), "{name}");
        }
        assert_eq!(with(&|row| row.linked = false), Some(false), "what came before it is gone");
        assert_eq!(with(&|row| row.alone = false), Some(false), "two stand behind one row");
        let unsigned = |row: &mut AuditRow| (row.event.hmac, row.linked, row.alone) = (None, true, false);
        assert_eq!(with(&|row| unsigned(row)), None, "nobody can tell");
        let other = AuditKey::derive(&"another".into());
        assert_eq!(judge(&other, &whole()), Some(false));
        let mut bad = whole();
        unsigned(&mut bad[0]);
        bad[2].event.risk_flag = true;
        assert_eq!(judge(&key, &bad), Some(false), "what is wrong is wrong, whatever else is open");
    }
}
