//! The stages of a test run.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::mpsc::{self, Sender},
    thread,
};

use anyhow::{Context, Result};

use super::{
    drivers, regress,
    summary::{self, Counts, Skips},
};
use crate::{
    fuzz, matrix,
    setup::{self, Group},
    shell, style,
};

/// Enough for every target to go beyond its seeds.
const FUZZ_SECONDS: u64 = 60;

/// One stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Unit,
    Policies,
    Kernel,
    Control,
    EndToEnd,
    Approvals,
    Bypass,
    Drivers,
    Regress,
    Disguises,
    Masking,
    Console,
    Matrix,
    Deploy,
    Demo,
    Fuzz,
}

/// What runs unless something else is asked for; fuzzing builds guard once more, and its seeds are among the unit tests.
const USUAL: &[Stage] = &[
    Stage::Unit,
    Stage::Policies,
    Stage::Kernel,
    Stage::Control,
    Stage::EndToEnd,
    Stage::Drivers,
    Stage::Regress,
    Stage::Disguises,
    Stage::Masking,
    Stage::Console,
    Stage::Deploy,
    Stage::Demo,
];
/// Stands for all of them where others are named as well.
const ALL_USUAL: &str = "usual";

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Policies => "policies",
            Self::Kernel => "kernel",
            Self::Control => "control",
            Self::EndToEnd => "e2e",
            Self::Approvals => "approvals",
            Self::Bypass => "bypass",
            Self::Drivers => "drivers",
            Self::Regress => "regress",
            Self::Disguises => "disguises",
            Self::Masking => "masking",
            Self::Console => "console",
            Self::Matrix => "matrix",
            Self::Deploy => "deploy",
            Self::Demo => "demo",
            Self::Fuzz => "fuzz",
        }
    }

    /// What its line says.
    pub fn title(self) -> &'static str {
        match self {
            Self::Unit => "unit tests",
            Self::Policies => "policy tests",
            Self::Kernel => "kernel and uplink tests",
            Self::Control => "control plane tests",
            Self::EndToEnd => "end-to-end tests",
            Self::Approvals => "approvals",
            Self::Bypass => "ways round the proxy",
            Self::Drivers => "drivers through guard",
            Self::Regress => "PostgreSQL's own suites through guard",
            Self::Disguises => "disguised statements",
            Self::Masking => "masking",
            Self::Console => "the console in a browser",
            Self::Matrix => "other kernels",
            Self::Deploy => "deployment files",
            Self::Demo => "demo",
            Self::Fuzz => "fuzzing, in short",
        }
    }

    /// What it needs beyond what every stage needs.
    pub fn groups(self) -> &'static [Group] {
        match self {
            Self::Drivers => &[Group::Drivers],
            Self::Regress | Self::Disguises => &[Group::Regress],
            Self::Console => &[Group::Console],
            Self::Matrix => &[Group::Matrix],
            _ => &[],
        }
    }

    /// The stages that `filter` names, the usual ones where it names none; and what else it says: parts of test names.
    pub fn selected(filter: &[String]) -> (Vec<Self>, Vec<String>) {
        let extra = [Self::Approvals, Self::Bypass, Self::Matrix, Self::Fuzz];
        let known = || USUAL.iter().copied().chain(extra);
        let named = |word: &String| -> Vec<Self> {
            if word == ALL_USUAL {
                USUAL.to_vec()
            } else {
                known().filter(|stage| stage.name() == word).collect()
            }
        };
        let stages: Vec<_> = filter.iter().flat_map(named).collect();
        let names: Vec<_> = filter.iter().filter(|word| named(word).is_empty()).cloned().collect();
        let stages = match (stages.is_empty(), names.is_empty()) {
            (false, _) => stages,
            (true, true) => USUAL.to_vec(),
            // Only these have tests with names.
            (true, false) => vec![Self::Unit, Self::Kernel, Self::Control, Self::EndToEnd],
        };
        (stages, names)
    }

    /// Runs it. An error: it could not be run at all.
    pub fn run(self, names: &[String], skips: &Skips) -> Result<Counts> {
        match self {
            Self::Unit => rust_tests(&["--workspace", "--lib", "--bins"], names, skips),
            // They share the kernel's hooks and the cores of a small machine with the servers that they start.
            Self::Kernel => rust_tests(&["--package", "guard-agent", "--test", "*"], names, skips),
            // Agents that join it and ship to it are a part of it.
            Self::Control => {
                let mut counts =
                    rust_tests(&["--package", "guard-control", "--test", "control"], names, skips)?;
                counts += rust_tests(&["--package", "guard-agent", "--test", "uplink"], names, skips)?;
                Ok(counts)
            }
            // The long hunt for clear values is left to `masking`.
            Self::EndToEnd => {
                setup::other_servers();
                let hunt = ["--", "--skip", "masking::attempts"].map(str::to_owned);
                let names = if names.is_empty() { &hunt[..] } else { names };
                rust_tests(&["--workspace", "--test", "e2e"], names, skips)
            }
            // Also a part of the unit and the end-to-end tests: here alone, and all of it.
            Self::Approvals => approvals(names, skips),
            // Also a part of the end-to-end tests: here alone.
            Self::Bypass => {
                let names = if names.is_empty() { &["bypass".to_owned()] } else { names };
                rust_tests(&["--package", "guard-tests", "--test", "e2e"], names, skips)
            }
            Self::Policies => {
                let agent = guard_tests::binaries::path("guard-agent")?;
                let mut counts = checked(shell::command(&agent, &["policy", "test", "policies"]))?;
                counts += checked(shell::command(&agent, &["policy", "test", "policies/examples"]))?;
                Ok(counts)
            }
            Self::Drivers => drivers::run(names),
            Self::Regress => regress::run(),
            Self::Disguises => disguises(),
            // What is found in data of many countries, and what comes back to who may not see it.
            Self::Masking => {
                let mut counts = checked(shell::command(guard_tests::binaries::path("guard-masking")?, &[]))?;
                counts += rust_tests(
                    &["--package", "guard-tests", "--test", "e2e"],
                    &["masking".to_owned()],
                    skips,
                )?;
                Ok(counts)
            }
            Self::Console => console(names, skips),
            Self::Matrix => matrix(),
            Self::Deploy => deploy(),
            Self::Demo => {
                // By its path: what runs here may have been built anew meanwhile.
                checked(shell::command(guard_tests::binaries::path("xtask")?, &["demo"]))
            }
            Self::Fuzz => {
                let (passed, failed) = fuzz::smoke(FUZZ_SECONDS)?;
                Ok(Counts { passed: passed.try_into()?, failed: failed.try_into()?, skipped: 0 })
            }
        }
    }
}

/// Everything about statements that wait: the book of requests, sessions, people at several terminals.
fn approvals(names: &[String], skips: &Skips) -> Result<Counts> {
    let names = if names.is_empty() { &["approval".to_owned(), "held".to_owned()] } else { names };
    let mut counts =
        rust_tests(&["--package", "guard-policy", "--package", "guard-agent", "--lib"], names, skips)?;
    counts += rust_tests(&["--package", "guard-tests", "--test", "e2e"], names, skips)?;
    Ok(counts)
}

/// People in a browser: before a real site, and a day of a fleet on every page. Pictures are left in target/console.
fn console(names: &[String], skips: &Skips) -> Result<Counts> {
    let pictures = shell::root().join("target/console");
    let mut counts = rust_tests(&["--package", "guard-tests", "--test", "console"], names, skips)?;
    counts += rust_tests(&["--package", "guard-control", "--test", "console"], names, skips)?;
    println!("  pictures of it: {}", pictures.display());
    Ok(counts)
}

/// Runs tests with nextest where it is installed, with cargo test otherwise.
fn rust_tests(selection: &[&str], names: &[String], skips: &Skips) -> Result<Counts> {
    let nextest = shell::output(shell::cargo(&["nextest", "--version"])).is_some();
    let mut command = if nextest {
        let quiet = ["--no-fail-fast", "--status-level", "fail", "--final-status-level", "fail"];
        let mut command =
            shell::cargo(&["nextest", "run", "--locked", "--cargo-quiet", "--no-tests", "pass"]);
        command.args(quiet).args(["--color", if style::colours() { "always" } else { "never" }]);
        command.args(selection).args(names);
        command
    } else {
        let mut command = shell::cargo(&["test", "--locked", "--quiet", "--no-fail-fast"]);
        command.args(selection).arg("--").args(names);
        command
    };
    command.env("GUARD_SKIPS", skips.path());
    let (ok, output) = tee(command)?;
    let mut counts = summary::parse(&output).unwrap_or_default();
    if nextest && !names.is_empty() {
        // It counts what the names do not match as skipped.
        counts.skipped = 0;
    }
    if !ok && counts.failed == 0 {
        // The runner itself failed: a test does not compile.
        counts.failed += 1;
    }
    Ok(counts)
}

/// Runs a command that prints its own sum, or counts as one check.
fn checked(command: Command) -> Result<Counts> {
    let (ok, output) = tee(command)?;
    let mut counts = summary::parse(&output).unwrap_or(Counts::of(ok));
    if !ok && counts.failed == 0 {
        counts.failed += 1;
    }
    Ok(counts)
}

/// Dangerous statements in every disguise, and harmless ones: they run on a server of their own.
fn disguises() -> Result<Counts> {
    let mut command = shell::command(guard_tests::binaries::path("guard-disguises")?, &[]);
    // Where the setup puts the SQL of PostgreSQL's own regression suite.
    command.env("GUARD_POSTGRESQL_SOURCE", shell::tools().join("postgresql-sources"));
    // Tens of thousands of decisions are recorded before they take effect: the disk would be what is tested.
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() {
        command.env("TMPDIR", memory);
    }
    checked(command)
}

/// An old kernel and the newest, in virtual machines. Where they cannot be had, that is said, and skipped.
fn matrix() -> Result<Counts> {
    let outcomes = match matrix::short()? {
        Ok(outcomes) => outcomes,
        Err(reason) => {
            println!("{} other kernels: {reason}", style::bad("SKIPPED"));
            return Ok(Counts { skipped: 1, ..Counts::default() });
        }
    };
    let mut counts = Counts::default();
    for outcome in outcomes {
        counts += Counts { passed: outcome.passed, failed: outcome.failed, skipped: outcome.skipped };
    }
    Ok(counts)
}

/// The ecosystem's own checkers on what is in deploy/.
fn deploy() -> Result<Counts> {
    let mut counts = Counts::default();
    let mut check = |what: &str, mut command: Command| -> Result<()> {
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", shell::shown(&command)))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        // systemd-analyze warns of unknown keys and ends with 0.
        let ok = output.status.success() && !said.contains("ignoring");
        println!("  {} {what}", if ok { style::good("ok    ") } else { style::bad("FAILED") });
        if !ok {
            println!("{said}");
        }
        counts += Counts::of(ok);
        Ok(())
    };
    let bin = guard_tests::binaries::path("guard-agent")?;
    let units = SystemdUnits::new(bin.parent().context("the build has no folder")?)?;
    for unit in ["guard-agent.service", "guard-control.service"] {
        let path = units.path(unit);
        check(
            &format!("systemd-analyze verify {unit}"),
            shell::command("systemd-analyze", &["verify", &path]),
        )?;
    }
    let manifest = "deploy/kubernetes/daemonset.yaml";
    check(
        &format!("kubernetes-validate --strict {manifest}"),
        shell::command(setup::kubernetes_validate(), &["--strict", manifest]),
    )?;
    check(
        "guard-agent config check --config deploy/guard.toml",
        shell::command(&bin, &["config", "check", "--config", "deploy/guard.toml"]),
    )?;
    Ok(counts)
}

/// The units with the paths of this build: systemd-analyze wants the programs to exist.
struct SystemdUnits {
    folder: tempfile::TempDir,
}

impl SystemdUnits {
    fn new(bin: &std::path::Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for entry in std::fs::read_dir(shell::root().join("deploy/systemd"))? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)?
                .replace("/usr/bin/guard-", &format!("{}/guard-", bin.display()));
            std::fs::write(folder.path().join(path.file_name().context("a file without a name")?), text)?;
        }
        Ok(Self { folder })
    }

    fn path(&self, unit: &str) -> String {
        self.folder.path().join(unit).to_string_lossy().into_owned()
    }
}

/// Runs a command, shows what it prints while it prints it, and gives it back.
fn tee(mut command: Command) -> Result<(bool, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", shell::shown(&command)))?;
    let (send, lines) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|stream| read(stream, send.clone())),
        child.stderr.take().map(|stream| read(stream, send)),
    ];
    let mut output = String::new();
    for line in lines {
        println!("  {line}");
        output.push_str(&line);
        output.push('\n');
    }
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    Ok((child.wait()?.success(), output))
}

fn read(stream: impl Read + Send + 'static, lines: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if lines.send(text).is_err() {
                break;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_filter_names_stages_or_parts_of_tests() {
        assert_eq!(Stage::selected(&[]), (USUAL.to_vec(), Vec::new()));
        assert_eq!(Stage::selected(&words(&["fuzz"])), (vec![Stage::Fuzz], Vec::new()));
        assert_eq!(
            Stage::selected(&words(&["deploy", "e2e"])),
            (vec![Stage::Deploy, Stage::EndToEnd], Vec::new())
        );
        let (stages, names) = Stage::selected(&words(&["refused"]));
        assert!(stages.contains(&Stage::EndToEnd) && !stages.contains(&Stage::Demo));
        assert_eq!(names, ["refused"]);
        assert_eq!(Stage::selected(&words(&["unit", "wire"])), (vec![Stage::Unit], words(&["wire"])));
        let on_ci = [USUAL, &[Stage::Matrix]].concat();
        assert_eq!(Stage::selected(&words(&["usual", "matrix"])), (on_ci, Vec::new()));
    }

    #[test]
    fn output_and_failure_of_a_command_come_through() {
        let command = shell::command("sh", &["-c", "echo '3 passed, 1 failed'; exit 1"]);
        assert_eq!(checked(command).unwrap(), Counts { passed: 3, failed: 1, skipped: 0 });
        let silent = checked(shell::command("sh", &["-c", "exit 1"])).unwrap();
        assert_eq!(silent, Counts { passed: 0, failed: 1, skipped: 0 });
    }
}
