//! What the journal deletes is written down before it goes: a tombstone enters, and stays until the chain has it.
//!
//! A full disk takes no new record, so the file has its room from the start and is overwritten in place. Whatever stops the
//! agent, the next start finds what it had not yet recorded.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use guard_common::audit::v1::Tombstone;
use prost::Message;

use super::folder;

const NAME: &str = "tombstone";
/// Bytes of the file.
const ROOM: usize = 4_096;
/// Length and CRC-32 of what follows, little endian.
const HEAD: usize = 8;

/// Where a tombstone is on its way into the chain.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Nowhere yet.
    Waits,
    /// It is written, but not durable.
    Written,
}

/// The file, and what it holds.
#[derive(Debug)]
pub struct Grave {
    path: PathBuf,
    /// Nothing where it could not be made: nothing is deleted then.
    file: Option<File>,
    pending: Option<(Tombstone, Way)>,
}

impl Grave {
    /// The one of the journal in `dir`, with what an earlier agent has left there.
    pub fn open(dir: &Path) -> Self {
        let path = dir.join(NAME);
        let file = make(dir, &path);
        if let Err(error) = &file {
            tracing::error!(%error, "old journal segments cannot be deleted until there is room for `{}`", path.display());
        }
        let pending = pending(dir).map(|tombstone| (tombstone, Way::Waits));
        Self { path, file: file.ok(), pending }
    }

    /// What is deleted and not durably in the chain.
    pub fn pending(&self) -> Option<&Tombstone> {
        self.pending.as_ref().map(|(tombstone, _)| tombstone)
    }

    /// Writes down what is about to be deleted. It is on disk on return.
    pub fn dig(&mut self, tombstone: Tombstone) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => make(self.path.parent().unwrap_or(Path::new("/")), &self.path)?,
        };
        let file = self.file.insert(file);
        let text = tombstone.encode_to_vec();
        let mut bytes = vec![0; HEAD];
        bytes[..4].copy_from_slice(&u32::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes());
        bytes[4..].copy_from_slice(&crc32fast::hash(&text).to_le_bytes());
        bytes.extend(text);
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        self.pending = Some((tombstone, Way::Waits));
        Ok(())
    }

    /// What the chain has to be told.
    pub fn untold(&self) -> Option<&Tombstone> {
        self.pending.as_ref().filter(|(_, way)| *way == Way::Waits).map(|(tombstone, _)| tombstone)
    }

    /// The chain was told, but not durably.
    pub fn told(&mut self) {
        if let Some((_, way)) = &mut self.pending {
            *way = Way::Written;
        }
    }

    /// What was written last is gone again.
    pub fn taken_back(&mut self) {
        if let Some((_, way)) = &mut self.pending {
            *way = Way::Waits;
        }
    }

    /// All that was written is durable.
    pub fn durable(&mut self) {
        if !matches!(self.pending, Some((_, Way::Written))) {
            return;
        }
        self.pending = None;
        // Told twice it says the same.
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.write_all_at(&[0; HEAD], 0)) {
            tracing::warn!(%error, "`{}` cannot be cleared", self.path.display());
        }
    }
}

/// What the journal of `dir` has deleted and its chain may not say yet.
pub fn pending(dir: &Path) -> Option<Tombstone> {
    let mut bytes = Vec::new();
    File::open(dir.join(NAME)).ok()?.take(ROOM as u64).read_to_end(&mut bytes).ok()?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, text) = rest.split_first_chunk::<4>()?;
    let text = text.get(..u32::from_le_bytes(*length) as usize).filter(|text| !text.is_empty())?;
    (crc32fast::hash(text) == u32::from_le_bytes(*crc)).then(|| Tombstone::decode(text).ok()).flatten()
}

/// Forgets what was pending: a new chain begins.
pub fn forget(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The file with its room.
fn make(dir: &Path, path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length < ROOM {
        file.write_all_at(&vec![0; ROOM - length], length as u64)?;
        file.sync_all()?;
        folder::sync(dir)?;
    }
    Ok(file)
}
