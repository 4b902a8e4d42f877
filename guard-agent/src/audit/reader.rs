//! Reads the journal from a record on, across segments, while it is being written.
//!
//! Files enter, sealed records leave in order and without holes, or an error says what is missing. It takes no lock
//! and changes nothing; it does not check hashes (that is for [`super::verify`] and the control plane).

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use guard_common::audit::v1::SealedRecord;

use super::segment::{Frame, Frames, HEADER_LEN, HeaderError, Segment, read_header};

/// Why the journal can't be read further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused something.
    #[error("cannot read the journal file `{}`: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A segment does not begin as one.
    #[error("cannot read the journal segment `{}`: {error}", path.display())]
    Header {
        /// The segment.
        path: PathBuf,
        /// What is wrong.
        error: HeaderError,
    },
    /// There is something that was never written like this.
    #[error("record {sequence} is damaged: `{}` at byte {offset}", path.display())]
    Damaged {
        /// The record that should stand there.
        sequence: u64,
        /// The segment.
        path: PathBuf,
        /// Where the frame begins.
        offset: u64,
    },
    /// Records were deleted before they were read.
    #[error("record {expected} is not in the journal any more")]
    Missing {
        /// The record that should have come.
        expected: u64,
    },
}

/// A place in the journal.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// The next record to hand out.
    next: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    file: File,
    frames: Frames,
    /// The next record of this segment, which may come before the first that is wanted.
    sequence: u64,
}

impl Reader {
    /// Reads the journal of `dir` from record `from`, or from the oldest that is there if that comes later.
    pub fn open(dir: &Path, from: u64) -> Result<Self, ReadError> {
        let mut reader = Self { dir: dir.to_owned(), next: from.max(1), open: None };
        reader.find()?;
        Ok(reader)
    }

    /// Reads the last `count` records of the journal of `dir`, and what comes after them.
    pub fn open_last(dir: &Path, count: u64) -> Result<Self, ReadError> {
        let mut reader = Self::open(dir, u64::MAX)?;
        // Nothing is wanted of the last segment but where it ends.
        let last = loop {
            match reader.next_record() {
                Ok(None) => break reader.open.map_or(0, |open| open.sequence - 1),
                Ok(Some(_)) => {}
                Err(ReadError::Damaged { sequence, .. }) => break sequence - 1,
                Err(error) => return Err(error),
            }
        };
        Self::open(dir, last.saturating_sub(count) + 1)
    }

    /// The sequence number of the record that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next record; nothing if there is none yet: ask again later.
    pub fn next_record(&mut self) -> Result<Option<SealedRecord>, ReadError> {
        loop {
            if self.open.is_none() {
                self.find()?;
            }
            let Some(open) = &mut self.open else { return Ok(None) };
            match open.frames.next().map_err(|error| open.io(error))? {
                Frame::Whole(record) if record.sequence != open.sequence => return Err(open.damaged()),
                Frame::Whole(record) => {
                    open.sequence += 1;
                    if record.sequence >= self.next {
                        self.next = record.sequence.saturating_add(1);
                        return Ok(Some(record));
                    }
                }
                Frame::Damaged => return Err(open.damaged()),
                Frame::End | Frame::Unfinished => {
                    if !self.advance()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Opens the segment that holds the next record; leaves nothing open if there is no segment at all.
    fn find(&mut self) -> Result<(), ReadError> {
        // The oldest segment may be deleted between the listing and the opening.
        for _ in 0..3 {
            let segments =
                Segment::list(&self.dir).map_err(|error| ReadError::Io { path: self.dir.clone(), error })?;
            let at = segments.partition_point(|segment| segment.first <= self.next).saturating_sub(1);
            let Some(segment) = segments.into_iter().nth(at) else { return Ok(()) };
            match Open::new(segment) {
                Err(ReadError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                // The writer is just making it.
                Err(ReadError::Header { error: HeaderError::Unfinished, .. }) => return Ok(()),
                Err(error) => return Err(error),
                Ok(open) => {
                    self.next = self.next.max(open.sequence);
                    self.open = Some(open);
                    return Ok(());
                }
            }
        }
        Err(ReadError::Missing { expected: self.next })
    }

    /// At the end of a segment: true if there is more to read now.
    fn advance(&mut self) -> Result<bool, ReadError> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let successor = Segment::at(&self.dir, open.sequence);
        if successor == open.segment || !successor.path.exists() {
            let links = open.file.metadata().map_err(|error| open.io(error))?.nlink();
            return if links == 0 { Err(ReadError::Missing { expected: open.sequence }) } else { Ok(false) };
        }
        // The last records may have come between the look at the end and the look for the successor.
        let before = open.frames.offset();
        match open.frames.next().map_err(|error| open.io(error))? {
            Frame::End => {}
            Frame::Whole(_) => {
                open.frames = Frames::new(open.clone_file()?, before);
                return Ok(true);
            }
            Frame::Unfinished | Frame::Damaged => return Err(open.damaged()),
        }
        match Open::new(successor) {
            Ok(next) => {
                self.open = Some(next);
                Ok(true)
            }
            Err(ReadError::Header { error: HeaderError::Unfinished, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Open {
    fn new(segment: Segment) -> Result<Self, ReadError> {
        let io = |error| ReadError::Io { path: segment.path.clone(), error };
        let file = File::open(&segment.path).map_err(io)?;
        read_header(&segment, &file)
            .map_err(io)?
            .map_err(|error| ReadError::Header { path: segment.path.clone(), error })?;
        let frames = Frames::new(file.try_clone().map_err(io)?, HEADER_LEN as u64);
        Ok(Self { sequence: segment.first, segment, file, frames })
    }

    fn clone_file(&self) -> Result<File, ReadError> {
        self.file.try_clone().map_err(|error| self.io(error))
    }

    fn io(&self, error: io::Error) -> ReadError {
        ReadError::Io { path: self.segment.path.clone(), error }
    }

    fn damaged(&self) -> ReadError {
        ReadError::Damaged {
            sequence: self.sequence,
            path: self.segment.path.clone(),
            offset: self.frames.offset(),
        }
    }
}
