//! Verifies a journal offline: every frame, every hash, every link, every signature, from the oldest record to the newest.
//!
//! Files enter; the length of the chain and how far it is signed leave, or the first record that is wrong. It changes nothing.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use guard_common::audit::{
    chain::{GENESIS, Head},
    checkpoint::PublicKey,
    verifier::{self, Before, Verdict, Verifier},
};

use super::{
    folder, grave,
    segment::{Frame, Frames, HEADER_LEN, HeaderError, Segment, read_header},
};

/// A chain without a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The oldest record that is still there.
    pub first: u64,
    /// The end of the chain, and how far it is signed.
    pub verdict: Verdict,
    /// Segments that were read.
    pub segments: usize,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("record {sequence}: {fault} (`{}` at byte {offset})", path.display())]
pub struct Wrong {
    /// The first record that is wrong or missing.
    pub sequence: u64,
    /// The segment that should hold it.
    pub path: PathBuf,
    /// Where in the segment.
    pub offset: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system refused to read it.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The segment does not begin as one.
    #[error("its segment cannot be read: {0}")]
    Header(#[from] HeaderError),
    /// The segment does not go on where the one before ended.
    #[error("its segment does not follow the one before: records are missing or were replaced")]
    Segment,
    /// The bytes are not what was written.
    #[error("its bytes are damaged")]
    Damaged,
    /// The file ends within the record.
    #[error(
        "it is cut off: a write was interrupted (the agent mends that when it starts), or bytes were changed"
    )]
    CutOff,
    /// The hash chain or a signature does not hold.
    #[error("{0}")]
    Chain(#[from] verifier::Fault),
    /// The oldest records are gone, and the agent has not said so.
    #[error("it and those up to {0} are missing, and no tombstone says that guard deleted them")]
    Beheaded(u64),
    /// The newest records are gone.
    #[error("it is missing, although the control plane has acknowledged records up to {0}")]
    Truncated(u64),
}

/// Verifies the journal of `dir` with the public keys `keys`; with none, by the chain's own word. While an agent appends to it, `patience` is how long to wait for the rest of a
/// record at its end.
pub fn verify(dir: &Path, keys: &[PublicKey], patience: Duration) -> Result<Verified, Wrong> {
    let at_start =
        |error: io::Error| Wrong { sequence: 1, path: dir.to_owned(), offset: 0, fault: error.into() };
    let mut attempts = 0;
    loop {
        let segments = Segment::list(dir).map_err(at_start)?;
        attempts += 1;
        match walk(dir, &segments, keys, patience) {
            // The oldest segment was deleted, to stay within the limit, after it had been listed.
            Err(Wrong { fault: Fault::Io(error), path, .. })
                if error.kind() == io::ErrorKind::NotFound
                    && attempts < 5
                    && segments.first().is_some_and(|oldest| oldest.path == path) => {}
            // Its tombstone came into the chain when the end of the chain had been read.
            Err(Wrong { fault: Fault::Beheaded(_), .. }) if attempts < 2 => {}
            result => return result,
        }
    }
}

fn walk(dir: &Path, segments: &[Segment], keys: &[PublicKey], patience: Duration) -> Result<Verified, Wrong> {
    // Before the segments: an agent that runs acknowledges more meanwhile.
    let acknowledged = folder::acknowledged(dir);
    let mut verifier = Verifier::new(keys.to_vec());
    let mut head: Option<Head> = None;
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        let patience = if last { patience } else { Duration::ZERO };
        head = Some(walk_segment(segment, head, &mut verifier, patience)?);
    }
    let head = head.unwrap_or_default();
    let at_end = |fault| Wrong {
        sequence: head.sequence + 1,
        path: segments.last().map_or(dir, |segment| &segment.path).to_owned(),
        offset: 0,
        fault,
    };
    if let Some(acknowledged) = acknowledged.filter(|acknowledged| *acknowledged > head.sequence) {
        return Err(at_end(Fault::Truncated(acknowledged)));
    }
    if let Some(tombstone) = grave::pending(dir) {
        verifier.on_tombstone(head.sequence + 1, tombstone).map_err(|fault| at_end(fault.into()))?;
    }
    let verdict = verifier.verdict().map_err(|fault| at_end(fault.into()))?;
    let first = segments.first().map_or(1, |segment| segment.first);
    if verdict.before == Before::Unknown {
        return Err(Wrong { sequence: 1, ..at_end(Fault::Beheaded(first - 1)) });
    }
    Ok(Verified { first, verdict, segments: segments.len() })
}

fn walk_segment(
    segment: &Segment,
    before: Option<Head>,
    verifier: &mut Verifier,
    mut patience: Duration,
) -> Result<Head, Wrong> {
    const STEP: Duration = Duration::from_millis(50);
    let wrong = |sequence, offset, fault| Wrong { sequence, path: segment.path.clone(), offset, fault };
    let at_start = |fault| wrong(segment.first, 0, fault);
    let file = File::open(&segment.path).map_err(|error| at_start(error.into()))?;
    let mut head = read_header(segment, &file)
        .map_err(|error| at_start(error.into()))?
        .map_err(|error| at_start(error.into()))?;
    // INVARIANT: without a segment before, only the very first record has a predecessor that is known.
    let follows = before.map_or(head.sequence > 0 || head.hash == GENESIS, |before| before == head);
    if !follows {
        let sequence = before.map_or(segment.first, |before| before.sequence + 1);
        return Err(wrong(sequence, 0, Fault::Segment));
    }
    if before.is_none() {
        verifier.begin_after(head);
    }
    let mut frames = Frames::new(file, HEADER_LEN as u64);
    loop {
        let (sequence, offset) = (head.sequence + 1, frames.offset());
        match frames.next().map_err(|error| wrong(sequence, offset, error.into()))? {
            Frame::Whole(record) => {
                head = verifier.accept(&record).map_err(|error| wrong(sequence, offset, error.into()))?;
            }
            Frame::End => return Ok(head),
            Frame::Unfinished | Frame::Damaged if !patience.is_zero() => {
                std::thread::sleep(STEP);
                patience = patience.saturating_sub(STEP);
            }
            Frame::Unfinished => return Err(wrong(sequence, offset, Fault::CutOff)),
            Frame::Damaged => return Err(wrong(sequence, offset, Fault::Damaged)),
        }
    }
}
