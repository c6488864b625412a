//! Secrets: what agents are given in their environment, kept encrypted, and changed while they run.

mod cipher;
mod manage;
mod model;
mod renew;
mod rollout;
mod rules;
mod turns;

pub use self::{
    cipher::{Cipher, Sealed},
    manage::{Scope, SecretInfo},
};
pub(crate) use self::{
    model::MODEL,
    rules::{check_key, check_value},
    turns::Turns,
};
