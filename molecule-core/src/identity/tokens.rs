//! Workspace tokens: 32 random bytes as 43 characters of base64url, kept only as a hash.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::{
    clock::{Entropy, random_uuid},
    id::{AttemptId, TokenId, WorkspaceId},
};

/// How many characters of a token people may see, to tell one from another.
const PREFIX_LENGTH: usize = 8;

/// A token that was just issued: the only moment its text is known.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The text that its holder presents.
    pub token: SecretString,
    /// The workspace that it speaks for.
    pub workspace_id: WorkspaceId,
}

/// A token as it is kept.
#[derive(Debug)]
pub(crate) struct NewToken {
    pub(crate) id: TokenId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) hash: [u8; 32],
    pub(crate) prefix: String,
    pub(crate) provision_attempt: Option<AttemptId>,
    pub(crate) created_at: DateTime<Utc>,
}

#[cfg(feature = "testing")]
impl NewToken {
    /// Whose it is.
    pub(crate) fn owner(&self) -> crate::store::TokenOwner {
        crate::store::TokenOwner {
            id: self.id,
            workspace_id: self.workspace_id,
            provision_attempt: self.provision_attempt,
        }
    }
}

/// A new token for `workspace_id`, for the agent of one try at bringing it up or for any: what is kept, and what is handed out once.
pub(crate) fn issue(
    workspace_id: WorkspaceId,
    provision_attempt: Option<AttemptId>,
    entropy: &dyn Entropy,
    created_at: DateTime<Utc>,
) -> (NewToken, IssuedToken) {
    let text = random_text(entropy);
    let kept = NewToken {
        id: TokenId::from_uuid(random_uuid(entropy)),
        workspace_id,
        hash: hash(&text),
        prefix: prefix(&text),
        provision_attempt,
        created_at,
    };
    (kept, IssuedToken { token: text.into(), workspace_id })
}

/// The hash that a presented token is looked up by.
pub(crate) fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A token that belongs to nobody yet, in the form of every other.
pub fn random_token(entropy: &dyn Entropy) -> SecretString {
    random_text(entropy).into()
}

/// What people may see of a token.
pub(super) fn prefix(text: &str) -> String {
    text[..PREFIX_LENGTH].to_owned()
}

pub(super) fn random_text(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn a_token_is_43_characters_and_only_its_hash_is_kept() {
        let id = WorkspaceId::from_uuid(uuid::Uuid::nil());
        let (kept, issued) = issue(id, None, &SystemEntropy, DateTime::UNIX_EPOCH);
        let text = issued.token.expose_secret();
        assert_eq!(text.len(), 43);
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{text}");
        assert_eq!(kept.hash, hash(text));
        assert_eq!(kept.prefix, text[..8]);
        assert!(!format!("{issued:?} {kept:?}").contains(text));
    }
}
