//! What part of the processors' time session threads get, beside everybody else who is ready to run.
//!
//! A database under load has more backends ready than cores, and each statement passes a session thread twice: what that
//! thread waits for its turn is added to every statement. With a larger share its turn comes sooner. By `SCHED_BATCH` it
//! takes nobody's core away when a message comes in: it finds more messages at each turn, where it would be woken for each
//! of them (sched(7)).

use std::{fs, io};

/// Autogroups (sched(7)): where the kernel shares out time by session, niceness counts within the session alone, and the
/// session has one of its own.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// Gives the calling thread this niceness, and lets it wait for its turn. 0 leaves it as it is.
pub(super) fn of_thread(nice: i8) -> io::Result<()> {
    if nice == 0 {
        return Ok(());
    }
    let done = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and the parameter lives through the call.
    done(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter) })?;
    // SAFETY: no pointers; 0 is the calling thread.
    done(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) })
}

/// Gives this process's session the same niceness, where it leads one, as a service does: others' sessions are left alone.
pub(super) fn of_session(nice: i8) -> io::Result<()> {
    let leads = nix::unistd::getsid(None).is_ok_and(|session| session == nix::unistd::getpid());
    if nice == 0 || !leads {
        return Ok(());
    }
    match fs::write(AUTOGROUP, nice.to_string()) {
        // A kernel without autogroups.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::of_thread;

    /// Niceness and policy, fields 19 and 41 of proc_pid_stat(5).
    fn stat() -> (i32, i32) {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = &stat[stat.rfind(')').unwrap() + 2..];
        let field = |number: usize| after_name.split(' ').nth(number - 3).unwrap().parse().unwrap();
        (field(19), field(41))
    }

    #[test]
    fn a_thread_takes_its_niceness_and_waits_for_its_turn_and_no_other_thread_does() {
        let own = stat();
        let (before, after) = thread::spawn(|| {
            of_thread(0).unwrap();
            let before = stat();
            of_thread(i8::try_from(before.0 + 1).unwrap()).unwrap();
            (before, stat())
        })
        .join()
        .unwrap();
        assert_eq!(before, own, "0 changes nothing");
        assert_eq!(after, (own.0 + 1, libc::SCHED_BATCH));
        assert_eq!(stat(), own);
    }
}
