//! guard at work on this machine, before a person's eyes; and a check that it is.

mod approval;
mod interrupt;
mod masking;
mod show;
mod steps;
mod table;

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, bail};
use guard_tests::{AgentConfig, Site, site, skip};
use show::Show;

use crate::{
    build,
    setup::{self, Group},
    style,
};

/// Show guard at work: a private PostgreSQL, the agent with eBPF attached, the control plane, real clients.
///
/// Installs what is missing, builds everything, runs for a few seconds and leaves nothing behind. Each step is a
/// check as well: if one does not happen, the demo says which and exits with 1. Needs root, for eBPF.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Leave everything running at the end and say how to connect; Ctrl-C ends it
    #[arg(long)]
    keep: bool,
}

/// Runs the task.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    if !skip::ebpf_possible() {
        bail!(
            "eBPF programs cannot be loaded here: they need root (or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN) and a \
             kernel with BTF (/sys/kernel/btf/vmlinux). Run `sudo -E env \"PATH=$PATH\" cargo xtask demo`"
        );
    }
    setup::ensure(&[Group::Build, Group::Demo])?;
    println!("{}", style::strong("Building guard"));
    build::workspace(false)?;
    interrupt::catch()?;

    let started = Instant::now();
    let mut show = Show::default();
    show.section("Everything up", "A private PostgreSQL, the control plane, and the agent in enforce mode.");
    let policies = approval::policies()?;
    let site = Site::with(AgentConfig {
        mode: "enforce",
        ebpf: true,
        policies: Some(policies.path().to_owned()),
        ..AgentConfig::default()
    })?;
    for step in steps::ALL {
        interrupt::check()?;
        step(&mut show, &site)?;
    }
    let good = show.verdict(started.elapsed());
    if arguments.keep {
        keep(&site)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn keep(site: &Site) -> Result<()> {
    let config = site.agent.config();
    println!("\n{}", style::strong("Left running."));
    println!("  through guard      {}", site.proxied().shown());
    println!("  round it, TCP      {}", site.direct().shown());
    println!("  round it, unix     {}", site.direct_unix().shown());
    println!("  what is going on   guard-agent status --config {}", config.display());
    println!("  the journal        guard-agent audit tail --config {}", config.display());
    println!("  the control plane  guard-control decisions --server {}", site.control.endpoint());
    let console = site.control.console();
    println!("  the console        {} (sign in as admin, {})", console.url, console.password);
    let bin = guard_tests::binaries::path("guard-agent")?;
    println!("  (the programs are in {})", bin.parent().unwrap_or(&bin).display());
    println!("  a table to try     DROP TABLE customers; in the database {}", site::DATABASE);
    println!("\nCtrl-C ends everything.");
    interrupt::wait();
    println!("\nEnding ..");
    Ok(())
}
