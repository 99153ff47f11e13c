//! The `basalt` binary: everything it does is in the server crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    basalt_server::cli::main()
}
