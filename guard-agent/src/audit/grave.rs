//! What the journal deletes is written down before it goes: a tombstone enters, and stays until the chain has it.
//!
//! A full disk takes no new record, so the file has its room from the start, in two places that are written in turn: the one
//! that is being written never holds what the chain does not say yet. Whatever stops the agent, the next start finds what it
//! had not yet recorded.

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
/// Bytes of one place, and of the file.
const PLACE: usize = 2_048;
const ROOM: usize = 2 * PLACE;
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
    dir: PathBuf,
    /// Nothing where it could not be made: nothing is deleted then.
    file: Option<File>,
    pending: Option<(Tombstone, Way)>,
    /// Where the next one goes.
    place: usize,
}

impl Grave {
    /// The one of the journal in `dir`, with what an earlier agent has left there.
    pub fn open(dir: &Path) -> Self {
        let file = make(dir);
        if let Err(error) = &file {
            let path = dir.join(NAME);
            tracing::error!(%error, "old journal segments cannot be deleted until there is room for `{}`", path.display());
        }
        let (pending, place) = match latest(dir) {
            Some((tombstone, place)) => (Some((tombstone, Way::Waits)), other(place)),
            None => (None, 0),
        };
        Self { dir: dir.to_owned(), file: file.ok(), pending, place }
    }

    /// What is deleted and not durably in the chain.
    pub fn pending(&self) -> Option<&Tombstone> {
        self.pending.as_ref().map(|(tombstone, _)| tombstone)
    }

    /// Writes down what is about to be deleted. It is on disk on return.
    pub fn dig(&mut self, tombstone: Tombstone) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => make(&self.dir)?,
        };
        let file = self.file.insert(file);
        let text = tombstone.encode_to_vec();
        if HEAD + text.len() > PLACE {
            return Err(io::Error::other("a tombstone is longer than its place"));
        }
        let mut bytes = vec![0; HEAD];
        bytes[..4].copy_from_slice(&u32::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes());
        bytes[4..].copy_from_slice(&crc32fast::hash(&text).to_le_bytes());
        bytes.extend(text);
        file.write_all_at(&bytes, self.place as u64)?;
        file.sync_data()?;
        self.place = other(self.place);
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
        let Some(file) = &self.file else { return };
        for place in [0, PLACE] {
            // Told twice it says the same.
            if let Err(error) = file.write_all_at(&[0; HEAD], place as u64) {
                tracing::warn!(%error, "`{}` cannot be cleared", self.dir.join(NAME).display());
            }
        }
    }
}

/// What the journal of `dir` has deleted and its chain may not say yet.
pub fn pending(dir: &Path) -> Option<Tombstone> {
    latest(dir).map(|(tombstone, _)| tombstone)
}

/// The one that tells most, and its place: the other is what it was made of, or was not written to its end.
fn latest(dir: &Path) -> Option<(Tombstone, usize)> {
    let mut bytes = Vec::new();
    File::open(dir.join(NAME)).ok()?.take(ROOM as u64).read_to_end(&mut bytes).ok()?;
    let both = [0, PLACE].into_iter().filter_map(|place| Some((read(bytes.get(place..)?)?, place)));
    both.max_by_key(|(tombstone, _)| tombstone.last)
}

fn other(place: usize) -> usize {
    PLACE - place
}

/// What a place holds; nothing where it was cleared, or is half written.
fn read(bytes: &[u8]) -> Option<Tombstone> {
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
fn make(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(dir.join(NAME))?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length < ROOM {
        file.write_all_at(&vec![0; ROOM - length], length as u64)?;
        file.sync_all()?;
        folder::sync(dir)?;
    }
    Ok(file)
}
