//! What the record says of a result: columns and rules from its plan, counts from its rows. Never a value.

use guard_common::audit::v1::{MaskedColumn, Masking, RevealedColumn};
use guard_policy::{Column, Mask, Sight, vocabulary::DataKind};
use prost::Message;

use super::super::rewrite::Tally;

/// Most columns that a record names.
const MAX_COLUMNS: usize = 256;

/// Longest name in a record, in bytes.
const MAX_NAME: usize = 200;

/// What a plan says to the record.
#[derive(Clone, Debug, Default)]
pub struct Report {
    columns: Vec<MaskedColumn>,
    revealed: Vec<RevealedColumn>,
    care: &'static str,
}

/// What has come of the rows of a statement.
#[derive(Clone, Debug, Default)]
pub struct Told(Masking);

impl Report {
    /// The reason why more is masked than what is known to be sensitive; the first counts.
    pub(super) fn takes_care(&mut self, why: &'static str) {
        if self.care.is_empty() {
            self.care = why;
        }
    }

    pub(super) fn masked(&mut self, column: &Column, result: &str, mask: &Mask, sight: &Sight) {
        if self.columns.len() < MAX_COLUMNS {
            self.columns.push(MaskedColumn {
                column: cut(&column.to_string()),
                result: cut(result),
                kind: column.kind.as_str().to_owned(),
                evidence: column.evidence.clone(),
                rule: mask.rule.as_str().to_owned(),
                policy: sight.policy.clone(),
                values: 0,
            });
        }
    }

    pub(super) fn revealed(&mut self, column: &Column, result: &str, sight: &Sight) {
        if self.revealed.len() < MAX_COLUMNS {
            self.revealed.push(RevealedColumn {
                column: cut(&column.to_string()),
                result: cut(result),
                kind: column.kind.as_str().to_owned(),
                policy: sight.policy.clone(),
            });
        }
    }

    /// True where it has something to say even if no row comes.
    pub fn says_something(&self) -> bool {
        !self.columns.is_empty() || !self.revealed.is_empty()
    }

    /// Names of the columns of the result that are masked, with their rules.
    pub fn masked_names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns.iter().map(|column| (column.result.as_str(), column.rule.as_str()))
    }
}

impl Told {
    /// Adds what a result was planned to be, and what has come of its rows. `name` gives the name of a column in it.
    pub fn add(&mut self, report: &Report, tally: &Tally, name: impl Fn(usize) -> String) {
        let Self(told) = self;
        for (columns, more) in [(&mut told.columns, &report.columns)] {
            for column in more {
                let known = columns.iter().any(|known| {
                    known.column == column.column
                        && known.result == column.result
                        && known.rule == column.rule
                });
                if !known && columns.len() < MAX_COLUMNS {
                    columns.push(column.clone());
                }
            }
        }
        for column in &report.revealed {
            if !told.revealed.contains(column) && told.revealed.len() < MAX_COLUMNS {
                told.revealed.push(column.clone());
            }
        }
        if told.care.is_empty() {
            report.care.clone_into(&mut told.care);
        }
        told.rows += tally.masked_rows();
        told.unreadable += tally.unreadable();
        for masked in tally.masked() {
            self.count(&name(masked.column), masked.kind, masked.values);
        }
    }

    /// Adds values that were masked in the column that the result calls `result`.
    fn count(&mut self, result: &str, kind: DataKind, values: u64) {
        let columns = &mut self.0.columns;
        let result = cut(result);
        let of_kind = |column: &&mut MaskedColumn| column.result == result && column.kind == kind.as_str();
        if let Some(column) = columns.iter_mut().find(of_kind) {
            column.values += values;
        } else if columns.len() < MAX_COLUMNS {
            columns.push(MaskedColumn {
                column: result.clone(),
                result,
                kind: kind.as_str().to_owned(),
                evidence: "content".to_owned(),
                values,
                ..MaskedColumn::default()
            });
        }
    }

    /// Adds values that were masked in the text of an error or a notice.
    pub fn in_message(&mut self, values: u64) {
        self.0.in_messages += values;
    }

    /// The record's field; empty where there is nothing to say.
    pub fn encode(&self, only_recorded: bool) -> Vec<u8> {
        let Self(told) = self;
        let silent = told.columns.is_empty() && told.revealed.is_empty() && told.in_messages == 0;
        // That care was taken is worth a word where it masked something.
        if silent && told.unreadable == 0 {
            return Vec::new();
        }
        Masking { only_recorded, ..told.clone() }.encode_to_vec()
    }
}

fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME)].to_owned()
}
