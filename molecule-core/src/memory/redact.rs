//! Takes secrets out of what is remembered. A secret in a memory reaches every agent that may find it.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

/// What a secret looks like and what it is called, in the order they are looked for.
const PATTERNS: [(&str, &str); 7] = [
    (r"(?i)\b[A-Z0-9_]*_API_KEY\s*=\s*\S+", "API_KEY"),
    (r"(?i)\b[A-Z0-9_]*_TOKEN\s*=\s*\S+", "TOKEN"),
    (r"(?i)\b[A-Z0-9_]*_SECRET\s*=\s*\S+", "SECRET"),
    (r"(?i)\bBearer\s+\S+", "BEARER_TOKEN"),
    (r"sk-[A-Za-z0-9_-]{16,}", "SK_TOKEN"),
    (r"ctx7_[A-Za-z0-9]+", "CTX7_TOKEN"),
    (r"[A-Za-z0-9+/]{33,}={0,2}", "BASE64_BLOB"),
];

static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    PATTERNS.iter().map(|(pattern, label)| (Regex::new(pattern).expect("a test compiles each"), *label)).collect()
});

/// `text` with `[REDACTED:LABEL]` in place of each secret. Doing it again changes nothing.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for (rule, label) in RULES.iter() {
        if let Cow::Owned(clean) = rule.replace_all(&text, format!("[REDACTED:{label}]")) {
            tracing::info!(label, "a secret was taken out of a memory");
            text = Cow::Owned(clean);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let rows = [
            ("nothing here", "nothing here"),
            ("OPENAI_API_KEY=abc next", "[REDACTED:API_KEY] next"),
            ("my_api_key = abc", "[REDACTED:API_KEY]"),
            ("GH_TOKEN= x\nGH_SECRET=y", "[REDACTED:TOKEN]\n[REDACTED:SECRET]"),
            ("Authorization: Bearer abc.def", "Authorization: [REDACTED:BEARER_TOKEN]"),
            ("key sk-0123456789abcdef!", "key [REDACTED:SK_TOKEN]!"),
            ("sk-0123456789abcde", "sk-0123456789abcde"),
            ("ctx7_a1B2.", "[REDACTED:CTX7_TOKEN]."),
            ("QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQ== end", "[REDACTED:BASE64_BLOB] end"),
            ("QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD", "QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD"),
            ("tokenizer = fast, SECRETARY=x", "tokenizer = fast, SECRETARY=x"),
            ("ünï 🦀 A_TOKEN=🦀🦀 z", "ünï 🦀 [REDACTED:TOKEN] z"),
        ];
        for (text, expected) in rows {
            assert_eq!(redact(text), expected, "{text}");
            assert_eq!(redact(expected), expected, "again: {text}");
        }
    }
}
