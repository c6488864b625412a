//! What the core logs, as lines of the Python logger `molecule`.

use molecule_core::agent::LogText;
use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter, span};

use crate::delivery::{self, Message};

/// Begins to pass on what is logged; again does nothing.
pub(crate) fn start() {
    let _ = tracing::subscriber::set_global_default(PythonLogs);
}

struct PythonLogs;

impl Subscriber for PythonLogs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("molecule")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        delivery::send(Message::Log(*event.metadata().level(), LogText::of(event).to_string()));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
