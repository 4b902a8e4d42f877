//! The detectors, as the rewriters ask for them.

use std::cell::RefCell;

use guard_policy::vocabulary::DataKind;

use crate::catalog::{Names, TypeShape};

use super::{
    columns::{self, ColumnType, Named},
    detect::{self, Hint},
    rewrite::{Detector, Hit, Hits},
};

/// What names of columns say, as catalogs ask for it.
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

/// Finds what is sensitive in values. Holds a buffer that is used again.
#[derive(Debug, Default)]
pub struct Finder {
    hits: RefCell<detect::Hits>,
}

impl Detector for Finder {
    fn scan(&self, cell: &[u8], hint: Hint, hits: &mut Hits) {
        let mut found = self.hits.borrow_mut();
        detect::scan(cell, hint, &mut found);
        hits.extend(found.as_slice().iter().map(|hit| Hit {
            kind: hit.kind,
            start: hit.start,
            end: hit.end,
        }));
    }

    fn scan_integer(&self, value: i64, hint: Hint) -> Option<DataKind> {
        detect::scan_integer(value, hint)
    }

    fn by_key(&self, key: &str) -> Named {
        columns::by_name("", key, ColumnType::Unknown)
    }
}
