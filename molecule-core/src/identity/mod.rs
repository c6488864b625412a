//! Who is calling: tokens, and what they allow.

mod access;
mod inbound_secret;
mod tokens;

pub(crate) use self::{
    access::{
        AdminFacts, CallerFacts, RegistryFacts, WorkspaceFacts, admin_gate, caller_gate, can_communicate,
        listener_gate, registry_gate, state_gate, workspace_gate,
    },
    inbound_secret::open_inbound_secret,
    tokens::{NewToken, hash, issue},
};
pub use self::{
    access::{Caller, Credential, Exposure},
    inbound_secret::InboundSecret,
    tokens::{IssuedToken, random_token},
};
