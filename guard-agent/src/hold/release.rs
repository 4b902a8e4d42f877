//! Letting a stopped backend go: as if nothing had been, or so that its statement never runs.
//!
//! A cancelled statement fails as one that its user cancelled (SQLSTATE 57014): the backend finds the signal that
//! `pg_cancel_backend` sends, and goes on in PostgreSQL's own function that looks for it, in place of the function that
//! would have run the statement. It never finds a signal that could take down the server.

use std::{
    io,
    time::{Duration, Instant},
};

use guard_common::kernel::hold::{Stop, level};
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::process::Process;

/// The first instruction of a function has been executed when its process stops; none is longer.
pub const INSTRUCTION: u64 = 16;

/// How long a process may take to stop.
const STOPS_WITHIN: Duration = Duration::from_millis(200);

/// Why a statement could not be cancelled for certain.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The process has ended, and its statement with it.
    #[error("the process has ended")]
    Gone,
    /// It was told to cancel, but nobody can say whether that comes in time.
    #[error("it was signalled, but it may run before it sees that: {0}")]
    Doubtful(io::Error),
    /// It could not be signalled.
    #[error("it cannot be signalled: {0}; guard-agent needs CAP_KILL")]
    Signal(io::Error),
}

/// Lets the statement run.
pub fn run(pid: u32, stop: &Stop) -> Result<(), ReleaseError> {
    go_on(&open(pid, stop)?)
}

/// Lets the backend go, and cancels the statement before it runs. May wait for a moment, on this thread.
pub fn cancel(pid: u32, stop: &Stop) -> Result<(), ReleaseError> {
    let process = open(pid, stop)?;
    // While it is parsed, the signal alone comes in time: it is looked for before anything is done.
    let diverted = (stop.level != level::PARSE).then(|| divert(&process, stop));
    if matches!(diverted, Some(Ok(()))) {
        return Ok(());
    }
    process.signal(Signal::SIGINT).map_err(ReleaseError::Signal)?;
    go_on(&process)?;
    diverted.unwrap_or(Ok(())).map_err(ReleaseError::Doubtful)
}

fn open(pid: u32, stop: &Stop) -> Result<Process, ReleaseError> {
    Process::open(pid, stop.start_ns).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ReleaseError::Gone,
        _ => ReleaseError::Signal(error),
    })
}

fn go_on(process: &Process) -> Result<(), ReleaseError> {
    process.signal(Signal::SIGCONT).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => ReleaseError::Gone,
        _ => ReleaseError::Signal(error),
    })
}

/// Makes the process go on in the function that looks for interrupts, as if the probed one had been left for it: with the
/// same stack, it returns to where that one would have. The signals that it finds there, and that let it go on,
/// are on their way.
fn divert(process: &Process, stop: &Stop) -> io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(process.pid()).map_err(io::Error::other)?);
    ptrace::seize(pid, ptrace::Options::empty())?;
    // Signalled before it is left alone, with both. Where it is left in the middle of being stopped it goes on at once: it
    // would find nothing, which its client takes for success; and what lets it go on, sent later, could do so at its next
    // stop already.
    let signal = |signal| process.signal(signal);
    let result = stopped(pid)
        .and_then(|()| change(pid, stop))
        .and_then(|()| signal(Signal::SIGINT))
        .and_then(|()| signal(Signal::SIGCONT));
    // Where that failed, it stays stopped if it was.
    let detached = ptrace::detach(pid, None).map_err(io::Error::from);
    result.and(detached)
}

fn stopped(pid: Pid) -> io::Result<()> {
    let until = Instant::now() + STOPS_WITHIN;
    let mut asked = false;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))? {
            WaitStatus::StillAlive if Instant::now() < until => {
                std::thread::sleep(Duration::from_micros(50));
            }
            WaitStatus::StillAlive if !asked => {
                // It runs: only what stands still can be let go again.
                asked = true;
                ptrace::interrupt(pid)?;
            }
            WaitStatus::StillAlive if Instant::now() < until + STOPS_WITHIN => {
                std::thread::sleep(Duration::from_micros(50));
            }
            WaitStatus::StillAlive => return Err(io::ErrorKind::TimedOut.into()),
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => return Ok(()),
            other => return Err(io::Error::other(format!("it has ended: {other:?}"))),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn change(pid: Pid, stop: &Stop) -> io::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    is_at_the_probe(registers.rip, registers.rsp, stop)?;
    registers.rip = stop.interrupt;
    registers.rsp = stop.sp;
    // It is in no system call that would be started again.
    registers.orig_rax = u64::MAX;
    ptrace::setregs(pid, registers).map_err(io::Error::from)
}

#[cfg(target_arch = "aarch64")]
fn change(pid: Pid, stop: &Stop) -> io::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    is_at_the_probe(registers.pc, registers.sp, stop)?;
    registers.pc = stop.interrupt;
    registers.sp = stop.sp;
    registers.regs[30] = stop.lr;
    ptrace::setregs(pid, registers).map_err(io::Error::from)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn change(_: Pid, _: &Stop) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// INVARIANT: only a process that has executed nothing but the first instruction of the probed function is diverted.
fn is_at_the_probe(instruction: u64, stack: u64, stop: &Stop) -> io::Result<()> {
    /// A function's first instruction moves the stack no further.
    const FRAME: u64 = 64 * 1024;
    let at = instruction.checked_sub(stop.ip).is_some_and(|into| into <= INSTRUCTION);
    let on = stop.sp.checked_sub(stack).is_some_and(|below| below <= FRAME);
    if at && on && stop.interrupt != 0 {
        Ok(())
    } else {
        Err(io::Error::other("it does not stand where it was stopped"))
    }
}

/// Whether processes can be diverted here at all: tried on `child`, a process of this one's own.
pub fn can_divert(child: u32) -> io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(child).map_err(io::Error::other)?);
    let tried = ptrace::seize(pid, ptrace::Options::empty()).and_then(|()| ptrace::interrupt(pid));
    match tried {
        Ok(()) => stopped(pid).and(ptrace::detach(pid, None).map_err(io::Error::from)),
        Err(Errno::EPERM) => Err(io::Error::other(
            "this system lets no process be traced: guard-agent needs CAP_SYS_PTRACE, and kernel.yama.ptrace_scope must \
             be below 3",
        )),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_at_the_probe_is_diverted() {
        let stop = Stop { ip: 0x1000, sp: 0x9000, interrupt: 0x5000, ..Stop::default() };
        assert!(is_at_the_probe(0x1000, 0x9000, &stop).is_ok());
        assert!(is_at_the_probe(0x1002, 0x8ff8, &stop).is_ok());
        for (instruction, stack) in [(0xfff, 0x9000), (0x1011, 0x9000), (0x1000, 0x9008)] {
            assert!(is_at_the_probe(instruction, stack, &stop).is_err());
        }
        let unknown = Stop { interrupt: 0, ..stop };
        assert!(is_at_the_probe(0x1000, 0x9000, &unknown).is_err());
    }

    #[test]
    fn whoever_has_ended_is_gone() {
        let stop = Stop { start_ns: 1, ..Stop::default() };
        assert!(matches!(run(4_000_000, &stop), Err(ReleaseError::Gone)));
        assert!(matches!(cancel(std::process::id(), &stop), Err(ReleaseError::Gone)));
    }
}
