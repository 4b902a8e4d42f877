//! How much was masked: counts for the record, never a value.

use guard_policy::vocabulary::DataKind;

/// Columns that are counted each for itself; those after them count in the totals alone.
const MAX_COLUMNS: usize = 256;

/// What was masked of one kind in one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The column's place in the result, from 0.
    pub column: usize,
    /// The kind.
    pub kind: DataKind,
    /// Values, or parts of values.
    pub values: u64,
}

/// What was masked of a result. Bounded by the number of columns and of kinds.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    rows: u64,
    masked_rows: u64,
    values: u64,
    unreadable: u64,
    columns: Vec<Counts>,
}

/// What was masked of one column: nearly always of one kind.
#[derive(Clone, Debug, Default)]
struct Counts {
    first: Option<(DataKind, u64)>,
    others: Vec<(DataKind, u64)>,
}

impl Tally {
    /// Rows that were looked at.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of which something was masked.
    pub fn masked_rows(&self) -> u64 {
        self.masked_rows
    }

    /// Values, or parts of values, that were masked.
    pub fn values(&self) -> u64 {
        self.values
    }

    /// Values that became NULL because they could not be read.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// What was masked of which kind in which column.
    pub fn masked(&self) -> impl Iterator<Item = Masked> {
        self.columns.iter().enumerate().flat_map(|(column, kinds)| {
            let all = kinds.first.iter().chain(&kinds.others);
            all.map(move |&(kind, values)| Masked { column, kind, values })
        })
    }

    pub(super) fn row(&mut self, masked: bool) {
        self.rows += 1;
        self.masked_rows += u64::from(masked);
    }

    /// Rows of which nothing was masked.
    pub(super) fn clean_rows(&mut self, rows: u64) {
        self.rows += rows;
    }

    #[inline]
    pub(super) fn add(&mut self, column: usize, kind: DataKind) {
        self.values += 1;
        if let Some(Counts { first: Some((counted, values)), .. }) = self.columns.get_mut(column)
            && *counted == kind
        {
            *values += 1;
        } else {
            self.add_other(column, kind);
        }
    }

    /// The first of a column, or one of another kind.
    #[cold]
    fn add_other(&mut self, column: usize, kind: DataKind) {
        if column >= self.columns.len() {
            if column >= MAX_COLUMNS {
                return;
            }
            self.columns.resize_with(column + 1, Counts::default);
        }
        let Counts { first, others } = &mut self.columns[column];
        match (first.as_mut(), others.iter_mut().find(|(counted, _)| *counted == kind)) {
            (None, _) => *first = Some((kind, 1)),
            (_, Some((_, values))) => *values += 1,
            (_, None) => others.push((kind, 1)),
        }
    }

    pub(super) fn could_not_read(&mut self) {
        self.unreadable += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stand_by_column_and_kind() {
        let mut tally = Tally::default();
        for (column, kind) in [
            (0, DataKind::Email),
            (2, DataKind::Phone),
            (0, DataKind::Email),
            (0, DataKind::Iban),
            (9_999, DataKind::Iban),
            (0, DataKind::Iban),
        ] {
            tally.add(column, kind);
        }
        let masked: Vec<_> =
            tally.masked().map(|masked| (masked.column, masked.kind, masked.values)).collect();
        assert_eq!(masked, [(0, DataKind::Email, 2), (0, DataKind::Iban, 2), (2, DataKind::Phone, 1)]);
        assert_eq!(tally.values(), 6, "columns beyond the bound count in the total");
    }
}
