//! What a request shows, read from the texts of its headers: pure.

/// What goes before a token among the protocols that a browser offers.
const BEARER_PROTOCOL: &str = "molecule.bearer.";

/// The bearer in an `Authorization` header. Any other scheme is no credential.
pub fn bearer(authorization: &str) -> Option<&str> {
    authorization.strip_prefix("Bearer ").map(str::trim).filter(|token| !token.is_empty())
}

/// The bearer that a browser offers among the protocols of a WebSocket, since it cannot set a header.
pub fn offered_bearer(protocols: &str) -> Option<&str> {
    let offered = protocols.split(',').find_map(|protocol| protocol.trim().strip_prefix(BEARER_PROTOCOL));
    offered.map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_scheme_is_a_bearer() {
        let rows = [
            ("Bearer abc", Some("abc")),
            ("Bearer  abc ", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("bearer abc", None),
            ("Basic abc", None),
            ("", None),
        ];
        for (value, expected) in rows {
            assert_eq!(bearer(value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_token_may_be_among_the_protocols() {
        let rows = [
            ("molecule, molecule.bearer.abc", Some("abc")),
            ("molecule.bearer.abc,molecule", Some("abc")),
            ("molecule.bearer. abc", Some("abc")),
            ("molecule", None),
            ("molecule.bearer.", None),
            ("bearer.abc", None),
            ("", None),
        ];
        for (value, expected) in rows {
            assert_eq!(offered_bearer(value), expected, "{value:?}");
        }
    }
}
