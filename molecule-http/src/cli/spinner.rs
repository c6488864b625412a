//! What a person sees while a command waits.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{output, text};

const TICK: Duration = Duration::from_millis(100);

/// Tells on standard error what is waited for: a spinner on a terminal, else a line for every change.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Shown,
    started: Instant,
    last: String,
}

#[derive(Debug)]
enum Shown {
    Spinner(ProgressBar),
    Lines,
    Nothing,
}

impl Progress {
    /// Begins to tell, or to keep silent.
    pub(crate) fn start(silent: bool) -> Self {
        let shown = match (silent, output::stderr_is_terminal()) {
            (true, _) => Shown::Nothing,
            (false, false) => Shown::Lines,
            (false, true) => {
                let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = ProgressBar::new_spinner().with_style(style);
                bar.enable_steady_tick(TICK);
                Shown::Spinner(bar)
            }
        };
        Self { shown, started: Instant::now(), last: String::new() }
    }

    /// Says what is going on now.
    pub(crate) fn tell(&mut self, message: &str) {
        if self.last == message {
            return;
        }
        message.clone_into(&mut self.last);
        match &self.shown {
            Shown::Spinner(bar) => bar.set_message(text::clean(message)),
            Shown::Lines => output::note(message),
            Shown::Nothing => {}
        }
    }

    /// For how long this has been told.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Spinner(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// `duration` in its two largest units, such as `1h 05m` or `12s`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes:02}m"),
        (days, hours, _, _) => format!("{days}d {hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (65, "1m 05s"), (3_660, "1h 01m"), (90_000, "1d 01h")] {
            assert_eq!(short(Duration::from_secs(seconds)), expected);
        }
    }
}
