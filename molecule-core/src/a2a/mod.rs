//! Calls from one agent, or from the operator, to another agent.

mod carry;
mod clients;
mod dead;
mod dispatch;
mod drain;
mod exchange;
mod ledger;
mod live;
mod notes;
mod payload;
mod queue;
mod sender;
mod told;
mod usage;

pub(crate) use self::{
    clients::Clients,
    notes::{Note, Notes},
    queue::{ATTEMPTS, Claim, Claimed, Enqueued, NewItem, Queues, Settled},
    usage::{Used, day_of},
};
pub use self::{
    dispatch::{Answer, Call, PROTOCOL, Reply},
    live::Bits,
    queue::{QueueItem, QueueStatus},
    sender::{Sender, System},
    usage::Usage,
};
#[cfg(feature = "testing")]
pub(crate) use self::{payload::normalise, told::Told};
