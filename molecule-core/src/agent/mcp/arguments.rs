//! What a tool was called with.

use serde_json::{Map, Value};

/// The arguments of one call; what is missing and what is `null` are the same.
#[derive(Debug, Default)]
pub(super) struct Arguments(Map<String, Value>);

impl Arguments {
    pub(super) fn new(arguments: Option<Map<String, Value>>) -> Self {
        Self(arguments.unwrap_or_default())
    }

    /// The text called `name`, trimmed; empty when there is none.
    pub(super) fn text(&self, name: &str) -> Result<&str, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text.trim()),
            Some(_) => Err(format!("Error: {name} must be a string")),
        }
    }

    /// The number called `name`, or `default`; never more than `most`.
    pub(super) fn number(&self, name: &str, default: f64, most: f64) -> Result<f64, String> {
        let number = match self.0.get(name) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_f64(),
        };
        let number = number.filter(|number| *number >= 0.0);
        number
            .map(|number| number.min(most))
            .ok_or_else(|| format!("Error: {name} must be a number that is not negative"))
    }

    /// The whole number called `name`, from 1 to `most`, or `default`.
    pub(super) fn count(&self, name: &str, default: usize, most: usize) -> Result<usize, String> {
        let count = match self.0.get(name) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_u64().map(|count| usize::try_from(count).unwrap_or(most)),
        };
        let count = count.filter(|count| *count > 0);
        count.map(|count| count.min(most)).ok_or_else(|| format!("Error: {name} must be a whole number above 0"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(value: Value) -> Arguments {
        Arguments::new(value.as_object().cloned())
    }

    #[test]
    fn what_is_missing_has_its_default_and_what_is_wrong_is_told() {
        let given =
            arguments(json!({"t": " a ", "n": 2.5, "c": 7, "null": null, "wrong": [1], "minus": -1, "zero": 0}));
        assert_eq!(given.text("t"), Ok("a"));
        assert_eq!((given.text("null"), given.text("none")), (Ok(""), Ok("")));
        assert_eq!(given.text("n"), Err("Error: n must be a string".into()));
        assert_eq!((given.number("n", 1.0, 9.0), given.number("none", 1.0, 9.0)), (Ok(2.5), Ok(1.0)));
        assert_eq!(given.number("c", 1.0, 5.0), Ok(5.0));
        assert!(given.number("wrong", 1.0, 9.0).is_err() && given.number("minus", 1.0, 9.0).is_err());
        assert_eq!((given.count("c", 1, 9), given.count("c", 1, 5), given.count("null", 1, 9)), (Ok(7), Ok(5), Ok(1)));
        for name in ["n", "wrong", "minus", "zero", "t"] {
            assert!(given.count(name, 1, 9).is_err(), "{name}");
        }
        assert_eq!(Arguments::new(None).text("t"), Ok(""));
    }
}
