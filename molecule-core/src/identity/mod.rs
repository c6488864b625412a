//! Who is calling: tokens, and what they allow.

mod access;
mod inbound_secret;
mod org_tokens;
mod presented;
mod session;
mod tokens;

pub(crate) use self::{
    access::{
        AdminFacts, Asked, CallerFacts, RegistryFacts, TestTokenFacts, WorkspaceFacts, admin_gate, caller_gate,
        can_communicate, claim_gate, is_at_or_below, listener_gate, registry_gate, state_gate, test_token_gate,
        workspace_gate,
    },
    inbound_secret::{Unreadable, open_inbound_secret},
    org_tokens::{NewOrgToken, issue_for_org},
    session::Sessions,
    tokens::{NewToken, hash, issue},
};
pub use self::{
    access::{Caller, Credential, Exposure},
    inbound_secret::InboundSecret,
    org_tokens::IssuedOrgToken,
    presented::{bearer, offered_bearer},
    session::SessionSource,
    tokens::{IssuedToken, random_token},
};
