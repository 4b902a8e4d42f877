//! Numbers that `status` shows, per server.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what the sessions of one server do.
#[derive(Debug, Default)]
pub struct Counters {
    statements: AtomicU64,
    refused: AtomicU64,
}

/// The numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Statements, refused ones included.
    pub statements: u64,
    /// Refused ones.
    pub refused: u64,
}

impl Counters {
    pub(crate) fn statement(&self) {
        self.statements.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers now.
    pub fn counts(&self) -> Counts {
        Counts {
            statements: self.statements.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}
