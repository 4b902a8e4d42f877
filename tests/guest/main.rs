//! What runs in the virtual machines of `cargo xtask kernel-matrix`: the kernel tests, and the agent as a service before
//! the guest's own PostgreSQL, with systemd units as its clients. Writes one line of JSON for each thing it found.
//!
//! Only for a guest: it installs a service and connects to the server at its usual place.

mod agent;
mod hold;
mod suites;

use std::{
    env, fs,
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Where the archive was unpacked.
#[derive(Debug)]
pub struct Work {
    folder: PathBuf,
    /// Only what a run of all tests takes.
    short: bool,
}

impl Work {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn main() -> ExitCode {
    if !Path::new("/etc/guard-complete").exists() {
        let _ = writeln!(io::stderr(), "this runs in the guests of `cargo xtask kernel-matrix` alone");
        return ExitCode::FAILURE;
    }
    let Some(folder) = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned)) else {
        return ExitCode::FAILURE;
    };
    let options = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let has = |word: &str| options.split_whitespace().any(|option| option == word);
    let work = Work { folder, short: has("guard.short") };
    for (name, part) in [
        ("doctor", host as fn(&Work) -> Result<()>),
        ("agent", agent::run_all),
        ("hold", hold::run_all),
        ("kernel tests", suites::kernel),
        ("end-to-end tests", suites::end_to_end),
        ("the kernel's log", kernels_log),
    ] {
        let started = Instant::now();
        if let Err(error) = part(&work) {
            check(name, false, &format!("{error:#}"));
        }
        say(&json!({ "line": "part", "name": name, "seconds": started.elapsed().as_secs() }));
    }
    say(&json!({ "line": "end" }));
    ExitCode::SUCCESS
}

/// What doctor says of this kernel.
fn host(work: &Work) -> Result<()> {
    let mut command = Command::new(work.path("guard-agent"));
    let output = command.args(["doctor", "--json"]).stdin(Stdio::null()).output()?;
    let report: Value = serde_json::from_slice(&output.stdout).context("doctor's JSON")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    say(&json!({ "line": "host", "release": release.trim(), "rung": report["rung"] }));
    let missing = format!("{} {}", report["missing"], report["programs"]);
    let content = report["complete"] != true || report["rung"] == "full";
    check("doctor is content on the top rung alone", content, &missing);
    let hold = report["hold"].as_array().context("hold")?;
    let held = !hold.is_empty() && hold.iter().all(|check| check["ok"] == true);
    check("doctor says that statements can be held", held, &report["hold"].to_string());
    let names = report["rungs"].as_array().context("rungs")?;
    check("doctor names the ladder", names.iter().any(|rung| rung["name"] == report["rung"]), "");
    Ok(())
}

/// The kernel has complained of nothing that guard or its tests did.
fn kernels_log(_: &Work) -> Result<()> {
    let log = succeed(&mut Command::new("dmesg"))?;
    let complaints =
        log.lines().filter(|line| line.contains("Comm: guard-") || line.contains("Comm: kernel-tests"));
    let first = log.split_once("[ cut here ]").map_or("", |(_, rest)| rest);
    check("the kernel warns of nothing that guard does", complaints.count() == 0, first);
    Ok(())
}

/// One thing that holds or does not.
fn check(name: &str, ok: bool, detail: &str) {
    counted(name, [i64::from(ok), i64::from(!ok), 0], if ok { "" } else { detail });
}

/// Several at once: passed, failed, skipped.
fn counted(name: &str, [passed, failed, skipped]: [i64; 3], detail: &str) {
    let detail: String = detail.chars().take(4_000).collect();
    say(&json!({
        "line": "check",
        "name": name,
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "detail": detail,
    }));
}

/// To the disk behind standard output, at once: a machine that hangs is switched off. And to the console, for its log.
fn say(line: &Value) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    // Where standard output is no disk there is nothing to do.
    let _ = nix::unistd::fsync(out.as_fd());
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs a command to its end, and gives what it wrote to its outputs.
fn run(command: &mut Command) -> Result<(bool, String)> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// Runs a command that has to succeed.
fn succeed(command: &mut Command) -> Result<String> {
    let (ok, text) = run(command)?;
    if ok { Ok(text) } else { bail!("{command:?} failed: {text}") }
}
