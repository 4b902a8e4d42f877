//! The form of a result, where its columns come from, and how its reader sees those enter; what is done with each column
//! leaves.
//!
//! Made once per statement, reader and state of the catalog. What is not known is masked with care, and the plan says
//! why. Holds names of columns, never values.

mod report;
mod types;

use std::sync::Arc;

use guard_policy::{
    Column, Mask, Sight,
    vocabulary::{DataKind, MaskRule},
};

pub use self::report::{Report, Told};
pub use self::types::value_type;
use self::types::{Carries, carries};
use super::{
    columns::{self, ColumnType},
    rewrite::{self, Format, HashKey, Hint, Named, Rule, Rules, Treatment, ValueType},
};
use crate::{
    catalog::Catalog,
    sql::lineage::{self, Output, Outputs, Part},
    wire::postgres::FieldDescription,
};

/// What is to be done with the rows of a result.
#[derive(Debug)]
pub struct Plan {
    /// Nothing in them changes: they pass unread.
    pub untouched: bool,
    /// Column by column.
    pub columns: Arc<[rewrite::Column]>,
    /// What becomes of what is found in values.
    pub rules: Arc<Rules>,
    /// What the record says of it.
    pub report: Report,
    /// Stored columns whose values are searched and of which only many values together may tell something.
    pub unknown: Box<[Unknown]>,
}

/// A stored column of a result of which nothing is known.
#[derive(Clone, Debug)]
pub struct Unknown {
    /// Its place in the result.
    pub at: usize,
    /// Its relation, and its number there.
    pub id: (u32, i16),
    /// How many more results are looked at under this plan.
    left: std::cell::Cell<u8>,
}

impl Unknown {
    /// Whether its values may tell something yet.
    pub fn is_worth_it(&self) -> bool {
        self.left.get() > 0
    }

    /// A result has not told anything.
    pub fn tried(&self) {
        self.left.set(self.left.get().saturating_sub(1));
    }

    /// There is no need to look at more.
    pub fn give_up(&self) {
        self.left.set(0);
    }
}

/// The result that a plan is for.
#[derive(Clone, Copy, Debug)]
pub struct Result<'a> {
    /// Its form.
    pub fields: &'a [FieldDescription<'a>],
    /// What the statement does; several where it may be any of several. Empty: nobody knows.
    pub parts: &'a [Part],
    /// The database's catalog; `None` before it has been read.
    pub catalog: Option<&'a Catalog>,
    /// Sensitive columns that this session has written elsewhere since the catalog was read.
    pub spilled: &'a [lineage::Column],
    /// The database has sensitive columns, as far as is known.
    pub sensitive: bool,
}

/// How the reader of a result sees columns.
pub trait Eyes {
    /// How it sees `column`.
    fn sight(&mut self, column: &Column) -> Sight;

    /// How it sees what is found in the values of `column`, of which nothing is known, kind by kind. `None` for the
    /// column: any.
    fn found(&mut self, column: Option<&Column>, kind: DataKind) -> Sight;

    /// True where the place of a column makes a difference to [`Self::found`].
    fn looks_at_place(&self) -> bool;
}

/// Makes the plan of `result` for who sees with `eyes`.
pub fn plan(result: &Result<'_>, eyes: &mut dyn Eyes, key: &HashKey) -> Plan {
    let mut planner = Planner { result, eyes, key, report: Report::default(), scanned: Vec::new() };
    if result.catalog.is_none() {
        planner.report.takes_care("the database's catalog has not been read");
    }
    let columns: Vec<_> = (0..result.fields.len()).map(|at| planner.column(at)).collect();
    let rules = Arc::new(planner.rules());
    let mut columns = columns;
    if rules.all_clear() {
        let scans = columns.iter_mut().filter(|column| matches!(column.treatment, Treatment::Scan(_)));
        scans.for_each(|column| column.treatment = Treatment::Pass);
    }
    let untouched = columns.iter().all(|column| matches!(column.treatment, Treatment::Pass));
    let report = planner.report;
    let unknown = unknown(result, &columns, &rules);
    Plan { untouched, columns: columns.into(), rules, report, unknown }
}

/// The columns of which many values together may tell what they hold: stored ones of text and of long numbers.
fn unknown(result: &Result<'_>, columns: &[rewrite::Column], rules: &Rules) -> Box<[Unknown]> {
    let masks = [DataKind::NationalId, DataKind::Phone].iter().any(|kind| rules.rule(*kind).is_some());
    if !masks {
        return Box::default();
    }
    let fields = result.fields.iter().zip(columns).enumerate();
    let unknown = fields.filter_map(|(at, (field, column))| {
        let Treatment::Scan(Hint { kind: None, numbers: false, .. }) = column.treatment else { return None };
        let id = (field.table, field.column);
        let digits = matches!(
            column.value_type.base,
            rewrite::Base::Text | rewrite::Base::Bpchar | rewrite::Base::Int8 | rewrite::Base::Numeric
        );
        let cleared = result.catalog.is_some_and(|catalog| catalog.is_cleared(id.0, id.1));
        let wanted = digits && id.0 >= FIRST_OWN_OID && !cleared;
        wanted.then(|| Unknown { at, id, left: std::cell::Cell::new(u8::MAX) })
    });
    unknown.collect()
}

struct Planner<'a> {
    result: &'a Result<'a>,
    eyes: &'a mut dyn Eyes,
    key: &'a HashKey,
    report: Report,
    /// Columns whose values are searched.
    scanned: Vec<Column>,
}

/// What is known of where a column's values come from.
#[derive(Default)]
struct Origin {
    sources: Vec<lineage::Column>,
    /// It shows one column as it stands.
    same: bool,
    /// Lineage has nothing more to say: what else it holds, only its values tell.
    followed: bool,
}

impl Planner<'_> {
    fn column(&mut self, at: usize) -> rewrite::Column {
        let result = self.result;
        let field = &result.fields[at];
        let origin = self.origin(at);
        let computed = field.table == 0;
        let treatment = if origin.sources.is_empty() {
            self.by_values(at, &origin)
        } else {
            self.by_sources(field, &origin)
        };
        let value_type = result.catalog.map_or_else(
            || ValueType::built_in(field.type_oid, field.type_modifier),
            |catalog| value_type(catalog, field.type_oid, field.type_modifier),
        );
        // The server knows no third format.
        let format = Format::from_code(field.format).unwrap_or(Format::Binary);
        rewrite::Column { treatment, value_type, format, computed }
    }

    fn origin(&mut self, at: usize) -> Origin {
        let result = self.result;
        let field = &result.fields[at];
        let mut origin = Origin { same: true, followed: !result.parts.is_empty(), ..Origin::default() };
        for part in result.parts {
            self.follow(part, at, &mut origin);
        }
        if result.parts.is_empty() {
            self.report.takes_care("the statement could not be followed");
        }
        if field.table != 0 && field.column > 0 {
            self.by_description(field, &mut origin);
        } else {
            origin.same &= origin.followed;
        }
        origin.sources.sort();
        origin.sources.dedup();
        if !self.result.sensitive && origin.sources.iter().any(lineage::Column::is_any) {
            // Any column of a database in which none is sensitive.
            origin.sources.retain(|source| !source.is_any());
            origin.followed = false;
        }
        origin
    }

    fn follow(&mut self, part: &Part, at: usize, origin: &mut Origin) {
        let fields = self.result.fields;
        match &part.outputs {
            Outputs::Columns(columns) if columns.len() == fields.len() => {
                let Output { sources, same, opaque, .. } = &columns[at];
                let holds_any = self.holds_any(fields[at].type_oid);
                let counts = |source: &&lineage::Column| holds_any || !source.is_any();
                origin.sources.extend(sources.iter().filter(counts).cloned());
                origin.same &= *same;
                origin.followed &= !*opaque;
            }
            Outputs::Columns(_) => {
                // Such as `*` of a table that has got another column since.
                self.report.takes_care("the result has other columns than the statement was read to have");
                origin.followed = false;
                if fields[at].table == 0 {
                    origin.same = false;
                    origin.sources.extend(part.named.iter().cloned());
                }
            }
            Outputs::Unknown(sources) => self.some_of(sources, &fields[at], origin),
            Outputs::None | Outputs::Prepared(_) | Outputs::Cursor(_) => {
                self.some_of(&part.named, &fields[at], origin);
            }
        }
    }

    /// The field may show any of `sources`.
    fn some_of(&self, sources: &[lineage::Column], field: &FieldDescription<'_>, origin: &mut Origin) {
        origin.followed = false;
        if field.table != 0 {
            return;
        }
        origin.same = false;
        // Where it may be any column of the database, only what can hold one of the sensitive ones counts: counts and
        // times of code stay what they are.
        let holds_any = self.holds_any(field.type_oid);
        let counts = |source: &&lineage::Column| holds_any || !source.is_any();
        origin.sources.extend(sources.iter().filter(counts).cloned());
    }

    /// Whether a value of this type can be one of any sensitive column of the database.
    fn holds_any(&self, type_oid: u32) -> bool {
        carries(type_oid) != Carries::Nothing || self.is_type_of_sensitive(type_oid)
    }

    /// Whether a sensitive column of the database has this very type, beside those of small numbers, which everything has.
    fn is_type_of_sensitive(&self, type_oid: u32) -> bool {
        const SMALL: [u32; 4] = [16, 20, 21, 23];
        let Some(catalog) = self.result.catalog.filter(|_| !SMALL.contains(&type_oid)) else { return false };
        let own = catalog.relations().filter(|relation| !relation.is_system());
        own.into_iter().any(|relation| {
            catalog.sensitive_columns(relation).any(|(column, _)| column.type_oid == type_oid)
        })
    }

    /// What the server itself says of where the column comes from.
    fn by_description(&mut self, field: &FieldDescription<'_>, origin: &mut Origin) {
        let Some(catalog) = self.result.catalog else { return };
        if let Some(relation) = catalog.relation(field.table) {
            let id = (field.table, field.column);
            let sensitive = catalog.sensitive(id.0, id.1);
            let column = relation.by_number(field.column);
            origin.sources.extend(sensitive.zip(column).map(|(sensitive, column)| lineage::Column {
                id: Some(id),
                schema: relation.schema.clone(),
                table: relation.name.clone(),
                column: column.name.clone(),
                kind: sensitive.kind,
            }));
            return;
        }
        self.report.takes_care("a relation that the catalog does not know");
        origin.followed = false;
        if carries(field.type_oid) != Carries::Nothing {
            origin.same &= self.result.spilled.is_empty();
            origin.sources.extend(self.result.spilled.iter().cloned());
        }
    }

    /// A column of known origin: the strictest of what its sources ask for.
    fn by_sources(&mut self, field: &FieldDescription<'_>, origin: &Origin) -> Treatment {
        let name = String::from_utf8_lossy(field.name);
        let mut strictest: Option<(DataKind, Mask)> = None;
        for source in &origin.sources {
            let column = self.named(source);
            let sight = self.eyes.sight(&column);
            let Some(mask) = sight.mask.clone() else {
                self.report.revealed(&column, &name, &sight);
                continue;
            };
            // Of what is computed from a value a part may be all.
            let partial = mask.rule == MaskRule::Partial && !origin.same;
            let mask = if partial { Mask::FULL } else { mask };
            self.report.masked(&column, &name, &mask, &sight);
            if strictest.as_ref().is_none_or(|(_, known)| mask.shows() < known.shows()) {
                strictest = Some((source.kind, mask));
            }
        }
        match strictest {
            Some((kind, mask)) => Treatment::Mask { kind, rule: self.rule(&mask) },
            None => Treatment::Pass,
        }
    }

    /// A column of which nothing says that it is sensitive.
    fn by_values(&mut self, at: usize, origin: &Origin) -> Treatment {
        let field = &self.result.fields[at];
        // Somebody who may say so has said that it holds nothing.
        if self.result.catalog.is_some_and(|catalog| catalog.is_cleared(field.table, field.column)) {
            return Treatment::Pass;
        }
        let name = String::from_utf8_lossy(field.name).into_owned();
        let stored =
            field.table != 0 && self.result.catalog.is_some_and(|c| c.relation(field.table).is_some());
        let trusted = origin.followed || stored;
        let named = match columns::by_name("", &name, ColumnType::from_oid(field.type_oid)) {
            // Of what is followed, only the values count: `SELECT 1 AS email`.
            Named::Sensitive(kind) if !trusted => {
                let column = unplaced(&name, kind, "column name");
                let sight = self.eyes.sight(&column);
                if let Some(mask) = &sight.mask {
                    self.report.masked(&column, &name, mask, &sight);
                    return Treatment::Mask { kind, rule: self.rule(mask) };
                }
                self.report.revealed(&column, &name, &sight);
                return Treatment::Pass;
            }
            Named::Sensitive(kind) => Hint { kind: Some(kind), ..Hint::default() },
            Named::Hint(hint) => hint,
            Named::Plain => Hint::default(),
        };
        let counts = field.table == 0 && origin.followed;
        let system = field.table != 0 && field.table < FIRST_OWN_OID;
        match carries(field.type_oid) {
            Carries::Nothing => Treatment::Pass,
            // Sums and counts are made of many values.
            Carries::Number if counts || system => Treatment::Pass,
            Carries::Name if system => Treatment::Pass,
            Carries::Number | Carries::Name | Carries::Text => {
                let relation = self.result.catalog.and_then(|catalog| catalog.relation(field.table));
                let mut column = unplaced(&name, DataKind::Tagged, "content");
                if let Some(relation) = relation {
                    (column.schema, column.table) = (relation.schema.to_string(), relation.name.to_string());
                    if let Some(own) = relation.by_number(field.column) {
                        column.name = own.name.to_string();
                    }
                }
                self.scanned.push(column);
                Treatment::Scan(named)
            }
        }
    }

    /// As policies see it.
    fn named(&self, source: &lineage::Column) -> Column {
        let sensitive = source.id.and_then(|(relation, attribute)| {
            self.result.catalog.and_then(|catalog| catalog.sensitive(relation, attribute))
        });
        Column {
            schema: if source.is_any() { String::new() } else { source.schema.to_string() },
            table: source.table.to_string(),
            name: source.column.to_string(),
            kind: source.kind,
            tags: sensitive
                .map_or_else(Vec::new, |known| known.tags.iter().map(ToString::to_string).collect()),
            evidence: sensitive.map_or("column name", |known| known.evidence.as_str()).to_owned(),
        }
    }

    /// What becomes of what is found: per kind the strictest over all columns that are searched.
    fn rules(&mut self) -> Rules {
        if self.scanned.is_empty() {
            return Rules::new(|_| None);
        }
        let scanned = std::mem::take(&mut self.scanned);
        let by_place = self.eyes.looks_at_place();
        Rules::new(|kind| {
            let places: Vec<Option<&Column>> =
                if by_place { scanned.iter().map(Some).collect() } else { vec![None] };
            let sights = places.into_iter().map(|column| self.eyes.found(column, kind));
            let mask = sights.filter_map(|sight| sight.mask).min_by_key(Mask::shows)?;
            Some(self.rule(&mask))
        })
    }

    fn rule(&self, mask: &Mask) -> Rule {
        rule(mask, self.key)
    }
}

/// The rule that `mask` names, with what it needs.
pub fn rule(mask: &Mask, key: &HashKey) -> Rule {
    match mask.rule {
        MaskRule::Full => Rule::Full,
        MaskRule::Partial => Rule::Partial,
        MaskRule::Hash => Rule::Hash(key.clone()),
        MaskRule::Null => Rule::Null,
        MaskRule::Fixed => Rule::Fixed(mask.text.as_str().into()),
    }
}

/// The first OID that a database gives to objects of its own (`FirstNormalObjectId`).
const FIRST_OWN_OID: u32 = 16_384;

/// A column of which only its name in the result is known.
pub(crate) fn unplaced(name: &str, kind: DataKind, evidence: &str) -> Column {
    Column {
        schema: String::new(),
        table: "*".to_owned(),
        name: name.to_owned(),
        kind,
        tags: Vec::new(),
        evidence: evidence.to_owned(),
    }
}
