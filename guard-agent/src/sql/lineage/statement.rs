//! The tree of a text enters; what each of its statements does with sensitive columns leaves.

use super::expression::strings;
use super::query::is_query;
use super::resolver::{Keep, Place, Resolver};
use super::scope::{Field, From, Open, Rows, Scope};
use super::{Column, Lineage, Named, Output, Outputs, Part, Target, World};
use crate::sql::postgres::reference::{At, Tree};

/// Texts of more statements are not followed.
pub const MAX_PARTS: usize = 256;

/// Every statement of a text.
pub fn read(tree: &Tree, world: &World<'_>, keep: Keep) -> Lineage {
    let statements = tree.root().list("stmts").filter_map(|raw| raw.get("stmt"));
    if statements.clone().count() > MAX_PARTS {
        return Lineage { parts: vec![Part::unknown(); MAX_PARTS] };
    }
    let mut parts = Vec::new();
    let mut made: Vec<Target> = Vec::new();
    for at in statements {
        let part = part(at, world, keep, &made, 0);
        made.extend(part.targets.iter().cloned());
        parts.push(part);
    }
    Lineage { parts }
}

/// Statements within statements.
const MAX_NESTING: usize = 8;

fn part(at: At<'_>, world: &World<'_>, keep: Keep, made: &[Target], depth: usize) -> Part {
    let mut resolver = Resolver::new(*world, keep, made);
    if depth > MAX_NESTING {
        return Part::unknown();
    }
    let inner = |field| at.get(field).map(|inner| part(inner, world, keep, made, depth + 1));
    match at.name() {
        "PrepareStmt" => {
            let query = inner("query").unwrap_or_default();
            let (named, calls) = (query.named.clone(), query.calls.clone());
            let names = Some(Named::Prepared(at.text("name").into(), Box::new(query)));
            return Part { names, named, calls, ..Part::default() };
        }
        "DeclareCursorStmt" => {
            let query = inner("query").unwrap_or_default();
            let (uses, named, calls) = (query.uses.clone(), query.named.clone(), query.calls.clone());
            let names = Some(Named::Cursor(at.text("portalname").into(), Box::new(query)));
            return Part { names, uses, named, calls, ..Part::default() };
        }
        "ExplainStmt" => {
            // Of the plan: names, numbers and what the client wrote itself.
            let mut explained = inner("query").unwrap_or_default();
            explained.outputs = Outputs::Columns(vec![Output::default()]);
            explained.names = None;
            if !at.list("options").any(|option| option.text("defname").starts_with("analy")) {
                // It does not run.
                explained.targets.clear();
            }
            return explained;
        }
        "ExecuteStmt" => {
            let value = resolver.all_of(at.list("params"), &Scope::EMPTY);
            resolver.uses(&value, super::Usage::Where, false);
            let outputs = Outputs::Prepared(at.text("name").into());
            return resolver.part(outputs);
        }
        "FetchStmt" => {
            let outputs = match at.flag("ismove") {
                true => Outputs::None,
                false => Outputs::Cursor(at.text("portalname").into()),
            };
            return Part { outputs, ..Part::default() };
        }
        _ => {}
    }
    let outputs = resolver.outputs(at);
    resolver.part(outputs)
}

impl<'w> Resolver<'w> {
    fn part(&mut self, outputs: Outputs) -> Part {
        Part {
            outputs,
            named: self.everything(),
            uses: self.take_uses(),
            targets: self.take_targets(),
            names: None,
            calls: self.take_calls(),
        }
    }

    fn outputs(&mut self, at: At<'w>) -> Outputs {
        match at.name() {
            "CopyStmt" => self.copy(at),
            "CreateTableAsStmt" => {
                let rows = at.get("query").map(|query| self.stored(query)).unwrap_or_default();
                if let Some(into) = at.get("into") {
                    self.made_by(into, rows);
                }
                Outputs::None
            }
            "ViewStmt" => {
                let mut rows = at.get("query").map(|query| self.stored(query)).unwrap_or_default();
                rows.rename(strings(at, "aliases"));
                if let Some(view) = at.get("view") {
                    self.store(self.place(view), &rows);
                }
                Outputs::None
            }
            "CreateStmt" => {
                self.create(at);
                Outputs::None
            }
            "AlterTableStmt" => {
                self.alter(at);
                Outputs::None
            }
            // Its own output parameters, or rows that code which no text shows has made.
            "CallStmt" => {
                let value = self.all_of(at.get("funccall").into_iter(), &Scope::EMPTY);
                self.uses(&value, super::Usage::Where, false);
                Outputs::Unknown(self.everything())
            }
            "VariableShowStmt" => Outputs::Columns(vec![Output { opaque: true, ..Output::default() }]),
            _ if is_query(at) => self.of_query(at),
            _ => Outputs::None,
        }
    }

    fn of_query(&mut self, at: At<'w>) -> Outputs {
        let rows = self.query(at, &Scope::EMPTY);
        if let Some(into) = into_of(at) {
            self.made_by(into, rows);
            return Outputs::None;
        }
        if at.name() != "SelectStmt" && !at.has("returning_clause") {
            return Outputs::None;
        }
        self.show(&rows)
    }

    fn show(&self, rows: &Rows<'w>) -> Outputs {
        if self.broken || rows.open.is_some() {
            return Outputs::Unknown(self.everything());
        }
        let output = |field: &Field<'w>| {
            let sources = self.shown(&field.value);
            Output {
                same: !field.value.changed && !sources.is_empty(),
                steered_by: self.steering(&field.value),
                opaque: field.value.opaque || field.value.lost,
                sources,
            }
        };
        Outputs::Columns(rows.fields.iter().map(output).collect())
    }

    /// The query of a view or of CREATE TABLE AS.
    fn stored(&mut self, at: At<'w>) -> Rows<'w> {
        if is_query(at) { self.query(at, &Scope::EMPTY) } else { Rows::showing(self.any()) }
    }

    fn made_by(&mut self, into: At<'w>, mut rows: Rows<'w>) {
        rows.rename(strings(into, "col_names"));
        if let Some(relation) = into.get("rel") {
            self.store(self.place(relation), &rows);
        }
    }

    /// A new relation with these columns.
    fn store(&mut self, place: Place<'w>, rows: &Rows<'w>) {
        // What was there before by this name is another one, or will be.
        let place = Place { relation: None, ..place };
        for field in &rows.fields {
            self.writes(place, field.name, &field.value);
        }
        if let Some(Open::Showing(value)) = &rows.open
            && !value.lost
        {
            // Columns that the text does not name.
            self.writes(place, "*", value);
        }
    }

    /// COPY table (columns) TO, COPY (query) TO.
    fn copy(&mut self, at: At<'w>) -> Outputs {
        if let Some(filter) = at.get("where_clause")
            && let Some(relation) = at.get("relation")
        {
            let from = From::table("", relation.text("relname"), self.relation(relation));
            let scope = Scope { from: Some(&from), with: None, outer: None };
            self.condition(filter, super::Usage::Where, &scope);
        }
        if at.flag("is_from") {
            return Outputs::None;
        }
        if let Some(query) = at.get("query") {
            let rows = self.query(query, &Scope::EMPTY);
            return self.show(&rows);
        }
        let Some(relation) = at.get("relation") else { return Outputs::Unknown(vec![Column::any()]) };
        let mut rows = self.relation(relation);
        let named: Vec<&'w str> = strings(at, "attlist").collect();
        if named.is_empty() {
            self.leave_out_generated(relation, &mut rows);
            return self.show(&rows);
        }
        let fields = named.iter().map(|name| {
            let value = match rows.fields.iter().find(|field| field.name == *name) {
                Some(field) => field.value.clone(),
                None => self.unknown_column(relation.text("relname"), name),
            };
            Field { name, value }
        });
        let rows = Rows { fields: fields.collect(), open: None };
        self.show(&rows)
    }

    fn leave_out_generated(&self, relation: At<'w>, rows: &mut Rows<'w>) {
        let Some(oid) = self.place(relation).relation else { return };
        let Some(known) = self.world.catalog.relation(oid) else { return };
        let generated = |name: &str| known.by_name(name).is_some_and(|column| column.generated);
        rows.fields.retain(|field| !generated(field.name));
    }

    /// `LIKE`, `INHERITS`, `PARTITION OF`: columns of the same names; generated columns.
    fn create(&mut self, at: At<'w>) {
        let Some(relation) = at.get("relation") else { return };
        let place = Place { relation: None, ..self.place(relation) };
        let likes = at.list("table_elts").filter_map(|element| element.get("relation"));
        for model in likes.chain(at.list("inh_relations")) {
            let rows = self.relation(model);
            self.store(place, &rows);
        }
    }

    /// A column that is computed from others: `ALTER COLUMN a TYPE text USING b`, `ADD COLUMN a .. GENERATED`.
    fn alter(&mut self, at: At<'w>) {
        let Some(relation) = at.get("relation") else { return };
        let place = self.place(relation);
        let own = self.relation(relation);
        let from = From::table(relation.text("schemaname"), relation.text("relname"), own);
        let scope = Scope { from: Some(&from), with: None, outer: None };
        for command in at.list("cmds") {
            let Some(definition) = command.get("def").filter(|def| def.name() == "ColumnDef") else {
                continue;
            };
            let computed = definition
                .list("raw_default")
                .chain(definition.list("constraints").filter_map(|constraint| constraint.get("raw_expr")));
            for expression in computed {
                let value = self.value(expression, &scope);
                let name = match command.text("name") {
                    "" => definition.text("colname"),
                    name => name,
                };
                self.writes(place, name, &value);
            }
        }
    }
}

/// The INTO of a SELECT: of a set operation it stands in the leftmost one.
fn into_of(at: At<'_>) -> Option<At<'_>> {
    let mut at = at;
    loop {
        if let Some(into) = at.get("into_clause") {
            return Some(into);
        }
        at = at.get("larg")?;
    }
}
