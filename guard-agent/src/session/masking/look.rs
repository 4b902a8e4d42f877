//! What statements show: their texts enter, with the session's world; lineage leaves, remembered by text.
//!
//! One cache per session thread. INVARIANT: an entry holds for one text under one scope and one state of the catalog; the
//! scope covers search path and user.

use std::{collections::HashMap, rc::Rc};

use ahash::RandomState;
use smallvec::SmallVec;

use super::Masking;
use crate::{
    decide::{Scope, Session},
    sql::{
        Modes,
        lineage::{self, Lineage, Outputs, World},
    },
};

/// Entries that one thread keeps; then it starts afresh.
const ENTRIES: usize = 8_192;

/// Bytes of texts that it keeps.
const BYTES: usize = 8 * 1024 * 1024;

/// Longer texts are not followed: what they show may be anything.
const MAX_TEXT: usize = 1024 * 1024;

/// A text that was read.
#[derive(Debug)]
pub(in super::super) struct Looked {
    scope: Scope,
    version: (usize, u64),
    modes: Modes,
    pub(in super::super) text: Rc<[u8]>,
    pub(in super::super) lineage: Lineage,
    /// It could be followed at all.
    pub(in super::super) followed: bool,
}

impl Looked {
    /// True where what it shows depends on nothing that other statements name.
    pub(super) fn stands_alone(&self) -> bool {
        self.followed
            && !self
                .lineage
                .parts
                .iter()
                .any(|part| matches!(part.outputs, Outputs::Prepared(_) | Outputs::Cursor(_)))
    }

    /// True where it has to do with sensitive columns, or may have.
    pub(in super::super) fn touches(&self) -> bool {
        !self.followed || self.lineage.parts.iter().any(part_touches)
    }
}

fn part_touches(part: &lineage::Part) -> bool {
    let inner = match &part.names {
        Some(lineage::Named::Prepared(_, part) | lineage::Named::Cursor(_, part)) => part_touches(part),
        None => false,
    };
    inner
        || !part.uses.is_empty()
        || !part.targets.is_empty()
        || match &part.outputs {
            Outputs::None => false,
            Outputs::Columns(columns) => {
                columns.iter().any(|column| !column.sources.is_empty() || !column.steered_by.is_empty())
            }
            Outputs::Unknown(sources) => !sources.is_empty(),
            Outputs::Prepared(_) | Outputs::Cursor(_) => true,
        }
}

/// What a statement may be.
#[derive(Clone, Debug, Default)]
pub(in super::super) enum Source {
    /// Nobody knows.
    #[default]
    Unknown,
    /// This text.
    One(Rc<Looked>),
    /// Any of these.
    Any(Rc<[Rc<Looked>]>),
}

impl Source {
    /// Any of `looked`; nobody knows where there are none.
    pub(super) fn of(looked: SmallVec<[Rc<Looked>; 2]>) -> Self {
        match looked.as_slice() {
            [] => Self::Unknown,
            [one] => Self::One(Rc::clone(one)),
            many => Self::Any(many.into()),
        }
    }

    /// The texts that it may be.
    pub(in super::super) fn all(&self) -> &[Rc<Looked>] {
        match self {
            Self::Unknown => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Any(many) => many,
        }
    }

    /// True where it has to do with sensitive columns, or may have.
    pub(in super::super) fn touches(&self) -> bool {
        let all = self.all();
        all.is_empty() || all.iter().any(|looked| looked.touches())
    }
}

/// What one thread has read.
#[derive(Debug, Default)]
pub(in super::super) struct Looks {
    entries: HashMap<u64, SmallVec<[Rc<Looked>; 1]>, RandomState>,
    hasher: RandomState,
    count: usize,
    bytes: usize,
}

impl Looks {
    /// What `text` shows in `session`.
    pub(in super::super) fn look(
        &mut self,
        masking: &Masking,
        session: (&Session, Scope),
        modes: Modes,
        text: &[u8],
    ) -> Rc<Looked> {
        let (session, scope) = session;
        let version = (std::sync::Arc::as_ptr(&masking.database).addr(), masking.version);
        let hash = self.hasher.hash_one((text, scope, version.1));
        let known = self.entries.get(&hash).and_then(|entries| {
            entries.iter().find(|looked| {
                *looked.text == *text
                    && looked.scope == scope
                    && looked.version == version
                    && looked.modes == modes
            })
        });
        if let Some(looked) = known {
            return Rc::clone(looked);
        }
        let looked = Rc::new(read(masking, session, scope, modes, text, version));
        if self.count >= ENTRIES || self.bytes.saturating_add(text.len()) > BYTES {
            self.entries.clear();
            (self.count, self.bytes) = (0, 0);
        }
        self.count += 1;
        self.bytes += text.len();
        self.entries.entry(hash).or_default().push(Rc::clone(&looked));
        looked
    }
}

fn read(
    masking: &Masking,
    session: &Session,
    scope: Scope,
    modes: Modes,
    text: &[u8],
    version: (usize, u64),
) -> Looked {
    let world = World { catalog: &masking.catalog, path: &session.search_path, user: &session.db_user };
    let decoded = if text.len() <= MAX_TEXT { modes.client_encoding.decode(text) } else { None };
    let lineage = decoded.as_deref().map(|text| lineage::of(text, modes.standard_conforming_strings, &world));
    Looked {
        scope,
        version,
        modes,
        text: text.into(),
        followed: lineage.is_some(),
        lineage: lineage.unwrap_or_default(),
    }
}
