//! The detectors, as the rewriters ask for them.

use std::cell::RefCell;

use guard_policy::vocabulary::DataKind;

use super::{
    columns::{self, ColumnType},
    detect,
    rewrite::{Detector, Hint, Hits, Named},
};

/// Finds what is sensitive in values. Holds a buffer that is used again.
#[derive(Debug, Default)]
pub struct Finder {
    hits: RefCell<detect::Hits>,
}
