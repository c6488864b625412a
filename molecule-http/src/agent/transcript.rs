//! What was said to the reference agent and by it, as long as it lasts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use molecule_core::agent::files::Page;
use serde::Serialize;

/// How many lines are kept; the oldest go first.
const KEPT: usize = 1000;

/// How much of one line is kept, in characters.
const SHOWN: usize = 4096;

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    role: &'static str,
    text: String,
}

/// A page of what was said.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    lines: Vec<Line>,
    /// Where the next page begins.
    cursor: usize,
    more: bool,
}

/// A clone is a handle on the same lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Transcript(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    /// How many came before the first of these.
    gone: usize,
    kept: VecDeque<Line>,
}

impl Transcript {
    /// Adds what the user said, and that the agent repeated it.
    pub(super) fn add(&self, said: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for role in ["user", "agent"] {
            lines.kept.push_back(Line { role, text: said.chars().take(SHOWN).collect() });
            if lines.kept.len() > KEPT {
                lines.kept.pop_front();
                lines.gone += 1;
            }
        }
    }

    /// The lines of `page`.
    pub(super) fn show(&self, page: Page) -> Shown {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = said.gone + said.kept.len();
        let since = page.since.clamp(said.gone, end);
        let lines: Vec<Line> = said.kept.iter().skip(since - said.gone).take(page.limit).cloned().collect();
        let cursor = since + lines.len();
        Shown { lines, cursor, more: cursor < end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_while_the_oldest_lines_go() {
        let transcript = Transcript::default();
        let show = |since, limit| {
            let shown = transcript.show(Page { since, limit });
            (shown.lines.into_iter().map(|line| line.text).collect::<Vec<_>>(), shown.cursor, shown.more)
        };
        assert_eq!(show(0, 10), (vec![], 0, false));
        for n in 0..2 {
            transcript.add(&n.to_string());
        }
        assert_eq!(show(0, 3), (vec!["0".into(), "0".into(), "1".into()], 3, true));
        assert_eq!(show(3, 2), (vec!["1".into()], 4, false));
        assert_eq!(show(9, 2), (vec![], 4, false));
        for n in 2..=KEPT / 2 {
            transcript.add(&n.to_string());
        }
        assert_eq!(show(0, 1), (vec!["1".into()], 3, true), "two lines are gone");
        transcript.add(&"x".repeat(5000));
        assert_eq!(show(KEPT + 3, 5), (vec!["x".repeat(SHOWN)], KEPT + 4, false));
    }
}
