//! `basalt completions | man`: what shells and manual pages know of the command line, made from it.

use std::{fs, io, path::PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Done, Failure, command, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(basalt completions bash)
  basalt completions fish > ~/.config/fish/completions/basalt.fish
  basalt completions zsh > ~/.zfunc/_basalt")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt man /usr/local/share/man/man1
  basalt man . && man ./basalt.1")]
pub(super) struct ManArgs {
    /// Where the pages go, one for each command: basalt.1, basalt-put.1 ...
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "basalt", &mut script);
    print(&script)
}

pub(super) fn man(args: &ManArgs) -> Done {
    let shown = args.dir.display();
    let failed = |error: io::Error| Failure::world(format!("cannot write into {shown}: {error}"));
    fs::create_dir_all(&args.dir).map_err(failed)?;
    let mut command = command();
    command.build();
    let mut pages = Vec::new();
    gather(&command, "basalt", &mut pages);
    for (name, command) in pages {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone())
            .title(&name)
            .render(&mut page)
            .map_err(failed)?;
        fs::write(args.dir.join(format!("{name}.1")), page).map_err(failed)?;
    }
    Ok(())
}

/// A command and those below it, by the names of their pages.
fn gather<'a>(command: &'a Command, name: &str, pages: &mut Vec<(String, &'a Command)>) {
    pages.push((name.to_owned(), command));
    for below in command.get_subcommands() {
        if below.get_name() != "help" {
            gather(below, &format!("{name}-{}", below.get_name()), pages);
        }
    }
}
