//! Data files of commands and the output that they must have: reading, running, comparing, and writing them anew.
//!
//! ```text
//! # comment
//! command argument key=value key=(value,value)
//! input, any number of lines
//! ----
//! output up to an empty line
//!
//! command
//! ----
//! ----
//! output that may hold
//!
//! empty lines
//! ----
//! ----
//! ```
//!
//! What the commands mean is not known here.

use std::{fmt::Write as _, fs, path::Path};

const SEPARATOR: &str = "----";

/// An argument of a command: a word (no values), or a key with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
}

/// A command with its arguments and input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where it stands in its file, from 1.
    pub(crate) line: usize,
    pub(crate) command: String,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) input: String,
    pub(crate) expected: String,
    /// Everything from the end of the step before up to the separator.
    before: String,
}

impl Step {
    /// The arguments without values, in order.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let words = self.arguments.iter().filter(|a| a.values.is_empty());
        words.map(|argument| argument.key.as_str())
    }

    /// The arguments with a value, once for each of their values.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.arguments.iter().flat_map(|argument| {
            let values = argument.values.iter();
            values.map(|value| (argument.key.as_str(), value.as_str()))
        })
    }

    /// The value of the option `key`.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        let mut options = self.options();
        options.find_map(|(name, value)| (name == key).then_some(value))
    }
}

fn arguments(line: &str) -> Vec<Argument> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut inside = false;
    for c in line.chars() {
        match c {
            ' ' | '\t' if !inside => words.push(std::mem::take(&mut word)),
            _ => {
                inside = (inside || c == '(') && c != ')';
                word.push(c);
            }
        }
    }
    words.push(word);
    let words = words.into_iter().filter(|word| !word.is_empty());
    let arguments = words.map(|word| {
        let Some((key, value)) = word.split_once('=') else {
            return Argument {
                key: word,
                values: Vec::new(),
            };
        };
        let list = value.strip_prefix('(').and_then(|v| v.strip_suffix(')'));
        let values = match list {
            Some(list) => list.split(',').map(|one| one.trim().to_owned()).collect(),
            None => vec![value.to_owned()],
        };
        Argument {
            key: key.to_owned(),
            values,
        }
    });
    arguments.collect()
}

/// A data file: its steps, and what stands behind the last one.
pub(crate) struct File {
    pub(crate) steps: Vec<Step>,
    behind: String,
}

/// Takes the lines of a text one by one.
struct Lines<'a> {
    rest: Vec<&'a str>,
    next: usize,
}

impl<'a> Lines<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.rest.get(self.next).copied()
    }

    fn take(&mut self) -> Option<&'a str> {
        let line = self.peek();
        self.next += 1;
        line
    }

    fn take_or_fail(&mut self, what: &str) -> &'a str {
        let line = self.next + 1;
        self.take()
            .unwrap_or_else(|| panic!("line {line}: the file ends, {what} is missing"))
    }
}

/// Reads the text of a data file.
pub(crate) fn parse(text: &str) -> File {
    let mut lines = Lines {
        rest: text.lines().collect(),
        next: 0,
    };
    let mut steps = Vec::new();
    let mut before = String::new();
    while let Some(line) = lines.take() {
        before.push_str(line);
        before.push('\n');
        let directive = line.trim();
        if directive.is_empty() || directive.starts_with('#') {
            continue;
        }
        let place = lines.next;
        let mut directive = directive.to_owned();
        while let Some(cut) = directive.strip_suffix('\\') {
            let more = lines.take_or_fail("the rest of a command");
            let _ = writeln!(before, "{more}");
            directive = format!("{} {}", cut.trim(), more.trim());
        }
        let mut words = arguments(&directive);
        let command = words.remove(0).key;
        let mut input = String::new();
        loop {
            let line = lines.take_or_fail("the separator of a command");
            if line == SEPARATOR {
                break;
            }
            let _ = writeln!(before, "{line}");
            let _ = writeln!(input, "{line}");
        }
        steps.push(Step {
            line: place,
            command,
            arguments: words,
            input,
            expected: expected(&mut lines),
            before: std::mem::take(&mut before),
        });
    }
    File {
        steps,
        behind: before,
    }
}

fn expected(lines: &mut Lines<'_>) -> String {
    let mut output = String::new();
    if lines.peek() == Some(SEPARATOR) {
        lines.take();
        loop {
            let line = lines.take_or_fail("the end of an output");
            if line == SEPARATOR && lines.peek() == Some(SEPARATOR) {
                lines.take();
                return output;
            }
            let _ = writeln!(output, "{line}");
        }
    }
    while let Some(line) = lines.peek().filter(|line| !line.trim().is_empty()) {
        let _ = writeln!(output, "{line}");
        lines.take();
    }
    output
}

impl File {
    /// The text of the file with these outputs.
    pub(crate) fn with_outputs(&self, outputs: &[String]) -> String {
        let mut text = String::new();
        for (step, output) in self.steps.iter().zip(outputs) {
            let _ = writeln!(text, "{}{SEPARATOR}", step.before);
            if output.lines().any(|line| line.trim().is_empty()) {
                let _ = write!(text, "{SEPARATOR}\n{output}{SEPARATOR}\n{SEPARATOR}\n");
            } else {
                text.push_str(output);
            }
        }
        text.push_str(&self.behind);
        text
    }
}

/// Both texts line by line: `-` only expected, `+` only actual.
pub(crate) fn diff(expected: &str, actual: &str) -> String {
    let left: Vec<&str> = expected.lines().collect();
    let right: Vec<&str> = actual.lines().collect();
    // The longest common subsequence of what is behind (i, j).
    let mut common = vec![vec![0_usize; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            common[i][j] = if left[i] == right[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < left.len() || j < right.len() {
        let (mark, line) = if i < left.len() && j < right.len() && left[i] == right[j] {
            (i, j) = (i + 1, j + 1);
            (' ', left[i - 1])
        } else if i < left.len() && (j == right.len() || common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', left[i - 1])
        } else {
            j += 1;
            ('+', right[j - 1])
        };
        let _ = writeln!(text, "  {mark} {line}");
    }
    text
}

/// What came of a file.
pub(crate) struct Outcome {
    pub(crate) steps: usize,
    /// A text for each failure.
    pub(crate) failures: Vec<String>,
}

/// Runs each step of the file at `path` through `run`, and compares. With `rewrite` the file gets the
/// actual outputs instead.
pub(crate) fn run_file(
    path: &Path,
    rewrite: bool,
    mut run: impl FnMut(&Step) -> String,
) -> Outcome {
    let name = path.display();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let file = parse(&text);
    let mut outcome = Outcome {
        steps: 0,
        failures: Vec::new(),
    };
    if file.steps.is_empty() {
        outcome.failures.push(format!("{name}: no step in it"));
    }
    let mut outputs = Vec::new();
    for step in &file.steps {
        let run = std::panic::AssertUnwindSafe(|| run(step));
        let result = std::panic::catch_unwind(run);
        outcome.steps += 1;
        let panicked = result.is_err();
        let mut actual = result.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("of another kind"))
        });
        if !actual.is_empty() && !actual.ends_with('\n') {
            actual.push('\n');
        }
        if panicked || (actual != step.expected && !rewrite) {
            let diff = diff(&step.expected, &actual);
            let at = format!("{name}:{}: {}", step.line, step.command);
            outcome.failures.push(format!("{at}\n{diff}"));
        }
        if panicked {
            break;
        }
        outputs.push(actual);
    }
    if rewrite && outcome.failures.is_empty() {
        let new = file.with_outputs(&outputs);
        if new != text {
            fs::write(path, new).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    outcome
}

mod tests {
    use super::*;

    const FILE: &str = "\
# what it is about

add 2 voters=(1, 2) index=10 \\
    quietly
----
one
two

say
hello
world
----
----
a

b
----
----


# the end
";

    #[test]
    fn a_data_file_has_commands_arguments_input_and_outputs() {
        let file = parse(FILE);
        let [add, say] = &file.steps[..] else {
            panic!("{} steps", file.steps.len());
        };
        assert_eq!((add.line, add.command.as_str()), (3, "add"));
        assert_eq!(add.words().collect::<Vec<_>>(), ["2", "quietly"]);
        let options: Vec<_> = add.options().collect();
        assert_eq!(options, [("voters", "1"), ("voters", "2"), ("index", "10")]);
        assert_eq!(
            (add.input.as_str(), add.expected.as_str()),
            ("", "one\ntwo\n")
        );
        assert_eq!(say.line, 9);
        assert_eq!(
            (say.input.as_str(), say.expected.as_str()),
            ("hello\nworld\n", "a\n\nb\n")
        );
    }

    #[test]
    fn writing_a_data_file_anew_changes_outputs_alone() {
        let file = parse(FILE);
        let same = ["one\ntwo\n", "a\n\nb\n"].map(str::to_owned);
        assert_eq!(file.with_outputs(&same), FILE);
        let other = ["one\n\ntwo\n", "c\n"].map(str::to_owned);
        let expected = FILE
            .replace("----\none\ntwo\n", "----\n----\none\n\ntwo\n----\n----\n")
            .replace("----\n----\na\n\nb\n----\n----\n", "----\nc\n");
        assert_eq!(file.with_outputs(&other), expected);
    }

    #[test]
    #[should_panic(expected = "line 2: the file ends, the separator of a command is missing")]
    fn a_command_without_an_output_is_refused() {
        parse("say hello\n");
    }

    #[test]
    fn a_difference_is_shown_line_by_line() {
        let shown = diff("a\nb\nc\n", "a\nx\nc\nd\n");
        assert_eq!(shown, "    a\n  - b\n  + x\n    c\n  + d\n");
    }

    #[test]
    fn a_wrong_step_and_a_panic_each_fail_their_file() {
        let folder = std::env::temp_dir().join(format!("datadriven-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("two_steps.txt");
        fs::write(&path, FILE).unwrap();
        let right = |step: &Step| step.expected.trim_end().to_owned();
        let outcome = run_file(&path, false, right);
        assert_eq!((outcome.steps, outcome.failures.len()), (2, 0));
        let outcome = run_file(&path, false, |_| "else".to_owned());
        assert_eq!((outcome.steps, outcome.failures.len()), (2, 2));
        assert!(outcome.failures[0].contains("two_steps.txt:3: add"));
        // A panic leaves nothing to go on with.
        let outcome = run_file(&path, false, |_| panic!("at once"));
        assert_eq!((outcome.steps, outcome.failures.len()), (1, 1));
        assert!(outcome.failures[0].contains("panic: at once"));
        fs::write(&path, "# nothing\n").unwrap();
        assert_eq!(run_file(&path, false, right).failures.len(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
