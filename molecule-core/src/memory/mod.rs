//! What agents remember: values by key, and memories that others may find.

mod redact;
mod scoped;
mod search;
mod transfer;
mod values;

pub(crate) use self::search::Search;
pub use self::{
    redact::redact,
    scoped::{NewMemory, Recall},
    transfer::{Imported, ImportedMemory},
    values::SetValue,
};
use crate::store::pool::text_enum;
pub use crate::store::{ExportedMemory, StoredMemory as Memory, StoredValue as Value};

text_enum! {
    /// Who may find a memory.
    pub enum Scope {
        /// The workspace that made it.
        Local = "LOCAL",
        /// Its team: the workspace that leads it, and those beside it.
        Team = "TEAM",
        /// Everyone.
        Global = "GLOBAL",
    }
}
