//! Takes secrets out of text before it leaves the agent.

/// What stands in the place of a secret.
const REPLACEMENT: &str = "[REDACTED]";

/// What may be in a token.
type Allowed = fn(char) -> bool;

/// How well-known tokens begin, how long the rest is at least, and what may be in it.
const TOKENS: &[(&str, usize, Allowed)] = &[
    ("sk-", 20, is_url_safe),
    ("ghp_", 36, is_alphanumeric),
    ("ghs_", 36, is_alphanumeric),
    ("github_pat_", 82, is_word),
    ("AKIA", 16, is_alphanumeric),
];

/// What a name ends with whose value is a secret when it is long; the longer of two that begin alike comes first.
const NAMES: &[&str] = &["api_key", "key", "token", "secret", "password"];

/// The shortest value of such a name that counts.
const SHORTEST_VALUE: usize = 40;

/// `text` with `[REDACTED]` in the place of what looks like a token, or like a long value of a name for a secret.
///
/// It is a net below care, not in its place: a secret that looks like nothing in particular stays.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let begins_word = before.is_none_or(|before| !is_alphanumeric(before));
        let (kept, secret) = if let Some(length) = token(rest).filter(|_| begins_word) {
            (0, length)
        } else if let Some((kept, length)) = assignment(rest) {
            (kept, length)
        } else {
            (next.len_utf8(), 0)
        };
        out.push_str(&rest[..kept]);
        if secret > 0 {
            out.push_str(REPLACEMENT);
        }
        let (done, left) = rest.split_at(kept + secret);
        before = done.chars().next_back();
        rest = left;
    }
    out
}

/// The length of the token that `text` begins with.
fn token(text: &str) -> Option<usize> {
    TOKENS.iter().find_map(|(prefix, shortest, allowed)| {
        let rest = text.strip_prefix(prefix)?;
        let length = run(rest, *allowed);
        (length >= *shortest).then_some(prefix.len() + length)
    })
}

/// How much of `text` leads to the value of an assignment, and how long the value is.
fn assignment(text: &str) -> Option<(usize, usize)> {
    let name =
        NAMES.iter().find(|name| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))?;
    let value = text[name.len()..]
        .trim_start_matches([' ', '"', '\''])
        .strip_prefix(['=', ':'])?
        .trim_start_matches([' ', '"', '\'']);
    let length = run(value, |c| !c.is_whitespace() && !matches!(c, '"' | '\''));
    (length >= SHORTEST_VALUE).then_some((text.len() - value.len(), length))
}

/// How many bytes of `text` from its start are `allowed`.
fn run(text: &str, allowed: impl Fn(char) -> bool) -> usize {
    text.find(|c| !allowed(c)).unwrap_or(text.len())
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_url_safe(c: char) -> bool {
    is_word(c) || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_out_what_looks_like_a_secret_and_nothing_else() {
        let x = |length| "x".repeat(length);
        for (text, expected) in [
            (String::new(), ""),
            ("nothing here, ümläut — kept".into(), "nothing here, ümläut — kept"),
            (format!("use sk-{}.", x(20)), "use [REDACTED]."),
            (format!("use sk-ant-{} now", x(30)), "use [REDACTED] now"),
            (format!("sk-{}", x(19)), &format!("sk-{}", x(19))),
            ("a task-management-improvement-plan".into(), "a task-management-improvement-plan"),
            (format!("ghp_{} ghs_{}", x(36), x(40)), "[REDACTED] [REDACTED]"),
            (format!("github_pat_{}", x(82)), "[REDACTED]"),
            ("AKIAIOSFODNN7EXAMPLE".into(), "[REDACTED]"),
            (format!("API_KEY={}", x(40)), "API_KEY=[REDACTED]"),
            (format!("my token = '{}' ok", x(41)), "my token = '[REDACTED]' ok"),
            (format!("\"secret\": \"{}\"", x(41)), "\"secret\": \"[REDACTED]\""),
            (format!("Password={}", "ü".repeat(40)), "Password=[REDACTED]"),
            (format!("password={}", x(39)), &format!("password={}", x(39))),
            ("the key is under the mat".into(), "the key is under the mat"),
        ] {
            assert_eq!(redact(&text), expected, "{text}");
        }
    }
}
