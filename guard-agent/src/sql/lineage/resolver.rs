//! The state of following one statement: the sensitive columns met, how conditions use them, where they are written.

use std::sync::Arc;

use guard_policy::vocabulary::DataKind;

use super::scope::{Field, Open, Rows, Scope};
use super::value::{Set, Sources, Value};
use super::{Column, ColumnUse, Target, Usage, World};
use crate::catalog::{ColumnInfo, Relation};
use crate::sql::postgres::reference::At;

/// Which columns are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those that the catalog calls sensitive.
    Sensitive,
    /// All of them: to learn what a view is made of.
    All,
}

/// Queries and expressions within each other beyond this are not followed: they must fit the stack of a session.
const MAX_DEPTH: usize = 128;

/// Follows one statement.
#[derive(Debug)]
pub struct Resolver<'w> {
    pub world: World<'w>,
    pub keep: Keep,
    pub sources: Sources,
    /// What the statements before it in the same text have written.
    pub made: &'w [Target],
    uses: Vec<(u32, Usage, bool)>,
    lost_uses: Vec<Usage>,
    targets: Vec<(Place<'w>, &'w str, Value)>,
    calls: Vec<Box<str>>,
    depth: usize,
    /// It was too deep or too much: what it names is not known either.
    pub broken: bool,
}

/// A written relation.
#[derive(Clone, Copy, Debug)]
pub struct Place<'w> {
    /// Schema as written.
    pub schema: &'w str,
    /// Name.
    pub table: &'w str,
    /// Its identifier, where it was there before.
    pub relation: Option<u32>,
}

impl<'w> Resolver<'w> {
    pub fn new(world: World<'w>, keep: Keep, made: &'w [Target]) -> Self {
        Self {
            world,
            keep,
            sources: Sources::default(),
            made,
            uses: Vec::new(),
            lost_uses: Vec::new(),
            targets: Vec::new(),
            calls: Vec::new(),
            depth: 0,
            broken: false,
        }
    }

    /// Goes one level down, where that is allowed.
    pub fn deeper<T>(&mut self, lost: T, within: impl FnOnce(&mut Self) -> T) -> T {
        if self.depth >= MAX_DEPTH || self.broken {
            self.broken = true;
            return lost;
        }
        self.depth += 1;
        let outcome = within(self);
        self.depth -= 1;
        outcome
    }

    /// Notes that so much was done.
    pub fn spend(&mut self, work: usize) {
        self.broken |= !self.sources.spend(work);
    }

    /// A condition uses what this shows.
    pub fn uses(&mut self, value: &Value, usage: Usage, equality: bool) {
        if value.lost {
            self.lost_uses.push(usage);
        }
        const MOST: usize = 65_536;
        for place in value.shows.iter().chain(&value.steers) {
            if self.uses.len() < MOST {
                self.uses.push((*place, usage, equality));
            } else {
                self.lost_uses.push(usage);
            }
        }
        self.lost_uses.dedup();
    }

    /// A column of `place` receives what this shows.
    pub fn writes(&mut self, place: Place<'w>, column: &'w str, value: &Value) {
        const MOST: usize = 4096;
        if (value.lost || !value.shows.is_empty()) && self.targets.len() < MOST {
            self.targets.push((place, column, value.clone()));
        }
    }

    /// The columns that a set stands for; all of them for what is lost.
    pub fn shown(&self, value: &Value) -> Vec<Column> {
        if value.lost { self.everything() } else { self.sources.columns(&value.shows) }
    }

    /// The columns that decide.
    pub fn steering(&self, value: &Value) -> Vec<Column> {
        let mut set = value.steers.clone();
        set.retain(|place| !value.shows.contains(place));
        self.sources.columns(&set)
    }

    /// Every sensitive column that the statement names, and any at all where not all of it was followed.
    pub fn everything(&self) -> Vec<Column> {
        let mut all = self.sources.all();
        if self.broken {
            all.push(Column::any());
        }
        all
    }

    /// How conditions use which columns.
    pub fn take_uses(&mut self) -> Vec<ColumnUse> {
        let mut uses: Vec<ColumnUse> = Vec::new();
        for (place, usage, equality) in std::mem::take(&mut self.uses) {
            if let Some(column) = self.sources.get(place) {
                uses.push(ColumnUse { column: column.clone(), usage, equality });
            }
        }
        for usage in std::mem::take(&mut self.lost_uses) {
            let all = self.everything();
            uses.extend(all.into_iter().map(|column| ColumnUse { column, usage, equality: false }));
        }
        uses.sort_unstable();
        // The wider of two uses of one kind says more.
        uses.dedup_by(|later, first| {
            later.column == first.column && later.usage == first.usage && {
                first.equality &= later.equality;
                true
            }
        });
        uses
    }

    /// What is written where.
    pub fn take_targets(&mut self) -> Vec<Target> {
        let targets = std::mem::take(&mut self.targets);
        let target = |(place, column, value): (Place<'w>, &str, Value)| Target {
            schema: place.schema.into(),
            table: place.table.into(),
            relation: place.relation,
            column: column.into(),
            sources: self.shown(&value),
        };
        targets.into_iter().map(target).filter(|target| !target.sources.is_empty()).collect()
    }

    /// The columns of the relation that a `RangeVar` names; no query of a WITH.
    pub fn relation(&mut self, range: At<'w>) -> Rows<'w> {
        let (schema, name) = (range.text("schemaname"), range.text("relname"));
        let world = self.world;
        let found = world.catalog.find(schema, name, world.path, world.user).relations;
        let mut rows = None;
        for relation in found {
            let of_this = self.rows_of(relation);
            rows = Some(match rows {
                None => of_this,
                Some(before) => either(before, of_this),
            });
        }
        let mut rows = rows.unwrap_or(Rows { fields: Vec::new(), open: Some(Open::Relation(name)) });
        self.add_made(&mut rows, name);
        rows
    }

    /// The columns of a relation.
    pub fn rows_of(&mut self, relation: &'w Relation) -> Rows<'w> {
        self.spend(relation.columns.len());
        let fields = relation.columns.iter().map(|column| {
            let value = self.column(relation, column);
            Field { name: &column.name, value }
        });
        Rows { fields: fields.collect(), open: None }
    }

    fn column(&mut self, relation: &Relation, column: &ColumnInfo) -> Value {
        let sensitive = self.world.catalog.sensitive(relation.oid, column.number);
        let kind = match (sensitive, self.keep) {
            (Some(sensitive), _) => sensitive.kind,
            (None, Keep::All) => DataKind::Tagged,
            (None, Keep::Sensitive) => return Value::default(),
        };
        let source = Column {
            id: Some((relation.oid, column.number)),
            schema: Arc::clone(&relation.schema),
            table: Arc::clone(&relation.name),
            column: Arc::clone(&column.name),
            kind,
        };
        const BOOL: u32 = 16;
        self.source(source, column.type_oid == BOOL)
    }

    fn source(&mut self, column: Column, boolean: bool) -> Value {
        match self.sources.place(column, boolean) {
            Some(place) => Value::column(place),
            None => {
                self.broken = true;
                Value::lost()
            }
        }
    }

    /// A column of a relation that the catalog lacks.
    pub fn unknown_column(&mut self, table: &str, column: &str) -> Value {
        match self.world.catalog.sensitive_by_name(table, column) {
            Some(sensitive) => self.named(table, column, sensitive.kind),
            None => Value::default(),
        }
    }

    fn named(&mut self, table: &str, column: &str, kind: DataKind) -> Value {
        let column = Column {
            id: None,
            schema: Arc::from(""),
            table: Arc::from(table),
            column: Arc::from(column),
            kind,
        };
        self.source(column, false)
    }

    /// What was written into a relation lately, by this text or by others.
    fn add_made(&mut self, rows: &mut Rows<'w>, table: &'w str) {
        let world = self.world;
        let mut made: Vec<(&'w str, Value)> = Vec::new();
        // A temporary table of that name may hide the one that the catalog knows.
        for (column, sensitive) in world.catalog.learned_of(table) {
            made.push((column, self.named(table, column, sensitive.kind)));
        }
        for target in self.made.iter().filter(|target| *target.table == *table) {
            let mut value = Value::default();
            for source in &target.sources {
                value.add(&self.source(source.clone(), false));
            }
            made.push((&target.column, value));
        }
        for (name, value) in made {
            if name == "*" {
                rows.fields.iter_mut().for_each(|field| field.value.add(&value));
                let mut any = match rows.open.take() {
                    Some(Open::Showing(shown)) => shown,
                    Some(Open::Relation(_)) | None => Value::default(),
                };
                any.add(&value);
                rows.open = Some(Open::Showing(any));
                continue;
            }
            match rows.fields.iter_mut().find(|field| field.name == name) {
                Some(field) => field.value.add(&value),
                None => {
                    rows.fields.push(Field { name, value });
                    rows.open = rows.open.take().or(Some(Open::Showing(Value::default())));
                }
            }
        }
    }

    /// A field that is no column of what it is a field of. `of_row`: of a relation that is known.
    pub fn no_column(&mut self, name: &str, of_row: bool) -> Value {
        const MOST: usize = 64;
        let catalog = self.world.catalog;
        // Of a value whose type no text tells it may be a field of a composite type.
        let call = catalog.is_complete() && (of_row || !catalog.has_column_named(name));
        if call && self.calls.len() < MOST && !self.calls.iter().any(|known| **known == *name) {
            self.calls.push(name.into());
        }
        Value { opaque: true, ..self.read_by_function(&[name]) }
    }

    /// The functions that are called as if they were columns.
    pub fn take_calls(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.calls)
    }

    /// What users' functions of this name read.
    pub fn read_by_function(&mut self, names: &[&str]) -> Value {
        let world = self.world;
        let mut value = Value::default();
        for relation in names.last().into_iter().flat_map(|name| world.catalog.read_by_function(name)) {
            value.add(&self.rows_of(relation).whole());
        }
        value
    }

    /// The relation that a written `RangeVar` names, for targets.
    pub fn place(&self, range: At<'w>) -> Place<'w> {
        let (schema, table) = (range.text("schemaname"), range.text("relname"));
        let found = self.world.catalog.find(schema, table, self.world.path, self.world.user);
        let relation = match found.relations.as_slice() {
            [only] => Some(only.oid),
            _ => None,
        };
        Place { schema, table, relation }
    }

    /// The places of boolean columns: what is compared with them shows them.
    pub fn booleans(&self, value: &Value) -> Set {
        value.shows.iter().copied().filter(|place| self.sources.is_boolean(*place)).collect()
    }

    /// A query of a WITH that `name` means here.
    pub fn with_query(&mut self, name: &str, scope: &Scope<'_, 'w>) -> Option<Rows<'w>> {
        for around in scope.around() {
            let Some((with, visible)) = around.with else { continue };
            let seen = with.queries.get(..visible.min(with.queries.len())).unwrap_or(&[]);
            if let Some(index) = seen.iter().rposition(|query| query.text("ctename") == name) {
                return Some(self.query_of_with(with, index, around.outer.unwrap_or(&Scope::EMPTY)));
            }
        }
        None
    }
}

/// Either of two relations of one name.
fn either<'w>(mut one: Rows<'w>, other: Rows<'w>) -> Rows<'w> {
    let names = |rows: &Rows<'w>| rows.fields.iter().map(|field| field.name).collect::<Vec<_>>();
    if names(&one) != names(&other) {
        let mut whole = one.whole();
        whole.add(&other.whole());
        one.open = Some(Open::Showing(whole));
    }
    for field in other.fields {
        match one.fields.iter_mut().find(|known| known.name == field.name) {
            Some(known) => known.value.add(&field.value),
            None => one.fields.push(field),
        }
    }
    one
}
