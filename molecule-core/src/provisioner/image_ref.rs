//! Image references: what the text of one says about whether the image behind it can change.

/// The tags that registries move from image to image.
const MOVING_TAGS: [&str; 7] = ["latest", "staging", "main", "dev", "edge", "nightly", "rolling"];

/// Whether `reference` may name another image tomorrow, so that a cached copy can be stale.
///
/// A reference with a digest never does. One without a tag means `latest`. Any tag that is not known to move is
/// taken for pinned: a needless pull costs more than a stale copy that its operator named.
pub fn is_moving(reference: &str) -> bool {
    if reference.contains("@sha256:") {
        return false;
    }
    tag(reference).is_none_or(|tag| MOVING_TAGS.contains(&tag))
}

/// The tag of `reference`, where it has one: the text after the last `:`, unless that colon belongs to the port of a
/// registry or to a digest.
pub fn tag(reference: &str) -> Option<&str> {
    let name = reference.split_once('@').map_or(reference, |(name, _digest)| name);
    name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'))
}

/// Whether `runtime` can be part of a reference as it is: a tag, or the end of a repository.
pub fn is_reference_part(runtime: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    runtime.len() <= 100
        && runtime.starts_with(plain)
        && runtime.ends_with(plain)
        && runtime.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'))
        && !runtime.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "@sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";

    #[test]
    fn tells_moving_references_from_pinned_ones() {
        let repository = "ghcr.io/molecule-ai/workspace-template-hermes";
        let with = |suffix: &str| format!("{repository}{suffix}");
        let cases = [
            (with(""), true),
            ("workspace-template".to_owned(), true),
            (with(":latest"), true),
            (with(":staging"), true),
            (with(":main"), true),
            (with(":dev"), true),
            (with(":edge"), true),
            (with(":nightly"), true),
            (with(":rolling"), true),
            (with(":0.8.2"), false),
            (with(":v1.2.3"), false),
            (with(":sha-abc1234"), false),
            (with(":abc1234"), false),
            (with(":2026-04-30"), false),
            (with(":build-12345"), false),
            (with(":LATEST"), false),
            (with(":latest-2"), false),
            (with(DIGEST), false),
            (with(&format!(":latest{DIGEST}")), false),
            ("localhost:5000/workspace-template-hermes".to_owned(), true),
            ("localhost:5000/workspace-template-hermes:0.8.2".to_owned(), false),
            ("localhost:5000/workspace-template-hermes:latest".to_owned(), true),
            (format!("localhost:5000/workspace-template-hermes{DIGEST}"), false),
            ("workspace-template:hermes".to_owned(), false),
            ("workspace-template:claude-code".to_owned(), false),
        ];
        for (reference, moving) in cases {
            assert_eq!(is_moving(&reference), moving, "{reference}");
        }
    }

    #[test]
    fn finds_the_tag_beside_ports_and_digests() {
        assert_eq!(tag("a/b:1"), Some("1"));
        assert_eq!(tag("localhost:5000/b"), None);
        assert_eq!(tag("localhost:5000/b:1"), Some("1"));
        assert_eq!(tag(&format!("a/b:1{DIGEST}")), Some("1"));
        assert_eq!(tag(&format!("a/b{DIGEST}")), None);
    }

    #[test]
    fn refuses_runtimes_that_would_change_the_reference() {
        for good in ["hermes", "claude-code", "a.b_c", "x"] {
            assert!(is_reference_part(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a/b", "a:b", "a@b", "A", "a b", "a..b", "ä"] {
            assert!(!is_reference_part(bad), "{bad}");
        }
    }
}
