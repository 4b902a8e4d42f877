//! What happens to the journal's files at start: the end of the chain leaves.
//!
//! An unfinished write is cut off: nobody was told that it is durable. Damage is set aside, never deleted, and
//! counted. Only the last segment is read: the older ones are for `guard-agent audit verify`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use guard_common::audit::chain::Head;

use super::{
    folder,
    journal::JournalOpenError,
    segment::{
        Frame, Frames, HEADER_LEN, HeaderError, Segment, header, last_later_frame, read_header, read_up_to,
    },
};

/// Where the journal goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The end of the chain.
    pub head: Head,
    /// Records that were there once and can't be read any more; at least as many are lost.
    pub damaged: u64,
    /// Bytes of an unfinished write that were cut off.
    pub unfinished: u64,
    /// Where damaged bytes were kept.
    pub set_aside: Vec<PathBuf>,
    /// Nothing could be saved: a new chain begins where there had been another.
    pub new_chain: bool,
}

/// Mends the journal of `dir`. Afterwards its last segment, if there is one, holds nothing but whole records.
pub fn recover(dir: &Path) -> Result<Recovered, JournalOpenError> {
    let mut recovered = Recovered::default();
    let mut segments =
        Segment::list(dir).map_err(|error| JournalOpenError::Io { path: dir.into(), error })?;
    let had_segments = !segments.is_empty();
    while let Some(segment) = segments.pop() {
        let io = |error| JournalOpenError::Io { path: segment.path.clone(), error };
        let file = OpenOptions::new().read(true).write(true).open(&segment.path).map_err(io)?;
        match read_header(&segment, &file).map_err(io)? {
            Ok(start) => {
                recovered.head = cut_tail(dir, &segment, file, start, &mut recovered).map_err(io)?;
                return Ok(recovered);
            }
            Err(reason @ HeaderError::Format(_)) => {
                return Err(JournalOpenError::Newer { path: segment.path.clone(), reason });
            }
            Err(error) => {
                if let Some(start) = mend_header(&segment, &file).map_err(io)? {
                    recovered.head = cut_tail(dir, &segment, file, start, &mut recovered).map_err(io)?;
                    return Ok(recovered);
                }
                remove_headless(dir, &segment, error, &mut recovered).map_err(io)?;
            }
        }
    }
    // A first segment whose header never got finished held nothing.
    recovered.new_chain = had_segments && recovered.damaged > 0;
    Ok(recovered)
}

/// Writes the header anew from the first record, if that is whole: it says what it follows.
fn mend_header(segment: &Segment, file: &File) -> io::Result<Option<Head>> {
    let mut frames = Frames::new(file.try_clone()?, HEADER_LEN as u64);
    let Frame::Whole(record) = frames.next()? else { return Ok(None) };
    let Ok(hash) = record.previous[..].try_into() else { return Ok(None) };
    let mut start = Head { sequence: segment.first - 1, hash };
    let mended = start;
    if start.accept(&record).is_err() {
        return Ok(None);
    }
    file.write_all_at(&header(&mended), 0)?;
    file.sync_all()?;
    Ok(Some(mended))
}

/// Reads the segment to its last whole record and cuts off the rest.
fn cut_tail(
    dir: &Path,
    segment: &Segment,
    file: File,
    start: Head,
    recovered: &mut Recovered,
) -> io::Result<Head> {
    let mut head = start;
    let mut frames = Frames::new(file.try_clone()?, HEADER_LEN as u64);
    let mut end = frames.offset();
    let damaged = loop {
        match frames.next()? {
            Frame::Whole(record) => {
                if head.accept(&record).is_err() {
                    break true;
                }
                end = frames.offset();
            }
            Frame::End => return Ok(head),
            Frame::Unfinished => break false,
            Frame::Damaged => break true,
        }
    };
    let length = file.metadata()?.len();
    let mut tail = vec![0; usize::try_from(length - end).unwrap_or(usize::MAX)];
    let read = read_up_to(&file, &mut tail, end)?;
    tail.truncate(read);
    let later = last_later_frame(&tail, &head);
    if damaged || later.is_some() {
        recovered.damaged += later.map_or(1, |last| last - head.sequence);
        recovered.set_aside.push(keep_aside(dir, segment, end, &tail)?);
    } else {
        recovered.unfinished += length - end;
    }
    file.set_len(end)?;
    file.sync_all()?;
    Ok(head)
}

fn keep_aside(dir: &Path, segment: &Segment, offset: u64, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = dir.join(format!("journal-{:020}-at-{offset}.damaged", segment.first));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    folder::sync(dir)?;
    Ok(path)
}

/// Takes a segment whose header can't be read, and whose records therefore can't be placed, out of the journal.
fn remove_headless(
    dir: &Path,
    segment: &Segment,
    error: HeaderError,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let length = fs::metadata(&segment.path)?.len();
    if error == HeaderError::Unfinished && length <= HEADER_LEN as u64 {
        recovered.unfinished += length;
        fs::remove_file(&segment.path)?;
    } else {
        let path = segment.path.with_extension("damaged");
        fs::rename(&segment.path, &path)?;
        recovered.damaged += 1;
        recovered.set_aside.push(path);
    }
    folder::sync(dir)
}
