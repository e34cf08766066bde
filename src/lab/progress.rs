//! What is being done, for who waits at a terminal: one line that is drawn again and again. A pipe gets nothing.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How wide the bar is, and how often it is drawn at the most.
const BAR: usize = 30;
const REDRAW: Duration = Duration::from_millis(50);

/// The line; it goes away with this.
pub struct Progress {
    is_shown: bool,
    drawn: Cell<Option<Instant>>,
}

impl Progress {
    /// On stderr, if that is a terminal.
    pub fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal(), drawn: Cell::new(None) }
    }

    /// Something whose length is not known.
    pub fn tell(&self, what: &str) {
        self.draw(what);
    }

    /// So many of all are done.
    pub fn step(&self, done: usize, all: usize, what: &str) {
        if self.drawn.get().is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        self.drawn.set(Some(Instant::now()));
        let full = BAR * done.min(all) / all.max(1);
        let bar = "#".repeat(full) + &"-".repeat(BAR - full);
        self.draw(&format!("[{bar}] {done}/{all} {what:.30}"));
    }

    /// Before something else is written.
    pub fn clear(&self) {
        self.draw("");
    }

    fn draw(&self, line: &str) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
