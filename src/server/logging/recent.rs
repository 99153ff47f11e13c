//! The newest lines of the log, for the web page.
//!
//! Promises: at most [`MAX_LINES`] lines of at most [`MAX_LINE_LEN`] bytes, the same that go to standard error and no
//! others; lines of one process, also where several stores run in it.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::insight::now_ms;

/// Lines that are kept.
pub const MAX_LINES: usize = 500;
/// Bytes of a line; more are cut.
pub const MAX_LINE_LEN: usize = 2048;

/// A line of the log.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Lines are numbered from 1 on.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How important it is.
    pub level: &'static str,
    /// Which part of the program says it.
    pub target: &'static str,
    /// What it says, and its fields.
    pub text: String,
}

static LINES: Mutex<(u64, VecDeque<Line>)> = Mutex::new((0, VecDeque::new()));

/// The lines that are kept after one of them, the oldest first.
#[must_use]
pub fn after(id: u64) -> Vec<Line> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let after = lines.1.iter().filter(|line| line.id > id);
    after.cloned().collect()
}

fn keep(level: &'static str, target: &'static str, mut text: String) {
    if text.len() > MAX_LINE_LEN {
        let mut ends = (0..=MAX_LINE_LEN).rev();
        let end = ends.find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str(" ...");
    }
    let (last, lines) = &mut *LINES.lock().unwrap_or_else(PoisonError::into_inner);
    *last += 1;
    if lines.len() == MAX_LINES {
        lines.pop_front();
    }
    lines.push_back(Line {
        id: *last,
        at_ms: now_ms(),
        level,
        target,
        text,
    });
}

/// Keeps what the log lets through.
pub(super) struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let meta = event.metadata();
        let mut line = text.message;
        line.push_str(&text.fields);
        keep(meta.level().as_str(), meta.target(), line);
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes everything.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_newest_lines_are_kept_with_their_fields_and_long_ones_are_cut() {
        let subscriber = tracing_subscriber::registry().with(Recent);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..MAX_LINES {
                tracing::info!(number, "line");
            }
            let long = "\u{e9}".repeat(MAX_LINE_LEN);
            tracing::warn!(why = %long, path = "/x", "the last");
        });
        let lines = after(0);
        assert_eq!(lines.len(), MAX_LINES);
        let last = lines.last().unwrap();
        assert!(
            last.text.starts_with("the last why=\u{e9}"),
            "{}",
            last.text
        );
        assert!(last.text.len() <= MAX_LINE_LEN + 4 && last.level == "WARN");
        assert_eq!(
            lines[MAX_LINES - 2].text,
            format!("line number={}", MAX_LINES - 1)
        );
        assert_eq!(after(last.id - 1).len(), 1);
    }
}
