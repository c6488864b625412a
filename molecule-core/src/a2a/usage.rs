//! What the answers of agents say to have used, by day.

use chrono::{DateTime, Days, NaiveTime, Utc};
use serde_json::Value;

use crate::{control_plane::ControlPlane, error::Result, id::WorkspaceId, workspace::lifecycle::gone_is_not_found};

/// The most that one answer can say to have used.
const MOST: i64 = 10_000_000;

/// What a token costs, in millionths of a US dollar: one that is read, and one that is written.
const INPUT_COST: i64 = 3;
const OUTPUT_COST: i64 = 15;

/// What one answer used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) input_tokens: i64,
    pub(crate) output_tokens: i64,
}

/// What a workspace used on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Tokens that its models read.
    pub input_tokens: i64,
    /// Tokens that its models wrote.
    pub output_tokens: i64,
    /// Answers that told of it.
    pub total_calls: i64,
    /// When the day began.
    pub period_start: DateTime<Utc>,
    /// When it ends.
    pub period_end: DateTime<Utc>,
}

impl Used {
    /// What `answer` says, in its result or beside it; `None` where it says nothing.
    pub(crate) fn of(answer: &Value) -> Option<Self> {
        let usage = answer.get("result").and_then(|result| result.get("usage")).or_else(|| answer.get("usage"))?;
        // Some write whole numbers as fractions.
        let number = |value: &Value| value.as_i64().or_else(|| value.as_f64().map(|number| number as i64));
        let count = |name: &str| usage.get(name).and_then(number).unwrap_or(0).clamp(0, MOST);
        let used = Self { input_tokens: count("input_tokens"), output_tokens: count("output_tokens") };
        (used.input_tokens > 0 || used.output_tokens > 0).then_some(used)
    }
}

impl Usage {
    /// What it cost, in millionths of a US dollar, by a price that is the same for every model.
    pub fn estimated_cost_micro_usd(&self) -> i64 {
        self.input_tokens.saturating_mul(INPUT_COST).saturating_add(self.output_tokens.saturating_mul(OUTPUT_COST))
    }
}

/// When the day of `time` begins.
pub(crate) fn day_of(time: DateTime<Utc>) -> DateTime<Utc> {
    time.date_naive().and_time(NaiveTime::MIN).and_utc()
}

impl ControlPlane {
    /// What a workspace used today.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn usage_today(&self, id: WorkspaceId) -> Result<Usage> {
        self.existing(id).await.map_err(gone_is_not_found)?;
        self.notes_written().await;
        let period_start = day_of(self.now());
        let (input_tokens, output_tokens, total_calls) = self.inner.store.usage(id, period_start).await?;
        let period_end = period_start.checked_add_days(Days::new(1)).unwrap_or(period_start);
        Ok(Usage { input_tokens, output_tokens, total_calls, period_start, period_end })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_answer_used() {
        let used = |input_tokens, output_tokens| Some(Used { input_tokens, output_tokens });
        let rows = [
            (json!({"result": {"usage": {"input_tokens": 3, "output_tokens": 4}}}), used(3, 4)),
            (json!({"usage": {"input_tokens": 3}}), used(3, 0)),
            (json!({"result": {"usage": {"input_tokens": 1}}, "usage": {"input_tokens": 9}}), used(1, 0)),
            (json!({"usage": {"input_tokens": -3, "output_tokens": 99_000_000}}), used(0, MOST)),
            (json!({"usage": {"input_tokens": 12.0, "output_tokens": 1e300}}), used(12, MOST)),
            (json!({"usage": {"input_tokens": "3"}}), None),
            (json!({"usage": "much"}), None),
            (json!([1]), None),
            (json!("x"), None),
        ];
        for (answer, expected) in rows {
            assert_eq!(Used::of(&answer), expected, "{answer}");
        }
    }

    #[test]
    fn a_million_of_each_costs_eighteen_dollars() {
        let time = DateTime::from_timestamp(1_800_000_123, 0).unwrap();
        let usage = Usage {
            input_tokens: 1_000_000,
            output_tokens: 1_000_000,
            total_calls: 1,
            period_start: day_of(time),
            period_end: time,
        };
        assert_eq!(usage.estimated_cost_micro_usd(), 18_000_000);
        assert_eq!(usage.period_start.to_rfc3339(), "2027-01-15T00:00:00+00:00");
    }
}
