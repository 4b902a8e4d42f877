//! What statements show: statements enter, with the session's world; lineage leaves, remembered.
//!
//! One cache per session thread. INVARIANT: an entry holds for one statement under one scope and one state of the catalog;
//! the scope covers search path and user.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use ahash::RandomState;
use guard_policy::vocabulary::Action;
use smallvec::SmallVec;

use super::{Masking, State};
use crate::{
    decide::{Scope, Session},
    sql::{
        Statement,
        lineage::{self, Lineage, Outputs, World},
    },
};

/// Entries that one thread keeps; then it starts afresh.
const ENTRIES: usize = 2_048;

/// A statement that was followed.
#[derive(Debug)]
pub(in super::super) struct Looked {
    pub(in super::super) statement: Arc<Statement>,
    pub(in super::super) lineage: Arc<Lineage>,
    /// The statement with the functions that it calls as if they were columns, which its text alone does not tell.
    calling: Option<Arc<Statement>>,
    touches: bool,
    stands_alone: bool,
}

/// `statement`, doing what `lineage` says that it does beside what its text tells.
fn calling(statement: &Statement, lineage: &Lineage) -> Option<Arc<Statement>> {
    let mut more = lineage.effects().peekable();
    more.peek()?;
    let mut effects = statement.effects.clone();
    effects.extend(more);
    effects.sort_unstable();
    effects.dedup();
    Some(Arc::new(Statement { effects, ..statement.clone() }))
}

impl Looked {
    /// True where it has to do with sensitive columns, or may have.
    pub(in super::super) fn touches(&self) -> bool {
        self.touches
    }

    /// True where what it shows depends on nothing that other statements name.
    pub(super) fn stands_alone(&self) -> bool {
        self.stands_alone
    }
}

fn part_touches(part: &lineage::Part) -> bool {
    let inner = match &part.names {
        Some(lineage::Named::Prepared(_, part) | lineage::Named::Cursor(_, part)) => part_touches(part),
        None => false,
    };
    inner
        || !part.named.is_empty()
        || !part.uses.is_empty()
        || !part.targets.is_empty()
        || match &part.outputs {
            Outputs::None => false,
            Outputs::Columns(columns) => {
                columns.iter().any(|column| column.opaque || !column.sources.is_empty())
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

    /// The statement with what it calls by names of columns. `None`: it calls nothing so.
    pub(in super::super) fn calling(&self) -> Option<Arc<Statement>> {
        self.all().iter().find_map(|looked| looked.calling.clone())
    }

    /// True where it has to do with sensitive columns, or may have.
    pub(in super::super) fn touches(&self) -> bool {
        let all = self.all();
        all.is_empty() || all.iter().any(|looked| looked.touches())
    }
}

/// Whether `statement` shows settings, into which this session has written what it must not see.
fn reads_settings(statement: &Statement) -> bool {
    let text = statement.origin.text().map(|(text, _)| text.to_ascii_lowercase());
    statement.effects.iter().any(|effect| effect.action == Action::Show)
        || text
            .is_none_or(|text| ["setting", "show", "application_name"].iter().any(|word| text.contains(word)))
}

/// Whether `statement` runs code that no lineage follows.
pub(super) fn runs_unfollowed(statement: &Statement) -> bool {
    let unfollowed = [Action::Do, Action::Call, Action::Execute, Action::Unreadable];
    statement.effects.iter().any(|effect| unfollowed.contains(&effect.action))
}

/// `lineage`, where any result may be any column of the database; without `all`, any that code has made.
fn shows_anything(lineage: &Lineage, all: bool) -> Lineage {
    let mut lineage = lineage.clone();
    for part in &mut lineage.parts {
        part_shows_anything(part, all);
    }
    lineage
}

fn part_shows_anything(part: &mut lineage::Part, all: bool) {
    let any = lineage::Column::any();
    match &mut part.outputs {
        Outputs::Columns(columns) => {
            // A function that was made may have the name of one of the server's own that only compares.
            let by_code = |column: &lineage::Output| column.opaque || !column.steered_by.is_empty();
            for column in columns.iter_mut().filter(|column| all || by_code(column)) {
                column.same = false;
                column.sources.push(any.clone());
            }
        }
        Outputs::Unknown(sources) => sources.push(any),
        Outputs::None | Outputs::Prepared(_) | Outputs::Cursor(_) => {}
    }
    if let Some(lineage::Named::Prepared(_, inner) | lineage::Named::Cursor(_, inner)) = &mut part.names {
        part_shows_anything(inner, all);
    }
}

/// By everything that lineage depends on: the state of the catalog, the scope, the statement.
type Key = (State, Scope, *const Statement);

/// What one thread has followed.
#[derive(Debug, Default)]
pub(in super::super) struct Looks {
    entries: HashMap<Key, Rc<Looked>, RandomState>,
}

impl Looks {
    /// What `statement` shows in `session`.
    pub(in super::super) fn look(
        &mut self,
        masking: &Masking,
        session: (&Session, Scope),
        statement: &Arc<Statement>,
    ) -> Rc<Looked> {
        let (session, scope) = session;
        let statement = statement.shared();
        let key = (masking.state(), scope, Arc::as_ptr(statement));
        if let Some(looked) = self.entries.get(&key) {
            return Rc::clone(looked);
        }
        let path = session.path_within(statement);
        let world = World { catalog: &masking.catalog, path: &path, user: &session.db_user };
        let lineage = lineage::of(statement, &world);
        // It may set what it reads itself.
        let taints = masking.tainted
            || (statement.effects.iter().any(super::sets)
                && lineage.parts.iter().any(|part| !part.named.is_empty()));
        let lineage = if masking.sensitive && (masking.renamed || (taints && reads_settings(statement))) {
            Arc::new(shows_anything(&lineage, true))
        } else if masking.sensitive && masking.new_code {
            Arc::new(shows_anything(&lineage, false))
        } else {
            lineage
        };
        let by_name =
            |part: &lineage::Part| matches!(part.outputs, Outputs::Prepared(_) | Outputs::Cursor(_));
        let looked = Rc::new(Looked {
            // Where nothing is sensitive, nothing that is not followed can be.
            touches: (masking.sensitive || !masking.knows_catalog())
                && (runs_unfollowed(statement) || lineage.parts.iter().any(part_touches)),
            stands_alone: !lineage.parts.iter().any(by_name),
            calling: calling(statement, &lineage),
            statement: Arc::clone(statement),
            lineage,
        });
        if self.entries.len() >= ENTRIES {
            self.entries.clear();
        }
        self.entries.insert(key, Rc::clone(&looked));
        looked
    }
}
