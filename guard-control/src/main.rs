//! `guard-control`: see [`guard_control::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    guard_control::cli::main()
}
