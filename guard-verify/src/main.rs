//! `guard-verify`: proves an export of `guard-agent audit export`, with nothing but the public keys that were kept.

use std::process::ExitCode;

fn main() -> ExitCode {
    guard_verify::main()
}
