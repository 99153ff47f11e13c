//! Keys and values on the command line: as text, escaped, or in hex; the same in both directions.

use std::fmt::Write as _;

pub(super) use crate::state::hex;

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// As they are.
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
        Format::Text => Ok(text.as_bytes().to_vec()),
        Format::Escaped => unescape(text),
        Format::Hex => parse_hex(text),
    }
}

/// `bytes` on one line, so that [`parse`] with the same format gives them back. As text only when
/// they are text; else escaped.
pub(super) fn show(format: Format, bytes: &[u8]) -> String {
    match format {
        Format::Text => match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => escape(bytes),
        },
        Format::Escaped => escape(bytes),
        Format::Hex => hex(bytes),
    }
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
        assert_eq!(
            show(Format::Text, &all),
            show(Format::Escaped, &all),
            "no text: escaped"
        );
    }

    #[test]
    fn text_is_taken_and_shown_as_it_is() {
        let text = "a\\x41 \u{fc}";
        assert_eq!(parse(Format::Text, text).unwrap(), text.as_bytes());
        assert_eq!(show(Format::Text, text.as_bytes()), text);
        assert_eq!(
            show(Format::Text, b"\x1b[2J"),
            "\\x1b[2J",
            "a terminal is not to be driven"
        );
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
