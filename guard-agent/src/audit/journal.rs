//! The journal's files: whole frames enter, durable segments leave.
//!
//! Used by one thread. After any error the files are back at the last whole record, and the next write goes on from
//! there. It never deletes the segment that it writes, and never leaves half of a write in front of a whole one.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use guard_common::audit::{
    chain::{Hash, Head},
    v1::Record,
};
use pbjson_types::Timestamp;
use prost::Message;

use super::{
    folder,
    recovery::{self, Recovered},
    segment::{Frame, Frames, HEADER_LEN, HeaderError, Segment, header, read_header},
};

/// Why the journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// Another agent writes it.
    #[error("{holder} uses the journal `{}`: stop it first, or give this one its own `paths.state`", dir.display())]
    InUse {
        /// The journal's folder.
        dir: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// A later version of guard wrote it.
    #[error("`{}` was written by a later version of guard ({reason}): install that version", path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
        /// What its header says.
        reason: HeaderError,
    },
    /// The chain cannot be signed.
    #[error(transparent)]
    Key(#[from] super::signing::KeyError),
    /// The operating system refused something.
    #[error("cannot use the journal file `{}`: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// Sizes in bytes, and ages.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All segments together.
    pub total: u64,
    /// One segment.
    pub segment: u64,
    /// How long records are kept; nothing: for as long as there is room.
    pub keep: Option<Duration>,
}

/// The longest time that a segment is written to where records have an age.
const LONGEST_TURN: Duration = Duration::from_hours(24);

impl Limits {
    /// How long a segment is written to: a record may stay so much longer than its time.
    fn turn(&self) -> Option<Duration> {
        self.keep.map(|keep| (keep / 4).min(LONGEST_TURN))
    }
}

/// The oldest records, which are about to be deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Oldest {
    /// Segments that hold them.
    pub segments: usize,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// Its hash.
    pub hash: Hash,
    /// When the first of them happened.
    pub since: Option<Timestamp>,
    /// When the first record that is still there happened.
    pub until: Option<Timestamp>,
}

/// A position in the current segment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    head: Head,
    length: u64,
}

/// Records that had been written but could not be made durable, and were taken back.
#[derive(Debug)]
pub struct SyncFailed {
    /// How many.
    pub lost: u64,
    /// What the operating system said.
    pub error: io::Error,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    limits: Limits,
    /// Finished segments with their lengths, the oldest first.
    closed: Vec<(Segment, u64)>,
    current: Segment,
    /// Since when it is written to.
    begun: SystemTime,
    file: File,
    written: Mark,
    durable: Mark,
    /// The file may hold something behind `written`.
    ragged: bool,
}

impl Journal {
    /// Opens the journal of `dir`, whose lock the caller holds, and mends what a crash left.
    pub fn open(dir: &Path, limits: Limits) -> Result<(Self, Recovered), JournalOpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| JournalOpenError::Io { path, error }
        };
        let recovered = recovery::recover(dir)?;
        let mut segments = Vec::new();
        for segment in Segment::list(dir).map_err(at(dir))? {
            let length = fs::metadata(&segment.path).map_err(at(&segment.path))?.len();
            segments.push((segment, length));
        }
        let (current, file, length) = match segments.pop() {
            Some((segment, length)) => {
                let file = OpenOptions::new().write(true).open(&segment.path).map_err(at(&segment.path))?;
                (segment, file, length)
            }
            None => {
                let (segment, file) = create(dir, &recovered.head).map_err(at(dir))?;
                (segment, file, HEADER_LEN as u64)
            }
        };
        file.sync_all().map_err(at(&current.path))?;
        let mark = Mark { head: recovered.head, length };
        let begun = first_time(&current).and_then(|at| since_1970(at.seconds));
        let journal = Self {
            dir: dir.to_owned(),
            limits,
            closed: segments,
            begun: begun.unwrap_or_else(SystemTime::now),
            current,
            file,
            written: mark,
            durable: mark,
            ragged: false,
        };
        Ok((journal, recovered))
    }

    /// The end of what was written.
    pub fn head(&self) -> Head {
        self.written.head
    }

    /// The end of what is durable.
    pub fn durable(&self) -> Head {
        self.durable.head
    }

    /// Whether something is written but not durable.
    pub fn is_dirty(&self) -> bool {
        self.written.head.sequence != self.durable.head.sequence
    }

    /// How long a segment is written to, where records have an age.
    pub fn turn(&self) -> Option<Duration> {
        self.limits.turn()
    }

    /// The first record that is still there.
    pub fn oldest(&self) -> u64 {
        self.closed.first().map_or(self.current.first, |(segment, _)| segment.first)
    }

    /// What all segments take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.closed.iter().map(|(_, length)| length).sum::<u64>() + self.written.length
    }

    /// Whether `frames` bytes need a new segment.
    pub fn is_full_for(&self, frames: usize) -> bool {
        self.written.length > HEADER_LEN as u64 && self.written.length + frames as u64 > self.limits.segment
    }

    /// Finishes the current segment and begins the next. The current one is durable then.
    pub fn rotate(&mut self) -> Result<(), SyncFailed> {
        self.sync()?;
        let (segment, file) =
            create(&self.dir, &self.written.head).map_err(|error| SyncFailed { lost: 0, error })?;
        let finished = std::mem::replace(&mut self.current, segment);
        self.closed.push((finished, self.written.length));
        self.begun = SystemTime::now();
        self.file = file;
        self.ragged = false;
        self.written.length = HEADER_LEN as u64;
        self.durable = self.written;
        Ok(())
    }

    /// Appends whole frames, the last of which leads to `head`. After an error none of them is there.
    pub fn append(&mut self, frames: &[u8], head: Head) -> io::Result<()> {
        if self.ragged {
            self.trim()?;
        }
        if let Err(error) = self.file.write_all_at(frames, self.written.length) {
            self.ragged = true;
            // A failure here is tried again before the next write.
            let _ = self.trim();
            return Err(error);
        }
        self.written = Mark { head, length: self.written.length + frames.len() as u64 };
        Ok(())
    }

    /// Makes everything durable. After an error, what was not durable has been taken back: the kernel may have
    /// thrown the pages away, so that trying again could succeed without them.
    pub fn sync(&mut self) -> Result<(), SyncFailed> {
        if !self.is_dirty() {
            return Ok(());
        }
        match self.file.sync_data() {
            Ok(()) => {
                self.durable = self.written;
                Ok(())
            }
            Err(error) => {
                let lost = self.written.head.sequence - self.durable.head.sequence;
                self.written = self.durable;
                self.ragged = true;
                let _ = self.trim();
                Err(SyncFailed { lost, error })
            }
        }
    }

    fn trim(&mut self) -> io::Result<()> {
        self.file.set_len(self.written.length)?;
        self.ragged = false;
        Ok(())
    }

    /// Whether the current segment has been written to for long enough, where records have an age.
    pub fn is_stale(&self) -> bool {
        let age = SystemTime::now().duration_since(self.begun).unwrap_or_default();
        self.written.length > HEADER_LEN as u64 && self.limits.turn().is_some_and(|turn| age >= turn)
    }

    /// How many of the oldest finished segments are too many for the journal's limit. The current segment is counted as
    /// full, so that the limit holds until the next call.
    pub fn oversize(&self) -> usize {
        let closed: u64 = self.closed.iter().map(|(_, length)| length).sum();
        let mut excess =
            (closed + self.limits.segment.max(self.written.length)).saturating_sub(self.limits.total);
        let goes = |(_, length): &&(Segment, u64)| {
            let goes = excess > 0;
            excess = excess.saturating_sub(*length);
            goes
        };
        self.closed.iter().take_while(goes).count()
    }

    /// How many of the oldest finished segments were last written to before the time that records are kept.
    pub fn aged(&self) -> usize {
        let Some(oldest) = self.limits.keep.and_then(|keep| SystemTime::now().checked_sub(keep)) else {
            return 0;
        };
        let written = |segment: &Segment| fs::metadata(&segment.path).and_then(|file| file.modified());
        let is_old = |segment: &Segment| written(segment).is_ok_and(|written| written < oldest);
        self.closed.iter().take_while(|(segment, _)| is_old(segment)).count()
    }

    /// The oldest finished segment, where all of its records are at or before `acknowledged`: one or none.
    pub fn acknowledged(&self, acknowledged: u64) -> usize {
        usize::from(!self.closed.is_empty() && self.after(1).first - 1 <= acknowledged)
    }

    /// The records of the `segments` oldest finished ones. There must be as many, and one at least.
    pub fn oldest_of(&self, segments: usize) -> io::Result<Oldest> {
        let (first, next) = (&self.closed[0].0, self.after(segments));
        let before = read_header(next, &File::open(&next.path)?)?.map_err(io::Error::other)?;
        Ok(Oldest {
            segments,
            first: first.first,
            last: before.sequence,
            hash: before.hash,
            since: first_time(first),
            until: first_time(next),
        })
    }

    /// Deletes them. After an error as many as could not be deleted are still there.
    pub fn delete(&mut self, oldest: &Oldest) -> io::Result<()> {
        for _ in 0..oldest.segments {
            match fs::remove_file(&self.closed[0].0.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => drop(self.closed.remove(0)),
            }
        }
        Ok(())
    }

    /// The segment behind the `segments` oldest ones.
    fn after(&self, segments: usize) -> &Segment {
        self.closed.get(segments).map_or(&self.current, |(segment, _)| segment)
    }
}

/// When the first record of `segment` happened, if that can be read.
fn first_time(segment: &Segment) -> Option<Timestamp> {
    let mut frames = Frames::new(File::open(&segment.path).ok()?, HEADER_LEN as u64);
    match frames.next() {
        Ok(Frame::Whole(sealed)) => Record::decode(sealed.payload).ok()?.at,
        _ => None,
    }
}

/// So many seconds after 1970; nothing for what no clock says.
fn since_1970(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Makes the segment that follows `head`. It is durable on return; after an error there is none.
fn create(dir: &Path, head: &Head) -> io::Result<(Segment, File)> {
    let segment = Segment::at(dir, head.sequence + 1);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&segment.path)?;
    let made =
        file.write_all_at(&header(head), 0).and_then(|()| file.sync_all()).and_then(|()| folder::sync(dir));
    match made {
        Ok(()) => Ok((segment, file)),
        Err(error) => {
            // Left behind it would be found unfinished, and removed, at the next start.
            let _ = fs::remove_file(&segment.path);
            Err(error)
        }
    }
}
