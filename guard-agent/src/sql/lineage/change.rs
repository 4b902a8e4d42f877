//! INSERT, UPDATE, DELETE and MERGE: where they write what, and what their RETURNING shows.

use super::Usage;
use super::resolver::{Place, Resolver};
use super::scope::{From, Rows, Scope, Table};
use super::value::Value;
use crate::sql::postgres::reference::At;

/// `RETURNING_OPTION_OLD`.
const OLD: u64 = 1;

/// A column and what is written into it.
type Written<'w> = (&'w str, Value);

impl<'w> Resolver<'w> {
    /// A query that changes a relation; its result is that of RETURNING.
    pub fn change(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Rows<'w> {
        let Some(relation) = at.get("relation") else { return Rows::lost() };
        let place = self.place(relation);
        let own = self.relation(relation);
        let mut from = From::table(relation.text("schemaname"), name_of(relation), own.clone());
        let mut written: Vec<Written<'w>> = Vec::new();
        match at.name() {
            "InsertStmt" => self.insert(at, &own, &from, scope, &mut written),
            "MergeStmt" => self.merge(at, &mut from, &own, scope, &mut written),
            _ => {
                let items = at.list("from_clause").chain(at.list("using_clause"));
                let others = self.from(items, scope);
                from.append(others);
                let inside = Scope { from: Some(&from), with: None, outer: Some(scope) };
                if let Some(filter) = at.get("where_clause") {
                    self.condition(filter, Usage::Where, &inside);
                }
                self.assignments(at.list("target_list"), &inside, &mut written);
            }
        }
        self.write(place, &written);
        let Some(returning) = at.get("returning_clause") else { return Rows::default() };
        let from = show_written(from, name_of(relation), own, &written, returning);
        let inside = Scope { from: Some(&from), with: None, outer: Some(scope) };
        self.targets(returning.list("exprs"), &inside)
    }

    fn write(&mut self, place: Place<'w>, written: &[Written<'w>]) {
        for (column, value) in written {
            self.writes(place, column, value);
        }
    }

    fn insert(
        &mut self,
        at: At<'w>,
        own: &Rows<'w>,
        from: &From<'w>,
        scope: &Scope<'_, 'w>,
        written: &mut Vec<Written<'w>>,
    ) {
        let source = at.get("select_stmt").map(|query| self.query(query, scope)).unwrap_or_default();
        let named: Vec<&'w str> = at.list("cols").map(|column| column.text("name")).collect();
        let columns =
            if named.is_empty() { own.fields.iter().map(|field| field.name).collect() } else { named };
        match &source.open {
            None => {
                for (column, field) in columns.iter().zip(&source.fields) {
                    written.push((column, field.value.clone()));
                }
                if columns.is_empty() && own.open.is_some() {
                    // Which column gets what is not known: it goes by the names.
                    written.extend(source.fields.iter().map(|field| (field.name, field.value.clone())));
                }
            }
            Some(_) => written.extend(columns.iter().map(|column| (*column, source.whole()))),
        }
        if let Some(conflict) = at.get("on_conflict_clause") {
            let mut with_excluded = from.clone();
            let mut excluded = own.clone();
            add_written(&mut excluded, written);
            with_excluded.tables.push(Table { schema: "", name: "excluded", rows: excluded });
            let inside = Scope { from: Some(&with_excluded), with: None, outer: Some(scope) };
            self.assignments(conflict.list("target_list"), &inside, written);
            if let Some(filter) = conflict.get("where_clause") {
                self.condition(filter, Usage::Where, &inside);
            }
        }
    }

    fn merge(
        &mut self,
        at: At<'w>,
        from: &mut From<'w>,
        own: &Rows<'w>,
        scope: &Scope<'_, 'w>,
        written: &mut Vec<Written<'w>>,
    ) {
        // `RETURNING *` lists the source first.
        let source = self.from(at.list("source_relation"), scope);
        let target = std::mem::replace(from, source);
        from.append(target);
        let inside = Scope { from: Some(&*from), with: None, outer: Some(scope) };
        if let Some(condition) = at.get("join_condition") {
            self.condition(condition, Usage::Join, &inside);
        }
        for clause in at.list("merge_when_clauses") {
            if let Some(condition) = clause.get("condition") {
                self.condition(condition, Usage::Where, &inside);
            }
            let values: Vec<At<'w>> = clause.list("values").collect();
            if values.is_empty() {
                self.assignments(clause.list("target_list"), &inside, written);
                continue;
            }
            let mut columns: Vec<&'w str> =
                clause.list("target_list").map(|column| column.text("name")).collect();
            if columns.is_empty() {
                columns = own.fields.iter().map(|field| field.name).collect();
            }
            for (index, value) in values.into_iter().enumerate() {
                let value = self.value(value, &inside);
                written.push((columns.get(index).copied().unwrap_or(""), value));
            }
        }
    }

    /// `a = b`, `(a, b) = (c, d)`, `(a, b) = (SELECT c, d ..)`.
    fn assignments(
        &mut self,
        items: impl Iterator<Item = At<'w>>,
        scope: &Scope<'_, 'w>,
        written: &mut Vec<Written<'w>>,
    ) {
        for item in items {
            let Some(at) = item.get("val") else { continue };
            let value = match (at.name(), at.get("source")) {
                ("MultiAssignRef", Some(source)) => {
                    let index = usize::try_from(at.number("colno")).unwrap_or(0).saturating_sub(1);
                    self.part_of(source, index, scope)
                }
                _ => self.value(at, scope),
            };
            let value = match item.list("indirection").next() {
                Some(_) => Value { changed: true, ..value },
                None => value,
            };
            written.push((item.text("name"), value));
        }
    }

    /// One of several values that are assigned together.
    fn part_of(&mut self, source: At<'w>, index: usize, scope: &Scope<'_, 'w>) -> Value {
        match (source.name(), source.get("subselect")) {
            ("RowExpr", _) => match source.list("args").nth(index) {
                Some(at) => self.value(at, scope),
                None => self.value(source, scope),
            },
            ("SubLink", Some(query)) => {
                let rows = self.query(query, scope);
                match (rows.fields.get(index), &rows.open) {
                    (Some(field), None) => field.value.clone(),
                    _ => rows.whole(),
                }
            }
            _ => self.value(source, scope),
        }
    }
}

/// What RETURNING sees: the new row shows what has just been written into it.
fn show_written<'w>(
    mut from: From<'w>,
    name: &'w str,
    own: Rows<'w>,
    written: &[Written<'w>],
    returning: At<'w>,
) -> From<'w> {
    let mut new = own.clone();
    add_written(&mut new, written);
    for table in from.tables.iter_mut().filter(|table| table.name == name) {
        table.rows = new.clone();
    }
    for field in &mut from.columns {
        for (_, value) in written.iter().filter(|(column, _)| *column == field.name) {
            field.value.add(value);
        }
    }
    let mut names = [("old", own), ("new", new)];
    for option in returning.list("options") {
        let index = usize::from(option.number("option") != OLD);
        if let Some(slot) = names.get_mut(index) {
            slot.0 = option.text("value");
        }
    }
    for (name, rows) in names {
        if from.tables.iter().all(|table| table.name != name) {
            from.tables.push(Table { schema: "", name, rows });
        }
    }
    from
}

fn name_of<'w>(range: At<'w>) -> &'w str {
    range.get("alias").map_or_else(|| range.text("relname"), |alias| alias.text("aliasname"))
}

fn add_written<'w>(rows: &mut Rows<'w>, written: &[Written<'w>]) {
    for (column, value) in written {
        match rows.fields.iter_mut().find(|field| field.name == *column) {
            Some(field) => field.value.add(value),
            None if rows.open.is_some() => {
                rows.fields.push(super::scope::Field { name: column, value: value.clone() });
            }
            None => {}
        }
    }
}
