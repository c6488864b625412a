//! Brings what agents say into a form that both databases take.
//!
//! Postgres refuses a NUL in text and in JSON; an agent must be able neither to fail its own calls nor to suppress its
//! trail with one.

use std::borrow::Cow;

use serde_json::Value;

/// What stands for a NUL.
const REPLACEMENT: &str = "\u{fffd}";

/// `text` without NULs.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', REPLACEMENT).into() } else { text.into() }
}

/// `value` without NULs, in names and in texts.
pub(crate) fn json(value: &Value) -> Value {
    match value {
        Value::String(inner) => Value::String(text(inner).into_owned()),
        Value::Array(items) => Value::Array(items.iter().map(json).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (text(name).into_owned(), json(value))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_nul_is_left() {
        let given = json!({"a\0": ["b\0", {"c": "\0"}, 1, null]});
        assert_eq!(json(&given), json!({"a\u{fffd}": ["b\u{fffd}", {"c": "\u{fffd}"}, 1, null]}));
        assert!(matches!(text("clean"), Cow::Borrowed("clean")));
    }
}
