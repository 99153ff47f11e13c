//! The settings as documents: `docs/configuration.md`, and a config file with everything at its default.
//!
//! A test of this module compares the committed document; `REGENERATE=1` writes it.

use std::fmt::Write as _;

use super::{Group, Kind, SETTINGS, Setting};

const HEAD: &str = "\
# Configuration of `basalt server`

Each setting has one name: `--NAME` on the command line, `NAME = ...` in the TOML file of `--config FILE` (or
`BASALT_CONFIG`), and a variable of the environment. Flags win over the environment, it over the file, and the file over the defaults; what
`basalt config set` changes in a running server wins over all of them until that server ends.

- `basalt config default` prints a config file with every setting at its default; `basalt config check` takes the flags of `basalt server`
  and says what is wrong (exit code 2), without starting anything; `basalt config show` also shows every value and where it comes from.
- `basalt config get` shows the settings of a running server, `basalt config set NAME=VALUE` changes those that are *online* below, and
  `basalt config reload` (or SIGHUP) has it read its files again: online settings take effect, the others are named as needing a restart.
- A size is a number of bytes, or one with `KiB`, `MiB` or `GiB`; a time has `ms`, `s`, `m` or `h`. An unknown key of the file is an error that
  names the nearest one; an unknown variable is not looked at.

This page is made from the table of settings in the code by a test; do not edit it by hand.
";

/// `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    let mut group = None;
    for setting in SETTINGS {
        if group != Some(setting.group) {
            group = Some(setting.group);
            let title = setting.group.title();
            let _ = write!(
                text,
                "\n## {title}\n\n| setting | variable | value | default | online | meaning |\n|---|---|---|---|---|---|\n"
            );
        }
        let default = match setting.default {
            "" => "-".to_owned(),
            default => format!("`{default}`"),
        };
        let online = if setting.online { "yes" } else { "restart" };
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {} | {default} | {online} | {} |",
            setting.name,
            setting.variable(),
            setting.kind.describe(),
            setting.meaning,
        );
    }
    text
}

/// A config file in which every setting stands at its default, commented out.
#[must_use]
pub fn default_file() -> String {
    let mut text =
        "# Settings of `basalt server --config THIS-FILE`, at their defaults.\n".to_owned();
    let mut group: Option<Group> = None;
    for setting in SETTINGS {
        if group != Some(setting.group) {
            group = Some(setting.group);
            let _ = write!(text, "\n# --- {} ---\n", setting.group.title());
        }
        let online = if setting.online { ", online" } else { "" };
        let _ = write!(
            text,
            "\n# {}\n# ({}{online})\n#{} = {}\n",
            setting.meaning,
            setting.kind.describe(),
            setting.name,
            literal(setting),
        );
    }
    text
}

fn literal(setting: &Setting) -> String {
    match setting.kind {
        Kind::Switch => setting.default.to_owned(),
        Kind::Count(..) if !setting.default.is_empty() => setting.default.to_owned(),
        _ => format!("{:?}", setting.default),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Config, Origin};

    #[test]
    fn the_document_is_what_the_table_says() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        if std::env::var_os("REGENERATE").is_some() {
            fs::write(file, markdown()).unwrap();
        }
        let command = "REGENERATE=1 cargo test -p basalt-server --lib document";
        let is_current = fs::read_to_string(file).is_ok_and(|text| text == markdown());
        assert!(
            is_current,
            "docs/configuration.md is out of date: {command}"
        );
    }

    #[test]
    fn the_default_file_uncommented_says_the_defaults() {
        let mut text = String::new();
        for line in default_file().lines() {
            let setting = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
            // What has no default has nothing to uncomment.
            let setting = setting.filter(|rest| !rest.ends_with("= \"\""));
            let _ = writeln!(text, "{}", setting.unwrap_or_default());
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("basalt.toml");
        fs::write(&file, &text).unwrap();
        let config = Config::load(&[], Some(&file), |_| None).unwrap();
        for setting in SETTINGS {
            let (value, origin) = config.shown(setting);
            assert_eq!(value, setting.default, "{}", setting.name);
            let said = origin == Origin::File(file.clone());
            assert_eq!(said, !setting.default.is_empty(), "{}", setting.name);
        }
    }
}
