//! One file of columns: rows enter, a whole file leaves, or nothing.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use guard_common::audit::{
    columns::{ColumnsWriter, ParquetError},
    flat::Flat,
};
use uuid::Uuid;

/// As the file names it.
const WRITER: &str = concat!("guard-control ", env!("CARGO_PKG_VERSION"));

/// Why a file can't be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The format.
    #[error("{0}")]
    Parquet(#[from] ParquetError),
    /// The thread ended.
    #[error("writing was interrupted: {0}")]
    Interrupted(String),
}

/// A file that is being written. Dropped, it is removed.
pub(super) struct Part {
    path: PathBuf,
    /// There is a file.
    is_there: bool,
    writer: Option<ColumnsWriter<File>>,
}

/// A file that is whole and on disk, though not in its place. Dropped, it is removed.
pub(super) struct Finished(PathBuf);

impl Part {
    /// A file in `aside`, which must be there. It is made when there is something to write.
    pub(super) fn new(aside: &Path) -> Self {
        // Ids of version 7 sort by time.
        let path = aside.join(format!("part-{}.parquet", Uuid::now_v7()));
        Self { path, is_there: false, writer: None }
    }

    /// Adds a row; about how many bytes it has.
    pub(super) fn add(&mut self, row: Flat) -> Result<usize, PartError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&self.path)?;
                self.is_there = true;
                self.writer.insert(ColumnsWriter::new(file, WRITER)?)
            }
        };
        Ok(writer.add(row)?)
    }

    /// Writes what is left and sees it on disk; nothing where there were no rows.
    pub(super) fn finish(mut self) -> Result<Option<Finished>, PartError> {
        let Some(writer) = self.writer.take() else { return Ok(None) };
        writer.finish()?.sync_all()?;
        // It is the other's to remove now.
        self.is_there = false;
        Ok(Some(Finished(self.path.clone())))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_there {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Finished {
    /// Moves it into the folder of its day; where it is then.
    pub(super) fn place(mut self, day: &Path) -> io::Result<PathBuf> {
        let place = day.join(self.0.file_name().unwrap_or_default());
        fs::rename(&self.0, &place)?;
        self.0 = PathBuf::new();
        Ok(place)
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let mut part = Part::new(dir.path());
        part.add(Flat { key: Some("a:1".to_owned()), ..Flat::default() }).unwrap();
        assert_eq!(files(), 1);
        drop(part);
        assert_eq!(files(), 0);
        let mut part = Part::new(dir.path());
        part.add(Flat::default()).unwrap();
        let finished = part.finish().unwrap().unwrap();
        assert_eq!(files(), 1);
        drop(finished);
        assert_eq!(files(), 0);
        assert!(Part::new(dir.path()).finish().unwrap().is_none());
    }
}
