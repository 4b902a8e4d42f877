//! Whether a machine gets on: what it has computed and what it says enter, a verdict leaves.
//!
//! Emulated machines are slow, and slower still where others share the host. INVARIANT: what counts is what the machine
//! has computed since it last said something, not what the clock says: a guest that waits for its turn does not hang.

use std::{
    fs,
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use super::machine::Accelerator;

/// How often is looked.
const PERIOD: Duration = Duration::from_millis(200);
/// With what a kernel begins, long before anything of the guest runs.
const FIRST_WORD: &str = "Linux version";
/// Ticks in a second of `/proc/PID/stat`, on every Linux.
const TICKS: u64 = 100;

/// What a machine is given.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Computed without a word of the kernel.
    pub mute: Duration,
    /// Computed since it last said something.
    pub silent: Duration,
    /// By the clock, since it last said something: for a machine that computes nothing any more.
    pub still: Duration,
    /// Computed in all.
    pub whole: Duration,
}

impl Patience {
    /// Several times what each takes.
    pub const fn of(accelerator: Accelerator) -> Self {
        let seconds = Duration::from_secs;
        match accelerator {
            Accelerator::Kvm => {
                Self { mute: seconds(30), silent: seconds(120), still: seconds(300), whole: seconds(600) }
            }
            Accelerator::Emulated => {
                Self { mute: seconds(60), silent: seconds(300), still: seconds(600), whole: seconds(1_800) }
            }
        }
    }
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By itself.
    Ended,
    /// Its kernel did not say a word.
    Mute,
    /// It said nothing more.
    Hung,
    /// It went on and on.
    Endless,
}

impl Verdict {
    /// For people: what the machine did.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Ended => "wrote nothing",
            Self::Mute => "has not started its kernel",
            Self::Hung => "said nothing more",
            Self::Endless => "did not come to its end",
        }
    }
}

/// How far a machine is.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// What it has said, in bytes.
    said: u64,
    /// What it had computed when it said that.
    computed: Duration,
    /// When it said that.
    at: Instant,
}

/// Waits for the end of a machine whose console is written to `console`, and brings it about when it does not get on.
pub fn watch(child: &mut Child, console: &Path, patience: Patience) -> Verdict {
    let mut last = Progress { said: 0, computed: Duration::ZERO, at: Instant::now() };
    let mut speaks = false;
    loop {
        match child.try_wait() {
            Ok(None) => thread::sleep(PERIOD),
            _ => return Verdict::Ended,
        }
        let said = fs::metadata(console).map_or(0, |log| log.len());
        let computed = computed(child.id()).unwrap_or_default();
        if said != last.said {
            last = Progress { said, computed, at: Instant::now() };
            speaks = speaks || fs::read(console).is_ok_and(|log| contains(&log, FIRST_WORD.as_bytes()));
        }
        if let Some(verdict) = judged(&last, speaks, computed, last.at.elapsed(), patience) {
            // It may have ended in this moment.
            let _ = child.kill();
            let _ = child.wait();
            return verdict;
        }
    }
}

/// What is wrong, if anything is.
fn judged(
    last: &Progress,
    speaks: bool,
    computed: Duration,
    still: Duration,
    patience: Patience,
) -> Option<Verdict> {
    let silent = computed.saturating_sub(last.computed);
    if !speaks && (computed > patience.mute || still > patience.still) {
        Some(Verdict::Mute)
    } else if silent > patience.silent || still > patience.still {
        Some(Verdict::Hung)
    } else if computed > patience.whole {
        Some(Verdict::Endless)
    } else {
        None
    }
}

fn contains(log: &[u8], word: &[u8]) -> bool {
    log.windows(word.len()).any(|window| window == word)
}

/// What a process has computed on all processors.
fn computed(pid: u32) -> Option<Duration> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        .map(|ticks| Duration::from_millis(ticks * 1_000 / TICKS))
}

/// In its own code and in the kernel: the 14th and 15th field. The name before them may have blanks.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, process::Command};

    use super::*;

    const PATIENCE: Patience = Patience::of(Accelerator::Emulated);

    #[test]
    fn a_machine_that_waits_for_its_turn_does_not_hang() {
        let last = Progress { said: 1, computed: Duration::from_secs(20), at: Instant::now() };
        let seconds = Duration::from_secs;
        assert_eq!(judged(&last, true, seconds(30), seconds(500), PATIENCE), None);
        assert_eq!(judged(&last, true, seconds(330), seconds(200), PATIENCE), Some(Verdict::Hung));
        assert_eq!(judged(&last, true, seconds(30), seconds(601), PATIENCE), Some(Verdict::Hung));
        assert_eq!(judged(&last, false, seconds(61), seconds(40), PATIENCE), Some(Verdict::Mute));
        let late = Progress { computed: seconds(1_790), ..last };
        assert_eq!(judged(&late, true, seconds(1_801), seconds(1), PATIENCE), Some(Verdict::Endless));
    }

    #[test]
    fn a_process_that_says_nothing_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let console = folder.path().join("console");
        let patience = Patience { still: Duration::from_millis(300), ..PATIENCE };
        let run = |script: &str| {
            let log = File::create(&console).unwrap();
            let mut child = Command::new("sh").args(["-c", script]).stdout(log).spawn().unwrap();
            watch(&mut child, &console, patience)
        };
        assert_eq!(run("exec sleep 60"), Verdict::Mute);
        assert_eq!(run("echo Linux version 5; exec sleep 60"), Verdict::Hung);
        assert_eq!(run("echo Linux version 5"), Verdict::Ended);
    }

    #[test]
    fn what_a_process_has_computed_is_read() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(200));
        assert!(computed(std::process::id()).is_some());
    }
}
