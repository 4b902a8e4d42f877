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
    /// When it started.
    pub start_ns: u64,
    /// What it ran.
    pub image: Arc<Image>,
    /// How that is known.
    pub source: Source,
}

/// How it is known what a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The kernel told of the program when it was started.
    Exec,
    /// It runs what its parent ran, which the kernel told.
    Fork,
    /// Read from /proc.
    Procfs,
    /// It is not known.
    #[default]
    Unknown,
}

impl Source {
    /// Its word in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Fork => "fork",
            Self::Procfs => "procfs",
            Self::Unknown => "",
        }
    }
}

/// The nearest first.
pub type Ancestry = Arc<[Link]>;

/// The list of whoever comes directly after `nearest`.
pub fn extend(nearest: Link, older: &Ancestry) -> Ancestry {
    std::iter::once(nearest).chain(older.iter().cloned()).take(DEPTH).collect()
}
