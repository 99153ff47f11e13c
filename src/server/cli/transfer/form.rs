//! The forms of files with pairs: JSON lines, CSV, binary.
//!
//! Binary: the eight bytes `BSLTKV01`, then blocks: CRC-32 of all that follows of the block (4 bytes, little-endian,
//! like all numbers here), length of the payload in bytes (4), pairs in it (4), payload: for each pair the length of its
//! key (4), of its value (4), key, value. Behind the last one stands a block without pairs whose payload is the number
//! of all pairs (8). A file without that one was cut off.
//!
//! CSV: the line `key,value`, then a line each pair, `\r\n` or `\n` at its end; fields in the syntax of the command line
//! (`text`), in double quotes where they have a comma, a quote or a line end.
//! JSON lines: `{"key":..,"value":..}`, or `key_hex`, `key_escaped`, `value_hex`, `value_escaped`.

use std::io::{self, BufRead, Read, Write};

use basalt_client::Pair;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    cli::text::{self, Format},
    limits::{MAX_KEY_LEN, MAX_VALUE_LEN},
};

const MAGIC: &[u8; 8] = b"BSLTKV01";
/// First line of the form CSV.
const CSV_HEAD: &str = "key,value\n";
/// Bytes before a block's payload.
const HEAD_LEN: usize = 12;
/// Bytes of a block, from which on it is written.
const BLOCK_LEN: usize = 64 << 10;
/// Longest payload that is read: one pair of the largest, behind one that just did not fill the block.
const MAX_BLOCK_LEN: usize = BLOCK_LEN + MAX_KEY_LEN + MAX_VALUE_LEN + 64;
/// Longest line of a text: a largest pair with every byte escaped.
const MAX_LINE_LEN: u64 = 6 * (MAX_KEY_LEN as u64 + MAX_VALUE_LEN as u64);

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Jsonl,
    Csv,
    Binary,
}

/// Writes pairs.
pub(super) struct Writer<W> {
    form: Form,
    out: W,
    /// The payload of the block that is not written yet, and its pairs.
    block: Vec<u8>,
    in_block: u32,
    pairs: u64,
}

impl<W: Write> Writer<W> {
    /// A new file.
    pub(super) fn begin(form: Form, mut out: W) -> io::Result<Self> {
        match form {
            Form::Jsonl => {}
            Form::Csv => out.write_all(CSV_HEAD.as_bytes())?,
            Form::Binary => out.write_all(MAGIC)?,
        }
        Ok(Self::go_on(form, out, 0))
    }

    /// Behind what a file has already.
    pub(super) fn go_on(form: Form, out: W, pairs: u64) -> Self {
        Self {
            form,
            out,
            block: Vec::new(),
            in_block: 0,
            pairs,
        }
    }

    pub(super) fn put(&mut self, pair: &Pair) -> io::Result<()> {
        self.pairs += 1;
        match self.form {
            Form::Jsonl => {
                let mut object = Map::new();
                for (name, bytes) in [("key", &pair.key), ("value", &pair.value)] {
                    let (name, text) = text::field(name, Format::Text, bytes);
                    object.insert(name, Value::String(text));
                }
                let line = serde_json::to_vec(&object).expect("a map of texts");
                self.out.write_all(&line)?;
                self.out.write_all(b"\n")
            }
            Form::Csv => {
                let (key, value) = (quoted(&pair.key), quoted(&pair.value));
                writeln!(self.out, "{key},{value}")
            }
            Form::Binary => {
                for bytes in [&pair.key, &pair.value] {
                    let len = u32::try_from(bytes.len()).expect("within the server's limits");
                    self.block.extend_from_slice(&len.to_le_bytes());
                }
                self.block.extend_from_slice(&pair.key);
                self.block.extend_from_slice(&pair.value);
                self.in_block += 1;
                match self.block.len() >= BLOCK_LEN {
                    true => self.end_block(),
                    false => Ok(()),
                }
            }
        }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.block.len()).expect("a block is below 4 GiB");
        let mut head = [0; HEAD_LEN];
        head[4..8].copy_from_slice(&len.to_le_bytes());
        head[8..].copy_from_slice(&self.in_block.to_le_bytes());
        let crc = checksum(&head[4..], &self.block);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        self.out.write_all(&head)?;
        self.out.write_all(&self.block)?;
        self.block.clear();
        self.in_block = 0;
        Ok(())
    }

    /// Ends the file; what it was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.form == Form::Binary {
            if self.in_block > 0 {
                self.end_block()?;
            }
            self.block.extend_from_slice(&self.pairs.to_le_bytes());
            self.end_block()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// A field of CSV.
fn quoted(bytes: &[u8]) -> String {
    let text = text::show(Format::Text, bytes);
    match text.contains([',', '"']) || text.starts_with(' ') || text.ends_with(' ') {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// Reads pairs, from the first one on.
pub(super) struct Reader<R> {
    form: Form,
    input: R,
    /// What was read, of the binary form: the payload of a block.
    block: Bytes,
    /// Lines, or pairs, that were read.
    at: u64,
    /// Bytes up to the end of the last whole pair, or block.
    end: u64,
    /// It begins as its form does.
    has_begun: bool,
    /// The last line has an end.
    ends_line: bool,
    is_whole: bool,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(form: Form, input: R) -> Self {
        Self {
            form,
            input,
            block: Bytes::new(),
            at: 0,
            end: 0,
            has_begun: false,
            ends_line: false,
            is_whole: false,
        }
    }

    /// The next pair; `None` at the end.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, and where.
    pub(super) fn next(&mut self) -> Result<Option<Pair>, String> {
        match self.form {
            Form::Binary => self.next_of_block(),
            Form::Jsonl => loop {
                let Some(line) = self.line()? else {
                    self.is_whole = true;
                    return Ok(None);
                };
                if !line.trim().is_empty() {
                    let pair = of_json(&line);
                    return pair.map(Some).map_err(|what| self.in_line(&what));
                }
            },
            Form::Csv => {
                if !self.has_begun {
                    let head = self.line()?.unwrap_or_default();
                    if head.trim_end() != CSV_HEAD.trim_end() {
                        return Err("the first line is not key,value".to_owned());
                    }
                    self.has_begun = self.ends_line;
                }
                self.next_of_csv()
            }
        }
    }

    fn in_line(&self, what: &str) -> String {
        format!("line {}: {what}", self.at)
    }

    /// A line with its end, where it has one.
    fn line(&mut self) -> Result<Option<String>, String> {
        let mut line = Vec::new();
        let read = self
            .input
            .by_ref()
            .take(MAX_LINE_LEN)
            .read_until(b'\n', &mut line);
        let read = read.map_err(|error| format!("cannot be read: {error}"))?;
        if read == 0 {
            return Ok(None);
        }
        self.at += 1;
        if read as u64 == MAX_LINE_LEN {
            return Err(self.in_line("is too long"));
        }
        self.end += read as u64;
        self.ends_line = line.ends_with(b"\n");
        let line = String::from_utf8(line);
        line.map(Some).map_err(|_| self.in_line("is no text"))
    }

    fn next_of_csv(&mut self) -> Result<Option<Pair>, String> {
        let Some(mut record) = self.line()? else {
            self.is_whole = true;
            return Ok(None);
        };
        // A quoted field may go over lines.
        while record.matches('"').count() % 2 == 1 {
            match self.line()? {
                Some(more) => record.push_str(&more),
                None => return Err(self.in_line("a quote has no end")),
            }
        }
        let fields = fields(record.trim_end_matches(['\n', '\r']));
        let [key, value] = &fields[..] else {
            return Err(self.in_line(&format!("{} fields, not a key and a value", fields.len())));
        };
        let parse = |field: &str| text::parse(Format::Text, field).map(Bytes::from);
        let pair = parse(key).and_then(|key| {
            let value = parse(value)?;
            Ok(Pair { key, value })
        });
        pair.map(Some).map_err(|what| self.in_line(&what))
    }

    fn next_of_block(&mut self) -> Result<Option<Pair>, String> {
        if !self.has_begun {
            let mut magic = [0; MAGIC.len()];
            let read = self.input.read_exact(&mut magic);
            if read.is_err() || magic != *MAGIC {
                return Err("it is no binary export".to_owned());
            }
            self.has_begun = true;
            self.end = MAGIC.len() as u64;
        }
        if self.is_whole {
            return Ok(None);
        }
        if self.block.is_empty() && !self.read_block()? {
            return Ok(None);
        }
        self.at += 1;
        let damaged = || "a block contradicts itself".to_owned();
        let len = |bytes: &Bytes, at: usize| {
            let len = bytes.get(at..at + 4).and_then(|len| len.try_into().ok());
            len.map(|len| u32::from_le_bytes(len) as usize)
        };
        let lens = len(&self.block, 0).zip(len(&self.block, 4));
        let (key_len, value_len) = lens.ok_or_else(damaged)?;
        if self.block.len() < 8 + key_len + value_len {
            return Err(damaged());
        }
        let _ = self.block.split_to(8);
        let key = self.block.split_to(key_len);
        let value = self.block.split_to(value_len);
        Ok(Some(Pair { key, value }))
    }

    /// Whether there is another block with pairs.
    fn read_block(&mut self) -> Result<bool, String> {
        let cut = |_| format!("it is cut off behind {} pairs", self.at);
        let mut head = [0; HEAD_LEN];
        self.input.read_exact(&mut head).map_err(cut)?;
        let number = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&head[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        let (crc, len, pairs) = (number(0), number(4) as usize, number(8));
        let damaged = || format!("it is damaged behind {} pairs", self.at);
        if len > MAX_BLOCK_LEN {
            return Err(damaged());
        }
        let mut payload = vec![0; len];
        self.input.read_exact(&mut payload).map_err(cut)?;
        if checksum(&head[4..], &payload) != crc {
            return Err(damaged());
        }
        if pairs > 0 {
            self.end += (HEAD_LEN + len) as u64;
            self.block = payload.into();
            return Ok(true);
        }
        let all = payload.try_into().map(u64::from_le_bytes);
        if all != Ok(self.at) {
            return Err(format!("it has {} pairs and says otherwise", self.at));
        }
        self.is_whole = true;
        Ok(false)
    }
}

/// A pair of an object.
fn of_json(line: &str) -> Result<Pair, String> {
    let object: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| format!("no object: {error}"))?;
    let field = |name: &str| {
        let forms = [
            (name.to_owned(), None),
            (format!("{name}_hex"), Some(Format::Hex)),
            (format!("{name}_escaped"), Some(Format::Escaped)),
        ];
        let mut found = forms.iter().filter_map(|(name, form)| {
            let text = object.get(name)?.as_str()?;
            Some(match form {
                None => Ok(text.as_bytes().to_vec()),
                Some(form) => text::parse(*form, text),
            })
        });
        let found = found
            .next()
            .unwrap_or_else(|| Err(format!("no text {name:?}")));
        found.map(Bytes::from)
    };
    Ok(Pair {
        key: field("key")?,
        value: field("value")?,
    })
}

/// The fields of a record of CSV.
fn fields(record: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut letters = record.chars().peekable();
    let mut is_quoted = false;
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("there is one from the start");
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            letter => field.push(letter),
        }
    }
    fields
}

/// How far a file goes that was cut off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes up to which it is whole.
    pub(super) end: u64,
    pub(super) pairs: u64,
    /// The last key in them.
    pub(super) last: Option<Bytes>,
    /// Nothing is missing, as far as the form says that.
    pub(super) is_whole: bool,
}

/// Looks how far a file goes: up to the last block, or the last line with its end, that is whole.
///
/// # Errors
///
/// It is none of this form, as far as it goes.
pub(super) fn find_end(form: Form, input: impl BufRead) -> Result<Found, String> {
    let mut reader = Reader::new(form, input);
    let mut found = Found {
        end: 0,
        pairs: 0,
        last: None,
        is_whole: false,
    };
    let mut pairs = 0;
    loop {
        match reader.next() {
            Ok(Some(pair)) => {
                pairs += 1;
                // A line without its end may be cut in its middle and still look like one.
                let is_whole = match form {
                    Form::Binary => reader.block.is_empty(),
                    Form::Jsonl | Form::Csv => reader.ends_line,
                };
                if is_whole {
                    (found.pairs, found.last, found.end) = (pairs, Some(pair.key), reader.end);
                }
            }
            Ok(None) => {
                found.is_whole = form == Form::Binary && reader.is_whole;
                break;
            }
            Err(what) if found.pairs == 0 && !reader.has_begun => return Err(what),
            Err(_) => break,
        }
    }
    if found.pairs == 0 && reader.has_begun {
        found.end = match form {
            Form::Jsonl => 0,
            Form::Csv => CSV_HEAD.len() as u64,
            Form::Binary => MAGIC.len() as u64,
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Vec<Pair> {
        let texts: [(&[u8], &[u8]); 7] = [
            (b"", b"empty key"),
            (b"a,b", b"\"quoted\", with comma"),
            (b"bin\0\xff", b"\x80\n\r"),
            (b"line\nend", b""),
            (b"\\:marked", b"\\:x"),
            (b"plain", b" spaces "),
            ("\u{fc}".as_bytes(), "\u{202e}turned".as_bytes()),
        ];
        let pair = |(key, value): &(&[u8], &[u8])| Pair {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
        };
        let long = Pair {
            key: "z".into(),
            value: vec![7; BLOCK_LEN].into(),
        };
        texts.iter().map(pair).chain([long.clone(), long]).collect()
    }

    fn written(form: Form) -> Vec<u8> {
        let mut writer = Writer::begin(form, Vec::new()).unwrap();
        for pair in pairs() {
            writer.put(&pair).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(form: Form, bytes: &[u8]) -> Result<Vec<Pair>, String> {
        let mut reader = Reader::new(form, bytes);
        let mut pairs = Vec::new();
        while let Some(pair) = reader.next()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }

    #[test]
    fn every_form_gives_back_what_was_written() {
        for form in [Form::Jsonl, Form::Csv, Form::Binary] {
            let bytes = written(form);
            assert_eq!(read(form, &bytes).unwrap(), pairs(), "{form:?}");
        }
    }

    #[test]
    fn a_binary_file_that_is_cut_or_damaged_anywhere_is_refused() {
        let bytes = written(Form::Binary);
        let step = bytes.len() / 200;
        for len in (0..bytes.len())
            .step_by(step)
            .chain(bytes.len() - 24..bytes.len())
        {
            assert!(read(Form::Binary, &bytes[..len]).is_err(), "{len}");
            let mut damaged = bytes.clone();
            damaged[len] ^= 0x10;
            assert!(read(Form::Binary, &damaged).is_err(), "{len}");
        }
    }

    #[test]
    fn a_file_that_was_cut_is_gone_on_with_behind_its_last_whole_pair() {
        for form in [Form::Jsonl, Form::Csv, Form::Binary] {
            let (bytes, all) = (written(form), pairs());
            let step = bytes.len() / 100;
            let begin = if form == Form::Binary { 8 } else { 1 };
            // Every length at the start, where the short pairs are.
            for len in (begin..400).chain((400..bytes.len()).step_by(step)) {
                let found = find_end(form, &bytes[..len]);
                let Ok(found) = found else {
                    assert!(form != Form::Binary && !bytes[..len].contains(&b'\n'));
                    continue;
                };
                let end = usize::try_from(found.end).unwrap();
                assert!(end <= len && !found.is_whole, "{form:?} {len} {found:?}");
                let kept = bytes[..end].to_vec();
                let mut writer = match end {
                    0 => Writer::begin(form, kept).unwrap(),
                    _ => Writer::go_on(form, kept, found.pairs),
                };
                for pair in &all[usize::try_from(found.pairs).unwrap()..] {
                    writer.put(pair).unwrap();
                }
                let whole = writer.finish().unwrap();
                assert_eq!(read(form, &whole).unwrap(), all, "{form:?} {len}");
            }
            let found = find_end(form, &bytes[..]).unwrap();
            assert_eq!(found.is_whole, form == Form::Binary);
            assert_eq!(found.pairs, all.len() as u64);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (form, text, words) in [
            (Form::Csv, "a,b\n", "first line"),
            (Form::Csv, "key,value\na\n", "line 2: 1 fields"),
            (Form::Csv, "key,value\n\"a,b\n", "no end"),
            (Form::Csv, "key,value\n\\:\\q,b\n", "line 2"),
            (
                Form::Jsonl,
                "{\"key\":\"a\",\"value\":\"b\"}\n{}\n",
                "line 2: no text \"key\"",
            ),
            (
                Form::Jsonl,
                "{\"key_hex\":\"4\",\"value\":\"b\"}\n",
                "is not hex",
            ),
            (Form::Jsonl, "x\n", "line 1: no object"),
            (Form::Binary, "BSLTKV99", "no binary export"),
        ] {
            let error = read(form, text.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
