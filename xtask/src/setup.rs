//! Installs what guard's tasks need, after saying what and why.

mod apt;
mod catalogue;
mod servers;
mod sources;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use catalogue::{NODE_LOCK, Source, TOOLS, Tool};

pub use catalogue::{drivers, kubernetes_validate, postgres_sources};

use crate::{shell, style};

/// Install what is missing on this machine: says first what and why.
///
/// Debian and Ubuntu: packages by apt, Rust tools by `cargo install`, one Python tool into target/tools. On other
/// systems it names what is missing and installs nothing. PostgreSQL clusters that exist are never touched, and
/// none is created: guard's tasks make private ones.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only report; exits with 1 if something is missing
    #[arg(long)]
    check: bool,
    /// Do not ask. Without a terminal nothing is asked either
    #[arg(long)]
    yes: bool,
    /// Only what these need; everything if none is named
    #[arg(value_enum)]
    groups: Vec<Group>,
}

/// What a tool is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// Compiling guard and its eBPF programs
    Build,
    /// `cargo xtask demo`
    Demo,
    /// `cargo xtask test`
    Test,
    /// `cargo xtask test drivers`
    Drivers,
    /// `cargo xtask test regress`
    Regress,
    /// `cargo xtask test console`
    Console,
    /// `cargo xtask bench`
    Bench,
    /// `cargo xtask lint`
    Lint,
    /// `cargo xtask fuzz`
    Fuzz,
    /// `cargo xtask kernel-matrix`
    Matrix,
}

const ALL: &[Group] = &[
    Group::Build,
    Group::Demo,
    Group::Test,
    Group::Drivers,
    Group::Regress,
    Group::Console,
    Group::Bench,
    Group::Lint,
    Group::Fuzz,
    Group::Matrix,
];

/// Runs the task.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let groups = if arguments.groups.is_empty() { ALL } else { &arguments.groups };
    let wanted: Vec<&Tool> = TOOLS.iter().filter(|tool| tool.is_for(groups)).collect();
    let missing = missing(groups);
    for tool in &wanted {
        let state = if missing.iter().any(|other| other.name == tool.name) {
            style::bad("missing")
        } else {
            style::good("there  ")
        };
        println!("{state}  {:<22} {}", tool.name, style::faint(tool.why));
    }
    if arguments.check {
        if !missing.is_empty() {
            println!("\n`cargo xtask setup` installs what is missing.");
            return Ok(ExitCode::FAILURE);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !missing.is_empty() {
        println!();
        install(&missing, arguments.yes)?;
    }
    if groups.contains(&Group::Test) {
        other_servers();
    }
    Ok(ExitCode::SUCCESS)
}

/// Gets what tests of several versions of PostgreSQL start; says which cannot be had, and leaves those out.
pub fn other_servers() {
    for (major, reason) in servers::ready() {
        println!("  {} PostgreSQL {major} is not tested with: {reason}", style::bad("SKIPPED"));
    }
}

/// Sees to it that everything for `groups` is there: what other tasks call first. Silent where nothing is missing.
pub fn ensure(groups: &[Group]) -> Result<()> {
    let missing = missing(groups);
    if missing.is_empty() { Ok(()) } else { install(&missing, false) }
}

fn missing(groups: &[Group]) -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| tool.is_for(groups) && !(tool.is_there)()).collect()
}

fn install(missing: &[&Tool], yes: bool) -> Result<()> {
    println!("{}", style::strong("This machine lacks:"));
    for tool in missing {
        println!("  {:<22} {}\n  {:<22}   by {}", tool.name, tool.why, "", tool.source.shown());
    }
    if !apt::is_here() && missing.iter().any(|tool| tool.source.is_apt()) {
        bail!(
            "packages can only be installed by apt (Debian, Ubuntu) here; install what is listed above in this \
             system's own way, then check with `cargo xtask setup --check`"
        );
    }
    if !yes && !consent()? {
        bail!("nothing was installed");
    }
    let packages: BTreeSet<&str> = missing.iter().flat_map(|tool| tool.source.packages()).copied().collect();
    if !packages.is_empty() {
        apt::install(&packages.into_iter().collect::<Vec<_>>())?;
    }
    for tool in missing {
        match tool.source {
            Source::Apt(_) => {}
            Source::Cargo { name, version, options } => cargo_install(name, version, options)?,
            Source::Rustup(component) => {
                let command = shell::command("rustup", &["component", "add", component]);
                shell::quietly(command, &format!("adding {component}"))?;
            }
            Source::Python { package, version, .. } => python_install(package, version)?,
            Source::Node { folder, .. } => node_install(folder)?,
            Source::Unpacked { folders, .. } => sources::fetch(folders, &postgres_sources())?,
        }
        if !(tool.is_there)() {
            bail!("{} was installed by {} but is still not found", tool.name, tool.source.shown());
        }
        println!("{} {}", style::good("installed"), tool.name);
    }
    Ok(())
}

fn consent() -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    print!("Install this now? [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn cargo_install(name: &str, version: &str, options: &[&str]) -> Result<()> {
    let mut command = shell::cargo(&["install", "--locked", "--version", version]);
    command.args(options).arg(name);
    shell::quietly(command, &format!("building {name} {version}"))
}

/// Into a virtual environment of this checkout: the system's Python stays as it is.
fn python_install(package: &str, version: &str) -> Result<()> {
    let home = shell::tools().join("python");
    if !home.join("bin/pip").exists() {
        let venv = shell::command("/usr/bin/python3", &["-m", "venv", &home.to_string_lossy()]);
        shell::quietly(venv, "making a Python environment").context("python3-venv is needed")?;
    }
    let wanted = format!("{package}=={version}");
    // Not `pip` itself: its first line names the folder in which the environment was made, wherever that is now.
    let pip = &["-m", "pip", "install", "--quiet", "--no-input", &wanted];
    let pip = shell::command(home.join("bin/python"), pip);
    shell::quietly(pip, &format!("installing {wanted}"))
}

/// Exactly what the lock file in `folder` names, into a folder of this checkout.
fn node_install(folder: &str) -> Result<()> {
    let (from, home) = (shell::root().join(folder), catalogue::node_home(folder));
    fs::create_dir_all(&home)?;
    for name in ["package.json", NODE_LOCK] {
        fs::copy(from.join(name), home.join(name))?;
    }
    let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    shell::quietly(command_in(&home, "npm", &words), &format!("installing what {folder} names"))
}

fn command_in(folder: &Path, program: &str, words: &[&str]) -> Command {
    let mut command = shell::command(program, words);
    command.current_dir(folder);
    command
}
