//! A run of the shell: which family it is in, the batch that is open, where the last scan ended, and what each line does.

use std::{io::Write as _, rc::Rc, time::Instant};

use basalt_client::{Batch, KeyRange};
use bytes::Bytes;

use super::{
    command::{Command, Spec, overview, parse},
    source::{Source, Wanted},
};
use crate::cli::{
    Done, Failure, confirm,
    output::{Output, Style},
    print,
    scan::{Lines, WRITE_LEN},
    text::{self, Format},
};

/// Pairs that a scan shows to a person where no limit is given.
const SHOWN: u64 = 50;
/// Pairs that are asked for together where all are printed: with the one that says whether there is more, a page of the
/// client.
const TOGETHER: u64 = 999;

/// How the shell was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) format: Format,
    pub(super) output: Output,
    /// A person types; else lines come from a pipe.
    pub(super) is_interactive: bool,
    /// Nothing is asked.
    pub(super) yes: bool,
}

/// Changes that wait for `end`.
struct Open {
    batch: Batch,
    /// The line that began it.
    line: usize,
    /// The first of its lines that was wrong: then it is not done.
    broken: Option<usize>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    Quit,
}

pub(super) struct Session {
    source: Rc<dyn Source>,
    settings: Settings,
    family: String,
    open: Option<Open>,
    /// The last scan, where it goes on, and how many pairs it shows.
    rest: Option<(Wanted, u64)>,
    timing: bool,
}

impl Session {
    pub(super) fn new(
        source: Rc<dyn Source>,
        family: &str,
        settings: Settings,
    ) -> Result<Self, Failure> {
        let mut session = Self {
            source,
            settings,
            family: String::new(),
            open: None,
            rest: None,
            timing: false,
        };
        session.go_to(family)?;
        Ok(session)
    }

    pub(super) fn family(&self) -> &str {
        &self.family
    }

    /// What a person is shown before a line.
    pub(super) fn prompt(&self) -> String {
        match (&self.open, self.family.as_str()) {
            (Some(open), "default") => format!("batch({})> ", open.batch.len()),
            (Some(open), family) => format!("batch:{family}({})> ", open.batch.len()),
            (None, "default") => "basalt> ".to_owned(),
            (None, family) => format!("basalt:{family}> "),
        }
    }

    /// Does what a line says; `number` is the line's, from 1 on.
    pub(super) fn run(&mut self, line: &str, number: usize) -> Result<Next, Failure> {
        let began = Instant::now();
        let done = self.parse_and_do(line, number);
        if let (Err(_), Some(open), false) = (&done, &mut self.open, self.settings.is_interactive) {
            // Nobody sees which line was wrong before `end` comes.
            open.broken.get_or_insert(number);
        }
        if self.timing {
            let text = format!("{:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
            self.tell(&text);
        }
        done
    }

    /// A line that cannot be read as text is wrong.
    pub(super) fn refuse(&mut self, what: &str, number: usize) -> Result<Next, Failure> {
        if let Some(open) = &mut self.open {
            open.broken.get_or_insert(number);
        }
        Err(Failure::usage(what))
    }

    /// The last line is done.
    pub(super) fn end(&mut self) -> Done {
        match self.open.take() {
            None => Ok(()),
            Some(open) if self.settings.is_interactive => {
                self.tell(&format!(
                    "the batch had no end: none of its {} is done",
                    changes(open.batch.len())
                ));
                Ok(())
            }
            Some(open) => Err(Failure::world(format!(
                "the batch of line {} has no end; nothing of it is done",
                open.line
            ))),
        }
    }

    fn parse_and_do(&mut self, line: &str, number: usize) -> Result<Next, Failure> {
        let command = parse(line, self.settings.format).map_err(Failure::usage)?;
        let Some(command) = command else {
            return Ok(Next::GoOn);
        };
        match command {
            Command::Quit => return Ok(Next::Quit),
            Command::Get(key) => self.get(&key)?,
            Command::Put(key, value) => {
                let (key, value) = (Bytes::from(key), Bytes::from(value));
                self.change(|batch| batch.add_put(key.clone(), value.clone()))?;
            }
            Command::Delete(key) => {
                let key = Bytes::from(key);
                self.change(|batch| batch.add_delete(key.clone()))?;
            }
            Command::DeleteRange { range, yes } => self.delete_range(range, yes)?,
            Command::Scan {
                range,
                reverse,
                keys_only,
                limit,
            } => self.scan(
                Wanted {
                    family: self.family.clone(),
                    range,
                    reverse,
                    keys_only,
                },
                limit,
            )?,
            Command::More => {
                let (wanted, limit) = self
                    .rest
                    .take()
                    .ok_or_else(|| Failure::usage("there is no more"))?;
                self.scan(wanted, Some(limit))?;
            }
            Command::Count(range) => {
                let count = self.source.count(&self.family, range)?;
                print(format!("{count}\n").as_bytes())?;
            }
            Command::Batch => self.begin(number)?,
            Command::End => self.write_batch()?,
            Command::Abort => {
                let open = self.open.take().ok_or_else(no_batch)?;
                self.say(&format!("forgotten: {}", changes(open.batch.len())))?;
            }
            Command::Use(family) => self.go_to(&family)?,
            Command::Families => print(lines(&self.source.families()).as_bytes())?,
            Command::Explain(key) => print(self.source.explain(&self.family, &key)?.as_bytes())?,
            Command::Status => print(self.source.status()?.as_bytes())?,
            Command::Timing(on) => self.timing = on,
            Command::Help(spec) => print(spec.map_or_else(overview, Spec::help).as_bytes())?,
        }
        Ok(Next::GoOn)
    }

    fn go_to(&mut self, family: &str) -> Done {
        let known = self.source.families();
        if !known.iter().any(|known| known == family) {
            let known = known.join(", ");
            return Err(Failure::usage(format!(
                "there is no family {family:?}; there are {known}"
            )));
        }
        family.clone_into(&mut self.family);
        if let Some(open) = &mut self.open {
            open.batch.set_family(family);
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Done {
        let Settings { format, output, .. } = self.settings;
        let Some(value) = self.source.get(&self.family, key)? else {
            // No error: a script may ask whether a key is there.
            self.tell(&format!("{} is not there", text::shown(format, key)));
            return Ok(());
        };
        let mut line = match format {
            Format::Text if !output.is_terminal() => value.to_vec(),
            format if output.is_terminal() => text::shown(format, &value).into_bytes(),
            format => text::show(format, &value).into_bytes(),
        };
        line.push(b'\n');
        print(&line)
    }

    /// Makes a change, at once or with the batch that is open.
    fn change(&mut self, add: impl Fn(&mut Batch)) -> Done {
        self.source.check_writable()?;
        let mut alone = Batch::new().family(&self.family);
        add(&mut alone);
        let Some(open) = &mut self.open else {
            self.source.write(alone)?;
            return self.say("ok");
        };
        if open.batch.bytes() + alone.bytes() > Batch::MAX_BYTES {
            return Err(Failure::usage(format!(
                "a batch has at most {} bytes; this change does not fit any more",
                Batch::MAX_BYTES
            )));
        }
        add(&mut open.batch);
        Ok(())
    }

    fn delete_range(&mut self, range: KeyRange, yes: bool) -> Done {
        self.source.check_writable()?;
        if !yes && !self.settings.yes {
            let format = self.settings.format;
            let shown = |key: &[u8]| text::shown(format, key);
            let what = match range.end.is_empty() {
                true => format!("from {} to the last", shown(&range.start)),
                false => format!("from {} up to {}", shown(&range.start), shown(&range.end)),
            };
            let count = self.source.count(&self.family, range.clone())?;
            let keys = if count == 1 { "key" } else { "keys" };
            let family = &self.family;
            confirm(
                false,
                &format!("delete {count} {keys} of family {family}, {what}"),
            )?;
        }
        self.change(|batch| batch.add_delete_range(range.clone()))
    }

    fn begin(&mut self, line: usize) -> Done {
        self.source.check_writable()?;
        if let Some(open) = &self.open {
            let begun = open.line;
            return Err(Failure::usage(format!(
                "the batch of line {begun} is open: end or abort it"
            )));
        }
        self.open = Some(Open {
            batch: Batch::new().family(&self.family),
            line,
            broken: None,
        });
        Ok(())
    }

    fn write_batch(&mut self) -> Done {
        let open = self.open.take().ok_or_else(no_batch)?;
        if let Some(line) = open.broken {
            let text = format!("nothing of the batch is done: its line {line} is wrong");
            return Err(Failure::world(text));
        }
        let done = changes(open.batch.len());
        self.source.write(open.batch)?;
        self.say(&format!("ok, {done}"))
    }

    fn scan(&mut self, mut wanted: Wanted, limit: Option<u64>) -> Done {
        let Settings {
            format,
            output,
            is_interactive,
            ..
        } = self.settings;
        let lines = Lines {
            format,
            keys_only: wanted.keys_only,
            output,
        };
        let shown = limit.or(is_interactive.then_some(SHOWN));
        let mut left = shown.unwrap_or(u64::MAX);
        let mut text = Vec::new();
        self.rest = None;
        loop {
            let page = self.source.page(&wanted, left.min(TOGETHER))?;
            left -= page.pairs.len() as u64;
            for pair in &page.pairs {
                lines.put(&mut text, pair);
            }
            let Some(rest) = page.rest else { break };
            wanted.range = rest;
            if left == 0 {
                self.rest = Some((wanted, shown.unwrap_or(SHOWN)));
                break;
            }
            if text.len() >= WRITE_LEN {
                print(&text)?;
                text.clear();
            }
        }
        print(&text)?;
        if self.rest.is_some() && is_interactive {
            self.tell("there is more: more");
        }
        Ok(())
    }

    /// That something is done: for a person.
    fn say(&self, text: &str) -> Done {
        match self.settings.is_interactive {
            true => print(format!("{text}\n").as_bytes()),
            false => Ok(()),
        }
    }

    /// Talk beside the data.
    fn tell(&self, text: &str) {
        let text = match self.settings.is_interactive {
            true => self.settings.output.paint(Style::Dim, text),
            false => text.to_owned(),
        };
        // Nobody reads: then nobody misses it.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

fn no_batch() -> Failure {
    Failure::usage("there is no batch; batch begins one")
}

fn changes(count: usize) -> String {
    match count {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    }
}

fn lines(names: &[String]) -> String {
    names.iter().map(|name| format!("{name}\n")).collect()
}
