//! Room on disk for a bench: a folder that goes when the bench does, also on an interrupt.

use std::{fs, path::Path};

use nix::sys::statvfs::statvfs;

/// Bytes that stay free for others.
const OTHERS: u64 = 15 * 1024 * 1024 * 1024;

/// The folder.
pub struct Room(tempfile::TempDir);

impl Room {
    /// With so many bytes to fill.
    pub fn with(bytes: u64) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(place).unwrap();
        let space = statvfs(place).unwrap();
        let free = space.blocks_available() as u64 * space.fragment_size() as u64;
        assert!(
            free >= bytes + OTHERS,
            "{} MiB are free in {}, and this bench wants {} MiB beside 15 GiB for others: free some, or take fewer --records",
            free >> 20,
            place.display(),
            bytes >> 20
        );
        Self(tempfile::Builder::new().prefix("bench-").tempdir_in(place).unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes the folder along when somebody interrupts.
    pub fn leave_on_interrupt(&self) -> impl Future<Output = ()> + Send + 'static {
        let path = self.path().to_owned();
        async move {
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            // What is still being written may make a file anew.
            while fs::remove_dir_all(&path).is_err() && path.exists() {}
            std::process::exit(130);
        }
    }
}

/// Resident memory of a process, in MiB: `VmRSS` now, `VmHWM` at most.
pub fn resident_mib(which: &str, pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
