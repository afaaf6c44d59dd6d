//! Shows where a replay stands: a bar on a terminal, else a line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::operate::replay::{Counts, Watch};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What a person sees of a replay.
pub(super) struct Progress {
    /// `None`: there is no terminal.
    bar: Option<ProgressBar>,
    line_at: Instant,
}

impl Progress {
    pub(super) fn new(total: u64) -> Self {
        let line_at = Instant::now() + LINE_EVERY;
        if !io::stderr().is_terminal() {
            return Self { bar: None, line_at };
        }
        let bar = ProgressBar::new(total);
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let template = "{wide_bar} {pos}/{len} {msg} {elapsed}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar: Some(bar), line_at }
    }

    /// Makes room for the results.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress {
    /// So many of all are done.
    pub(super) fn at(&mut self, position: u64, message: String, line: impl FnOnce() -> String) {
        let now = Instant::now();
        match &self.bar {
            Some(bar) => {
                bar.set_position(position);
                bar.set_message(message);
            }
            None if now >= self.line_at => {
                self.line_at = now + LINE_EVERY;
                self.say(&line());
            }
            None => {}
        }
    }
}

impl Watch for Progress {
    fn progress(&mut self, counts: &Counts) {
        let ended = u64::try_from(counts.ended()).unwrap_or_default();
        self.at(ended, format!("{} dead again", counts.dead), || counts.summary());
    }

    fn say(&mut self, text: &str) {
        // Nobody is there to be told that standard error is gone.
        let write = || drop(writeln!(io::stderr(), "{text}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}
