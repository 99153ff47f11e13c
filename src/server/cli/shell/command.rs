//! The commands of the shell: one table of what they are called, take and do, and the way from a line to a [`Command`].
//!
//! Help, hints and completion read the same table.

use std::fmt::Write as _;

use basalt_client::KeyRange;

use super::words::{Split, Word, split};
use crate::{
    cli::text::{self, Format},
    config::nearest,
};

/// What a word stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Key,
    Value,
    Family,
    Command,
    /// `on` or `off`.
    Switch,
    Number,
}

/// A command: its name, its words (those in brackets may be missing), its flags with what follows them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) words: &'static [(&'static str, What)],
    pub(super) flags: &'static [(&'static str, Option<What>)],
    pub(super) about: &'static str,
    examples: &'static [&'static str],
}

const KEY: &[(&str, What)] = &[("KEY", What::Key)];
const START: &[(&str, What)] = &[("[START]", What::Key)];

/// Every command.
pub(super) const COMMANDS: &[Spec] = &[
    Spec {
        name: "get",
        words: KEY,
        flags: &[],
        about: "read a key",
        examples: &[
            "get user/1",
            "get '\\:user\\x00'       a key that is no text, as it is shown",
        ],
    },
    Spec {
        name: "put",
        words: &[("KEY", What::Key), ("VALUE", What::Value)],
        flags: &[],
        about: "write a key",
        examples: &["put user/1 Ada", "put greeting 'hello, world'"],
    },
    Spec {
        name: "delete",
        words: KEY,
        flags: &[],
        about: "delete a key; one that is missing is fine",
        examples: &["delete user/1"],
    },
    Spec {
        name: "delete-range",
        words: &[("[START]", What::Key), ("[END]", What::Key)],
        flags: &[
            ("--prefix", Some(What::Key)),
            ("--to-end", None),
            ("--yes", None),
        ],
        about: "delete every key of a range; asks first, with their number",
        examples: &[
            "delete-range a b              from a on, b stays",
            "delete-range --prefix user/",
            "delete-range z --to-end",
        ],
    },
    Spec {
        name: "scan",
        words: START,
        flags: &[
            ("--end", Some(What::Key)),
            ("--prefix", Some(What::Key)),
            ("--reverse", None),
            ("--keys-only", None),
            ("--limit", Some(What::Number)),
        ],
        about: "list pairs in the order of their keys",
        examples: &[
            "scan --prefix user/ --limit 10",
            "scan a --end b --keys-only",
            "scan --reverse --limit 1      the last pair there is",
        ],
    },
    Spec {
        name: "more",
        words: &[],
        flags: &[],
        about: "go on where the last scan ended",
        examples: &["more"],
    },
    Spec {
        name: "count",
        words: START,
        flags: &[("--end", Some(What::Key)), ("--prefix", Some(What::Key))],
        about: "count the keys of a range",
        examples: &["count", "count --prefix user/"],
    },
    Spec {
        name: "batch",
        words: &[],
        flags: &[],
        about: "begin changes that are done together; put, delete and delete-range wait for end",
        examples: &["batch", "put a 1", "delete b", "end"],
    },
    Spec {
        name: "end",
        words: &[],
        flags: &[],
        about: "do the changes of the batch, all of them or none",
        examples: &["end"],
    },
    Spec {
        name: "abort",
        words: &[],
        flags: &[],
        about: "forget the batch",
        examples: &["abort"],
    },
    Spec {
        name: "use",
        words: &[("FAMILY", What::Family)],
        flags: &[],
        about: "go to another column family",
        examples: &["use write", "use default"],
    },
    Spec {
        name: "families",
        words: &[],
        flags: &[],
        about: "list the column families",
        examples: &["families"],
    },
    Spec {
        name: "explain",
        words: KEY,
        flags: &[],
        about: "show where a get looks for a key, and what it finds (with --dir)",
        examples: &["explain user/1"],
    },
    Spec {
        name: "status",
        words: &[],
        flags: &[],
        about: "show how the server or the directory fares",
        examples: &["status"],
    },
    Spec {
        name: "timing",
        words: &[("on|off", What::Switch)],
        flags: &[],
        about: "show how long each command took",
        examples: &["timing on"],
    },
    Spec {
        name: "help",
        words: &[("[COMMAND]", What::Command)],
        flags: &[],
        about: "list the commands, or show one with examples",
        examples: &["help scan"],
    },
    Spec {
        name: "quit",
        words: &[],
        flags: &[],
        about: "end the shell; exit and Ctrl-D do too",
        examples: &["quit"],
    },
];

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Get(Vec<u8>),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange {
        range: KeyRange,
        yes: bool,
    },
    Scan {
        range: KeyRange,
        reverse: bool,
        keys_only: bool,
        limit: Option<u64>,
    },
    More,
    Count(KeyRange),
    Batch,
    End,
    Abort,
    Use(String),
    Families,
    Explain(Vec<u8>),
    Status,
    Timing(bool),
    Help(Option<&'static Spec>),
    Quit,
}

/// The command of that name.
pub(super) fn find(name: &str) -> Option<&'static Spec> {
    let name = if name == "exit" { "quit" } else { name };
    COMMANDS.iter().find(|spec| spec.name == name)
}

impl Spec {
    /// Words and flags behind the name, each with a space before it.
    pub(super) fn takes(&self) -> String {
        let mut text = String::new();
        for (word, _) in self.words {
            let _ = write!(text, " {word}");
        }
        for (flag, what) in self.flags {
            let _ = match what {
                None => write!(text, " [{flag}]"),
                Some(What::Number) => write!(text, " [{flag} N]"),
                Some(_) => write!(text, " [{flag} KEY]"),
            };
        }
        text
    }

    /// What `help COMMAND` prints.
    pub(super) fn help(&self) -> String {
        let mut text = format!(
            "{}{}\n  {}\n\nExamples:\n",
            self.name,
            self.takes(),
            self.about
        );
        for example in self.examples {
            let _ = writeln!(text, "  {example}");
        }
        text
    }
}

/// What `help` prints.
pub(super) fn overview() -> String {
    let mut text = String::new();
    for spec in COMMANDS {
        let _ = writeln!(text, "{:<13} {}", spec.name, spec.about);
    }
    text.push_str(
        "\nKeys and values with spaces stand in quotes; what is no text is written '\\:a\\x00', as it is shown.\n\
         help COMMAND has examples.\n",
    );
    text
}

/// What a line asks for; `None` where it says nothing: an empty line, or a remark behind `#`.
///
/// # Errors
///
/// One sentence: what is wrong with it.
pub(super) fn parse(line: &str, format: Format) -> Result<Option<Command>, String> {
    if line.trim_start().starts_with('#') {
        return Ok(None);
    }
    let Split { words, open, .. } = split(line);
    if let Some(quote) = open {
        return Err(format!("the quote {quote} has no end"));
    }
    let Some((name, rest)) = words.split_first() else {
        return Ok(None);
    };
    let spec = find(&name.text).ok_or_else(|| unknown(&name.text))?;
    let given = Given::new(spec, rest, format)?;
    Ok(Some(given.command()?))
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = COMMANDS.iter().map(|spec| spec.name).collect();
    let name: String = name.chars().take(64).collect();
    match nearest(&name, &names) {
        Some(near) => format!("there is no command {name:?}; did you mean {near:?}?"),
        None => format!("there is no command {name:?}; help lists them"),
    }
}

/// The words and flags of a command, sorted.
struct Given<'a> {
    spec: &'static Spec,
    format: Format,
    words: Vec<&'a Word>,
    flags: Vec<(&'static str, Option<&'a Word>)>,
}

impl<'a> Given<'a> {
    fn new(spec: &'static Spec, rest: &'a [Word], format: Format) -> Result<Self, String> {
        let (mut words, mut flags) = (Vec::new(), Vec::new());
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            let is_flag = !spec.flags.is_empty() && !word.is_quoted && word.text.starts_with("--");
            if !is_flag {
                words.push(word);
                continue;
            }
            let known = spec.flags.iter().find(|(flag, _)| *flag == word.text);
            let (flag, what) = known.ok_or_else(|| {
                let (name, flag) = (spec.name, &word.text);
                format!("{name} has no flag {flag:?}: {name}{}; a key that looks like one stands in quotes", spec.takes())
            })?;
            let value = match what {
                None => None,
                Some(_) => Some(
                    rest.next()
                        .ok_or_else(|| format!("{flag} wants a word behind it"))?,
                ),
            };
            flags.push((*flag, value));
        }
        let least = spec
            .words
            .iter()
            .filter(|(word, _)| !word.starts_with('['))
            .count();
        if words.len() < least || words.len() > spec.words.len() {
            let many = if words.len() < least {
                "too few"
            } else {
                "too many"
            };
            return Err(format!(
                "{many} words; it is: {}{}",
                spec.name,
                spec.takes()
            ));
        }
        Ok(Self {
            spec,
            format,
            words,
            flags,
        })
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|(known, _)| *known == flag)
    }

    fn bytes(&self, word: &Word) -> Result<Vec<u8>, String> {
        text::parse(self.format, &word.text)
    }

    /// The key or value at a place among the words.
    fn at(&self, place: usize) -> Result<Option<Vec<u8>>, String> {
        let word = self.words.get(place);
        word.map(|word| self.bytes(word)).transpose()
    }

    fn must(&self, place: usize) -> Result<Vec<u8>, String> {
        Ok(self.at(place)?.expect("the number of words was checked"))
    }

    fn text(&self, place: usize) -> &str {
        self.words.get(place).map_or("", |word| word.text.as_str())
    }

    /// What stands behind a flag.
    fn value(&self, flag: &str) -> Option<&'a Word> {
        let given = self.flags.iter().rev().find(|(known, _)| *known == flag);
        given.and_then(|(_, value)| *value)
    }

    fn key_of(&self, flag: &str) -> Result<Option<Vec<u8>>, String> {
        let word = self.value(flag);
        word.map(|word| self.bytes(word)).transpose()
    }

    /// `[START] [--end KEY]` or `--prefix KEY`.
    fn range(&self) -> Result<KeyRange, String> {
        let (start, end) = (self.at(0)?, self.key_of("--end")?);
        match self.key_of("--prefix")? {
            Some(_) if start.is_some() || end.is_some() => {
                Err("--prefix is a range of its own, without a first key and --end".to_owned())
            }
            Some(prefix) => Ok(KeyRange::prefix(prefix)),
            None => Ok(KeyRange::between(
                start.unwrap_or_default(),
                end.unwrap_or_default(),
            )),
        }
    }

    /// The range of a delete, which has two ends or says that it has none.
    fn range_to_delete(&self) -> Result<KeyRange, String> {
        let prefix = self.key_of("--prefix")?;
        match (prefix, self.at(0)?, self.at(1)?, self.has("--to-end")) {
            (Some(prefix), None, None, false) => Ok(KeyRange::prefix(prefix)),
            (None, Some(start), None, true) => Ok(KeyRange::from(start)),
            // An empty end would be none.
            (None, Some(start), Some(end), false) if start < end => {
                Ok(KeyRange::between(start, end))
            }
            (None, Some(_), Some(_), false) => {
                Err("no key is behind the first and before the second".to_owned())
            }
            _ => Err("a range is START END, or --prefix KEY, or START --to-end".to_owned()),
        }
    }

    fn limit(&self) -> Result<Option<u64>, String> {
        let Some(word) = self.value("--limit") else {
            return Ok(None);
        };
        match word.text.parse() {
            Ok(limit) if limit > 0 => Ok(Some(limit)),
            _ => Err(format!(
                "--limit is a number from 1 on, not {:?}",
                word.text
            )),
        }
    }

    fn command(&self) -> Result<Command, String> {
        Ok(match self.spec.name {
            "get" => Command::Get(self.must(0)?),
            "put" => Command::Put(self.must(0)?, self.must(1)?),
            "delete" => Command::Delete(self.must(0)?),
            "delete-range" => Command::DeleteRange {
                range: self.range_to_delete()?,
                yes: self.has("--yes"),
            },
            "scan" => Command::Scan {
                range: self.range()?,
                reverse: self.has("--reverse"),
                keys_only: self.has("--keys-only"),
                limit: self.limit()?,
            },
            "more" => Command::More,
            "count" => Command::Count(self.range()?),
            "batch" => Command::Batch,
            "end" => Command::End,
            "abort" => Command::Abort,
            "use" => Command::Use(self.text(0).to_owned()),
            "families" => Command::Families,
            "explain" => Command::Explain(self.must(0)?),
            "status" => Command::Status,
            "timing" => match self.text(0) {
                "on" => Command::Timing(true),
                "off" => Command::Timing(false),
                other => return Err(format!("timing is on or off, not {other:?}")),
            },
            "help" => match self.text(0) {
                "" => Command::Help(None),
                name => Command::Help(Some(find(name).ok_or_else(|| unknown(name))?)),
            },
            "quit" => Command::Quit,
            name => unreachable!("{name} is in the table"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Command {
        parse(line, Format::Text).unwrap().unwrap()
    }

    fn refusal(line: &str) -> String {
        parse(line, Format::Text).unwrap_err()
    }

    #[test]
    fn each_command_parses_its_own_examples_and_has_help() {
        for spec in COMMANDS {
            assert!(!spec.examples.is_empty(), "{}", spec.name);
            for example in spec.examples {
                // What stands behind many spaces says what it does.
                let line = example.split("   ").next().unwrap();
                assert!(parse(line, Format::Text).unwrap().is_some(), "{line}");
            }
            assert!(spec.help().contains(spec.examples[0]));
            assert!(overview().contains(spec.about));
        }
    }

    #[test]
    fn lines_become_commands() {
        assert_eq!(parse("", Format::Text), Ok(None));
        assert_eq!(parse("  # get a", Format::Text), Ok(None));
        assert_eq!(parsed("get 'a b'"), Command::Get(b"a b".to_vec()));
        assert_eq!(
            parsed("put k --v"),
            Command::Put(b"k".to_vec(), b"--v".to_vec())
        );
        assert_eq!(parsed("get '\\:a\\0'"), Command::Get(b"a\0".to_vec()));
        assert_eq!(
            parse("get 6100", Format::Hex),
            Ok(Some(Command::Get(b"a\0".to_vec())))
        );
        let scan = Command::Scan {
            range: KeyRange::between("--a", "z"),
            reverse: true,
            keys_only: false,
            limit: Some(3),
        };
        assert_eq!(parsed("scan '--a' --limit 3 --end z --reverse"), scan);
        assert_eq!(
            parsed("count --prefix u/"),
            Command::Count(KeyRange::prefix("u/"))
        );
        let delete = |range, yes| Command::DeleteRange { range, yes };
        assert_eq!(
            parsed("delete-range a b"),
            delete(KeyRange::between("a", "b"), false)
        );
        assert_eq!(
            parsed("delete-range a --to-end --yes"),
            delete(KeyRange::from("a"), true)
        );
        assert_eq!(parsed("exit"), Command::Quit);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_right() {
        assert!(refusal("gte a").contains("did you mean \"get\""));
        assert!(refusal("get").contains("get KEY"));
        assert!(refusal("put a b c").contains("too many"));
        assert!(refusal("put a 'b").contains("no end"));
        assert!(refusal("scan --ende b").contains("--end KEY"));
        assert!(refusal("scan --end").contains("wants a word"));
        assert!(refusal("scan a --prefix b").contains("--prefix"));
        for limit in ["0", "x", "-1"] {
            assert!(refusal(&format!("scan --limit {limit}")).contains("from 1 on"));
        }
        for wrong in [
            "delete-range",
            "delete-range a",
            "delete-range a b --to-end",
            "delete-range a --prefix b",
        ] {
            assert!(refusal(wrong).contains("a range is"), "{wrong}");
        }
        assert!(refusal("delete-range b a").contains("no key"));
        assert!(refusal("delete-range a ''").contains("no key"));
        assert!(refusal("timing maybe").contains("on or off"));
        assert!(parse("get 6", Format::Hex).is_err());
    }
}
