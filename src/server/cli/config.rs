//! `basalt config`: the settings of a server, before it starts and while it runs.

use std::fmt::Write as _;

use basalt_proto::basaltpb::{ConfigureRequest, ConfigureResponse, SettingChange};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Done, Failure, ServerAddr,
    client::{Server, block_on},
    print,
    server::ServerArgs,
};
use crate::config::{SETTINGS, document};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a config file with every setting at its default
    Default,
    /// Check the settings that a server would have with these flags, the files that they name and the directory
    Check(ServerArgs),
    /// Show the settings that a server would have with these flags, and where each comes from
    Show(ShowArgs),
    /// Show the settings of a running server
    Get(GetArgs),
    /// Change settings of a running server until it ends
    Set(SetArgs),
    /// Have a running server read its config file, certificates and rights again
    Reload(GetArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    addr: ServerAddr,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// What to change, such as log-level=debug
    #[arg(value_name = "NAME=VALUE", required = true)]
    changes: Vec<String>,
    #[command(flatten)]
    addr: ServerAddr,
}

pub(super) fn run(command: &ConfigCommand) -> Done {
    match command {
        ConfigCommand::Default => print(document::default_file().as_bytes()),
        ConfigCommand::Check(args) => {
            args.check()?;
            print(b"the settings are fine\n")
        }
        ConfigCommand::Show(args) => show(args),
        ConfigCommand::Get(args) => {
            let response = configure(&args.addr, ConfigureRequest::default())?;
            let rows = response.settings.into_iter();
            let rows = rows.map(|one| (one.name, one.value, one.origin, one.online));
            print(table(rows, args.json).as_bytes())
        }
        ConfigCommand::Set(args) => set(args),
        ConfigCommand::Reload(args) => {
            let reload = ConfigureRequest {
                reload: true,
                ..ConfigureRequest::default()
            };
            tell(&configure(&args.addr, reload)?)
        }
    }
}

fn show(args: &ShowArgs) -> Done {
    let config = args.server.config()?;
    let rows = SETTINGS.iter().map(|setting| {
        let (value, origin) = config.shown(setting);
        let (name, origin) = (setting.name.to_owned(), origin.to_string());
        (name, value, origin, setting.online)
    });
    print(table(rows, args.json).as_bytes())
}

fn set(args: &SetArgs) -> Done {
    let changes = args.changes.iter().map(|change| {
        let (name, value) = change
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{change:?} is not of the form NAME=VALUE")))?;
        Ok(SettingChange {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    });
    let request = ConfigureRequest {
        changes: changes.collect::<Result<_, Failure>>()?,
        reload: false,
    };
    tell(&configure(&args.addr, request)?)
}

fn configure(addr: &ServerAddr, request: ConfigureRequest) -> Result<ConfigureResponse, Failure> {
    let target = addr.get()?;
    block_on(async {
        let server = Server::connect_any(&target).await?;
        server.ask(server.admin().configure(request)).await
    })
}

/// What a change has changed.
fn tell(response: &ConfigureResponse) -> Done {
    let mut text = match response.changed.is_empty() {
        true => "nothing has changed\n".to_owned(),
        false => format!("changed: {}\n", response.changed.join(", ")),
    };
    if !response.needs_restart.is_empty() {
        let _ = writeln!(
            text,
            "needs a restart: {}",
            response.needs_restart.join(", ")
        );
    }
    print(text.as_bytes())
}

fn table(rows: impl Iterator<Item = (String, String, String, bool)>, as_json: bool) -> String {
    let mut text = String::new();
    if !as_json {
        let head = ["setting", "value", "changes"];
        let _ = writeln!(text, "{:<28} {:<24} {:<8} from", head[0], head[1], head[2]);
    }
    for (name, value, origin, online) in rows {
        let _ = if as_json {
            let row = json!({"name": name, "value": value, "origin": origin, "online": online});
            writeln!(text, "{row}")
        } else {
            let shown = if value.is_empty() { "-" } else { &value };
            let changes = if online { "online" } else { "restart" };
            writeln!(text, "{name:<28} {shown:<24} {changes:<8} {origin}")
        };
    }
    text
}
