//! What a session knows for masking: its database's catalog, what its statements show, which rows belong to which of them.
//!
//! Statements and the server's answers pass by; plans for rows leave. `rows` does what the plans say, `reading` reads the
//! catalog, `look` reads statements. A session without it (masking is off, or it replicates) passes rows unread.

mod copies;
mod inference;
mod look;
mod messages;
mod plans;
mod portals;
mod reading;
mod results;
mod rows;
mod shared;

use std::{collections::HashMap, rc::Rc, sync::Arc};

use ahash::RandomState;
use guard_common::audit::v1::Decision;
use guard_policy::vocabulary::Action;
use smallvec::SmallVec;

pub(super) use self::{
    look::{Looked, Looks, Source},
    plans::Plans,
    portals::{Portal, Portals},
    reading::Reading,
    results::{Fate, Results},
    rows::Step,
};
pub use self::shared::{KeyError, Masks};
use crate::{
    catalog::{Catalog, Database},
    config::Mode,
    mask::rewrite::Settings,
    sql::{Statement, lineage},
    wire::postgres::Frontend,
};

/// Names of prepared statements and cursors that SQL made and that are followed.
const MAX_NAMES: usize = 1_024;

/// Texts that one name or one reading of a statement may stand for; more count as unknown.
const MAX_TEXTS: usize = 8;

/// Bytes of texts that a session holds for its prepared statements.
const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;

type Texts = SmallVec<[Rc<[u8]>; 1]>;

/// A query that a cursor runs over.
type Cursor = (Rc<Looked>, usize);

/// One session's part in masking.
#[derive(Debug)]
pub(super) struct Masking {
    pub(super) masks: Arc<Masks>,
    pub(super) database: Arc<Database>,
    /// As of the last statement.
    pub(super) catalog: Arc<Catalog>,
    pub(super) version: u64,
    pub(super) portals: Portals,
    /// What happens to the next row.
    pub(super) fate: Fate,
    /// What the texts are that were prepared, by what they were read as.
    prepared: HashMap<*const Statement, (Arc<Statement>, Texts), RandomState>,
    prepared_bytes: usize,
    /// What SQL's PREPARE has named.
    named: HashMap<Box<str>, Texts, RandomState>,
    /// What SQL's DECLARE has named.
    cursors: HashMap<Box<str>, SmallVec<[Cursor; 1]>, RandomState>,
    /// Too many names to follow: what is not known may be anything.
    lost: bool,
    /// Sensitive columns that were written elsewhere since the catalog was read.
    pub(super) spilled: Vec<lineage::Column>,
    /// A statement was sent that may change the catalogue.
    changing: bool,
    /// The client is within a pipeline that it has not ended.
    pub(super) mid_pipeline: bool,
    /// The catalog is being read on this connection.
    pub(super) reading: bool,
    /// A policy in monitor mode would have refused the statement that is about to be admitted.
    pub(super) inferred: Option<Arc<Decision>>,
    pub(super) settings: Settings,
    pub(super) date_style: String,
    pub(super) encoding: String,
    pub(super) enforces: bool,
    pub(super) user: Box<str>,
    /// Rows that are rewritten are written here first.
    pub(super) scratch: Vec<u8>,
}

impl Masking {
    /// The part of a session of `user` on `database`.
    pub(super) fn new(masks: Arc<Masks>, database: Arc<Database>, user: &str, mode: Mode) -> Self {
        let catalog = database.catalog();
        Self {
            masks,
            version: database.version(),
            catalog,
            database,
            portals: Portals::default(),
            fate: Fate::default(),
            prepared: HashMap::default(),
            prepared_bytes: 0,
            named: HashMap::default(),
            cursors: HashMap::default(),
            lost: false,
            spilled: Vec::new(),
            changing: false,
            mid_pipeline: false,
            reading: false,
            inferred: None,
            settings: Settings::default(),
            date_style: String::new(),
            encoding: String::new(),
            enforces: mode == Mode::Enforce,
            user: user.into(),
            scratch: Vec::new(),
        }
    }

    /// A message of the client is about to be dealt with.
    pub(super) fn sees(&mut self, kind: Frontend) {
        match kind {
            Frontend::Parse
            | Frontend::Bind
            | Frontend::Describe
            | Frontend::Execute
            | Frontend::Close
            | Frontend::Flush => self.mid_pipeline = true,
            Frontend::Sync | Frontend::Query => self.mid_pipeline = false,
            _ => {}
        }
    }

    /// The server reports a setting that the form of values depends on.
    pub(super) fn reported(&mut self, name: &[u8], value: &str) {
        match name {
            b"DateStyle" => value.clone_into(&mut self.date_style),
            b"client_encoding" => value.clone_into(&mut self.encoding),
            _ => return,
        }
        self.settings = Settings::reported(&self.date_style, &self.encoding);
    }

    /// Takes the newest catalog.
    pub(super) fn follow_catalog(&mut self) {
        let version = self.database.version();
        if version != self.version {
            self.version = version;
            self.catalog = self.database.catalog();
            self.spilled.clear();
        }
    }

    /// True once the catalog has been read.
    pub(super) fn knows_catalog(&self) -> bool {
        self.catalog.is_complete()
    }

    /// Keeps `text`, which is prepared, with what it was read as.
    pub(super) fn keep_text(&mut self, statement: &Arc<Statement>, text: Rc<[u8]>) {
        if self.prepared_bytes.saturating_add(text.len()) > MAX_TEXT_BYTES {
            self.prepared.clear();
            self.prepared_bytes = 0;
        }
        let entry = self.prepared.entry(Arc::as_ptr(statement));
        let (_, texts) = entry.or_insert_with(|| (Arc::clone(statement), Texts::new()));
        if texts.len() <= MAX_TEXTS && !texts.contains(&text) {
            self.prepared_bytes += text.len();
            texts.push(text);
        }
    }

    /// The texts that `statement` may have been read from; `None` where nobody knows.
    fn texts(&self, statement: &Arc<Statement>) -> Option<&Texts> {
        let (_, texts) = self.prepared.get(&Arc::as_ptr(statement))?;
        Some(texts).filter(|texts| texts.len() <= MAX_TEXTS)
    }

    /// `looked` is sent: what it names, writes and changes.
    pub(super) fn sent(&mut self, statement: &Statement, looked: Option<&Rc<Looked>>) {
        self.changing |= statement.effects.iter().any(|effect| changes_catalog(effect.action));
        let Some(looked) = looked else { return };
        for (at, part) in looked.lineage.parts.iter().enumerate() {
            match &part.names {
                Some(lineage::Named::Prepared(name, _)) => self.name_text(name, &looked.text),
                Some(lineage::Named::Cursor(name, _)) => self.name_cursor(name, looked, at),
                None => {}
            }
            if !part.targets.is_empty() {
                self.database.learn(&part.targets);
                let sources = part.targets.iter().flat_map(|target| &target.sources);
                for source in sources {
                    if !self.spilled.contains(source) {
                        self.spilled.push(source.clone());
                    }
                }
            }
        }
    }

    fn name_text(&mut self, name: &str, text: &Rc<[u8]>) {
        if self.named.len() >= MAX_NAMES && !self.named.contains_key(name) {
            self.lost = true;
            return;
        }
        let texts = self.named.entry(name.into()).or_default();
        if texts.len() <= MAX_TEXTS && !texts.contains(text) {
            texts.push(Rc::clone(text));
        }
    }

    fn name_cursor(&mut self, name: &str, looked: &Rc<Looked>, at: usize) {
        if self.cursors.len() >= MAX_NAMES && !self.cursors.contains_key(name) {
            self.lost = true;
            return;
        }
        let cursors = self.cursors.entry(name.into()).or_default();
        let known = cursors.iter().any(|(known, part)| Rc::ptr_eq(known, looked) && *part == at);
        if cursors.len() <= MAX_TEXTS && !known {
            cursors.push((Rc::clone(looked), at));
        }
    }

    /// What SQL's PREPARE may have named so; `None` where nobody knows.
    fn texts_named(&self, name: &str) -> Option<&Texts> {
        if self.lost {
            return None;
        }
        self.named.get(name).filter(|texts| texts.len() <= MAX_TEXTS)
    }

    /// What SQL's DECLARE may have named so; `None` where nobody knows.
    fn cursors_named(&self, name: &str) -> Option<&[Cursor]> {
        if self.lost {
            return None;
        }
        self.cursors.get(name).map(SmallVec::as_slice).filter(|cursors| cursors.len() <= MAX_TEXTS)
    }

    /// Nothing is under way any more: what was sent has taken effect.
    pub(super) fn settled(&mut self) {
        if std::mem::take(&mut self.changing) {
            self.database.changed();
        }
    }
}

/// Whether what does this may change what the catalog says.
fn changes_catalog(action: Action) -> bool {
    matches!(
        action,
        Action::Create
            | Action::Alter
            | Action::Drop
            | Action::Comment
            | Action::Load
            | Action::Do
            | Action::Call
            | Action::Execute
            | Action::Unreadable
    )
}
