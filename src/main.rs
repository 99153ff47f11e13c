//! The `basalt` binary: hands its arguments to the server crate and maps errors to exit codes.
fn main() {}
