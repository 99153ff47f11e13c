//! Keys and values on the command line: one syntax for what is given and what is shown.
//!
//! Text stands for itself, backslashes and all, unless it begins with [`MARK`] (`\:`): what follows that is escaped
//! (`\:user\x00\n`). What is shown is text where it can be, and marked and escaped where it is not text, would drive
//! the terminal, or begins with the mark itself; so whatever is shown means the same when it is given back. With
//! `--escaped` and `--hex` everything is in that form, without a mark.
//!
//! Not here: what a program gets (`output`: bare bytes in a pipe, fields of JSON).

use std::fmt::Write as _;

pub(super) use crate::state::hex;

/// Begins an argument that is escaped.
const MARK: &str = "\\:";

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// As they are; marked and escaped where that is not possible.
    #[default]
    Text,
    /// Printable ASCII as it is; `\\`, `\n`, `\r`, `\t`, `\0`, and `\xNN` for any byte.
    Escaped,
    /// Two hex digits a byte.
    Hex,
}

/// The bytes that `text` means.
///
/// # Errors
///
/// What is wrong with it, and where.
pub(super) fn parse(format: Format, text: &str) -> Result<Vec<u8>, String> {
    match format {
        Format::Text => match text.strip_prefix(MARK) {
            Some(escaped) => unescape(escaped),
            None => Ok(text.as_bytes().to_vec()),
        },
        Format::Escaped => unescape(text),
        Format::Hex => parse_hex(text),
    }
}

/// `bytes` on one line, so that [`parse`] with the same format gives them back.
pub(super) fn show(format: Format, bytes: &[u8]) -> String {
    match format {
        Format::Text => match std::str::from_utf8(bytes) {
            Ok(text) if is_harmless(text) && !text.starts_with(MARK) => text.to_owned(),
            _ => format!("{MARK}{}", escape(bytes)),
        },
        Format::Escaped => escape(bytes),
        Format::Hex => hex(bytes),
    }
}

/// [`show`] for a person: with quotes where a shell needs them to take it for one word as it stands.
pub(super) fn shown(format: Format, bytes: &[u8]) -> String {
    let text = show(format, bytes);
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Name and text of a field of JSON: `name` where the bytes are text, `name_hex` where they are not or hex is asked
/// for, `name_escaped` where that is.
pub(super) fn field(name: &str, format: Format, bytes: &[u8]) -> (String, String) {
    match (format, std::str::from_utf8(bytes)) {
        (Format::Text, Ok(text)) => (name.to_owned(), text.to_owned()),
        (Format::Escaped, _) => (format!("{name}_escaped"), escape(bytes)),
        _ => (format!("{name}_hex"), hex(bytes)),
    }
}

/// A message of somebody else's on one line, without what drives a terminal.
pub(super) fn harmless(text: &str) -> String {
    if is_harmless(text) {
        return text.to_owned();
    }
    escape(text.as_bytes())
}

fn is_harmless(text: &str) -> bool {
    // Marks of direction turn around what stands behind them.
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !text.chars().any(|c| c.is_control() || turns(c))
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0 => text.push_str("\\0"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let at = text.len() - after.len() - 1;
        let wrong = || {
            format!(
                "{text:?} has an unknown escape at byte {at}; there are \\\\ \\n \\r \\t \\0 \\xNN"
            )
        };
        let (&letter, after) = rest.split_first().ok_or_else(wrong)?;
        rest = after;
        bytes.push(match letter {
            b'\\' => b'\\',
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
                rest = after;
                byte_of(digits).ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        });
    }
    Ok(bytes)
}

fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(byte_of)
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| format!("{text:?} is not hex: an even number of the digits 0-9 and a-f"))
}

/// The byte of two hex digits.
fn byte_of(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_escaping_and_hex() {
        let all: Vec<u8> = (0..=255).collect();
        for format in [Format::Escaped, Format::Hex] {
            let shown = show(format, &all);
            assert!(shown.is_ascii() && !shown.contains('\n'), "{shown}");
            assert_eq!(parse(format, &shown).unwrap(), all, "{format:?}");
        }
        let shown = show(Format::Text, &all);
        assert_eq!(shown, format!("\\:{}", show(Format::Escaped, &all)));
        assert_eq!(parse(Format::Text, &shown).unwrap(), all);
    }

    #[test]
    fn text_is_taken_and_shown_as_it_is() {
        let text = "a\\x41 \u{fc}";
        assert_eq!(parse(Format::Text, text).unwrap(), text.as_bytes());
        assert_eq!(show(Format::Text, text.as_bytes()), text);
        assert_eq!(
            show(Format::Text, b"\x1b[2J"),
            "\\:\\x1b[2J",
            "a terminal is not to be driven"
        );
        assert!(show(Format::Text, "a\u{202e}b".as_bytes()).starts_with("\\:a\\xe2"));
    }

    #[test]
    fn what_is_shown_means_the_same_when_it_is_given_back() {
        for bytes in [
            &b""[..],
            b"plain",
            b"\\:marked",
            b"\\",
            b"C:\\temp",
            b"\0",
            b"\xff\xfe",
            b"'quoted'",
            b"\\:",
        ] {
            for format in [Format::Text, Format::Escaped, Format::Hex] {
                let text = show(format, bytes);
                assert_eq!(parse(format, &text).unwrap(), bytes, "{text}");
            }
        }
        assert_eq!(shown(Format::Text, b"user/1"), "user/1");
        assert_eq!(shown(Format::Text, b"it's"), "'it'\\''s'");
        assert_eq!(shown(Format::Text, b"a\0"), "'\\:a\\0'");
        assert_eq!(shown(Format::Text, b""), "''");
    }

    #[test]
    fn escapes_are_known_or_refused() {
        assert_eq!(
            parse(Format::Escaped, "\\x41\\n\\\\\\0z").unwrap(),
            b"A\n\\\0z"
        );
        for wrong in ["\\", "\\q", "\\x4", "\\xg0", "ab\\x"] {
            assert!(
                parse(Format::Escaped, wrong)
                    .unwrap_err()
                    .contains("unknown escape"),
                "{wrong}"
            );
        }
        for wrong in ["4", "4g", "zz", "41 42", "+1"] {
            assert!(
                parse(Format::Hex, wrong)
                    .unwrap_err()
                    .contains("is not hex"),
                "{wrong}"
            );
        }
        assert_eq!(parse(Format::Hex, "").unwrap(), b"");
        assert_eq!(parse(Format::Hex, "00fFAb").unwrap(), [0, 255, 171]);
    }
}
