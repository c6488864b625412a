//! How rows are signed: HMAC-SHA256 over one form of each row, so that whoever has the key can check what another signed.

use std::{fmt::Write, num::NonZeroU32};

use chrono::SecondsFormat;
use ring::{hmac, pbkdf2};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::{AuditEvent, Operation};

/// What the key is derived with, the same for all who sign.
const SALT: &[u8] = b"molecule-audit-ledger-v1";

/// How often the derivation goes round.
const ROUNDS: NonZeroU32 = NonZeroU32::new(210_000).expect("more than none");

/// What rows of the ledger are signed with.
#[derive(Debug, Clone)]
pub struct AuditKey(hmac::Key);

/// What is signed of a row. The members come in the order of their names.
#[derive(Serialize)]
struct Signed<'a> {
    agent_id: &'a str,
    human_oversight_flag: bool,
    id: &'a str,
    input_hash: Option<&'a str>,
    model_used: Option<&'a str>,
    operation: Operation,
    output_hash: Option<&'a str>,
    prev_hmac: Option<&'a str>,
    risk_flag: bool,
    session_id: &'a str,
    timestamp: String,
}

impl AuditKey {
    /// The key that follows from `password`. Takes about a tenth of a second: guesses are to be slow.
    pub fn derive(password: &SecretString) -> Self {
        let mut key = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, SALT, password.expose_secret().as_bytes(), &mut key);
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// The signature of `event`, in hexadecimal. It covers all but the signature itself and the workspace.
    pub(crate) fn sign(&self, event: &AuditEvent) -> String {
        let mut text = String::with_capacity(64);
        for byte in hmac::sign(&self.0, canonical(event).as_bytes()).as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// `event` as compact JSON, its members in order, all but printable ASCII escaped.
fn canonical(event: &AuditEvent) -> String {
    let signed = Signed {
        agent_id: &event.agent_id,
        human_oversight_flag: event.human_oversight_flag,
        id: &event.id,
        input_hash: event.input_hash.as_deref(),
        model_used: event.model_used.as_deref(),
        operation: event.operation,
        output_hash: event.output_hash.as_deref(),
        prev_hmac: event.prev_hmac.as_deref(),
        risk_flag: event.risk_flag,
        session_id: &event.session_id,
        timestamp: event.timestamp.to_rfc3339_opts(SecondsFormat::Secs, true),
    };
    let json = serde_json::to_string(&signed).expect("names and texts are JSON");
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::WorkspaceId;

    /// Signed by another program, this one in Python:
    ///
    /// ```python
    /// import hashlib, hmac, json
    /// key = hashlib.pbkdf2_hmac("sha256", "Grüße, salt".encode(), b"molecule-audit-ledger-v1", 210000, 32)
    /// def sign(row):
    ///     text = json.dumps(row, sort_keys=True, separators=(",", ":"))  # escapes all but ASCII
    ///     return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    /// one = dict(id="0d5c0f1e-0000-4000-8000-000000000001", timestamp="2026-04-17T08:00:00Z", agent_id="agent <1> & 'ü'",
    ///            session_id="s\t\"\\/\x7f\b\n", operation="task_start", input_hash=None, output_hash=None, model_used=None,
    ///            human_oversight_flag=False, risk_flag=False, prev_hmac=None)
    /// two = dict(one, id="0d5c0f1e-0000-4000-8000-000000000002", timestamp="2026-04-17T08:00:01Z", operation="llm_call",
    ///            input_hash="ab" * 32, output_hash="cd" * 32, model_used="modèle 🦀", human_oversight_flag=True,
    ///            risk_flag=True, prev_hmac=sign(one))
    /// three = dict(one, id="0d5c0f1e-0000-4000-8000-000000000003", timestamp="2026-04-17T08:00:01Z", operation="task_end",
    ///              prev_hmac=sign(two))
    /// print(sign(one), sign(two), sign(three))
    /// ```
    const SIGNED_ELSEWHERE: [&str; 3] = [
        "381eb5656a276ec1cb2cc90b1b7b007c463c3c710f93572f3b2e33c25d47c98d",
        "aa7b4c2410600e613bc43170fc2e7f0524c2677fd82eea98c6960b1ca2dbd027",
        "a74029427b5ecd86e8af4b798344bfe6067d505a7f90afd275ab04e468640f7f",
    ];

    pub(in crate::audit) fn key() -> AuditKey {
        AuditKey::derive(&"Grüße, salt".into())
    }

    /// The rows of the program above.
    pub(in crate::audit) fn rows() -> [AuditEvent; 3] {
        let one = AuditEvent {
            id: "0d5c0f1e-0000-4000-8000-000000000001".into(),
            // Fractions are not signed.
            timestamp: "2026-04-17T08:00:00.25Z".parse().unwrap(),
            agent_id: "agent <1> & 'ü'".into(),
            session_id: "s\t\"\\/\x7f\x08\n".into(),
            operation: Operation::TaskStart,
            input_hash: None,
            output_hash: None,
            model_used: None,
            human_oversight_flag: false,
            risk_flag: false,
            prev_hmac: None,
            hmac: Some(SIGNED_ELSEWHERE[0].into()),
            workspace_id: WorkspaceId::from_uuid(uuid::Uuid::from_u128(7)),
        };
        let two = AuditEvent {
            id: "0d5c0f1e-0000-4000-8000-000000000002".into(),
            timestamp: "2026-04-17T08:00:01Z".parse().unwrap(),
            operation: Operation::LlmCall,
            input_hash: Some("ab".repeat(32)),
            output_hash: Some("cd".repeat(32)),
            model_used: Some("modèle 🦀".into()),
            human_oversight_flag: true,
            risk_flag: true,
            prev_hmac: one.hmac.clone(),
            hmac: Some(SIGNED_ELSEWHERE[1].into()),
            ..one.clone()
        };
        let three = AuditEvent {
            id: "0d5c0f1e-0000-4000-8000-000000000003".into(),
            timestamp: "2026-04-17T08:00:01.000001Z".parse().unwrap(),
            operation: Operation::TaskEnd,
            prev_hmac: two.hmac.clone(),
            hmac: Some(SIGNED_ELSEWHERE[2].into()),
            ..one.clone()
        };
        [one, two, three]
    }

    #[test]
    fn what_another_program_signed_is_signed_alike() {
        let key = key();
        for row in rows() {
            assert_eq!(Some(key.sign(&row)), row.hmac, "{}", canonical(&row));
        }
    }

    #[test]
    fn a_row_has_one_form() {
        let [_, two, _] = rows();
        let text = canonical(&AuditEvent { prev_hmac: Some("00".into()), input_hash: None, ..two });
        let expected = concat!(
            r#"{"agent_id":"agent <1> & '\u00fc'","human_oversight_flag":true,"#,
            r#""id":"0d5c0f1e-0000-4000-8000-000000000002","input_hash":null,"model_used":"mod\u00e8le \ud83e\udd80","#,
            r#""operation":"llm_call","output_hash":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","#,
            r#""prev_hmac":"00","risk_flag":true,"session_id":"s\t\"\\/\u007f\b\n","timestamp":"2026-04-17T08:00:01Z"}"#,
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn keys_are_not_shown() {
        assert!(!format!("{:?}", key()).contains("salt"));
    }
}
