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
mod tagging;
mod witnesses;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
    sync::Arc,
};

use ahash::RandomState;
use guard_common::audit::v1::Decision;
use guard_policy::vocabulary::{Action, Effect, ObjectKind};
use smallvec::SmallVec;

pub use self::shared::{KeyError, Masks};
pub(super) use self::{
    look::{Looked, Looks, Source},
    plans::Plans,
    portals::{Portal, Portals},
    reading::Reading,
    results::{Fate, Results},
    rows::Step,
};
use crate::{
    catalog::{Catalog, Database},
    config::Mode,
    mask::rewrite::{Letters, Settings},
    sql::{Prepared, Statement, lineage},
    wire::postgres::Frontend,
};

/// Names of prepared statements and cursors that SQL made and that are followed.
const MAX_NAMES: usize = 1_024;

/// Statements that one name may stand for; more count as unknown.
const MAX_STATEMENTS: usize = 8;

/// Columns that count as written elsewhere.
const MAX_SPILLED: usize = 256;

type Statements = SmallVec<[Arc<Statement>; 1]>;

/// Names a state of a session's knowledge: the database, the version of its catalog, columns written elsewhere.
type State = (usize, u64, u64);

/// A query that a cursor runs over.
type Cursor = (Rc<Looked>, usize);

/// One session's part in masking.
#[derive(Debug)]
pub(super) struct Masking {
    pub(super) masks: Arc<Masks>,
    pub(super) database: Arc<Database>,
    /// As of the last statement.
    pub(super) catalog: Catalog,
    pub(super) version: u64,
    pub(super) portals: Portals,
    /// What happens to the next row.
    pub(super) fate: Fate,
    /// What SQL's PREPARE has named.
    named: HashMap<Box<str>, Statements, RandomState>,
    /// What SQL's DECLARE has named.
    cursors: HashMap<Box<str>, SmallVec<[Cursor; 1]>, RandomState>,
    /// Too many names to follow: what is not known may be anything.
    lost: bool,
    /// Sensitive columns that were written elsewhere: where, the catalog may not know yet.
    pub(super) spilled: Vec<lineage::Column>,
    /// It has made functions: what they read, the catalog may not know yet.
    pub(super) new_code: bool,
    /// Names `spilled`, `tainted` and `new_code` among all that they may be.
    mark: u64,
    /// A statement has written what is sensitive into a setting.
    pub(super) tainted: bool,
    /// It has given tables or columns other names: until the catalog is read again, nobody knows which is which.
    pub(super) renamed: bool,
    /// A statement has sent what is sensitive as a notification.
    pub(super) notified: bool,
    /// A statement was sent that may change the catalogue.
    changing: bool,
    /// The client is within a pipeline that it has not ended.
    pub(super) mid_pipeline: bool,
    /// The catalog is being read on this connection.
    pub(super) reading: bool,
    /// It has waited for the first catalog as long as it should.
    pub(super) patient: bool,
    /// A policy in monitor mode would have refused the statement that is about to be admitted.
    pub(super) inferred: Option<Arc<Decision>>,
    pub(super) settings: Settings,
    pub(super) date_style: String,
    pub(super) encoding: String,
    pub(super) enforces: bool,
    /// The catalog has sensitive columns of the database's own.
    pub(super) sensitive: bool,
    /// Rows that are rewritten are written here first.
    pub(super) scratch: Vec<u8>,
    /// Until when the first rows of a result wait for more of them.
    rows_wait: Option<tokio::time::Instant>,
    /// No more of them will come.
    impatient: bool,
}

impl Masking {
    /// The part of a session on `database`.
    pub(super) fn new(masks: Arc<Masks>, database: Arc<Database>, mode: Mode) -> Self {
        let catalog = database.catalog();
        let mut masking = Self {
            masks,
            version: database.version(),
            catalog,
            database,
            portals: Portals::default(),
            fate: Fate::default(),
            named: HashMap::default(),
            cursors: HashMap::default(),
            lost: false,
            spilled: Vec::new(),
            new_code: false,
            mark: 0,
            tainted: false,
            renamed: false,
            notified: false,
            changing: false,
            mid_pipeline: false,
            reading: false,
            patient: false,
            inferred: None,
            settings: Settings::default(),
            date_style: String::new(),
            encoding: String::new(),
            enforces: mode == Mode::Enforce,
            sensitive: false,
            scratch: Vec::new(),
            rows_wait: None,
            impatient: false,
        };
        masking.take_catalog();
        masking
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
            self.take_catalog();
        }
    }

    fn take_catalog(&mut self) {
        if !self.changing && std::mem::take(&mut self.renamed) {
            self.remember();
        }
        self.catalog = self.database.catalog();
        let catalog = &self.catalog;
        let own = catalog.relations().filter(|relation| !relation.is_system());
        self.sensitive = own.into_iter().any(|relation| catalog.sensitive_columns(relation).next().is_some());
    }

    /// True once the catalog has been read.
    pub(super) fn knows_catalog(&self) -> bool {
        // A database has its system's relations at least. One that was too large to be kept whole is better than none.
        self.catalog.relations().next().is_some()
    }

    /// `looked` is sent: what it names, writes and changes.
    pub(super) fn sent(&mut self, statement: &Statement, looked: Option<&Rc<Looked>>) {
        self.changing |= statement.effects.iter().any(|effect| changes_catalog(effect.action));
        // Code may close what a name stands for, and open or prepare something else by it.
        let runs_code = |effect: &Effect| matches!(effect.action, Action::Do | Action::Call);
        if !(self.named.is_empty() && self.cursors.is_empty()) && statement.effects.iter().any(runs_code) {
            self.lost = true;
        }
        if self.sensitive && !self.renamed && renames(statement) {
            self.renamed = true;
            self.remember();
        }
        if sets_encoding(statement) {
            // The server tells the new one only when it is ready for the next query: until then nobody knows.
            (self.settings.letters, self.settings.utf8) = (Letters::Unknown, false);
        }
        let Some(looked) = looked else { return };
        self.notified |= looked.touches() && may_notify(statement);
        if looked.touches() && !self.tainted && statement.effects.iter().any(sets) {
            self.tainted = true;
            self.remember();
        }
        let creates = |kind| {
            let made = move |effect: &Effect| effect.action == Action::Create && effect.object.kind == kind;
            statement.effects.iter().any(made)
        };
        if creates(ObjectKind::Function) && !self.new_code {
            self.new_code = true;
            self.remember();
        }
        let executes = statement.prepared.iter().any(|name| matches!(name, Prepared::Execute(_)));
        if self.sensitive
            && creates(ObjectKind::Table)
            && (executes || looked.statement.origin.text().is_none_or(|(text, _)| executes_within(text)))
        {
            self.database.learn(&stored_by_name(statement));
            // Until the catalog has the table as well.
            if !self.spilled.iter().any(lineage::Column::is_any) {
                self.spilled.push(lineage::Column::any());
                self.remember();
            }
        }
        for (at, part) in looked.lineage.parts.iter().enumerate() {
            match &part.names {
                Some(lineage::Named::Prepared(name, _)) => self.name_statement(name, &looked.statement),
                Some(lineage::Named::Cursor(name, _)) => self.name_cursor(name, looked, at),
                None => {}
            }
            if !part.targets.is_empty() {
                self.database.learn(&part.targets);
                let sources = part.targets.iter().flat_map(|target| &target.sources);
                for source in sources {
                    if self.spilled.contains(source) {
                        continue;
                    }
                    match self.spilled.len() {
                        0..MAX_SPILLED => self.spilled.push(source.clone()),
                        // Too many to tell apart.
                        MAX_SPILLED => self.spilled.push(lineage::Column::any()),
                        _ => {}
                    }
                }
                self.remember();
            }
        }
    }

    /// What is followed from now on is followed knowing what was written where.
    fn remember(&mut self) {
        let mut hasher = DefaultHasher::new();
        (self.tainted, self.new_code, self.renamed, &self.spilled).hash(&mut hasher);
        self.mark = hasher.finish();
    }

    fn name_statement(&mut self, name: &str, statement: &Arc<Statement>) {
        if self.named.len() >= MAX_NAMES && !self.named.contains_key(name) {
            self.lost = true;
            return;
        }
        let statements = self.named.entry(name.into()).or_default();
        let known = statements.iter().any(|known| Arc::ptr_eq(known, statement));
        if statements.len() <= MAX_STATEMENTS && !known {
            statements.push(Arc::clone(statement));
        }
    }

    fn name_cursor(&mut self, name: &str, looked: &Rc<Looked>, at: usize) {
        if self.cursors.len() >= MAX_NAMES && !self.cursors.contains_key(name) {
            self.lost = true;
            return;
        }
        let cursors = self.cursors.entry(name.into()).or_default();
        let known = cursors.iter().any(|(known, part)| Rc::ptr_eq(known, looked) && *part == at);
        if cursors.len() <= MAX_STATEMENTS && !known {
            cursors.push((Rc::clone(looked), at));
        }
    }

    /// What SQL's PREPARE may have named so; none where nobody knows.
    fn statements_named(&self, name: &str) -> &[Arc<Statement>] {
        let named = self.named.get(name).filter(|named| !self.lost && named.len() <= MAX_STATEMENTS);
        named.map_or(&[], SmallVec::as_slice)
    }

    /// What SQL's DECLARE may have named so; `None` where nobody knows.
    fn cursors_named(&self, name: &str) -> Option<&[Cursor]> {
        if self.lost {
            return None;
        }
        self.cursors.get(name).map(SmallVec::as_slice).filter(|cursors| cursors.len() <= MAX_STATEMENTS)
    }

    /// The server has said which encoding counts from here on.
    pub(super) fn knows_encoding(&mut self) {
        self.settings = Settings::reported(&self.date_style, &self.encoding);
    }

    /// Nothing is under way any more: what was sent has taken effect.
    pub(super) fn settled(&mut self) {
        if std::mem::take(&mut self.changing) {
            self.database.changed();
        }
    }
}

/// Whether `effect` changes a setting.
fn sets(effect: &Effect) -> bool {
    effect.action == Action::Set && effect.object.kind == ObjectKind::Setting
}

/// Whether `statement` may give a table or a column another name.
fn renames(statement: &Statement) -> bool {
    let alters = |effect: &Effect| effect.action == Action::Alter;
    statement.effects.iter().any(alters)
        && says(statement, &["rename", "set schema", "set\nschema", "set\tschema"])
}

/// Whether `statement` may send a notification.
fn may_notify(statement: &Statement) -> bool {
    says(statement, &["notify"])
}

/// Whether the text of `statement` has one of `words`; true where there is no text.
fn says(statement: &Statement, words: &[&str]) -> bool {
    statement.origin.text().is_none_or(|(text, _)| {
        let text = text.to_ascii_lowercase();
        words.iter().any(|word| text.contains(word))
    })
}

/// Whether `statement` may change the encoding that the client is answered in.
fn sets_encoding(statement: &Statement) -> bool {
    statement.effects.iter().any(|effect| {
        let object = &effect.object;
        effect.action == Action::Set
            && object.kind == ObjectKind::Setting
            && (object.name == "client_encoding" || object.name == "names" || object.name == "*")
    })
}

/// Whether a table may be made of what a prepared statement shows: `CREATE TABLE .. AS EXECUTE ..`.
fn executes_within(text: &str) -> bool {
    text.to_ascii_lowercase().contains("execute")
}

/// Tables that a statement fills with what a prepared one shows: any column of theirs may hold anything.
fn stored_by_name(statement: &Statement) -> Vec<lineage::Target> {
    let made = statement.effects.iter().filter(|effect| effect.action == Action::Create);
    made.map(|effect| lineage::Target {
        schema: effect.object.schema.as_deref().unwrap_or_default().into(),
        table: effect.object.name.as_str().into(),
        relation: None,
        column: "*".into(),
        sources: vec![lineage::Column::any()],
    })
    .collect()
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
