//! A file of columns (Parquet) of flat rows, for whatever reads such files.
//!
//! Rows enter one by one, a file leaves. No more of it is held in memory than one group of rows; nothing of the file can be
//! read before it is finished. The names and types are those of [`super::flat`].

use std::{io::Write, sync::Arc};

pub use parquet::errors::ParquetError;
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, DataType, Int64Type},
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

use super::flat::{COLUMNS, Column, Flat, Get};

/// Rows of one group: what a reader can skip at once.
const GROUP: usize = 8_192;
/// Bytes of rows that are kept in memory for one file.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// The version of the fields: raised when one changes its meaning, which none should.
const FIELDS: &str = "1";

/// A file that is being written.
pub struct ColumnsWriter<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<Flat>,
    bytes: usize,
}

impl<W: Write + Send> ColumnsWriter<W> {
    /// Begins a file; `by`: the program that writes it, with its version.
    pub fn new(out: W, by: &str) -> Result<Self, ParquetError> {
        let schema = Arc::new(parse_message_type(&schema())?);
        let fields = KeyValue::new("guard.fields".to_owned(), FIELDS.to_owned());
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(by.to_owned())
            .set_key_value_metadata(Some(vec![fields]));
        // Never the same twice: a dictionary of them would be written for nothing.
        for unique in ["key", "hash", "record", "payload"] {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(unique), false);
        }
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties.build()))?;
        Ok(Self { writer, rows: Vec::new(), bytes: 0 })
    }

    /// Adds a row; about how many bytes it has.
    pub fn add(&mut self, row: Flat) -> Result<usize, ParquetError> {
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

    /// Writes what is left and the file's end; what it was written to.
    pub fn finish(mut self) -> Result<W, ParquetError> {
        self.write_group()?;
        self.writer.into_inner()
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut group = self.writer.next_row_group()?;
        for column in COLUMNS {
            match column.get {
                Get::Text(get) => {
                    let texts = rows.iter().map(|row| get(row).map(|text| ByteArray::from(text.as_str())));
                    write::<W, ByteArrayType>(&mut group, texts)?;
                }
                Get::Bytes(get) => {
                    let bytes = rows.iter().map(|row| get(row).map(|bytes| ByteArray::from(bytes.clone())));
                    write::<W, ByteArrayType>(&mut group, bytes)?;
                }
                Get::Int(get) | Get::Time(get) => {
                    write::<W, Int64Type>(&mut group, rows.iter().map(|row| get(row).copied()))?;
                }
            }
        }
        group.close()?;
        Ok(())
    }
}

/// The next column of a group.
fn write<W: Write + Send, T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, W>,
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
    fn a_file_is_whole_at_its_end_and_holds_no_more_than_a_group() {
        let mut file = ColumnsWriter::new(Vec::new(), "test").unwrap();
        for n in 0..20_000_i64 {
            file.add(Flat { sequence: Some(n), ..Flat::default() }).unwrap();
            assert!(file.rows.len() < GROUP);
        }
        let bytes = file.finish().unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
        let empty = ColumnsWriter::new(Vec::new(), "test").unwrap().finish().unwrap();
        assert!(empty.ends_with(b"PAR1"), "a file without rows can be read as well");
    }
}
