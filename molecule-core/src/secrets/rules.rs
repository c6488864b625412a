//! Which names and values a secret may have.

use crate::error::{Error, ErrorKind, Result};

/// The most bytes that a value may have: a Linux process takes no longer text for one variable than twice as much.
const VALUE_LIMIT: usize = 64 * 1024;

const KEY_LIMIT: usize = 255;

/// Variables that the control plane or its backends set: a secret of such a name would never reach the agent, or would
/// lead it astray.
pub(crate) const RESERVED: [&str; 15] = [
    "WORKSPACE_ID",
    "WORKSPACE_CONFIG_PATH",
    "CONFIGS_DIR",
    "PLATFORM_URL",
    "MOLECULE_URL",
    "TIER",
    "PORT",
    "PLUGINS_DIR",
    "PYTHONPATH",
    "AWARENESS_URL",
    "AWARENESS_NAMESPACE",
    "MOLECULE_AGENT_NAME",
    "MOLECULE_AGENT_ROLE",
    "PARENT_ID",
    // `GET /workspaces/ID/secrets/values` is a route of its own.
    "values",
];

/// Refuses what is no name for a secret, saying why.
pub(crate) fn check_key(key: &str) -> Result<()> {
    let refuse = |detail: String| Err(Error::invalid("invalid secret key").with_member("detail", detail));
    let starts_well = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return refuse("a key is made of letters, digits and _, and does not begin with a digit".to_owned());
    }
    if key.len() > KEY_LIMIT {
        return refuse(format!("a key has at most {KEY_LIMIT} characters"));
    }
    if RESERVED.contains(&key) {
        return refuse(format!("{key} is taken by the platform"));
    }
    Ok(())
}

/// Refuses what no variable can hold.
pub(crate) fn check_value(key: &str, value: &str) -> Result<()> {
    if value.len() > VALUE_LIMIT {
        let text = format!("the value of {key} is over the limit of {VALUE_LIMIT} bytes");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    if value.contains('\0') {
        return Err(Error::invalid("invalid secret value")
            .with_member("detail", format!("the value of {key} contains a NUL, which no variable can hold")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_name_of_a_variable_that_is_not_taken() {
        for good in ["A", "_", "api_key_2", "MODEL_PROVIDER", "GIT_AUTHOR_NAME", &"K".repeat(255)] {
            assert!(check_key(good).is_ok(), "{good}");
        }
        let bad = ["", " ", "2A", "A B", "A=B", "A\n", "A-B", "Ä", "A.B", &"K".repeat(256)];
        for key in bad.into_iter().chain(RESERVED) {
            assert_eq!(check_key(key).unwrap_err().message(), "invalid secret key", "{key:?}");
        }
    }

    #[test]
    fn a_value_has_a_limit_and_no_nul() {
        assert!(check_value("K", &"v".repeat(VALUE_LIMIT)).is_ok());
        assert_eq!(check_value("K", &"v".repeat(VALUE_LIMIT + 1)).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(check_value("K", "a\0b").unwrap_err().message(), "invalid secret value");
    }
}
