//! Builds the fuzzer and runs it, one process per target.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{folder, report};
use crate::{shell, style};

/// An input that takes longer than this hangs.
const INPUT_SECONDS: u64 = 30;

/// A target that takes more memory than this leaks.
const MEMORY_MIB: u64 = 2_048;

/// Beyond its time, before a target that does not end is ended.
const GRACE: Duration = Duration::from_secs(60);

/// Packages that are built with optimisations: what runs for every input.
const OPTIMISED: [(&str, u8); 4] =
    [("guard-agent", 2), ("guard-policy", 2), ("guard-fuzz", 2), ("libfuzzer-sys", 3)];

/// The fuzzer's program.
#[derive(Debug)]
pub struct Fuzzer {
    program: PathBuf,
}

/// One target, as the program describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    pub max_len: usize,
    pub sql: bool,
}

/// How a target's run went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub target: String,
    pub seconds: f64,
    pub executions: u64,
    /// Edges of guard's own code that some input took.
    pub coverage: u64,
    /// Inputs in the corpus.
    pub corpus: u64,
    pub memory_mib: u64,
    /// Inputs that failed in this run.
    pub crashes: Vec<PathBuf>,
    /// It ended as it should.
    pub ended_well: bool,
    pub log: PathBuf,
}

impl Outcome {
    /// No input failed, and inputs there were.
    pub fn good(&self) -> bool {
        self.crashes.is_empty() && self.ended_well && self.executions > 0
    }
}

/// Builds the program: guard's packages counting edges, their dependencies as every other build has them.
pub fn build() -> Result<Fuzzer> {
    let wrapper = shell::root().join("guard-agent/fuzz/instrument.sh");
    let mut command =
        shell::cargo(&["build", "--locked", "--package", "guard-fuzz", "--features", "libfuzzer"]);
    for (package, level) in OPTIMISED {
        command.args(["--config", &format!("profile.dev.package.{package}.opt-level={level}")]);
    }
    command.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    shell::run(command, "building the fuzzer")?;
    let program = folder().join("guard-fuzz");
    fs::create_dir_all(folder())?;
    // Another build must not change it while it runs.
    let _ = fs::remove_file(&program);
    fs::copy(shell::target().join("debug/guard-fuzz"), &program).context("the build left no guard-fuzz")?;
    Ok(Fuzzer { program })
}

impl Fuzzer {
    /// Writes seeds and dictionary, and asks for the targets.
    pub fn targets(&self) -> Result<Vec<Target>> {
        let mut command = Command::new(&self.program);
        command.env("GUARD_FUZZ_PREPARE", folder());
        let printed = shell::output(command).context("the fuzzer does not name its targets")?;
        printed.lines().map(parse_target).collect()
    }

    /// Runs one input and shows everything that it prints. True where nothing failed.
    pub fn reproduce(&self, target: &Target, input: &Path) -> Result<bool> {
        ensure!(input.is_file(), "there is no file {}", input.display());
        let mut command = Command::new(&self.program);
        command.env("GUARD_FUZZ_TARGET", &target.name).env("RUST_BACKTRACE", "1").arg(input);
        Ok(command.status()?.success())
    }

    /// Runs all, `jobs` at once.
    pub fn run_all(&self, targets: &[Target], share: Duration, jobs: usize) -> Result<Vec<Outcome>> {
        let queue = Mutex::new(targets.iter());
        let outcomes = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(target) = queue.lock().ok().and_then(|mut queue| queue.next()) {
                        let outcome = self.run(target, share);
                        if let Ok(mut outcomes) = outcomes.lock() {
                            outcomes.push(outcome);
                        }
                    }
                });
            }
        });
        let mut outcomes =
            outcomes.into_inner().unwrap_or_default().into_iter().collect::<Result<Vec<_>>>()?;
        let place = |name: &str| targets.iter().position(|target| target.name == name);
        outcomes.sort_by_key(|outcome| place(&outcome.target));
        Ok(outcomes)
    }

    fn run(&self, target: &Target, share: Duration) -> Result<Outcome> {
        let name = &target.name;
        let (corpus, crashes) = (folder().join("corpus").join(name), folder().join("crashes").join(name));
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&crashes)?;
        let before = files(&crashes);
        let log = folder().join(format!("{name}.log"));
        let mut command = Command::new(&self.program);
        command.env("GUARD_FUZZ_TARGET", name).env("RUST_BACKTRACE", "1");
        command.arg(format!("-max_total_time={}", share.as_secs()));
        command.arg(format!("-max_len={}", target.max_len));
        command.arg(format!("-timeout={INPUT_SECONDS}"));
        command.arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        command.arg(format!("-artifact_prefix={}/", crashes.display()));
        command.args(["-print_final_stats=1", "-reload=0"]);
        if target.sql {
            command.arg(format!("-dict={}", folder().join("sql.dict").display()));
        }
        command.arg(&corpus).arg(folder().join("seeds").join(name));
        let started = Instant::now();
        let ended_well = wait(command, &log, share + GRACE)?;
        let mut outcome = report::parse(&fs::read_to_string(&log).unwrap_or_default());
        outcome.seconds = started.elapsed().as_secs_f64();
        outcome.crashes = files(&crashes).into_iter().filter(|file| !before.contains(file)).collect();
        outcome.ended_well = ended_well;
        outcome.target.clone_from(name);
        outcome.log = log;
        let state = if outcome.good() { style::good("ok    ") } else { style::bad("FAILED") };
        println!("  {state} {name}: {} executions", outcome.executions);
        Ok(outcome)
    }
}

/// Runs to the end, or ends it where it does not end by itself. True where it ended well.
fn wait(mut command: Command, log: &Path, limit: Duration) -> Result<bool> {
    let file = File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", shell::shown(&command)))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// A line `name max_len sql`.
fn parse_target(line: &str) -> Result<Target> {
    let mut words = line.split_whitespace();
    let (Some(name), Some(max_len), Some(sql)) = (words.next(), words.next(), words.next()) else {
        bail!("the fuzzer describes a target as `{line}`");
    };
    Ok(Target { name: name.to_owned(), max_len: max_len.parse()?, sql: sql.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_the_program_writes_them() {
        let target = parse_target("session 4096 true").unwrap();
        assert_eq!(target, Target { name: "session".to_owned(), max_len: 4096, sql: true });
        assert!(parse_target("session").is_err());
        assert!(parse_target("session x true").is_err());
    }

    #[test]
    fn what_does_not_end_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let run = |script| {
            wait(
                shell::command("sh", &["-c", script]),
                &folder.path().join("log"),
                Duration::from_millis(300),
            )
            .unwrap()
        };
        assert!(run("true"));
        assert!(!run("exit 77"));
        assert!(!run("sleep 60"));
    }
}
