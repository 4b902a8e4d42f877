//! Builds: the workspace, and the eBPF programs by themselves.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    setup::{self, Group},
    shell,
};

/// Build the eBPF programs alone and say with which toolchain.
///
/// `cargo build` does the same by itself as part of guard-agent; this task is for looking at the result.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Runs the task.
pub fn main(_arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Group::Build])?;
    let toolchain = guard_ebpf_builder::Toolchain::probe()?;
    println!("toolchain: {}", toolchain.describe());
    let source = shell::root().join("guard-ebpf");
    for object in guard_ebpf_builder::build(&toolchain, &source, &shell::target().join("guard-ebpf"))? {
        println!("object:    {}", object.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds every program of the workspace. One selection of packages for every task, so that nothing is built twice.
/// Optimised, it builds what people run, and leaves out what only tests need: optimising that takes longer than they do.
pub fn workspace(release: bool) -> Result<()> {
    let all = ["build", "--workspace", "--locked"];
    let released =
        ["build", "--release", "--locked", "--package", "guard-agent", "--package", "guard-control"];
    let command = if release { shell::cargo(&released) } else { shell::cargo(&all) };
    shell::run(command, "the build")
}
