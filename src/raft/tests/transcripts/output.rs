//! Where the output of a step gathers: what commands print, and what the nodes log, in the order in which it happens.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use basalt_raft::{Level, Logger};

/// Names of levels; the last one silences everything, commands too.
const LEVELS: [&str; 6] = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"];

#[derive(Debug, Default)]
struct Buffer {
    /// A place in [`LEVELS`].
    level: usize,
    text: String,
}

/// A handle on the output; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output(Arc<Mutex<Buffer>>);

impl Output {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What gathered since the last time.
    pub(crate) fn take(&self) -> String {
        std::mem::take(&mut self.buffer().text)
    }

    /// Whether nothing at all is printed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.buffer().level == LEVELS.len() - 1
    }

    pub(crate) fn level(&self) -> usize {
        self.buffer().level
    }

    pub(crate) fn set_level(&self, level: usize) {
        self.buffer().level = level;
    }

    /// Sets the level by its name, or says which there are.
    pub(crate) fn set_level_by_name(&self, name: &str) -> Result<(), String> {
        let level = LEVELS.iter().position(|one| one.eq_ignore_ascii_case(name));
        let levels = LEVELS.join(" ");
        self.set_level(level.ok_or(format!("log levels must be either of [{levels}]"))?);
        Ok(())
    }

    pub(crate) fn write(&self, text: &str) {
        if !self.is_quiet() {
            self.buffer().text.push_str(text);
        }
    }

    /// Runs `f` with its output indented.
    pub(crate) fn indented<T>(&self, f: impl FnOnce() -> T) -> T {
        let outer = self.take();
        let result = f();
        let inner = self.take();
        let mut buffer = self.buffer();
        buffer.text = outer;
        for line in inner.lines() {
            let _ = writeln!(buffer.text, "  {line}");
        }
        result
    }
}

impl Logger for Output {
    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        let place = match level {
            Level::Debug => 0,
            Level::Info => 1,
            Level::Warn => 2,
            Level::Error => 3,
        };
        let mut buffer = self.buffer();
        if buffer.level <= place {
            let _ = writeln!(buffer.text, "{} {line}", LEVELS[place]);
        }
    }
}
