//! Checks that need no machine: form, lints, dependencies.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    setup::{self, Group},
    shell, style,
};

/// Check form (rustfmt), lints (clippy) and dependencies (cargo-deny).
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Mend what rustfmt and clippy can mend by themselves
    #[arg(long)]
    fix: bool,
}

/// Runs the task.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build, Group::Lint])?;
    if arguments.fix {
        shell::run(shell::cargo(&["fmt", "--all"]), "rustfmt")?;
        let fix = ["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"];
        shell::run(shell::cargo(&fix), "clippy")?;
    }
    let kernel = shell::root().join("guard-ebpf/Cargo.toml");
    let mut failed = Vec::new();
    let mut check = |name: &'static str, command| {
        println!("{}", style::strong(name));
        if let Err(error) = shell::run(command, name) {
            eprintln!("{error:#}");
            failed.push(name);
        }
    };
    check("rustfmt", shell::cargo(&["fmt", "--all", "--check"]));
    if kernel.exists() {
        let path = kernel.to_string_lossy();
        check("rustfmt of the eBPF programs", shell::cargo(&["fmt", "--check", "--manifest-path", &path]));
    }
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"];
    check("clippy", shell::cargo(&clippy));
    check(
        "cargo deny",
        shell::cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]),
    );
    advisories(&mut failed);
    if failed.is_empty() {
        println!("{}", style::good("lint: nothing to complain about"));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} {}", style::bad("lint failed:"), failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Known vulnerabilities: their list has to be fetched, which does not work everywhere.
fn advisories(failed: &mut Vec<&'static str>) {
    println!("{}", style::strong("cargo deny: known vulnerabilities"));
    let fetch = shell::cargo(&["deny", "--log-level", "error", "fetch", "db"]);
    if shell::output(fetch).is_none() {
        println!("{} the advisory database cannot be fetched from here: not checked", style::bad("SKIPPED"));
        return;
    }
    let check = ["deny", "--log-level", "error", "check", "--disable-fetch", "advisories"];
    if let Err(error) = shell::run(shell::cargo(&check), "advisories") {
        eprintln!("{error:#}");
        failed.push("advisories");
    }
}
