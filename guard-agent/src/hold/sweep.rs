//! Backends that an agent before this one left stopped, because it and its watchdog were killed in the same moment.
//!
//! Nobody has written them down, but they are known by where they stand: at the first instructions of a probed function,
//! where nothing else stops a process.

use std::fs;

use guard_common::kernel::hold::{HeldServer, Stop, TICK_NS, choice, level};

use super::{
    process::{Process, started_ticks},
    release::{self, INSTRUCTION},
    target::Target,
};

/// Lets all of them go, as it is configured.
pub fn release(target: &Target) {
    for pid in children(target.postmaster) {
        let Some(stop) = stopped_at_a_probe(pid, target) else { continue };
        let released =
            if stop.orphans == choice::RUN { release::run(pid, &stop) } else { release::cancel(pid, &stop) };
        match released {
            Ok(()) => tracing::warn!(
                server = target.server.name,
                backend = pid,
                "a backend was left stopped by an agent that was killed: it goes on"
            ),
            Err(error) => tracing::error!(server = target.server.name, backend = pid, "{error}"),
        }
    }
}

fn children(postmaster: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
    children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn stopped_at_a_probe(pid: u32, target: &Target) -> Option<Stop> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    if !stat.rsplit_once(')')?.1.trim_start().starts_with('T') {
        return None;
    }
    let (sp, ip) = standing(&fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?)?;
    let (entry, number) = target
        .entries
        .iter()
        .zip(1_u32..)
        .find(|(entry, _)| ip.checked_sub(**entry).is_some_and(|into| into <= INSTRUCTION))?;
    let start_ns = started_ticks(pid)?.saturating_mul(TICK_NS);
    let code = Process::open(pid, start_ns).ok()?.memory().ok()?.bytes(*entry)?;
    let HeldServer { interrupt, orphans, .. } = target.held;
    let stop = Stop { start_ns, ip: *entry, sp, lr: 0, interrupt, level: number, orphans };
    Some(match first_instruction(&code) {
        Some((length, moved)) if ip == entry + length => Stop { sp: sp + moved, ..stop },
        _ if ip == *entry => stop,
        // Nobody knows its stack: with the signal alone it goes on as well as it can.
        _ => Stop { level: level::PARSE, ..stop },
    })
}

/// Length of a function's first instruction, and by how much it moves the stack.
#[cfg(target_arch = "x86_64")]
fn first_instruction(code: &[u8; 16]) -> Option<(u64, u64)> {
    match code {
        [0xf3, 0x0f, 0x1e, 0xfa, ..] => Some((4, 0)),
        [0x50..=0x57, ..] => Some((1, 8)),
        [0x41, 0x50..=0x57, ..] => Some((2, 8)),
        [0x48, 0x83, 0xec, frame @ 0..=0x7f, ..] => Some((4, u64::from(*frame))),
        _ => None,
    }
}

/// Length of a function's first instruction, and by how much it moves the stack.
#[cfg(not(target_arch = "x86_64"))]
fn first_instruction(_: &[u8; 16]) -> Option<(u64, u64)> {
    None
}

/// Stack and instruction of a process that runs in no system call: `-1 0xSTACK 0xINSTRUCTION`.
fn standing(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    if fields.next()? != "-1" {
        return None;
    }
    let mut hex = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    Some((hex()?, hex()?))
}

#[cfg(test)]
mod tests {
    use super::standing;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_first_instruction_says_how_far_the_stack_was_moved() {
        let code = |bytes: &[u8]| {
            let mut code = [0x90; 16];
            code[..bytes.len()].copy_from_slice(bytes);
            super::first_instruction(&code)
        };
        assert_eq!(code(&[0x41, 0x57]), Some((2, 8)));
        assert_eq!(code(&[0x55]), Some((1, 8)));
        assert_eq!(code(&[0x48, 0x83, 0xec, 0x28]), Some((4, 0x28)));
        assert_eq!(code(&[0xf3, 0x0f, 0x1e, 0xfa]), Some((4, 0)));
        assert_eq!(code(&[0x90]), None);
    }

    #[test]
    fn only_what_runs_in_no_system_call_stands_at_a_probe() {
        assert_eq!(standing("-1 0x7ffd10 0x55aa\n"), Some((0x7f_fd10, 0x55aa)));
        assert_eq!(standing("232 0x4 0x1 0x2 0x3 0x0 0x0 0x7ffd10 0x55aa\n"), None);
        assert_eq!(standing("running\n"), None);
    }
}
