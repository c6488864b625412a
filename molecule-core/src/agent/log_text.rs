//! What an event says, as one line for people who see nothing but that.

use std::fmt::{self, Write};

use tracing::{
    Event,
    field::{Field, Visit},
};

/// The field that names the workspace: an agent has one, which everything is about.
const ITSELF: &str = "workspace.id";

/// The message of an event, and behind it ` name=value` for each other field but the workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogText {
    message: String,
    fields: String,
}

impl LogText {
    /// What `event` says.
    pub fn of(event: &Event<'_>) -> Self {
        let mut text = Self::default();
        event.record(&mut text);
        text
    }
}

impl fmt::Display for LogText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.message, self.fields)
    }
}

impl Visit for LogText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes whatever is written to it.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            ITSELF => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
