//! What a tool was called with.

use serde_json::{Map, Value};

#[cfg(feature = "server")]
use crate::error::Error;
use crate::id::WorkspaceId;

/// What is wrong with the arguments of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) String);

/// As the agent's own server says it.
#[cfg(feature = "mcp")]
impl From<Wrong> for String {
    fn from(Wrong(text): Wrong) -> Self {
        format!("Error: {text}")
    }
}

#[cfg(feature = "server")]
impl From<Wrong> for Error {
    fn from(Wrong(text): Wrong) -> Self {
        Self::invalid(text)
    }
}

/// The arguments of one call; what is missing and what is `null` are the same.
#[derive(Debug, Default)]
pub(crate) struct Arguments(Map<String, Value>);

impl Arguments {
    pub(crate) fn new(arguments: Option<Map<String, Value>>) -> Self {
        Self(arguments.unwrap_or_default())
    }

    /// The text called `name`, trimmed; empty when there is none.
    pub(crate) fn text(&self, name: &str) -> Result<&str, Wrong> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text.trim()),
            Some(_) => Err(Wrong(format!("{name} must be a string"))),
        }
    }

    /// The workspace called `name`; `None` when nothing is.
    pub(crate) fn workspace(&self, name: &str) -> Result<Option<WorkspaceId>, Wrong> {
        match self.text(name)? {
            "" => Ok(None),
            given => {
                let id = given.to_lowercase().parse();
                id.map(Some).map_err(|_| Wrong(format!("{name} must be the id of a workspace (a UUID)")))
            }
        }
    }

    /// The texts in the list called `name`.
    #[cfg(feature = "mcp")]
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<&str>, Wrong> {
        let wrong = || Wrong(format!("{name} must be a list of strings"));
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(texts)) => texts.iter().map(|text| text.as_str().ok_or_else(wrong)).collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// The number called `name`, or `default`; never more than `most`.
    #[cfg(feature = "mcp")]
    pub(crate) fn number(&self, name: &str, default: f64, most: f64) -> Result<f64, Wrong> {
        let number = match self.0.get(name) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_f64(),
        };
        let number = number.filter(|number| *number >= 0.0);
        number
            .map(|number| number.min(most))
            .ok_or_else(|| Wrong(format!("{name} must be a number that is not negative")))
    }

    /// The whole number called `name`, from 1 to `most`, or `default`.
    #[cfg(feature = "mcp")]
    pub(crate) fn count(&self, name: &str, default: usize, most: usize) -> Result<usize, Wrong> {
        let count = match self.0.get(name) {
            None | Some(Value::Null) => Some(default),
            Some(value) => whole(value).map(|count| usize::try_from(count).unwrap_or(most)),
        };
        let count = count.filter(|count| *count > 0);
        count.map(|count| count.min(most)).ok_or_else(|| Wrong(format!("{name} must be a whole number above 0")))
    }
}

/// `value` as a whole number; 20.0 is one as well, which is what some models write.
#[cfg(feature = "mcp")]
fn whole(value: &Value) -> Option<u64> {
    let text = || value.as_f64().map(|number| number.to_string());
    value.as_u64().or_else(|| text()?.parse().ok())
}

#[cfg(all(test, feature = "mcp"))]
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
        assert_eq!(given.text("n"), Err(Wrong("n must be a string".into())));
        assert_eq!((given.number("n", 1.0, 9.0), given.number("none", 1.0, 9.0)), (Ok(2.5), Ok(1.0)));
        assert_eq!(given.number("c", 1.0, 5.0), Ok(5.0));
        assert!(given.number("wrong", 1.0, 9.0).is_err() && given.number("minus", 1.0, 9.0).is_err());
        assert_eq!((given.count("c", 1, 9), given.count("c", 1, 5), given.count("null", 1, 9)), (Ok(7), Ok(5), Ok(1)));
        assert_eq!(arguments(json!({"n": 20.0})).count("n", 1, 99), Ok(20));
        for name in ["n", "wrong", "minus", "zero", "t"] {
            assert!(given.count(name, 1, 9).is_err(), "{name}");
        }
        assert_eq!(Arguments::new(None).text("t"), Ok(""));
        let given_list = arguments(json!({"l": ["a", "b"], "wrong": ["a", 1], "text": "a"}));
        assert_eq!((given_list.texts("l"), given_list.texts("none")), (Ok(vec!["a", "b"]), Ok(Vec::new())));
        assert!(given_list.texts("wrong").is_err() && given_list.texts("text").is_err());
        let id = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";
        let given = arguments(json!({"id": format!(" {} ", id.to_uppercase()), "path": "../admin", "empty": ""}));
        assert_eq!(given.workspace("id").unwrap().unwrap().to_string(), id);
        assert_eq!(given.workspace("empty"), Ok(None));
        assert!(given.workspace("path").is_err());
    }
}
