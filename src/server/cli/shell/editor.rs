//! The line that a person types: `rustyline` with the shell's completion, hints, colours, and a history in a file.
//!
//! The file is `$XDG_STATE_HOME/basalt/history`, else `~/.local/state/basalt/history`; without a home there is none. It
//! is readable by its owner alone and keeps [`MOST_LINES`] lines; a line that begins with a space, or is longer than
//! [`LONGEST_LINE`], is not kept. A history that cannot be read or written never keeps anybody from working.

use std::{
    borrow::Cow,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use rustyline::{
    ColorMode, CompletionType, Config, Context, Editor, Helper,
    completion::{Completer, Pair},
    error::ReadlineError,
    highlight::{CmdKind, Highlighter},
    hint::{Hint, Hinter, HistoryHinter},
    history::FileHistory,
    validate::Validator,
};

use super::{
    command::find,
    complete::{MOST_KEYS, complete, hint},
    source::Source,
    words::split,
};
use crate::cli::{
    Failure,
    output::{Output, Style},
    text::Format,
};

/// Lines that the history keeps.
const MOST_LINES: usize = 1000;
/// Bytes of a line that is kept.
const LONGEST_LINE: usize = 4096;

/// What a person did at the prompt.
pub(super) enum Typed {
    Line(String),
    /// Ctrl-C: the line is forgotten.
    Cancelled,
    /// Ctrl-D, or the terminal is gone.
    End,
}

pub(super) struct LineEditor {
    editor: Editor<Assistant, FileHistory>,
    history: Option<PathBuf>,
}

impl LineEditor {
    pub(super) fn new(
        source: Rc<dyn Source>,
        format: Format,
        output: Output,
    ) -> Result<Self, Failure> {
        let colours = if output.has_colours() {
            ColorMode::Enabled
        } else {
            ColorMode::Disabled
        };
        let config = Config::builder()
            .max_history_size(MOST_LINES)
            .and_then(|config| config.history_ignore_dups(true));
        let config = config.map_err(failed)?;
        let config = config
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .completion_prompt_limit(2 * MOST_KEYS)
            .color_mode(colours)
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Assistant {
            source,
            format,
            output,
            family: String::new(),
            past: HistoryHinter::default(),
        }));
        let history = place(|name| std::env::var_os(name).map(PathBuf::from));
        if let Some(path) = &history {
            // There is none yet, or it is of no use.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    /// Waits for a line; `family` is the one whose keys are completed.
    pub(super) fn read(&mut self, prompt: &str, family: &str) -> Result<Typed, Failure> {
        if let Some(assistant) = self.editor.helper_mut() {
            family.clone_into(&mut assistant.family);
        }
        match self.editor.readline(prompt) {
            Ok(line) => {
                self.keep(&line);
                Ok(Typed::Line(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Cancelled),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(failed(error)),
        }
    }

    fn keep(&mut self, line: &str) {
        if line.trim().is_empty() || line.len() > LONGEST_LINE {
            return;
        }
        let is_new = self.editor.add_history_entry(line).unwrap_or(false);
        if let (true, Some(path)) = (is_new, &self.history) {
            // A full disk, or a home that cannot be written: the lines of this run are there all the same.
            let _ = make_folder(path);
            let _ = self.editor.append_history(path);
        }
    }
}

fn failed(error: ReadlineError) -> Failure {
    Failure::world(format!("cannot read from the terminal: {error}"))
}

/// Where the history is, if anywhere.
fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // A relative path would be another file in each directory.
    let folder = |name| variable(name).filter(|path: &PathBuf| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    Some(state?.join("basalt").join("history"))
}

/// Creates the folder of the history where it is missing, for its owner alone.
fn make_folder(history: &Path) -> std::io::Result<()> {
    let folder = history.parent().unwrap_or(history);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// What helps while a line is typed.
struct Assistant {
    source: Rc<dyn Source>,
    format: Format,
    output: Output,
    family: String,
    past: HistoryHinter,
}

impl Helper for Assistant {}

impl Validator for Assistant {}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = complete(&line[..pos], self.format, &self.family, &*self.source);
        let is_alone = words.len() == 1;
        let pair = |word: String| Pair {
            // A word that is whole is followed by the next one.
            replacement: if is_alone {
                format!("{word} ")
            } else {
                word.clone()
            },
            display: word,
        };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

/// What is shown behind the line.
struct Tip {
    text: String,
    /// Whether it can be taken into the line.
    is_line: bool,
}

impl Hint for Tip {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.is_line.then_some(&self.text)
    }
}

impl Hinter for Assistant {
    type Hint = Tip;

    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<Tip> {
        if pos < line.len() {
            return None;
        }
        let usage = hint(line).map(|text| Tip {
            text,
            is_line: false,
        });
        usage.or_else(|| {
            Some(Tip {
                text: self.past.hint(line, pos, context)?,
                is_line: true,
            })
        })
    }
}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        let split = split(line);
        let Some(name) = split
            .words
            .first()
            .filter(|word| find(&word.text).is_some())
        else {
            return Cow::Borrowed(line);
        };
        let end = name.start + name.text.len();
        match (line.get(..end), line.get(end..)) {
            (Some(name), Some(rest)) => Cow::Owned(self.output.paint(Style::Bold, name) + rest),
            _ => Cow::Borrowed(line),
        }
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(self.output.paint(Style::Good, prompt))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(self.output.paint(Style::Dim, hint))
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        self.output.has_colours()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_in_the_state_of_the_user_or_nowhere() {
        let with = |known: &[(&str, &str)]| {
            place(|name| {
                let found = known.iter().find(|(known, _)| *known == name);
                found.map(|(_, path)| PathBuf::from(path))
            })
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("HOME", "")]), None);
        let home = ("HOME", "/home/ada");
        let usual = PathBuf::from("/home/ada/.local/state/basalt/history");
        assert_eq!(with(&[home]), Some(usual.clone()));
        assert_eq!(with(&[home, ("XDG_STATE_HOME", "relative")]), Some(usual));
        let state = ("XDG_STATE_HOME", "/state");
        assert_eq!(with(&[home, state]), Some("/state/basalt/history".into()));
    }
}
