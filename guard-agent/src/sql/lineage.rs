//! A statement's text and the catalog of its database enter; for each column of its results the sensitive columns whose
//! values can be seen in it leave, with the columns that its conditions use and those that it writes.
//!
//! Read from the server's own grammar. What is not understood reveals: an expression of an unknown kind shows everything
//! in it, a result that cannot be followed shows every sensitive column of the relations that the text names.

mod change;
mod condition;
mod expression;
mod from;
mod functions;
mod naming;
mod query;
mod resolver;
mod scope;
mod statement;
mod value;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use guard_policy::vocabulary::{Action, DataKind, Effect, Object, ObjectKind};

use super::postgres::reference;
use super::{SearchPath, Statement};
use crate::catalog::{Catalog, CatalogMark};
pub use resolver::Keep;

/// What names mean: to be had from the session.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The database's catalog.
    pub catalog: &'a Catalog,
    /// Where names without a schema are looked for.
    pub path: &'a SearchPath,
    /// Whom `"$user"` stands for.
    pub user: &'a str,
}

/// What a text does with sensitive columns, statement by statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// One for each statement of the text, in order; of a text of very many statements that cannot be followed there are
    /// fewer, and the last stands for the rest. Only those whose `outputs` are not [`Outputs::None`] answer with rows.
    pub parts: Vec<Part>,
}

/// What one statement does with sensitive columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What its results show. Where the server's answer has another number of columns, each may show each of `named`.
    pub outputs: Outputs,
    /// Every sensitive column of every relation that it names.
    pub named: Vec<Column>,
    /// Sensitive columns that its conditions, orders and groups use.
    pub uses: Vec<ColumnUse>,
    /// What it writes of sensitive columns into which columns.
    pub targets: Vec<Target>,
    /// It names a query that later statements of the session run or read: PREPARE and DECLARE.
    pub names: Option<Named>,
    /// Functions that it calls as if they were columns (`SELECT c.purge FROM customers c`): no text alone tells them from
    /// columns, the catalog does.
    pub calls: Vec<Box<str>>,
}

/// The results of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outputs {
    /// It answers with no rows.
    #[default]
    None,
    /// Column by column.
    Columns(Vec<Output>),
    /// Columns that cannot be told apart: each may show each of these.
    Unknown(Vec<Column>),
    /// Those of a prepared statement (EXECUTE).
    Prepared(Box<str>),
    /// Those of a cursor (FETCH).
    Cursor(Box<str>),
}

/// A name that a statement gives to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// PREPARE: its results.
    Prepared(Box<str>, Box<Part>),
    /// DECLARE: its results.
    Cursor(Box<str>, Box<Part>),
}

/// One column of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Sensitive columns whose values can be seen in it.
    pub sources: Vec<Column>,
    /// It is the value of a column as it stands there, not something computed from it: only then does a rule that leaves
    /// a part of the value leave that part alone.
    pub same: bool,
    /// Sensitive columns that decide what it shows, without being seen in it.
    pub steered_by: Vec<Column>,
    /// It comes from code that no text shows, such as a user's function: what it is can be told from the values alone.
    pub opaque: bool,
}

/// A sensitive column that a statement reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Column {
    /// OID of its relation and its number there; `None` where the catalog does not know the relation.
    pub id: Option<(u32, i16)>,
    /// Schema; empty where it is not known.
    pub schema: Arc<str>,
    /// Relation.
    pub table: Arc<str>,
    /// Its name.
    pub column: Arc<str>,
    /// What it holds.
    pub kind: DataKind,
}

/// How a condition uses a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Usage {
    /// WHERE, HAVING, FILTER, LIMIT, CASE, and comparisons in the results.
    Where,
    /// ON, USING, NATURAL, and comparisons of two columns.
    Join,
    /// GROUP BY, PARTITION BY.
    Group,
    /// ORDER BY.
    Order,
    /// DISTINCT, UNION, INTERSECT, EXCEPT.
    Distinct,
}

impl Usage {
    /// Its word in policies and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Where => "where",
            Self::Join => "join",
            Self::Group => "group",
            Self::Order => "order",
            Self::Distinct => "distinct",
        }
    }
}

/// A sensitive column that a statement's conditions use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnUse {
    /// The column.
    pub column: Column,
    /// How.
    pub usage: Usage,
    /// It is only compared for being equal to a constant or a parameter, as somebody does who knows the value.
    pub equality: bool,
}

/// A column that a statement writes, and what it puts there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Schema as written; empty where the statement names none.
    pub schema: Box<str>,
    /// Relation.
    pub table: Box<str>,
    /// Its OID, where the catalog knows it.
    pub relation: Option<u32>,
    /// Column.
    pub column: Box<str>,
    /// Sensitive columns whose values it receives.
    pub sources: Vec<Column>,
}

impl Column {
    /// Any column of the database: it cannot be told which.
    pub fn any() -> Self {
        let star: Arc<str> = Arc::from("*");
        Self {
            id: None,
            schema: Arc::clone(&star),
            table: Arc::clone(&star),
            column: star,
            kind: DataKind::Tagged,
        }
    }

    /// Whether it stands for any column.
    pub fn is_any(&self) -> bool {
        self.id.is_none() && &*self.table == "*"
    }
}

impl Lineage {
    /// What the statements do that their text alone does not tell: calls of functions that are written as columns.
    pub fn effects(&self) -> impl Iterator<Item = Effect> {
        let calls = self.parts.iter().flat_map(|part| &part.calls);
        calls.map(|name| Effect::new(Action::Function, Object::named(ObjectKind::Function, None, name)))
    }
}

impl Part {
    /// Of a statement that cannot be followed.
    fn unknown() -> Self {
        let any = vec![Column::any()];
        Self { outputs: Outputs::Unknown(any.clone()), named: any, ..Self::default() }
    }

    /// Every sensitive column that any of its results shows.
    fn everything_shown(&self) -> Vec<Column> {
        let mut all = match &self.outputs {
            Outputs::Columns(outputs) => {
                outputs.iter().flat_map(|output| output.sources.iter().cloned()).collect()
            }
            Outputs::Unknown(columns) => columns.clone(),
            Outputs::None => Vec::new(),
            Outputs::Prepared(_) | Outputs::Cursor(_) => vec![Column::any()],
        };
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The text of a statement for reading it a second time, and what came of it.
#[derive(Default)]
pub struct Origin {
    text: Option<(Box<str>, bool)>,
    known: Mutex<Option<(Key, Arc<Lineage>)>>,
}

impl Clone for Origin {
    /// The same text, to be read again.
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), known: Mutex::default() }
    }
}

/// What a lineage depends on beside the text.
struct Key {
    catalog: CatalogMark,
    path: SearchPath,
    user: Box<str>,
}

/// Longer texts are not read a second time.
const MAX_TEXT: usize = 64 * 1024;

impl Origin {
    /// Of a text that reads the same on every server whose `standard_conforming_strings` is as given.
    pub fn new(text: &str, standard_strings: bool) -> Self {
        let text = (text.len() <= MAX_TEXT).then(|| (text.into(), standard_strings));
        Self { text, known: Mutex::default() }
    }

    /// The text, and whether backslashes are ordinary in its strings; `None` where it is not kept.
    pub(crate) fn text(&self) -> Option<(&str, bool)> {
        self.text.as_ref().map(|(text, standard)| (&**text, *standard))
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> usize {
        self.text.as_ref().map_or(0, |(text, _)| text.len())
    }
}

impl std::fmt::Debug for Origin {
    /// Without the text: it may hold literals.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("bytes", &self.weight()).finish_non_exhaustive()
    }
}

/// What `statement` does with sensitive columns. Kept with the statement for as long as the world is the same.
pub fn of(statement: &Statement, world: &World<'_>) -> Arc<Lineage> {
    let mut known = statement.origin.known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((key, lineage)) = &*known
        && key.catalog.is_of(world.catalog)
        && key.path == *world.path
        && *key.user == *world.user
    {
        return Arc::clone(lineage);
    }
    let tree = statement.origin.text.as_ref().and_then(|(text, standard)| reference::tree(text, *standard));
    let lineage = Arc::new(match tree {
        Some(tree) => statement::read(&tree, world, Keep::Sensitive),
        None => unknown(statement),
    });
    let key = Key { catalog: world.catalog.mark(), path: world.path.clone(), user: world.user.into() };
    *known = Some((key, Arc::clone(&lineage)));
    lineage
}

/// Of a text that cannot be read.
fn unknown(statement: &Statement) -> Lineage {
    let parts = (statement.parts.max(1) as usize).min(statement::MAX_PARTS);
    Lineage { parts: vec![Part::unknown(); parts] }
}

/// What a text does that is run within another one.
fn within(text: &str, world: &World<'_>) -> Lineage {
    if text.len() > MAX_TEXT || !super::postgres::is_shallow(text) {
        return Lineage { parts: vec![Part::unknown()] };
    }
    match reference::tree(text, true) {
        Some(tree) => statement::read(&tree, world, Keep::Sensitive),
        None => Lineage::default(),
    }
}

/// What the result of a definition is made of: columns of the relations that it names, sensitive or not.
#[derive(Debug, Default)]
pub struct Definition {
    /// By position.
    pub columns: Vec<Vec<Column>>,
    /// What any column may show that is not listed by its position.
    pub any: Vec<Column>,
}

/// What a view's definition, or any query, is made of; of nothing where it cannot be read.
pub fn of_definition(text: &str, world: &World<'_>) -> Definition {
    if text.len() > MAX_TEXT || !super::postgres::is_shallow(text) {
        return Definition::default();
    }
    let Some(tree) = reference::tree(text, true) else { return Definition::default() };
    let lineage = statement::read(&tree, world, Keep::All);
    match lineage.parts.into_iter().next().map(|part| part.outputs) {
        Some(Outputs::Columns(outputs)) => {
            let columns = outputs.into_iter().map(|output| output.sources).collect();
            Definition { columns, any: Vec::new() }
        }
        Some(Outputs::Unknown(any)) => Definition { columns: Vec::new(), any },
        _ => Definition::default(),
    }
}
