//! Runs the commands of a task: in the open, or quietly with a sign of life.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How often a long quiet command says that it is still at it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The root of the workspace.
pub fn root() -> PathBuf {
    // Cargo sets it for `cargo xtask`; the compiled-in path is for a runner that is started by hand.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest = manifest.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    manifest.parent().map(Path::to_owned).unwrap_or(manifest)
}

/// The folder of build results.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where tools are installed that belong to this checkout alone.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// A command that runs in the root of the workspace.
pub fn command(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// `cargo` as the runner was started with.
pub fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = command(cargo, arguments);
    // They describe the runner's own package and would rebuild whatever looks at them.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command whose output the caller of the task sees.
pub fn run(mut command: Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(&command)))?;
    if !status.success() {
        bail!("{what} failed ({status}): {}", shown(&command));
    }
    Ok(())
}

/// Runs a command quietly: its output goes to `setup.log` among the tools, its end to the error if it fails.
pub fn quietly(mut command: Command, what: &str) -> Result<()> {
    fs::create_dir_all(tools())?;
    let path = tools().join("setup.log");
    let mut log = File::options().create(true).append(true).open(&path)?;
    writeln!(log, "$ {}", shown(&command))?;
    let start = log.metadata()?.len();
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", shown(&command)))?;
    let started = Instant::now();
    let mut said = started;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
        if said.elapsed() >= SIGN_OF_LIFE {
            said = Instant::now();
            println!("  .. {what} ({} s)", started.elapsed().as_secs());
        }
    };
    if !status.success() {
        let log = fs::read(&path).unwrap_or_default();
        let output = String::from_utf8_lossy(&log[usize::try_from(start)?.min(log.len())..]).into_owned();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(25)..].join("\n");
        bail!("{what} failed ({status}): {}\n{tail}\n(all of it: {})", shown(&command), path.display());
    }
    Ok(())
}

/// What a command prints; `None` where it fails or is not there.
pub fn output(mut command: Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program is there and answers to these arguments.
pub fn answers(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> bool {
    output(command(program, arguments)).is_some()
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
