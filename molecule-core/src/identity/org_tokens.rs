//! Tokens of the organisation: in the form of workspace tokens, worth what the operator's is.

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::tokens::{hash, prefix, random_text};
use crate::{
    clock::{Entropy, random_uuid},
    id::{TokenId, WorkspaceId},
};

/// A token of the organisation that was just minted: the only moment its text is known.
#[derive(Debug, Clone)]
pub struct IssuedOrgToken {
    /// Its id, by which it is revoked.
    pub id: TokenId,
    /// Its first 8 characters.
    pub prefix: String,
    /// What it is for.
    pub name: Option<String>,
    /// The text that its holder presents.
    pub token: SecretString,
}

/// A token of the organisation as it is kept.
#[derive(Debug)]
pub(crate) struct NewOrgToken {
    pub(crate) id: TokenId,
    pub(crate) hash: [u8; 32],
    pub(crate) prefix: String,
    pub(crate) name: Option<String>,
    pub(crate) created_by: Option<String>,
    pub(crate) org_id: Option<WorkspaceId>,
    pub(crate) created_at: DateTime<Utc>,
}

/// A new token, bound to `org_id` if it names one: what is kept, and what is handed out once.
pub(crate) fn issue_for_org(
    name: Option<String>,
    created_by: Option<String>,
    org_id: Option<WorkspaceId>,
    entropy: &dyn Entropy,
    created_at: DateTime<Utc>,
) -> (NewOrgToken, IssuedOrgToken) {
    let text = random_text(entropy);
    let id = TokenId::from_uuid(random_uuid(entropy));
    let prefix = prefix(&text);
    let kept = NewOrgToken {
        id,
        hash: hash(&text),
        prefix: prefix.clone(),
        name: name.clone(),
        created_by,
        org_id,
        created_at,
    };
    (kept, IssuedOrgToken { id, prefix, name, token: text.into() })
}
