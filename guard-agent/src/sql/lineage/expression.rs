//! An expression enters; what its value shows leaves. Without recursion but into queries within it.
//!
//! A kind of node that is not listed shows whatever is below it.

use super::functions::{self, Call};
use super::resolver::Resolver;
use super::scope::{Open, Rows, Scope};
use super::value::Value;
use super::{Column, Usage};
use crate::sql::postgres::reference::At;

/// `AEXPR_OP`, `AEXPR_NULLIF`.
const OPERATOR: u64 = 1;
const NULLIF: u64 = 6;
/// `EXISTS_SUBLINK`, `EXPR_SUBLINK`, `ARRAY_SUBLINK`.
pub const EXISTS: u64 = 1;
const SCALAR: u64 = 5;
const ARRAY: u64 = 7;

/// Part of an expression that is still to be looked at.
struct Rest<'w> {
    at: At<'w>,
    /// Something around it changes the value.
    changed: bool,
}

impl<'w> Resolver<'w> {
    /// What the value of `at` shows.
    pub fn value(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Value {
        self.deeper(Value::lost(), |this| this.expression(at, scope))
    }

    fn expression(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Value {
        let mut total = Value::default();
        let mut stack = vec![Rest { at, changed: false }];
        while let Some(Rest { at, changed }) = stack.pop() {
            self.spend(1 + total.shows.len());
            if self.broken {
                return Value::lost();
            }
            let mut leaf = match at.name() {
                "ColumnRef" => self.reference(at, scope),
                "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
                    self.query(at, scope).whole()
                }
                "SubLink" => self.sublink(at, scope),
                "A_Expr" => match at.number("kind") {
                    OPERATOR if !functions::is_comparison(&at.names("name")) => {
                        push(&mut stack, at.list("lexpr").chain(at.list("rexpr")), true);
                        let known = crate::sql::postgres::is_known_operator(&at.names("name"));
                        Value { opaque: !known, ..Value::default() }
                    }
                    NULLIF => {
                        push(&mut stack, at.list("lexpr"), changed);
                        let mut compared = Value::default();
                        compared.steer_by(&self.condition(at, Usage::Where, scope));
                        compared
                    }
                    _ => self.condition(at, Usage::Where, scope),
                },
                "BoolExpr" | "BooleanTest" | "NullTest" => self.condition(at, Usage::Where, scope),
                "CaseExpr" => self.case(at, changed, &mut stack, scope),
                "FuncCall" => self.call(at, changed, &mut stack, scope),
                "TypeCast" => {
                    let ty = at.get("type_name");
                    let same = ty.is_some_and(|ty| {
                        functions::keeps_value(&ty.names("names")) && ty.list("typmods").next().is_none()
                    });
                    push(&mut stack, at.list("arg"), changed || !same);
                    Value::default()
                }
                "A_Indirection" => self.indirection(at, changed, &mut stack, scope),
                "CoalesceExpr" | "MinMaxExpr" | "CollateClause" | "A_ArrayExpr" | "NamedArgExpr" => {
                    let parts = at.children().filter(|child| child.field() != "collname");
                    push(&mut stack, parts, changed);
                    Value::default()
                }
                "WindowDef" => {
                    self.window(at, scope);
                    Value::default()
                }
                "A_Const" | "ParamRef" | "TypeName" | "SetToDefault" | "SQLValueFunction"
                | "GroupingFunc" | "String" | "Integer" | "Float" | "Boolean" | "BitString" => {
                    Value::default()
                }
                "SortBy" => {
                    let value = self.all_of(at.list("node"), scope);
                    self.uses(&value, Usage::Order, false);
                    Value::default()
                }
                _ => {
                    self.json_clauses(at, scope);
                    let below = at.children().filter(|child| !matches!(child.field(), "agg_filter" | "over"));
                    push(&mut stack, below, true);
                    Value::default()
                }
            };
            leaf.changed |= changed && !leaf.shows.is_empty();
            total.add(&leaf);
        }
        total
    }

    /// FILTER and OVER of an aggregate in the syntax of SQL/JSON.
    fn json_clauses(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) {
        if let Some(filter) = at.get("agg_filter") {
            self.condition(filter, Usage::Where, scope);
        }
        if let Some(window) = at.get("over") {
            self.window(window, scope);
        }
    }

    fn case(&mut self, at: At<'w>, changed: bool, stack: &mut Vec<Rest<'w>>, scope: &Scope<'_, 'w>) -> Value {
        let mut value = Value::default();
        let whens = at.list("args");
        if let Some(compared) = at.get("arg") {
            for when in whens.clone().filter_map(|when| when.get("expr")) {
                let compared = self.compare(&[compared], &[when], true, Usage::Where, scope);
                value.steer_by(&compared);
            }
        } else {
            for when in whens.clone().filter_map(|when| when.get("expr")) {
                let condition = self.condition(when, Usage::Where, scope);
                value.steer_by(&condition);
                // CASE WHEN flag THEN 'yes' ELSE 'no' END tells all that there is to tell.
                value.shows = self.booleans(&condition);
                value.changed |= !value.shows.is_empty();
            }
        }
        push(stack, whens.filter_map(|when| when.get("result")), changed);
        push(stack, at.list("defresult"), changed);
        value
    }

    fn call(&mut self, at: At<'w>, changed: bool, stack: &mut Vec<Rest<'w>>, scope: &Scope<'_, 'w>) -> Value {
        let names = at.names("funcname");
        if let Some(filter) = at.get("agg_filter") {
            let filter = self.condition(filter, Usage::Where, scope);
            drop(filter);
        }
        if let Some(window) = at.get("over") {
            self.window(window, scope);
        }
        let call = functions::call(&names);
        let arguments = at.list("args");
        if at.flag("agg_distinct") {
            let value = self.all_of(arguments.clone(), scope);
            self.uses(&value, Usage::Distinct, false);
        }
        for sort in at.list("agg_order") {
            let value = self.all_of(sort.list("node"), scope);
            self.uses(&value, Usage::Order, false);
            if at.flag("agg_within_group") {
                // Of mode() and percentile_disc() this is the argument.
                push(stack, sort.list("node"), changed || call != Call::Same);
            }
        }
        if functions::is_sink(&names) {
            let value = self.all_of(arguments.clone(), scope);
            self.uses(&value, Usage::Where, false);
        }
        match call {
            Call::Shows => {
                push(stack, arguments, true);
                match functions::is_opaque(&names) {
                    true => Value { opaque: true, ..self.read_by_function(&names) },
                    false => Value::default(),
                }
            }
            Call::Same => {
                let mut parts = arguments;
                push(stack, parts.next().into_iter(), changed || at.list("args").count() > 1);
                push(stack, parts, true);
                Value::default()
            }
            Call::Hides => {
                let mut value = Value::default();
                value.steer_by(&self.all_of(arguments, scope));
                value
            }
            Call::Compares => {
                let value = self.all_of(arguments, scope);
                self.uses(&value, Usage::Where, false);
                let mut compared = Value::default();
                compared.steer_by(&value);
                compared
            }
            Call::RunsText => {
                let mut value = self.all_of(arguments.clone(), scope);
                // A text that is computed may be any query, whatever stands beside it.
                let literal = arguments.clone().all(is_literal);
                let texts: Vec<&str> = arguments.filter_map(At::string).collect();
                value.add(&self.run_texts(&texts));
                if !literal {
                    value.add(&self.any());
                }
                value
            }
            Call::Reads => {
                let mut value = self.all_of(arguments, scope);
                value.add(&self.any());
                value
            }
        }
    }

    /// The results of the query that one of these texts is.
    fn run_texts(&mut self, texts: &[&str]) -> Value {
        let mut value = Value { changed: true, opaque: true, ..Value::default() };
        let mut read = false;
        for text in texts.iter().filter(|text| text.trim().contains(char::is_whitespace)) {
            let lineage = self.deeper(None, |this| Some(super::within(text, &this.world)));
            for part in lineage.into_iter().flat_map(|lineage| lineage.parts) {
                read = true;
                for column in part.everything_shown() {
                    match self.sources.place(column, false) {
                        Some(place) => value.add(&Value::column(place)),
                        None => self.broken = true,
                    }
                }
            }
        }
        if !read {
            value.add(&self.any());
        }
        value
    }

    /// Any column of the database.
    pub fn any(&mut self) -> Value {
        match self.sources.place(Column::any(), false) {
            Some(place) => Value { changed: true, opaque: true, ..Value::column(place) },
            None => Value::lost(),
        }
    }

    fn sublink(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Value {
        let Some(query) = at.get("subselect") else { return Value::lost() };
        match at.number("sub_link_type") {
            SCALAR | ARRAY => {
                let rows = self.query(query, scope);
                match (rows.fields.first(), &rows.open) {
                    (Some(first), None) => first.value.clone(),
                    _ => rows.whole(),
                }
            }
            _ => self.condition(at, Usage::Where, scope),
        }
    }

    fn indirection(
        &mut self,
        at: At<'w>,
        changed: bool,
        stack: &mut Vec<Rest<'w>>,
        scope: &Scope<'_, 'w>,
    ) -> Value {
        let Some(arg) = at.get("arg") else { return Value::lost() };
        for index in at.list("indirection").filter(|part| part.name() == "A_Indices") {
            let value = self.all_of(index.children(), scope);
            self.uses(&value, Usage::Where, false);
        }
        let mut parts = at.list("indirection");
        let first = parts.next();
        if let Some(name) = first.and_then(At::string)
            && let Some(rows) = self.row_of(arg, scope)
        {
            let mut value = self.field_of(&rows, name);
            value.changed |= parts.next().is_some();
            return value;
        }
        let subscripts = at.list("indirection").all(|part| part.name() == "A_Indices");
        push(stack, [arg].into_iter(), changed || !subscripts);
        // A field that is none may be a function.
        match subscripts {
            true => Value::default(),
            false => {
                let mut called = Value { opaque: true, ..Value::default() };
                for name in at.names("indirection") {
                    called.add(&self.no_column(name, false));
                }
                called
            }
        }
    }

    fn field_of(&mut self, rows: &Rows<'w>, name: &str) -> Value {
        if let Some(field) = rows.fields.iter().find(|field| field.name == name) {
            return field.value.clone();
        }
        let mut whole = rows.whole();
        whole.add(&self.no_column(name, rows.open.is_none()));
        whole
    }

    /// The row that an expression stands for, where it is a whole row of something in FROM.
    pub fn row_of(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Option<Rows<'w>> {
        if at.name() != "ColumnRef" || at.list("fields").any(|field| field.name() == "A_Star") {
            return None;
        }
        match at.names("fields").as_slice() {
            [name] if self.column_of(name, scope).is_none() => table_of("", name, scope).cloned(),
            [schema, name] => table_of(schema, name, scope).cloned(),
            _ => None,
        }
    }

    fn reference(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Value {
        let names = at.names("fields");
        if at.list("fields").any(|field| field.name() == "A_Star") {
            return self.star(&names, scope).whole();
        }
        match names.as_slice() {
            [name] => self.name(name, scope),
            [table, column] => self.qualified("", table, column, scope),
            [.., schema, table, column] => self.qualified(schema, table, column, scope),
            [] => Value::lost(),
        }
    }

    /// What `*` after these names lists.
    pub fn star(&mut self, names: &[&'w str], scope: &Scope<'_, 'w>) -> Rows<'w> {
        let rows = match names {
            [] => scope.around().find_map(|scope| scope.from).map_or_else(Rows::lost, |from| from.rows()),
            [table] => table_of("", table, scope).cloned().unwrap_or_else(Rows::lost),
            [.., schema, table] => table_of(schema, table, scope).cloned().unwrap_or_else(Rows::lost),
        };
        self.spend(rows.fields.len());
        rows
    }

    /// A name alone: a column, or a whole row.
    fn name(&mut self, name: &str, scope: &Scope<'_, 'w>) -> Value {
        if let Some(value) = self.column_of(name, scope) {
            return value;
        }
        let mut value = Value::default();
        let mut unknown = false;
        for from in scope.around().filter_map(|scope| scope.from) {
            for open in &from.open {
                unknown = true;
                match open {
                    Open::Relation(table) => value.add(&self.unknown_column(table, name)),
                    Open::Showing(shown) => value.add(shown),
                }
            }
        }
        match table_of("", name, scope) {
            Some(rows) => {
                value.add(&rows.whole());
                value
            }
            None if unknown || is_system(name) => value,
            None => Value::lost(),
        }
    }

    /// A column that is known by this name, in the innermost place that has one.
    pub fn column_of(&mut self, name: &str, scope: &Scope<'_, 'w>) -> Option<Value> {
        for from in scope.around().filter_map(|scope| scope.from) {
            self.spend(from.columns.len() / 8);
            let mut named = from.columns.iter().filter(|field| field.name == name);
            if let Some(first) = named.next() {
                let mut value = first.value.clone();
                named.for_each(|field| value.add(&field.value));
                return Some(value);
            }
        }
        None
    }

    fn qualified(&mut self, schema: &str, table: &str, column: &str, scope: &Scope<'_, 'w>) -> Value {
        match table_of(schema, table, scope) {
            Some(rows) => match rows.fields.iter().find(|field| field.name == column) {
                Some(field) => field.value.clone(),
                None => match &rows.open {
                    Some(Open::Relation(relation)) => {
                        let relation = *relation;
                        self.unknown_column(relation, column)
                    }
                    Some(Open::Showing(value)) => value.clone(),
                    None if is_system(column) => Value::default(),
                    // A function of the row, or a column that was added since the catalog was read.
                    None => {
                        let mut whole = rows.whole();
                        whole.add(&self.no_column(column, true));
                        whole
                    }
                },
            },
            None => Value::lost(),
        }
    }
}

fn push<'w>(stack: &mut Vec<Rest<'w>>, parts: impl Iterator<Item = At<'w>>, changed: bool) {
    stack.extend(parts.map(|at| Rest { at, changed }));
}

/// The columns of what this name means in the innermost FROM that has it.
fn table_of<'s, 'w>(schema: &str, name: &str, scope: &'s Scope<'s, 'w>) -> Option<&'s Rows<'w>> {
    let tables = scope.around().filter_map(|scope| scope.from).flat_map(|from| &from.tables);
    let named = || tables.clone().filter(|table| table.name == name);
    named()
        .find(|table| schema.is_empty() || table.schema == schema)
        // Found along the search path, and written with its schema elsewhere.
        .or_else(|| named().find(|table| table.schema.is_empty()))
        .map(|table| &table.rows)
}

/// Columns that every table has.
pub fn is_system(name: &str) -> bool {
    matches!(name, "tableoid" | "xmin" | "xmax" | "cmin" | "cmax" | "ctid")
}

/// The texts of a list of strings.
pub fn strings<'w>(at: At<'w>, field: &'static str) -> impl Iterator<Item = &'w str> {
    at.list(field).filter_map(At::string)
}

/// A literal, or `true` and `false`, which the grammar casts.
fn is_literal(at: At<'_>) -> bool {
    let is_constant = |at: At<'_>| at.name() == "A_Const";
    is_constant(at)
        || at.name() == "TypeCast"
            && at.get("arg").is_some_and(is_constant)
            && at
                .get("type_name")
                .is_some_and(|ty| matches!(ty.names("names").last(), Some(&("bool" | "tsquery"))))
}
