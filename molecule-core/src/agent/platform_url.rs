//! The address of the control plane an agent belongs to.

use std::{fmt, str::FromStr};

use url::Url;

use crate::error::{Error, Result};

/// The base address of a platform: http or https, without a trailing slash, query, fragment or credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformUrl(String);

impl PlatformUrl {
    /// The address, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address of `path`, which starts with a slash.
    pub fn endpoint(&self, path: &str) -> String {
        debug_assert!(path.starts_with('/'));
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for PlatformUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PlatformUrl {
    type Err = Error;

    /// Trims blanks and trailing slashes. The message of an error does not repeat the text: it may hold a password.
    fn from_str(text: &str) -> Result<Self> {
        let url = Url::parse(text.trim()).map_err(|error| {
            Error::invalid(format!("the platform URL cannot be read ({error}): give one like http://localhost:8080"))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::invalid(format!(
                "the platform URL must start with http:// or https://, not {}:",
                url.scheme()
            )));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("the platform URL must not hold a user name or password: use a token"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::invalid("the platform URL must not hold a query or a fragment"));
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_addresses_of_platforms() {
        for (text, expected) in [
            ("http://localhost:8080", "http://localhost:8080"),
            (" https://Platform.example/ \n", "https://platform.example"),
            ("http://host/base//", "http://host/base"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
        ] {
            assert_eq!(text.parse::<PlatformUrl>().unwrap().as_str(), expected, "{text}");
        }
        let url: PlatformUrl = "http://host/base/".parse().unwrap();
        assert_eq!(url.endpoint("/registry/register"), "http://host/base/registry/register");
    }

    #[test]
    fn refuses_everything_else_without_repeating_it() {
        for text in ["", "localhost:8080", "ftp://hunter2", "http://u:hunter2@host", "http://host?hunter2", "http://"] {
            let error = text.parse::<PlatformUrl>().unwrap_err();
            assert!(!error.message().contains("hunter2"), "{error}");
        }
    }
}
