//! What was read of a database enters; relations whose columns say how sensitive they are leave.
//!
//! Best evidence first: configuration, comments, the server's own, what was learned, names; what views, keys and
//! inheritance pass on comes last, and never over what somebody said.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use guard_policy::vocabulary::DataKind;

use super::tags::{Pattern, Said, said_in};
use super::{
    Base, ColumnInfo, Evidence, Learned, Mark, Names, Oid, Relation, Sensitive, Type, TypeShape, builtin,
    code, derive,
};

/// How much of a database is kept. Of what is beyond, nothing is known, and sessions take care.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Relations.
    pub relations: usize,
    /// Columns, types, keys, comments: of each.
    pub columns: usize,
    /// Bytes of rows.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { relations: 20_000, columns: 250_000, bytes: 64 * 1024 * 1024 }
    }
}

/// A foreign key.
#[derive(Clone, Debug)]
pub struct Key {
    /// The relation that refers.
    pub from: Oid,
    /// The relation that is referred to.
    pub to: Oid,
    /// Numbers of columns: the referring one, the other.
    pub columns: Vec<(i16, i16)>,
}

/// What was read of a database, as it came.
#[derive(Debug)]
pub struct Facts {
    pub(super) limits: Limits,
    pub(super) bytes: usize,
    pub(super) complete: bool,
    relations: HashMap<Oid, Relation, ahash::RandomState>,
    columns: usize,
    /// Names that many columns have.
    shared: HashSet<Arc<str>, ahash::RandomState>,
    pub(super) types: Vec<(Oid, Type)>,
    pub(super) comments: Vec<(Oid, i16, String)>,
    pub(super) keys: Vec<Key>,
    pub(super) parents: Vec<(Oid, Oid)>,
    pub(super) generated: Vec<(Oid, i16, String)>,
    pub(super) definitions: Vec<(Oid, String)>,
    pub(super) functions: Vec<(Arc<str>, String)>,
}

impl Facts {
    /// Nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: 0,
            complete: true,
            relations: HashMap::default(),
            columns: 0,
            shared: HashSet::default(),
            types: Vec::new(),
            comments: Vec::new(),
            keys: Vec::new(),
            parents: Vec::new(),
            generated: Vec::new(),
            definitions: Vec::new(),
            functions: Vec::new(),
        }
    }

    /// One copy of a name that comes often.
    pub(super) fn share(&mut self, name: Arc<str>) -> Arc<str> {
        if let Some(known) = self.shared.get(&name) {
            return Arc::clone(known);
        }
        self.shared.insert(Arc::clone(&name));
        name
    }

    pub(super) fn relation(&mut self, oid: Oid, schema: Arc<str>, name: Arc<str>, kind: char) {
        if self.relations.len() >= self.limits.relations {
            self.complete = false;
            return;
        }
        self.relations.insert(oid, Relation { oid, schema, name, kind, columns: Vec::new() });
    }

    /// A column; they come by relation and number.
    pub(super) fn column(&mut self, relation: Oid, column: ColumnInfo) {
        self.columns += 1;
        if self.columns > self.limits.columns {
            // A relation of which some columns are lacking would be worse than one that is not known at all.
            self.complete = false;
            self.relations.remove(&relation);
        } else if let Some(relation) = self.relations.get_mut(&relation) {
            relation.columns.push(column);
        }
    }

    /// Whether a relation was read.
    pub(super) fn has(&self, relation: Oid) -> bool {
        self.relations.contains_key(&relation)
    }

    /// A relation that was read.
    pub(super) fn relation_of(&self, relation: Oid) -> Option<&Relation> {
        self.relations.get(&relation)
    }

    /// The relations that were read.
    pub(super) fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values()
    }

    /// Whether there are views whose definitions are worth asking for.
    pub(super) fn has_views(&self) -> bool {
        self.relations.values().any(|relation| matches!(relation.kind, 'v' | 'm') && !relation.is_system())
    }
}

/// What is known of the columns beside what was read.
pub struct Known<'a> {
    /// What the configuration says of this database.
    pub patterns: &'a [Pattern],
    /// What names say.
    pub names: &'a Arc<dyn Names>,
    /// What was learned.
    pub learned: &'a Learned,
}

/// What a relation of people would be called.
const PEOPLE: &str = "people";

/// Puts the facts together.
pub(super) fn build(mut facts: Facts, known: &Known<'_>) -> Base {
    if !facts.complete {
        // Relations whose columns were cut off.
        facts.relations.retain(|_, relation| !relation.columns.is_empty());
    }
    let mut base = Base {
        relations: std::mem::take(&mut facts.relations),
        types: std::mem::take(&mut facts.types).into_iter().collect(),
        columns: std::mem::take(&mut facts.shared),
        complete: facts.complete,
        ..Base::default()
    };
    for relation in base.relations.values_mut() {
        relation.columns.sort_by_key(|column| column.number);
        relation.columns.shrink_to_fit();
        base.by_name.entry(Arc::clone(&relation.name)).or_default().push(relation.oid);
    }
    base.by_name.values_mut().for_each(|oids| oids.sort_unstable());
    base.functions = code::read(&base, std::mem::take(&mut facts.functions));
    let mut comments: HashMap<(Oid, i16), Option<Said>, ahash::RandomState> = HashMap::default();
    for (relation, number, text) in std::mem::take(&mut facts.comments) {
        if let Some(said) = said_in(&text) {
            comments.insert((relation, number), said);
        }
    }
    let Base { relations, types, .. } = &mut base;
    for relation in relations.values_mut() {
        let (oid, schema, table) = (relation.oid, Arc::clone(&relation.schema), Arc::clone(&relation.name));
        let system = relation.is_system();
        for column in &mut relation.columns {
            let named = || {
                let shape = shape(types, column.type_oid);
                known.names.kind(&table, &column.name, &shape)
            };
            let pattern = known.patterns.iter().find(|pattern| pattern.fits(&schema, &table, &column.name));
            let comment = comments.get(&(oid, column.number)).or_else(|| comments.get(&(oid, 0)));
            column.mark = if let Some(pattern) = pattern {
                mark(pattern.says.as_ref(), Evidence::Configured, named)
            } else if let Some(said) = comment {
                mark(said.as_ref(), Evidence::Comment, named)
            } else if let Some(kind) = builtin::kind(&table, &column.name) {
                sensitive(kind, Evidence::BuiltIn)
            } else if let Some(learned) = known.learned.by_id.get(&(oid, column.number)) {
                Mark::Sensitive(Box::new(learned.clone()))
            } else if system {
                Mark::None
            } else {
                named().map_or(Mark::None, |kind| sensitive(kind, Evidence::Name))
            };
        }
        if !system && is_of_people(&relation.columns) {
            for column in relation.columns.iter_mut().filter(|column| column.mark == Mark::None) {
                let kind = known.names.kind(PEOPLE, &column.name, &shape(types, column.type_oid));
                let kind = kind.filter(|kind| matches!(kind, DataKind::PersonName | DataKind::Address));
                column.mark = kind.map_or(Mark::None, |kind| sensitive(kind, Evidence::Name));
            }
        }
    }
    derive::pass_on(base, &facts, known)
}

/// Whether its columns say that its rows are people, whatever the relation is called: people have days of birth, numbers
/// of their own, and first and last names. One name alone may be that of a company's contact.
fn is_of_people(columns: &[ColumnInfo]) -> bool {
    let mut names = 0;
    columns.iter().any(|column| match &column.mark {
        Mark::Sensitive(found) if found.evidence == Evidence::Name => match found.kind {
            DataKind::BirthDate | DataKind::NationalId => true,
            DataKind::PersonName => {
                names += 1;
                names > 1
            }
            _ => false,
        },
        _ => false,
    })
}

fn sensitive(kind: DataKind, evidence: Evidence) -> Mark {
    Mark::Sensitive(Box::new(Sensitive::new(kind, evidence)))
}

/// What somebody said; of a column that is only tagged, its name says what it holds.
fn mark(said: Option<&Said>, evidence: Evidence, named: impl FnOnce() -> Option<DataKind>) -> Mark {
    let Some(said) = said else { return Mark::Cleared };
    let kind = said.kind.or_else(named).unwrap_or(DataKind::Tagged);
    Mark::Sensitive(Box::new(Sensitive { kind, tags: said.tags.clone(), evidence }))
}

/// The type by which a name is judged: of arrays and domains what they are made of.
fn shape(types: &HashMap<Oid, Type, ahash::RandomState>, oid: Oid) -> TypeShape<'_> {
    const MOST_STEPS: usize = 8;
    let (mut oid, mut shape) = (oid, TypeShape { category: '?', ..TypeShape::default() });
    for _ in 0..MOST_STEPS {
        let Some(ty) = types.get(&oid) else { break };
        shape = TypeShape { oid, name: &ty.name, category: ty.category };
        match (ty.element, ty.base) {
            (0, 0) => break,
            (0, base) => oid = base,
            (element, _) => oid = element,
        }
    }
    shape
}
