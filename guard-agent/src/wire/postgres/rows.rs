//! RowDescription and DataRow: what a result's columns are, and its rows.
//!
//! Both are checked whole before anything of them is used: what leaves cannot lie about its lengths.

use super::frame::{WireError, cstring};

/// Most columns that a result has (`MaxTupleAttributeNumber`).
const MAX_COLUMNS: usize = 1_664;

/// What a RowDescription says of one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDescription<'a> {
    /// Its name in the result.
    pub name: &'a [u8],
    /// OID of the table that it comes from; 0 where it is no table's column.
    pub table: u32,
    /// Its number in that table; 0 as well.
    pub column: i16,
    /// OID of its type; of a domain, its base type's.
    pub type_oid: u32,
    /// Bytes of the type; negative where they vary.
    pub type_size: i16,
    /// The type's modifier; -1 where there is none.
    pub type_modifier: i32,
    /// 0 for text, 1 for binary; 0 where that is not yet known.
    pub format: i16,
}

/// The body of a RowDescription.
#[derive(Clone, Copy, Debug)]
pub struct RowDescription<'a> {
    count: usize,
    fields: &'a [u8],
}

impl<'a> RowDescription<'a> {
    /// Reads and checks the body.
    ///
    /// # Errors
    /// Where it is not as long as its columns, or has more than a result can have.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let malformed = WireError::Malformed('T');
        let (count, fields) = body.split_first_chunk().ok_or(malformed.clone())?;
        let count = usize::from(u16::from_be_bytes(*count));
        let description = Self { count, fields };
        let mut columns = description.columns();
        let read = columns.by_ref().take(MAX_COLUMNS + 1).count();
        if count > MAX_COLUMNS || read != count || !columns.rest.is_empty() {
            return Err(malformed);
        }
        Ok(description)
    }

    /// How many columns it describes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The columns in order.
    pub fn columns(&self) -> Columns<'a> {
        Columns { left: self.count, rest: self.fields }
    }
}

/// The columns of a [`RowDescription`].
#[derive(Clone, Debug)]
pub struct Columns<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for Columns<'a> {
    type Item = FieldDescription<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (name, rest) = cstring(self.rest)?;
        let (fixed, rest) = rest.split_first_chunk::<18>()?;
        self.rest = rest;
        let [t0, t1, t2, t3, c0, c1, o0, o1, o2, o3, s0, s1, m0, m1, m2, m3, f0, f1] = *fixed;
        Some(FieldDescription {
            name,
            table: u32::from_be_bytes([t0, t1, t2, t3]),
            column: i16::from_be_bytes([c0, c1]),
            type_oid: u32::from_be_bytes([o0, o1, o2, o3]),
            type_size: i16::from_be_bytes([s0, s1]),
            type_modifier: i32::from_be_bytes([m0, m1, m2, m3]),
            format: i16::from_be_bytes([f0, f1]),
        })
    }
}

/// The values of a DataRow.
#[derive(Clone, Debug)]
pub struct DataRow<'a> {
    count: usize,
    left: usize,
    rest: &'a [u8],
}

impl<'a> DataRow<'a> {
    /// Reads and checks the body.
    ///
    /// # Errors
    /// Where it is not as long as its values.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let malformed = WireError::Malformed('D');
        let (count, rest) = body.split_first_chunk().ok_or(malformed.clone())?;
        let count = usize::from(u16::from_be_bytes(*count));
        let row = Self { count, left: count, rest };
        let mut values = row.clone();
        if values.by_ref().count() != count || !values.rest.is_empty() {
            return Err(malformed);
        }
        Ok(row)
    }

    /// How many values it has.
    pub fn width(&self) -> usize {
        self.count
    }
}

impl<'a> Iterator for DataRow<'a> {
    /// A value; `None` for NULL.
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (length, rest) = self.rest.split_first_chunk()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            self.rest = rest;
            return Some(None);
        }
        let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Vec<u8> {
        let mut body = vec![0, 2];
        for (name, format) in [("id", 0_u8), ("mail", 1)] {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(&[0, 0, 0x40, 1, 0, 7, 0, 0, 4, 19, 0xff, 0xff, 0, 0, 0, 24, 0, format]);
        }
        body
    }

    #[test]
    fn columns_are_described() {
        let body = description();
        let columns: Vec<_> = RowDescription::read(&body).unwrap().columns().collect();
        let expected = FieldDescription {
            name: b"mail",
            table: 16_385,
            column: 7,
            type_oid: 1043,
            type_size: -1,
            type_modifier: 24,
            format: 1,
        };
        assert_eq!((columns.len(), columns[1]), (2, expected));
    }

    #[test]
    fn lies_about_lengths_are_refused() {
        let body = description();
        for end in 0..body.len() {
            assert!(RowDescription::read(&body[..end]).is_err(), "{end}");
        }
        assert!(RowDescription::read(&[&body[..], b"x"].concat()).is_err());
        let row = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        let values: Vec<_> = DataRow::read(row).unwrap().collect();
        assert_eq!(values, [Some(&b"ab"[..]), None, Some(&b""[..])]);
        for end in 0..row.len() {
            assert!(DataRow::read(&row[..end]).is_err(), "{end}");
        }
        assert!(DataRow::read(b"\0\x01\xff\xff\xff\xfe").is_err());
        assert!(DataRow::read(b"\0\0x").is_err());
    }
}
