//! Who started whom, as a flat list made at fork and exec: it outlives the ancestors.

use std::sync::Arc;

use super::image::Image;

/// Ancestors that are kept.
pub const DEPTH: usize = 8;

/// One ancestor: a parent, or an earlier image of the same process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its process id.
    pub pid: u32,
    /// Its user when the list was made.
    pub uid: u32,
    /// What it ran.
    pub image: Arc<Image>,
}

/// The nearest first.
pub type Ancestry = Arc<[Link]>;

/// The list of whoever comes directly after `nearest`.
pub fn extend(nearest: Link, older: &Ancestry) -> Ancestry {
    std::iter::once(nearest).chain(older.iter().cloned()).take(DEPTH).collect()
}
