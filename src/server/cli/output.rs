//! How results are printed: a table on a terminal, bare in a pipe, JSON where it is asked for.
//!
//! A command says once what it has, as rows of [`Cell`]s under [`Output::table`] or as one document under
//! [`Output::document`], and the three forms come of it:
//!
//! - on a terminal: columns under a head, numbers to the right, sizes and times with units, nothing wider than the
//!   terminal where a column may be cut;
//! - in a pipe: a row a line, cells between tabs, no head, plain numbers of bytes and seconds;
//! - `--json`: an object a line, the columns its fields. What the fields mean: `docs/cli-json.md`.
//!
//! Promises: colours and decoration only on a terminal, and not with `NO_COLOR`; the JSON form depends on neither.
//! Bytes are written as `text` writes them, so that what is printed can be given back as an argument.
//! Not here: progress of long work (`progress`), errors (`Failure`).

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Done, print,
    text::{self, Format},
};

/// Columns of a terminal that does not say how many it has.
const WIDTH: usize = 100;
/// The least that is left of a cell that is cut.
const LEAST: usize = 16;

/// What every command that prints results takes.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct OutputArgs {
    /// Print JSON, an object a line
    #[arg(long)]
    pub(super) json: bool,
}

impl OutputArgs {
    /// How results go to standard output.
    pub(super) fn open(self) -> Output {
        Output::new(self.json)
    }
}

/// Where results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Columns each.
    Terminal(usize),
    Pipe,
    Json,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// Nothing: `-`, empty, `null`.
    None,
    Text(String),
    /// A key or a value, in the format of the command.
    #[cfg_attr(not(test), expect(dead_code, reason = "no table shows keys yet"))]
    Bytes(Format, Vec<u8>),
    Number(u64),
    /// With one digit behind the point on a terminal.
    Real(f64),
    /// Bytes: with a unit on a terminal.
    Size(u64),
    /// `yes`, `no` on a terminal.
    Bool(bool),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Cell {
    fn from(is: bool) -> Self {
        Self::Bool(is)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Self::None, Into::into)
    }
}

impl Cell {
    /// For a person.
    fn shown(&self) -> String {
        match self {
            Self::None => "-".to_owned(),
            Self::Text(text) => text::harmless(text),
            Self::Bytes(format, bytes) => text::shown(*format, bytes),
            Self::Number(number) => number.to_string(),
            Self::Real(number) => format!("{number:.1}"),
            Self::Size(bytes) => size(*bytes),
            Self::Bool(is) => if *is { "yes" } else { "no" }.to_owned(),
        }
    }

    /// For a program that reads lines.
    fn bare(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Text(text) => text::harmless(text).into_bytes(),
            Self::Bytes(Format::Text, bytes) => bytes.clone(),
            Self::Bytes(format, bytes) => text::show(*format, bytes).into_bytes(),
            Self::Size(bytes) => bytes.to_string().into_bytes(),
            Self::Bool(is) => is.to_string().into_bytes(),
            Self::Number(_) | Self::Real(_) => self.shown().into_bytes(),
        }
    }

    /// Field `name` of an object; bytes that are no text are under a name that says how they are written.
    fn put_field(&self, name: &str, object: &mut Map<String, Value>) {
        let (name, value) = match self {
            Self::None => (name.to_owned(), Value::Null),
            Self::Text(text) => (name.to_owned(), json!(text)),
            Self::Bytes(format, bytes) => {
                let (name, text) = text::field(name, *format, bytes);
                (name, Value::String(text))
            }
            Self::Number(number) | Self::Size(number) => (name.to_owned(), json!(number)),
            Self::Real(number) => (name.to_owned(), json!(number)),
            Self::Bool(is) => (name.to_owned(), json!(is)),
        };
        object.insert(name, value);
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Real(_) | Self::Size(_))
    }
}

/// How a piece of text stands out on a terminal with colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

/// The way to standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    mode: Mode,
    colours: bool,
}

impl Output {
    /// As the world is: JSON if it is asked for, else what standard output is.
    pub(super) fn new(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let mode = match (json, is_terminal) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Terminal(width()),
            (false, false) => Mode::Pipe,
        };
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            mode,
            colours: matches!(mode, Mode::Terminal(_)) && !is_plain,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.mode == Mode::Json
    }

    /// Whether a person reads it.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.mode, Mode::Terminal(_))
    }

    /// Whether there are colours.
    pub(super) fn has_colours(&self) -> bool {
        self.colours
    }

    /// `text` in a colour, where there are any.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Warning => "33",
            Style::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A table: what its columns are called (the names of the fields in JSON), and its rows. `cut` is the column that
    /// gives way where a row is wider than the terminal.
    pub(super) fn table(&self, columns: &[&str], rows: &[Vec<Cell>], cut: Option<usize>) -> Done {
        print(&self.render(columns, rows, cut))
    }

    /// One document: as it is in JSON, else as `text` says it.
    pub(super) fn document(&self, json: &impl Serialize, text: impl FnOnce() -> String) -> Done {
        match self.mode {
            Mode::Json => self.json(json),
            _ => print(text().as_bytes()),
        }
    }

    /// A line of JSON.
    pub(super) fn json(&self, json: &impl Serialize) -> Done {
        let mut line = serde_json::to_vec(json).expect("plain structs of text and numbers");
        line.push(b'\n');
        print(&line)
    }

    /// A change is done: `{"ok":true}` with the fields of `facts` in JSON, `text` and a line end on a terminal,
    /// nothing in a pipe.
    pub(super) fn done(&self, facts: Value, text: &str) -> Done {
        match self.mode {
            Mode::Json => {
                let mut object = Map::new();
                object.insert("ok".to_owned(), Value::Bool(true));
                if let Value::Object(facts) = facts {
                    object.extend(facts);
                }
                self.json(&object)
            }
            Mode::Terminal(_) => print(format!("{text}\n").as_bytes()),
            Mode::Pipe => Ok(()),
        }
    }

    /// [`Output::table`] with its columns under their head in a pipe too: for figures that a person keeps.
    pub(super) fn table_with_head(&self, columns: &[&str], rows: &[Vec<Cell>]) -> Done {
        let shown = Self {
            mode: match self.mode {
                Mode::Pipe => Mode::Terminal(usize::MAX),
                mode => mode,
            },
            ..*self
        };
        shown.table(columns, rows, None)
    }

    /// `text`, cut to what a line of the terminal has left beside `used` columns; whole elsewhere.
    pub(super) fn cut(&self, text: &str, used: usize) -> String {
        match self.mode {
            Mode::Terminal(width) => cut_to(text.to_owned(), width.saturating_sub(used).max(LEAST)),
            Mode::Pipe | Mode::Json => text.to_owned(),
        }
    }

    /// What [`Output::table`] prints.
    fn render(&self, columns: &[&str], rows: &[Vec<Cell>], cut: Option<usize>) -> Vec<u8> {
        let mut out = Vec::new();
        match self.mode {
            Mode::Json => {
                for row in rows {
                    let mut object = Map::new();
                    for (name, cell) in columns.iter().zip(row) {
                        cell.put_field(name, &mut object);
                    }
                    let line = serde_json::to_vec(&object).expect("a map of plain values");
                    out.extend_from_slice(&line);
                    out.push(b'\n');
                }
            }
            Mode::Pipe => {
                for row in rows {
                    for (index, cell) in row.iter().enumerate() {
                        if index > 0 {
                            out.push(b'\t');
                        }
                        out.extend_from_slice(&cell.bare());
                    }
                    out.push(b'\n');
                }
            }
            Mode::Terminal(width) => self.put_columns(&mut out, columns, rows, cut, width),
        }
        out
    }

    fn put_columns(
        &self,
        out: &mut Vec<u8>,
        columns: &[&str],
        rows: &[Vec<Cell>],
        cut: Option<usize>,
        width: usize,
    ) {
        let shown: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(Cell::shown).collect())
            .collect();
        let len = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = columns.iter().map(|name| len(name)).collect();
        for row in &shown {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(len(cell));
            }
        }
        let all = widths.iter().sum::<usize>() + 2 * columns.len().saturating_sub(1);
        if let Some(cut) = cut.filter(|_| all > width) {
            widths[cut] = widths[cut].saturating_sub(all - width).max(LEAST);
        }
        let to_right: Vec<bool> = (0..columns.len())
            .map(|index| {
                let mut cells = rows.iter().filter_map(|row| row.get(index));
                cells.any(Cell::is_number)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = String>| {
            let mut line = String::new();
            for (index, cell) in cells.enumerate() {
                let cell = cut_to(cell, widths[index]);
                let gap = " ".repeat(widths[index] - len(&cell));
                line.push_str(if index > 0 { "  " } else { "" });
                line.push_str(&if to_right[index] {
                    format!("{gap}{cell}")
                } else {
                    format!("{cell}{gap}")
                });
            }
            line.truncate(line.trim_end().len());
            line
        };
        let head = line(&mut columns.iter().map(|name| name.replace('_', " ")));
        // A write into memory does not fail.
        let _ = writeln!(out, "{}", self.paint(Style::Bold, &head));
        for row in shown {
            let _ = writeln!(out, "{}", line(&mut row.into_iter()));
        }
    }
}

/// At most `width` characters: what is cut off is said to be.
fn cut_to(text: String, width: usize) -> String {
    if text.chars().count() <= width {
        return text;
    }
    let mut text: String = text.chars().take(width.saturating_sub(2)).collect();
    text.push_str("..");
    text
}

/// Columns of the terminal.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { WIDTH } else { columns }
}

/// Bytes in the largest unit that leaves at least one.
pub(super) fn size(bytes: u64) -> String {
    let units = [
        ("TiB", 1u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(mode: Mode) -> Output {
        Output {
            mode,
            colours: false,
        }
    }

    fn rendered(mode: Mode, cut: Option<usize>) -> String {
        let rows = [
            vec![
                Cell::Bytes(Format::Text, b"k".to_vec()),
                Cell::Size(1536),
                true.into(),
            ],
            vec![
                Cell::Bytes(Format::Text, b"longer\0 than that".to_vec()),
                Cell::Size(7),
                Cell::None,
            ],
        ];
        let out = output(mode).render(&["key", "table_bytes", "hot"], &rows, cut);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_table_has_three_forms() {
        assert_eq!(
            rendered(Mode::Terminal(80), None),
            "key                     table bytes  hot\n\
             k                           1.5 KiB  yes\n\
             '\\:longer\\0 than that'          7 B  -\n"
        );
        assert_eq!(
            rendered(Mode::Pipe, None),
            "k\t1536\ttrue\nlonger\0 than that\t7\t\n"
        );
        assert_eq!(
            rendered(Mode::Json, None),
            "{\"hot\":true,\"key\":\"k\",\"table_bytes\":1536}\n\
             {\"hot\":null,\"key\":\"longer\\u0000 than that\",\"table_bytes\":7}\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_where_a_column_may_be_cut() {
        let text = rendered(Mode::Terminal(36), Some(0));
        assert!(
            text.lines().all(|line| line.chars().count() <= 36),
            "{text}"
        );
        assert!(text.contains("..  "), "what is cut says so: {text}");
    }

    #[test]
    fn there_is_no_colour_without_a_terminal() {
        let bare = output(Mode::Pipe);
        assert_eq!(bare.paint(Style::Bad, "x"), "x");
        let coloured = Output {
            mode: Mode::Terminal(80),
            colours: true,
        };
        assert_eq!(coloured.paint(Style::Bad, "x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_leaves_one() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
