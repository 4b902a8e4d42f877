//! What a database's own catalogue says enters through a session's connection; which columns are sensitive, and where
//! names lead, leaves.
//!
//! Read by any role, shared between the sessions of one database, never waited for: a session without a catalog, or with
//! one that lacks a relation, is told so and takes care. Keeps names and definitions, never a row's values.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use guard_policy::vocabulary::DataKind;

use crate::sql::lineage::Target;

/// One reading of a database's catalogue. Immutable.
#[derive(Debug, Default)]
pub struct Catalog {}

/// Why a column counts as sensitive, best evidence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// The agent's configuration says so.
    Configured,
    /// A comment in the database says so: `guard: email`.
    Comment,
    /// Known of PostgreSQL's own catalogue.
    BuiltIn,
    /// A statement wrote a sensitive column's values into it, or it was renamed.
    Learned,
    /// It is a column of a view, or generated, and shows a sensitive column.
    Derived,
    /// It refers to a sensitive column, or its table inherits from one that has it.
    Related,
    /// Its name says so.
    Name,
}

impl Evidence {
    /// Its word in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Comment => "comment",
            Self::BuiltIn => "built-in",
            Self::Learned => "learned",
            Self::Derived => "derived",
            Self::Related => "related",
            Self::Name => "column name",
        }
    }
}

/// What makes a column sensitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensitive {
    /// What it holds.
    pub kind: DataKind,
    /// Tags beside those of the kind.
    pub tags: Vec<Box<str>>,
    /// How that is known.
    pub evidence: Evidence,
}

impl Catalog {
    /// What makes the column sensitive; `None` where nothing does.
    pub fn sensitive(&self, _relation: u32, _attnum: i16) -> Option<&Sensitive> {
        None
    }

    /// Whether the catalog has this relation. Of one that it lacks nothing is known.
    pub fn has(&self, _relation: u32) -> bool {
        false
    }
}

/// The catalog of one database, shared by its sessions.
#[derive(Debug, Default)]
pub struct Database {}

impl Database {
    /// The newest catalog; an empty one before the first reading.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::default()
    }

    /// Changes with every new catalog: sessions that hold one look at this first.
    pub fn version(&self) -> u64 {
        0
    }

    /// Something passed by that may have changed the catalogue: it has to be read again.
    pub fn changed(&self) {}

    /// Remembers where sensitive values were written to.
    pub fn learn(&self, _targets: &[Target]) {}

    /// Whether a session that is about to run a statement should read first: never read, changed, or old.
    pub fn is_due(&self, _now: Instant) -> bool {
        false
    }

    /// The right to read, which one session at a time has; `None` where nothing is due or another one reads. Dropped
    /// before it is done, it counts as a failed reading and is tried again later, by whichever session comes first.
    pub fn begin(self: &Arc<Self>, _now: Instant) -> Option<Reader> {
        None
    }
}

/// Reads the catalogue over a session's own connection, which must be idle and outside of a transaction.
#[derive(Debug)]
pub struct Reader {}

/// What follows a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More messages of the server.
    Wait,
    /// This is to be sent, then more messages follow.
    Send(Bytes),
    /// It is over, well or not; the server is ready for the session's own.
    Done,
}

impl Reader {
    /// What to send first.
    pub fn request(&mut self) -> Bytes {
        Bytes::new()
    }

    /// Takes each message of the server up to [`Progress::Done`], ReadyForQuery included. None of them is the client's,
    /// but those of the kinds `S` and `A`, which may concern it.
    pub fn on_message(&mut self, _tag: u8, _body: &[u8]) -> Progress {
        Progress::Done
    }
}
