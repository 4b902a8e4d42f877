//! Which database server programs run on this host, and where in them guard's probes go.
//!
//! Processes and their program files enter; build ids, versions and offsets of functions leave. Program files belong
//! to others, in containers even to people who may write them: they are read with bounds and are never run.

mod binary;
mod postgres;

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    path::{Path, PathBuf},
};

pub use binary::{Binary, BinaryError, FileId};
pub use postgres::PostgresProgram;

use crate::sensor::ObservedServer;

/// Why the statements of a server cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Its program cannot be read.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// Its process tells too little.
    #[error("process {pid} cannot be looked at: {error}")]
    Process {
        /// Its first process.
        pid: u32,
        /// Why not.
        error: io::Error,
    },
    /// The program is of a version whose structures are not known.
    #[error("PostgreSQL {version} (build id {build_id}) is not known: versions {oldest} to {newest} are")]
    Version {
        /// As the program says it; `?` where it does not.
        version: String,
        /// Its build id.
        build_id: String,
        /// The oldest known.
        oldest: u32,
        /// The newest known.
        newest: u32,
    },
    /// The program does not export what is needed.
    #[error(
        "PostgreSQL {version} (build id {build_id}) does not export `{symbol}`: it is stripped of more than usual"
    )]
    Symbol {
        /// As the program says it.
        version: String,
        /// Its build id.
        build_id: String,
        /// The first that is missing.
        symbol: &'static str,
    },
}

/// What was learnt of server programs: each file is read once.
#[derive(Debug, Default)]
pub struct Programs {
    known: HashMap<FileId, PostgresProgram>,
}

impl Programs {
    /// The place of the probes in the server whose first process is `pid`. Reads /proc and, once, its program file.
    pub fn server(&mut self, pid: u32) -> Result<(ObservedServer, &PostgresProgram), ProbeError> {
        let path = PathBuf::from(format!("/proc/{pid}/exe"));
        let failed = |error| ProbeError::Process { pid, error };
        let file = FileId::of(&path).map_err(failed)?;
        let program: &PostgresProgram = match self.known.entry(file) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(PostgresProgram::read(&path)?),
        };
        let moved = start_address(pid).map_err(failed)?.wrapping_sub(program.entry);
        Ok((program.observed(pid, path, file, moved), program))
    }

    /// Forgets programs that none of these servers runs.
    pub fn keep(&mut self, servers: &[ObservedServer]) {
        self.known.retain(|file, _| servers.iter().any(|server| server.file == *file));
    }
}

/// Where the first instruction of a process's program is in its memory: the kernel tells it to every program in its
/// auxiliary vector.
fn start_address(pid: u32) -> io::Result<u64> {
    const AT_ENTRY: u64 = 9;
    let words = std::fs::read(Path::new("/proc").join(pid.to_string()).join("auxv"))?;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).ok();
    words
        .chunks_exact(16)
        .find(|pair| word(&pair[..8]) == Some(AT_ENTRY))
        .and_then(|pair| word(&pair[8..]))
        .ok_or_else(|| io::Error::other("its auxiliary vector has no entry point"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_process_is_found_where_it_was_loaded() {
        let exe = std::env::current_exe().unwrap();
        let binary = Binary::read(&exe, &[], "").unwrap();
        let moved = start_address(std::process::id()).unwrap().wrapping_sub(binary.entry);
        // Programs are moved by whole pages.
        assert_eq!(moved % 4096, 0, "{moved:x}");
    }

    #[test]
    fn what_is_no_postgresql_is_not_probed() {
        let error = Programs::default().server(std::process::id()).expect_err("a test is no server");
        assert!(matches!(error, ProbeError::Version { .. }), "{error}");
        assert!(matches!(Programs::default().server(4_000_000), Err(ProbeError::Process { .. })));
    }
}
