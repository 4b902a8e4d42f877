//! A running server whose statements are to be held: where in its program the probes go, and where in the memory of its
//! backends the session's facts are.
//!
//! All backends are forks of one postmaster, so what is found in that one holds for all.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use guard_common::kernel::hold::{HeldServer, choice};

use super::process::{Process, started_ticks};
use crate::{
    config::HoldChoice,
    probes::{Binary, BinaryError, FileId},
    servers::Server,
    session::is_known_version,
};

/// The functions that are probed: program of the eBPF object, and symbol.
pub const PROBES: [(&str, &str); 4] = [
    ("hold_parse", "pg_parse_query"),
    ("hold_run", "standard_ExecutorRun"),
    ("hold_utility", "standard_ProcessUtility"),
    ("hold_call", "HandleFunctionRequest"),
];

/// What has to be there besides.
const NEEDED: [&str; 6] = [
    "MyProcPort",
    "debug_query_string",
    "namespace_search_path",
    "application_name",
    "standard_conforming_strings",
    "ProcessInterrupts",
];

/// What makes more possible where it is there: variables, and functions that do nothing but return one.
const ROLE: &str = "role_string";
const MESSAGE_TIME: &str = "GetCurrentStatementStartTimestamp";
const CURRENT_USER: &str = "GetUserId";
const LOGIN_USER: &str = "GetAuthenticatedUserId";

/// In front of the version in the program's own data.
const VERSION: &str = "postgres (PostgreSQL) ";

/// Why the statements of a server cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nobody knows which process it is.
    #[error("its process is not known: it is looked for again")]
    NoProcess,
    /// Its program cannot be read.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// Its program is another one.
    #[error(
        "its program has no symbol `{0}`: it is none of PostgreSQL 13 to 18, or was built without exported symbols"
    )]
    Symbol(&'static str),
    /// Its memory map does not show its program.
    #[error("its memory cannot be read: {0}; guard-agent needs CAP_SYS_PTRACE")]
    Memory(io::Error),
    /// Whom it stops it could not let go.
    #[error("its processes cannot be signalled: {0}; guard-agent needs CAP_KILL")]
    Signal(io::Error),
}

/// A server that can be held.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub server: Arc<Server>,
    /// Its postmaster.
    pub postmaster: u32,
    /// The program, as it can be opened as long as the postmaster runs.
    pub program: PathBuf,
    /// Which file it is.
    pub file: FileId,
    /// Offsets of [`PROBES`] in it.
    pub offsets: [u64; PROBES.len()],
    /// Their addresses in its processes.
    pub entries: [u64; PROBES.len()],
    /// What the kernel side goes by.
    pub held: HeldServer,
    /// Its statements are counted here, for policies that read rates.
    pub counts: bool,
    /// The grammar at hand is at least as new as the server.
    pub grammar_known: bool,
}

impl Target {
    /// Finds everything out about `server`. Reads /proc and its program.
    pub fn find(
        server: &Arc<Server>,
        orphans: HoldChoice,
        unattended: HoldChoice,
    ) -> Result<Self, TargetError> {
        let postmaster = server.pid.ok_or(TargetError::NoProcess)?;
        let started = started_ticks(postmaster).ok_or(TargetError::NoProcess)?;
        let program = PathBuf::from(format!("/proc/{postmaster}/exe"));
        let mut names: Vec<&str> = PROBES.iter().map(|(_, symbol)| *symbol).collect();
        names.extend(NEEDED);
        names.extend([ROLE, MESSAGE_TIME, CURRENT_USER, LOGIN_USER]);
        let binary = Binary::read(&program, &names, VERSION)?;
        let mut offsets = [0; PROBES.len()];
        for ((_, symbol), offset) in PROBES.iter().zip(&mut offsets) {
            *offset = binary.function(symbol).ok_or(TargetError::Symbol(symbol))?;
        }
        let bias = bias(postmaster, &binary).map_err(TargetError::Memory)?;
        let mut needed = [0; NEEDED.len()];
        for (symbol, address) in NEEDED.iter().zip(&mut needed) {
            *address = binary.address(symbol).ok_or(TargetError::Symbol(symbol))?.wrapping_add(bias);
        }
        let [port, client_text, search_path, application_name, plain_strings, interrupt] = needed;
        let code = File::open(&program).map_err(TargetError::Memory)?;
        let getter = |name| variable_of(&code, &binary, name).map_or(0, |at| at.wrapping_add(bias));
        let held = HeldServer {
            started,
            port,
            client_text,
            search_path,
            role: binary.address(ROLE).map_or(0, |at| at.wrapping_add(bias)),
            application_name,
            plain_strings,
            message_time: getter(MESSAGE_TIME),
            current_user: getter(CURRENT_USER),
            session_user: getter(LOGIN_USER),
            interrupt,
            epoch: 1,
            orphans: number(orphans),
            unattended: number(unattended),
            reserved: 0,
        };
        // What cancelling takes, tried beforehand.
        let process = Process::open_ticks(postmaster, started).map_err(TargetError::Memory)?;
        process.memory().map_err(TargetError::Memory)?;
        process.can_be_signalled().map_err(TargetError::Signal)?;
        let entries = PROBES.map(|(_, symbol)| binary.address(symbol).unwrap_or(0).wrapping_add(bias));
        let version = binary.version().unwrap_or_default();
        Ok(Self {
            server: Arc::clone(server),
            postmaster,
            program,
            file: binary.file,
            offsets,
            entries,
            held,
            counts: true,
            grammar_known: is_known_version(version),
        })
    }
}

fn number(what: HoldChoice) -> u32 {
    match what {
        HoldChoice::Run => choice::RUN,
        HoldChoice::Cancel => choice::CANCEL,
    }
}

/// What is added to an address in the program to have one in the process.
fn bias(pid: u32, binary: &Binary) -> io::Result<u64> {
    let missing = || io::Error::other("its memory map does not show its program");
    let (_, symbol) = PROBES[0];
    let offset = binary.function(symbol).ok_or_else(missing)?;
    let address = binary.address(symbol).ok_or_else(missing)?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let at = maps.lines().find_map(|line| mapped_at(line, offset, binary.file.inode)).ok_or_else(missing)?;
    Ok(at.wrapping_sub(address))
}

/// Where the bytes at `offset` of the file `inode` are, if this line of a memory map shows its code.
fn mapped_at(line: &str, offset: u64, inode: u64) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    let executable = fields.next()?.contains('x');
    let first = hex(fields.next()?)?;
    let same = fields.nth(1)?.parse() == Ok(inode);
    let into = offset.checked_sub(first)?;
    (executable && same && into < end.checked_sub(start)?).then(|| start + into)
}

/// The variable that the function `name` returns, if that is all that it does.
fn variable_of(code: &File, binary: &Binary, name: &str) -> Option<u64> {
    let mut bytes = [0; 16];
    code.read_exact_at(&mut bytes, binary.function(name)?).ok()?;
    returned(&bytes, binary.address(name)?)
}

/// The address of the variable that the code at `address` loads and returns.
#[cfg(target_arch = "x86_64")]
fn returned(code: &[u8; 16], address: u64) -> Option<u64> {
    const MARK: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    let (code, skipped) = code.strip_prefix(&MARK).map_or((&code[..], 0), |rest| (rest, 4));
    // mov eax or rax from relative to the next instruction; ret.
    let (rest, length) = match code {
        [0x48, 0x8b, 0x05, rest @ ..] => (rest, 7),
        [0x8b, 0x05, rest @ ..] => (rest, 6),
        _ => return None,
    };
    let (distance, rest) = rest.split_first_chunk()?;
    (*rest.first()? == 0xc3).then(|| {
        address.wrapping_add(skipped + length).wrapping_add_signed(i32::from_le_bytes(*distance).into())
    })
}

/// The address of the variable that the code at `address` loads and returns.
#[cfg(target_arch = "aarch64")]
fn returned(code: &[u8; 16], address: u64) -> Option<u64> {
    const MARK: u32 = 0xd503_245f;
    const RETURN: u32 = 0xd65f_03c0;
    let words: Vec<u32> = code.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let skipped = usize::from(words[0] == MARK);
    let [page, load, end] = words.get(skipped..skipped + 3)?.try_into().ok()?;
    if page & 0x9f00_0000 != 0x9000_0000 || end != RETURN {
        return None;
    }
    let scale = match load & 0xffc0_0000 {
        0xf940_0000 => 8,
        0xb940_0000 => 4,
        _ => return None,
    };
    let pages = (i64::from((page >> 5) & 0x7_ffff) << 2 | i64::from((page >> 29) & 3)) << 43 >> 43;
    let here = (address + skipped as u64 * 4) & !0xfff;
    Some(here.wrapping_add_signed(pages << 12) + u64::from((load >> 10) & 0xfff) * scale)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn returned(_: &[u8; 16], _: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_map_tells_where_a_function_is() {
        let line =
            "55d0c0ae5000-55d0c1000000 r-xp 000e5000 fe:01 4711                       /usr/lib/postgres";
        assert_eq!(mapped_at(line, 0x0e_5010, 4711), Some(0x55d0_c0ae_5010));
        assert_eq!(mapped_at(line, 0x0e_4fff, 4711), None, "before it");
        assert_eq!(mapped_at(line, 0x0e_5010, 4712), None, "another file");
        assert_eq!(mapped_at(&line.replace("r-xp", "r--p"), 0x0e_5010, 4711), None, "no code");
        for broken in ["", "x", "1-", "10-0 r-xp 0 0 0", "0-10 r-xp"] {
            assert_eq!(mapped_at(broken, 0, 0), None, "{broken}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn only_a_function_that_returns_a_variable_tells_where_that_is() {
        let mut code = [0x48, 0x8b, 0x05, 0x10, 0, 0, 0, 0xc3, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(returned(&code, 0x1000), Some(0x1017));
        code[3..7].copy_from_slice(&(-16_i32).to_le_bytes());
        assert_eq!(returned(&code, 0x1000), Some(0x0ff7));
        code[7] = 0x90;
        assert_eq!(returned(&code, 0x1000), None, "it goes on");
        let marked = [0xf3, 0x0f, 0x1e, 0xfa, 0x8b, 0x05, 4, 0, 0, 0, 0xc3, 0, 0, 0, 0, 0];
        assert_eq!(returned(&marked, 0x1000), Some(0x100e));
        assert_eq!(returned(&[0x55; 16], 0x1000), None);
    }
}
