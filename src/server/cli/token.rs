//! `basalt token`: a new token, and what a file of rights says of it.

use std::{fmt::Write as _, io, io::Write as _};

use clap::Args;

use super::{Done, Failure, print, text::hex};
use crate::{
    auth::{TOKEN_RANDOM_LEN, hash},
    replicated::draw,
};

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// What the log calls whoever has it
    #[arg(value_name = "NAME")]
    name: String,
    /// Roles of the file of rights, with commas
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    roles: Vec<String>,
}

/// The token alone goes to standard output, so that it can be written to a file; what the server gets goes to
/// standard error.
pub(super) fn run(args: &TokenArgs) -> Done {
    let mut token = String::from("basalt-");
    for _ in 0..TOKEN_RANDOM_LEN / 8 {
        let _ = write!(token, "{:016x}", draw().map_err(Failure::world)?);
    }
    let entry = format!(
        "[[token]]\nname = {:?}\nsha256 = \"{}\"\nroles = {:?}\n",
        args.name,
        hex(&hash(token.as_bytes())),
        args.roles
    );
    // Nobody reads: then nobody needs it.
    let _ = io::stderr().write_all(entry.as_bytes());
    token.push('\n');
    print(token.as_bytes())
}
