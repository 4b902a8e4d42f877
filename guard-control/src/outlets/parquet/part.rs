//! One file of columns: rows enter, a whole file leaves, or nothing.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use guard_common::audit::flat::{COLUMNS, Column, Flat, Get};
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, DataType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};
use uuid::Uuid;

/// Rows of one group: what a reader can skip at once.
const GROUP: usize = 8_192;
/// Bytes of rows that are kept in memory for one file.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// The version of the fields: raised when one changes its meaning, which none should.
const FIELDS: &str = "1";

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
    rows: Vec<Flat>,
    bytes: usize,
    /// There is a file.
    is_there: bool,
    writer: Option<SerializedFileWriter<File>>,
}

/// A file that is whole and on disk, though not in its place. Dropped, it is removed.
pub(super) struct Finished(PathBuf);

impl Part {
    /// A file in `aside`, which must be there. It is made when there is something to write.
    pub(super) fn new(aside: &Path) -> Self {
        // Ids of version 7 sort by time.
        let path = aside.join(format!("part-{}.parquet", Uuid::now_v7()));
        Self { path, rows: Vec::new(), bytes: 0, is_there: false, writer: None }
    }

    /// Adds a row; about how many bytes it has.
    pub(super) fn add(&mut self, row: Flat) -> Result<usize, PartError> {
        let bytes = 512
            + [&row.record, &row.statement, &row.command_line]
                .iter()
                .filter_map(|text| text.as_ref())
                .map(String::len)
                .sum::<usize>()
            + row.payload.as_ref().map_or(0, Vec::len);
        self.rows.push(row);
        self.bytes += bytes;
        if self.rows.len() >= GROUP || self.bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(bytes)
    }

    /// Writes what is left and sees it on disk; nothing where there were no rows.
    pub(super) fn finish(mut self) -> Result<Option<Finished>, PartError> {
        self.write_group()?;
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let finished = Finished(self.path.clone());
        writer.into_inner()?.sync_all()?;
        // It is the other's to remove now.
        self.is_there = false;
        Ok(Some(finished))
    }

    fn write_group(&mut self) -> Result<(), PartError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let writer = create(&self.path)?;
                self.is_there = true;
                writer
            }
        };
        let mut group = writer.next_row_group()?;
        for column in COLUMNS {
            match column.get {
                Get::Text(get) => {
                    let texts = rows.iter().map(|row| get(row).map(|text| ByteArray::from(text.as_str())));
                    write::<ByteArrayType>(&mut group, texts)?;
                }
                Get::Bytes(get) => {
                    let bytes = rows.iter().map(|row| get(row).map(|bytes| ByteArray::from(bytes.clone())));
                    write::<ByteArrayType>(&mut group, bytes)?;
                }
                Get::Int(get) | Get::Time(get) => {
                    write::<Int64Type>(&mut group, rows.iter().map(|row| get(row).copied()))?;
                }
            }
        }
        group.close()?;
        self.writer = Some(writer);
        Ok(())
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

/// The next column of a group.
fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let mut present = Vec::new();
    let levels: Vec<i16> = values
        .map(|value| {
            let level = i16::from(value.is_some());
            present.extend(value);
            level
        })
        .collect();
    let missing = || ParquetError::General("the schema has fewer columns than a row".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    column.close()
}

fn create(path: &Path) -> Result<SerializedFileWriter<File>, PartError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    let schema = Arc::new(parse_message_type(&schema())?);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("guard-control ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new("guard.fields".to_owned(), FIELDS.to_owned())]));
    // Never the same twice: a dictionary of them would be written for nothing.
    for unique in ["key", "hash", "record", "payload"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(unique), false);
    }
    Ok(SerializedFileWriter::new(file, schema, Arc::new(properties.build()))?)
}

/// The fields in the format's own words.
fn schema() -> String {
    let line = |column: &Column| {
        let name = column.name;
        match column.get {
            Get::Text(_) => format!("  optional binary {name} (STRING);\n"),
            Get::Int(_) => format!("  optional int64 {name};\n"),
            Get::Time(_) => format!("  optional int64 {name} (TIMESTAMP(MICROS,true));\n"),
            Get::Bytes(_) => format!("  optional binary {name};\n"),
        }
    };
    format!("message guard {{\n{}}}", COLUMNS.iter().map(line).collect::<String>())
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
        part.write_group().unwrap();
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
