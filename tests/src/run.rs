//! Runs a client to its end, with a limit on its time.

use std::{
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a client may take.
pub const CLIENT_LIMIT: Duration = Duration::from_secs(30);

/// How long something may take here: an emulated machine (`GUARD_EMULATED`) is many times as slow.
pub fn patience(limit: Duration) -> Duration {
    if std::env::var_os("GUARD_EMULATED").is_some() { limit * 6 } else { limit }
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// Its process id while it ran.
    pub pid: u32,
}

impl Finished {
    /// Whether it ended with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// Its output, or an error with everything that it said.
    pub fn expect_ok(self, what: &str) -> Result<Self> {
        if self.ok() {
            return Ok(self);
        }
        bail!("{what} failed with {:?}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr)
    }

    /// Whether its error output shows this SQLSTATE. psql shows it with `VERBOSITY=verbose`.
    pub fn has_sqlstate(&self, sqlstate: &str) -> bool {
        self.stderr.lines().any(|line| {
            line.contains(&format!("ERROR:  {sqlstate}:")) || line.contains(&format!("FATAL:  {sqlstate}:"))
        })
    }
}

/// Runs `command` with `input` as its standard input. After `limit` it is killed, and that is an error.
pub fn run(mut command: Command, input: &str, limit: Duration) -> Result<Finished> {
    let limit = patience(limit);
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let pid = child.id();
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    if let Some(mut stdin) = child.stdin.take() {
        // A client that ends without reading its input is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let deadline = Instant::now() + limit;
    let status = wait(&mut child, deadline)?;
    // A child of the client may hold the pipes open: what it has not said by then is not waited for.
    let rest = Duration::from_secs(2);
    let (stdout, stderr) =
        (stdout.recv_timeout(rest).unwrap_or_default(), stderr.recv_timeout(rest).unwrap_or_default());
    match status {
        Some(status) => Ok(Finished { code: status.code(), stdout, stderr, pid }),
        None => bail!("{name} had not ended after {limit:?}\nstdout: {stdout}\nstderr: {stderr}"),
    }
}

/// Waits until `deadline`, then kills. `None`: it had to be killed.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn gather(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}

/// Waits until `ready` is true; an error that names `what` after `limit`.
pub fn eventually(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = patience(limit);
    let deadline = Instant::now() + limit;
    loop {
        if ready().with_context(|| format!("while waiting for {what}"))? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(Duration::from_millis(25));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_input_and_gives_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat; echo two >&2; exit 3"]);
        let finished = run(command, "one", CLIENT_LIMIT).unwrap();
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), "one"));
        assert_eq!(finished.stderr, "two\n");
    }

    #[test]
    fn a_client_that_hangs_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let started = Instant::now();
        assert!(run(command, "", Duration::from_millis(100)).is_err());
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn sqlstate_is_found_in_verbose_errors_only() {
        let stderr = "ERROR:  42501: refused\n".to_owned();
        let finished = Finished { code: Some(1), stdout: String::new(), stderr, pid: 1 };
        assert!(finished.has_sqlstate("42501"));
        assert!(!finished.has_sqlstate("42P01"));
    }
}
