//! What the word that is being typed may become, and what may follow it: commands, flags, column families, and keys.
//!
//! Keys are asked for within [`WITHIN`], [`MOST_KEYS`] of them at most: typing does not wait for a slow server.

use std::time::Duration;

use super::{
    command::{COMMANDS, What, find},
    source::Keys,
    words::{Split, split},
};
use crate::cli::text::{self, Format};

/// Time for keys to come.
pub(super) const WITHIN: Duration = Duration::from_millis(100);
/// Keys that are offered.
pub(super) const MOST_KEYS: usize = 50;
/// Letters of an escape that is not whole yet, at most.
const HALF_ESCAPE: usize = 3;

/// Where the word begins that is completed, and the words that it may become.
pub(super) fn complete(
    before: &str,
    format: Format,
    family: &str,
    keys: &(impl Keys + ?Sized),
) -> (usize, Vec<String>) {
    let Split {
        words,
        open,
        ends_in_word,
    } = split(before);
    let whole = words.len() - usize::from(ends_in_word);
    let (start, typed, is_quoted) = match words.get(whole) {
        Some(word) => (word.start, word.text.as_str(), word.is_quoted),
        None => (before.len(), "", false),
    };
    // Behind a quote that is closed the word is over.
    if is_quoted && open.is_none() {
        return (start, Vec::new());
    }
    let of = |names: Vec<String>| {
        names
            .into_iter()
            .filter(|name| name.starts_with(typed))
            .collect()
    };
    let names = || {
        COMMANDS
            .iter()
            .map(|spec| spec.name.to_owned())
            .collect::<Vec<_>>()
    };
    let Some(name) = words[..whole].first() else {
        return (start, of(names()));
    };
    let Some(spec) = find(&name.text) else {
        return (start, Vec::new());
    };
    if typed.starts_with("--") && !is_quoted && !spec.flags.is_empty() {
        return (
            start,
            of(spec
                .flags
                .iter()
                .map(|(flag, _)| (*flag).to_owned())
                .collect()),
        );
    }
    // What the words before it leave to be said.
    let (mut place, mut behind_flag) = (0, None);
    for word in &words[1..whole] {
        let flag = spec
            .flags
            .iter()
            .find(|(flag, _)| !word.is_quoted && *flag == word.text);
        match (behind_flag.take(), flag) {
            (Some(_), _) => {}
            (None, Some((_, what))) => behind_flag = *what,
            (None, None) => place += 1,
        }
    }
    let what = behind_flag.or_else(|| spec.words.get(place).map(|(_, what)| *what));
    let candidates = match what {
        Some(What::Key) => of_keys(typed, open.is_some(), format, family, keys),
        Some(What::Family) => of(keys.families()),
        Some(What::Command) => of(names()),
        Some(What::Switch) => of(vec!["on".to_owned(), "off".to_owned()]),
        Some(What::Value | What::Number) | None => Vec::new(),
    };
    (start, candidates)
}

/// Keys that begin as `typed` does, as they have to be written in a line.
fn of_keys(
    typed: &str,
    is_quoted: bool,
    format: Format,
    family: &str,
    keys: &(impl Keys + ?Sized),
) -> Vec<String> {
    // The end of an escape may be missing: then what it begins is compared as it is written.
    let lengths = typed.char_indices().map(|(at, _)| at).rev();
    let lengths = std::iter::once(typed.len()).chain(lengths.take(HALF_ESCAPE));
    let parsed = lengths.map(|len| (len, text::parse(format, &typed[..len])));
    let Some((len, prefix)) = parsed
        .into_iter()
        .find_map(|(len, prefix)| Some((len, prefix.ok()?)))
    else {
        return Vec::new();
    };
    let mut found = keys.keys(family, &prefix, MOST_KEYS, WITHIN);
    if len < typed.len() {
        found.retain(|key| text::show(format, key).starts_with(typed));
    }
    let shown: Vec<String> = found.iter().map(|key| text::shown(format, key)).collect();
    // All of them in quotes, where one is: else they would have no common beginning.
    let in_quotes = is_quoted || shown.iter().any(|key| key.starts_with('\''));
    let quoted = |key: String| match in_quotes && !key.starts_with('\'') {
        true => format!("'{key}'"),
        false => key,
    };
    shown.into_iter().map(quoted).collect()
}

/// What may follow a line that ends behind a word: the rest of what its command takes.
pub(super) fn hint(line: &str) -> Option<String> {
    let split = split(line);
    if split.ends_in_word || split.open.is_some() {
        return None;
    }
    let (name, given) = split.words.split_first()?;
    let spec = find(&name.text)?;
    if given.is_empty() && !spec.takes().is_empty() {
        return Some(spec.takes().trim_start().to_owned());
    }
    let rest: Vec<&str> = spec
        .words
        .iter()
        .skip(given.len())
        .map(|(word, _)| *word)
        .collect();
    (spec.flags.is_empty() && !rest.is_empty()).then(|| rest.join(" "))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeSet};

    use super::*;

    #[derive(Default)]
    struct Memory {
        keys: BTreeSet<Vec<u8>>,
        asked: Cell<usize>,
    }

    impl Keys for Memory {
        fn keys(&self, family: &str, prefix: &[u8], most: usize, within: Duration) -> Vec<Vec<u8>> {
            assert!(within <= WITHIN);
            self.asked.set(self.asked.get() + 1);
            let keys = self.keys.iter().filter(|key| key.starts_with(prefix));
            let keys = keys.filter(|_| family == "default");
            keys.take(most).cloned().collect()
        }

        fn families(&self) -> Vec<String> {
            vec!["default".to_owned(), "write".to_owned()]
        }
    }

    fn memory(keys: &[&[u8]]) -> Memory {
        Memory {
            keys: keys.iter().map(|key| key.to_vec()).collect(),
            asked: Cell::default(),
        }
    }

    fn offered(line: &str, keys: &[&[u8]]) -> (usize, Vec<String>) {
        complete(line, Format::Text, "default", &memory(keys))
    }

    #[test]
    fn commands_flags_families_and_switches() {
        assert_eq!(
            offered("de", &[]),
            (0, vec!["delete".to_owned(), "delete-range".to_owned()])
        );
        assert_eq!(offered("", &[]).1.len(), COMMANDS.len());
        assert_eq!(offered("scan --re", &[]), (5, vec!["--reverse".to_owned()]));
        assert_eq!(offered("use w", &[]), (4, vec!["write".to_owned()]));
        assert_eq!(offered("timing o", &[]).1, ["on", "off"]);
        assert_eq!(offered("help sc", &[]).1, ["scan"]);
        assert!(offered("nothing a", &[b"a"]).1.is_empty());
    }

    #[test]
    fn keys_where_a_key_is_wanted_and_nowhere_else() {
        let keys: &[&[u8]] = &[b"user/1", b"user/2", b"vendor"];
        assert_eq!(
            offered("get us", keys),
            (4, vec!["user/1".to_owned(), "user/2".to_owned()])
        );
        assert_eq!(offered("get ", keys).1.len(), 3);
        assert_eq!(offered("scan --prefix v", keys).1, ["vendor"]);
        assert_eq!(offered("scan a --end v", keys).1, ["vendor"]);
        assert_eq!(offered("delete-range a v", keys).1, ["vendor"]);
        for none in [
            "put user/1 u",
            "get user/1 u",
            "scan --limit u",
            "status u",
            "get 'user/1'",
        ] {
            let memory = memory(keys);
            let (_, offered) = complete(none, Format::Text, "default", &memory);
            assert!(
                offered.is_empty() && memory.asked.get() == 0,
                "{none}: {offered:?}"
            );
        }
        let other = complete("get us", Format::Text, "write", &memory(keys)).1;
        assert!(other.is_empty(), "the keys of another family: {other:?}");
    }

    #[test]
    fn keys_come_in_quotes_where_they_need_them_all_alike() {
        assert_eq!(offered("get a", &[b"a b", b"ac"]).1, ["'a b'", "'ac'"]);
        assert_eq!(offered("get 'a", &[b"ac"]), (4, vec!["'ac'".to_owned()]));
        let (start, offered) = offered("get '\\:a\\x0", &[b"a\x01", b"a\x11"]);
        assert_eq!((start, offered), (4, vec!["'\\:a\\x01'".to_owned()]));
        let hex = complete("get 612", Format::Hex, "default", &memory(&[b"a ", b"a1"]));
        assert_eq!(hex, (4, vec!["6120".to_owned()]));
        // The command itself is taken for what was completed.
        for line in ["get 'a b'", "get '\\:a\\x01'"] {
            assert!(super::super::command::parse(line, Format::Text).is_ok());
        }
    }

    #[test]
    fn no_more_keys_than_fit_are_offered() {
        let many: BTreeSet<Vec<u8>> = (0..500u32)
            .map(|n| format!("{n:04}").into_bytes())
            .collect();
        let memory = Memory {
            keys: many,
            asked: Cell::default(),
        };
        let offered = complete("get ", Format::Text, "default", &memory).1;
        assert_eq!(offered.len(), MOST_KEYS);
    }

    #[test]
    fn hints_say_what_a_command_still_takes() {
        assert_eq!(hint("put ").as_deref(), Some("KEY VALUE"));
        assert_eq!(hint("put a ").as_deref(), Some("VALUE"));
        assert_eq!(hint("put a b "), None);
        assert_eq!(hint("put"), None);
        assert!(hint("scan ").unwrap().contains("--prefix KEY"));
        assert_eq!(hint("status "), None);
        assert_eq!(hint("put 'a "), None);
    }
}
