//! `basalt context`: clusters by name, in a file of the client, so that no command has to repeat where they are.
//!
//! ```toml
//! current = "prod"
//!
//! [context.prod]
//! endpoints = ["db-1:20160", "db-2:20160"]
//! tls-ca = "/etc/basalt/ca.pem"
//! token-file = "/home/ada/.basalt-token"
//! ```
//! Flags come before variables, variables before the context, the context before the defaults. The file is
//! `$BASALT_CLIENT_CONFIG`, else `$XDG_CONFIG_HOME/basalt/client.toml`, else `~/.config/basalt/client.toml`.
//!
//! Promises: an unknown key, name or context is refused with what there is; `use` changes one line and keeps the rest of the
//! file as it is. It holds no token, only where one is.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::{
    Done, Failure,
    output::{Cell, OutputArgs},
};
use crate::config::parse_toml;

/// How one cluster is reached.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Context {
    /// `HOST:PORT` each.
    #[serde(default)]
    pub(super) endpoints: Vec<String>,
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_server_name: Option<String>,
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    current: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ContextCommand {
    /// The clusters that have a name; the current one is marked
    List(OutputArgs),
    /// Make one the current one
    Use(UseArgs),
    /// How one is reached
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct UseArgs {
    /// The context
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The context [default: the current one]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(command: &ContextCommand) -> Done {
    match command {
        ContextCommand::List(output) => list(*output),
        ContextCommand::Use(args) => choose(&args.name),
        ContextCommand::Show(args) => show(args),
    }
}

/// The context of a command: the one it names (`--context`, else `$BASALT_CONTEXT`), else the current one, else none.
pub(super) fn of(named: Option<&str>) -> Result<Context, Failure> {
    let variable = std::env::var("BASALT_CONTEXT").ok();
    let named = named.map(str::to_owned).or(variable);
    let file = read()?;
    let Some(name) = named.or_else(|| file.current.clone()) else {
        return Ok(Context::default());
    };
    find(file, &name)
}

fn find(mut file: File, name: &str) -> Result<Context, Failure> {
    let known: Vec<String> = file.context.keys().cloned().collect();
    file.context.remove(name).ok_or_else(|| {
        let known = match known.is_empty() {
            true => "there are none".to_owned(),
            false => format!("there are {}", known.join(", ")),
        };
        let place = place().map_or_else(String::new, |path| format!(" in {}", path.display()));
        Failure::usage(format!("no context {name:?}{place}; {known}"))
    })
}

/// Where the file is.
fn place() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = variable("BASALT_CLIENT_CONFIG") {
        return Some(file.into());
    }
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(home)?;
    Some(config.join("basalt").join("client.toml"))
}

fn read_text() -> Result<String, Failure> {
    let Some(path) = place() else {
        return Ok(String::new());
    };
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => {
            let shown = path.display();
            Err(Failure::usage(format!("cannot read {shown}: {error}")))
        }
    }
}

fn read() -> Result<File, Failure> {
    let text = read_text()?;
    if text.is_empty() {
        return Ok(File::default());
    }
    let shown = place().unwrap_or_default();
    let wrong = |what: &str| Failure::usage(format!("{}: {what}", shown.display()));
    let table = parse_toml(&text).map_err(|what| wrong(&what))?;
    let file = table.try_into();
    file.map_err(|error: toml::de::Error| wrong(&error.message().replace('\n', " ")))
}

fn list(output: OutputArgs) -> Done {
    let file = read()?;
    let current = file.current.as_deref();
    let rows = file.context.iter().map(|(name, context)| {
        vec![
            Cell::from(name.as_str()),
            Cell::Bool(current == Some(name)),
            Cell::from(context.endpoints.join(",")),
            Cell::Bool(context.tls_ca.is_some()),
        ]
    });
    let rows: Vec<_> = rows.collect();
    output
        .open()
        .table(&["context", "current", "endpoints", "tls"], &rows, Some(2))
}

fn show(args: &ShowArgs) -> Done {
    let file = read()?;
    let name = args.name.clone().or_else(|| file.current.clone());
    let name = name.ok_or_else(|| Failure::usage("no context is the current one; name one"))?;
    let context = find(file, &name)?;
    args.output.open().document(&context, || {
        let mut text = format!("context          {name}\n");
        let mut line = |what: &str, value: Option<String>| {
            if let Some(value) = value {
                text.push_str(&format!("{what:<16} {value}\n"));
            }
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        line("endpoints", Some(context.endpoints.join(",")));
        line("tls-ca", path(&context.tls_ca));
        line("tls-cert", path(&context.tls_cert));
        line("tls-key", path(&context.tls_key));
        line("tls-server-name", context.tls_server_name.clone());
        line("token-file", path(&context.token_file));
        text
    })
}

fn choose(name: &str) -> Done {
    find(read()?, name)?;
    let path = place().ok_or_else(|| Failure::usage("there is no home directory"))?;
    let text = with_current(&read_text()?, name);
    let shown = path.display();
    let failed = |error| Failure::world(format!("cannot write {shown}: {error}"));
    // A new file that takes the old one's place whole.
    let beside = path.with_extension("toml.new");
    fs::write(&beside, text).map_err(failed)?;
    fs::rename(&beside, &path).map_err(failed)
}

/// The file with another context as the current one.
fn with_current(text: &str, name: &str) -> String {
    let own = format!("current = {name:?}\n");
    let is_own = |line: &str| {
        line.trim_start()
            .strip_prefix("current")
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut lines = Vec::new();
    let (mut is_top, mut is_set) = (true, false);
    for line in text.split_inclusive('\n') {
        is_top &= !line.trim_start().starts_with('[');
        if is_top && is_own(line) {
            lines.push(own.as_str());
            is_set = true;
        } else {
            lines.push(line);
        }
    }
    if !is_set {
        lines.insert(0, &own);
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_current_context_changes_one_line() {
        let text = "# mine\ncurrent = \"a\" # why\n\n[context.a]\nendpoints = [\"x:1\"]\n";
        let changed = with_current(text, "b");
        assert_eq!(
            changed,
            "# mine\ncurrent = \"b\"\n\n[context.a]\nendpoints = [\"x:1\"]\n"
        );
        let text = "[context.current]\nendpoints = []\n";
        assert_eq!(with_current(text, "b"), format!("current = \"b\"\n{text}"));
    }
}
