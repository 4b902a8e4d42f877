//! A server process: started, waited for, ended by its process id.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{self, Signal},
    },
    unistd::{self, Pid},
};

/// How long a server may take to come up, on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    stop: Signal,
}

impl Server {
    /// Starts `command`, whose output goes to the file `log`. `stop` is the signal that ends it in good order.
    pub fn start(name: &str, mut command: Command, log: &Path, stop: Signal) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // SAFETY: the closure makes two system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                // As a service manager starts it, and counted by itself where the kernel shares out time by session. Ctrl-C in a
                // terminal is for the runner, which then ends its servers in order.
                unistd::setsid()?;
                // A runner that is killed leaves no servers behind.
                prctl::set_pdeathsig(stop).map_err(Into::into)
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), stop })
    }

    /// Waits until `ready`. An error with the end of the log when it ends first, or takes too long.
    pub fn wait_until(&mut self, mut ready: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + crate::run::patience(START_LIMIT);
        while !ready(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} instead of starting:\n{}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} is not up after {START_LIMIT:?}:\n{}", self.name, self.log_tail());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything that it has printed.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        signal::kill(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in good order; kills it when it takes too long.
    pub fn stop(&mut self) -> Result<()> {
        if !self.alive() {
            return Ok(());
        }
        self.signal(self.stop)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.alive() {
            if Instant::now() > deadline {
                self.kill()?;
                bail!("{} did not end within {STOP_LIMIT:?} after {} and was killed", self.name, self.stop);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}
