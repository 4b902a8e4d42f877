//! What names of columns say, as catalogs ask for it.

use guard_policy::vocabulary::DataKind;

use super::columns::{self, ColumnType, Named};
use crate::catalog::{Names, TypeShape};

/// Judges columns by their names.
#[derive(Debug)]
pub struct ColumnNames;

impl Names for ColumnNames {
    fn kind(&self, table: &str, column: &str, ty: &TypeShape<'_>) -> Option<DataKind> {
        let ty = match (ColumnType::from_oid(ty.oid), ty.name, ty.category) {
            (ColumnType::Unknown, "hstore", _) => ColumnType::Document,
            (ColumnType::Unknown, "citext", _) | (ColumnType::Unknown, _, 'S' | 'E') => ColumnType::Text,
            (ColumnType::Unknown, _, 'C') => ColumnType::Document,
            (known, _, _) => known,
        };
        match columns::by_name(table, column, ty) {
            Named::Sensitive(kind) => Some(kind),
            Named::Hint(_) | Named::Plain => None,
        }
    }
}
