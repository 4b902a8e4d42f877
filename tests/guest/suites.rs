//! The tests of this build, run as they are: those of the kernel side, and those from end to end that a kernel can change.
//!
//! A test program and names enter, counts leave. Each line that a program says goes to the console at once: a machine
//! that says nothing is taken for one that hangs.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

use super::{Work, counted};

/// A short run: one test for each way in which connections are seen. Starting a sensor takes an emulated machine long.
const IN_SHORT: &[&str] = &[
    "every_program_is_cheap_to_verify",
    "unix_clients_are_told_apart",
    "the_proxy_learns_who_its_clients_are",
    "a_fork_without_exec_is_a_process_of_its_own",
    "without_links_nothing_else_is_missing",
    "without_btf_a_client_that_is_gone",
    "without_bpf_unix_clients_are_found",
];
/// Refusing and steering, as the rung lets them.
const END_TO_END: &[&str] = &[
    "bypass::in_enforce_mode_every_way_is_stopped",
    "bypass::a_client_that_was_decided_on_before",
    "steering::clients_from_everywhere_meet_the_proxy_with",
    "steering::clients_from_everywhere_meet_the_proxy_by_nftables",
    "steering::nftables_refuses_when_the_proxy_is_gone",
    "observed::",
    "rungs::",
];

/// The kernel side: every rung is forced.
pub fn kernel(work: &Work) -> Result<()> {
    // A few at a time: the machine may be an emulated one.
    suite(work, "kernel tests", "kernel-tests", "--test-threads=2", if work.short { IN_SHORT } else { &[] })
}

/// Refusing, steering and statements from end to end, with a PostgreSQL of each test's own.
pub fn end_to_end(work: &Work) -> Result<()> {
    if work.short {
        return Ok(());
    }
    // Tests read what is shipped where it was when they were built.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the folder of the sources")?;
    fs::create_dir_all(root)?;
    for shipped in ["policies", "deploy"] {
        let place = root.join(shipped);
        if !place.exists() {
            symlink(work.path(shipped), &place)?;
        }
    }
    suite(work, "end-to-end tests", "end-to-end-tests", "--test-threads=1", END_TO_END)
}

fn suite(work: &Work, name: &str, program: &str, threads: &str, words: &[&str]) -> Result<()> {
    let skips = work.path(&format!("{program}.skips"));
    let mut command = Command::new(work.path(program));
    command.arg(threads).args(words).current_dir("/tmp").stdin(Stdio::null());
    command.env("GUARD_SKIPS", &skips).env("GUARD_EMULATED", "1").env("GUARD_BIN_DIR", work.path("."));
    let output = said(&mut command)?;
    let line = output.lines().find(|line| line.starts_with("test result:"));
    let line = line.with_context(|| format!("they did not come to their end: {output}"))?;
    let reasons = fs::read_to_string(&skips).unwrap_or_default();
    let skipped = i64::try_from(reasons.lines().count())?;
    let (passed, failed) = (before(line, "passed") - skipped, before(line, "failed"));
    let detail = if failed > 0 { failures(&output) } else { reasons };
    counted(name, [passed, failed, skipped], &detail);
    Ok(())
}

/// Runs a program to its end and gives its outputs; the console hears each line when it is said.
fn said(command: &mut Command) -> Result<String> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
    let complaints = thread::spawn(move || gathered(stderr));
    let mut output = gathered(stdout);
    output.push_str(&complaints.join().unwrap_or_default());
    child.wait()?;
    Ok(output)
}

fn gathered(stream: impl io::Read) -> String {
    let mut all = String::new();
    // What is no text ends it: test programs write text.
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let _ = writeln!(io::stderr(), "{line}");
        all.push_str(&line);
        all.push('\n');
    }
    all
}

/// The number right before a word of the summary.
fn before(line: &str, word: &str) -> i64 {
    line.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok()).unwrap_or(0)
}

/// The messages of what failed.
fn failures(output: &str) -> String {
    output.split_once("\nfailures:\n").map(|(_, rest)| rest.trim().to_owned()).unwrap_or_default()
}
