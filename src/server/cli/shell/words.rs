//! The words of a line of the shell, and where they stand in it, so that a word that is being typed can be completed.
//!
//! Words are between spaces. Between single quotes everything is itself, and so it is between double ones; `\'` and `\"`
//! outside of quotes are quotes; any other backslash is itself. So what `text::shown` prints is one word.

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says, without its quotes.
    pub(super) text: String,
    /// The byte of the line that it begins at, its quote included.
    pub(super) start: usize,
    /// Whether a part of it is in quotes: then it is no flag.
    pub(super) is_quoted: bool,
}

/// The words of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) words: Vec<Word>,
    /// The quote that has no end, if one has none: it is in the last word.
    pub(super) open: Option<char>,
    /// Whether the line ends within its last word, and not behind it.
    pub(super) ends_in_word: bool,
}

/// Splits a line. It never fails: a quote without an end goes to the end of the line, and is told.
pub(super) fn split(line: &str) -> Split {
    let mut split = Split::default();
    let mut word: Option<Word> = None;
    let mut letters = line.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match (split.open, letter) {
            (Some(quote), _) if letter == quote => split.open = None,
            (None, ' ' | '\t') => {
                split.words.extend(word.take());
                continue;
            }
            (None, '\'' | '"') => {
                split.open = Some(letter);
                begun(&mut word, at).is_quoted = true;
            }
            (None, '\\') if matches!(letters.peek(), Some((_, '\'' | '"'))) => {
                if let Some((_, quote)) = letters.next() {
                    begun(&mut word, at).text.push(quote);
                }
            }
            _ => begun(&mut word, at).text.push(letter),
        }
    }
    split.ends_in_word = word.is_some();
    split.words.extend(word);
    split
}

/// The word that `at` is in.
fn begun(word: &mut Option<Word>, at: usize) -> &mut Word {
    word.get_or_insert_with(|| Word {
        text: String::new(),
        start: at,
        is_quoted: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::text::{Format, parse, shown};

    fn texts(line: &str) -> Vec<String> {
        let split = split(line);
        split.words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_are_between_spaces_and_quotes_hold_them_together() {
        assert_eq!(texts("put  a\t1 "), ["put", "a", "1"]);
        assert_eq!(texts("put 'a b' ''"), ["put", "a b", ""]);
        assert_eq!(
            texts(r#"put "it's" 'say "x"'"#),
            ["put", "it's", "say \"x\""]
        );
        assert_eq!(texts(r"put 'it'\''s' C:\temp"), ["put", "it's", r"C:\temp"]);
        assert_eq!(texts(r#"a\"b"#), ["a\"b"]);
        assert!(texts("   ").is_empty());
    }

    #[test]
    fn a_word_knows_where_it_stands_and_whether_it_is_open() {
        let typed = split("get 'us");
        assert_eq!((typed.words[1].start, typed.open), (4, Some('\'')));
        assert!(typed.ends_in_word && typed.words[1].is_quoted);
        let closed = split("get 'us'");
        assert_eq!((closed.open, closed.ends_in_word), (None, true));
        let behind = split("get us ");
        assert!(!behind.ends_in_word && !behind.words[1].is_quoted);
    }

    #[test]
    fn what_is_shown_is_one_word_that_means_the_same() {
        let all: Vec<u8> = (0..=255).collect();
        for key in [
            &b"a b"[..],
            b"it's",
            b"\\:x",
            b"\0\xff\n",
            b"",
            b"#",
            b"\"",
            b"--end",
            &all,
        ] {
            for format in [Format::Text, Format::Escaped, Format::Hex] {
                let words = texts(&format!("get {}", shown(format, key)));
                assert_eq!(words.len(), 2, "{words:?}");
                assert_eq!(parse(format, &words[1]).unwrap(), key, "{words:?}");
            }
        }
    }
}
