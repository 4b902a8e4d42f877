//! The items of a FROM enter; the names that they bring in leave, each with what it shows.

use super::functions;
use super::resolver::Resolver;
use super::scope::{Field, From, Open, Rows, Scope, Table};
use super::value::Value;
use super::{Usage, expression};
use crate::sql::postgres::reference::At;

impl<'w> Resolver<'w> {
    /// All items of a FROM, each seeing those before it where it may.
    pub fn from(&mut self, items: impl Iterator<Item = At<'w>>, scope: &Scope<'_, 'w>) -> From<'w> {
        let mut from = From::default();
        for at in items {
            let item = self.item(at, &from, scope);
            self.spend(1 + item.columns.len());
            if self.broken {
                return From::lost();
            }
            from.append(item);
        }
        from
    }

    fn item(&mut self, at: At<'w>, before: &From<'w>, scope: &Scope<'_, 'w>) -> From<'w> {
        let lateral = Scope { from: Some(before), with: None, outer: Some(scope) };
        match at.name() {
            "RangeVar" => self.range(at, scope),
            "RangeSubselect" => {
                let around = if at.flag("lateral") { &lateral } else { scope };
                let rows = at.get("subquery").map_or_else(Rows::lost, |query| self.query(query, around));
                aliased(at, "", rows)
            }
            "RangeFunction" => self.function(at, &lateral),
            "RangeTableFunc" => self.xml_table(at, &lateral),
            "JsonTable" => self.json_table(at, &lateral),
            "RangeTableSample" => {
                self.all_of(at.list("args"), scope);
                at.get("relation").map_or_else(From::lost, |relation| self.item(relation, before, scope))
            }
            "JoinExpr" => self.deeper(From::lost(), |this| this.join(at, before, scope)),
            _ => From::lost(),
        }
    }

    /// A relation or a query of a WITH.
    pub fn range(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> From<'w> {
        let (schema, name) = (at.text("schemaname"), at.text("relname"));
        let queried = if schema.is_empty() { self.with_query(name, scope) } else { None };
        let rows = queried.unwrap_or_else(|| self.relation(at));
        if at.get("alias").is_some() {
            return aliased(at, name, rows);
        }
        // A schema that is not written may still be: `FROM t WHERE public.t.a = 1`.
        From::table(schema, name, rows)
    }

    fn function(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> From<'w> {
        let mut rows = Rows::default();
        let alias = at.get("alias").map_or("", |alias| alias.text("aliasname"));
        let mut named = "";
        // Each is a list of the call and of column definitions of its own.
        for list in at.list("functions") {
            let mut items = list.list("items");
            let Some(call) = items.next() else { continue };
            let value = self.value(call, scope);
            let names = call.names("funcname");
            let name = names.last().copied().unwrap_or("");
            named = if alias.is_empty() { name } else { alias };
            let arguments = call.list("args").count();
            let known = functions::columns(&names, arguments).filter(|_| call.name() == "FuncCall");
            let own: Vec<&str> = items.flat_map(definitions).collect();
            let of_this = match (own.as_slice(), known) {
                ([], Some(known)) => {
                    let name = |column: &'static str| if column.is_empty() { named } else { column };
                    let field = |column: &&'static str| Field { name: name(column), value: value.clone() };
                    Rows { fields: known.iter().map(field).collect(), open: None }
                }
                ([], None) => {
                    // One column named after it, or the columns of a composite type: the value is the same.
                    let field = Field { name: named, value: value.clone() };
                    Rows { fields: vec![field], open: Some(Open::Showing(value)) }
                }
                (own, _) => of_names(own.iter().copied(), &value),
            };
            append(&mut rows, of_this);
        }
        let own: Vec<&str> = at.list("coldeflist").map(|column| column.text("colname")).collect();
        if !own.is_empty() {
            rows = of_names(own.into_iter(), &rows.whole());
        }
        if at.flag("ordinality") {
            rows.fields.push(Field { name: "ordinality", value: Value::default() });
        }
        aliased(at, named, rows)
    }

    fn xml_table(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> From<'w> {
        let mut value = Value { changed: true, ..Value::default() };
        for child in at.children().filter(|child| child.field() != "alias") {
            value.add(&self.value(child, scope));
        }
        let rows = of_names(at.list("columns").map(|column| column.text("colname")), &value);
        aliased(at, "xmltable", rows)
    }

    fn json_table(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> From<'w> {
        let mut value = Value { changed: true, ..Value::default() };
        for child in at.children().filter(|child| child.field() != "alias") {
            value.add(&self.value(child, scope));
        }
        let mut names = Vec::new();
        let mut stack: Vec<At<'w>> = at.list("columns").rev().collect();
        while let Some(column) = stack.pop() {
            const NESTED: u64 = 5;
            if column.number("coltype") == NESTED {
                stack.extend(column.list("columns").rev());
            } else {
                names.push(column.text("name"));
            }
        }
        aliased(at, "json_table", of_names(names.into_iter(), &value))
    }

    fn join(&mut self, at: At<'w>, before: &From<'w>, scope: &Scope<'_, 'w>) -> From<'w> {
        let (Some(left), Some(right)) = (at.get("larg"), at.get("rarg")) else { return From::lost() };
        let left = self.item(left, before, scope);
        let right = {
            let around = Scope { from: Some(before), with: None, outer: Some(scope) };
            self.item(right, &left, &around)
        };
        self.spend(left.columns.len() + right.columns.len());
        if self.broken {
            return From::lost();
        }
        let natural = at.flag("is_natural");
        let mut names = at.names("using_clause");
        let mut unsure = false;
        if natural {
            unsure = !left.open.is_empty() || !right.open.is_empty();
            let shared = |field: &&Field<'w>| right.columns.iter().any(|other| other.name == field.name);
            names = left.columns.iter().filter(shared).map(|field| field.name).collect();
        }
        let merged: Vec<Field<'w>> =
            names.iter().map(|name| Field { name, value: self.merged(name, &left, &right) }).collect();
        for field in &merged {
            self.uses(&field.value, Usage::Join, false);
        }
        let mut joined = From {
            columns: merged.clone(),
            open: left.open.iter().chain(&right.open).cloned().collect(),
            tables: left.tables,
        };
        let rest = |field: &Field<'w>| !names.contains(&field.name);
        joined.columns.extend(left.columns.into_iter().filter(rest));
        joined.columns.extend(right.columns.into_iter().filter(rest));
        joined.tables.extend(right.tables);
        if unsure {
            joined.open.push(Open::Showing(Value::default()));
        }
        if let Some(quals) = at.get("quals") {
            let inside = Scope { from: Some(before), with: None, outer: Some(scope) };
            let condition = self.condition(
                quals,
                Usage::Join,
                &Scope { from: Some(&joined), with: None, outer: Some(&inside) },
            );
            drop(condition);
        }
        if let Some(alias) = at.get("join_using_alias") {
            let rows = Rows { fields: merged, open: None };
            joined.tables.push(Table { schema: "", name: alias.text("aliasname"), rows });
        }
        match at.get("alias") {
            Some(_) => aliased(at, "", joined.rows()),
            None => joined,
        }
    }

    /// A column that both sides of a join have.
    fn merged(&mut self, name: &str, left: &From<'w>, right: &From<'w>) -> Value {
        let mut value = Value::default();
        for side in [left, right] {
            let scope = Scope { from: Some(side), with: None, outer: None };
            value.add(&self.column_of(name, &scope).unwrap_or_default());
        }
        value
    }

    /// Evaluates for what it uses and names.
    pub fn all_of(&mut self, expressions: impl Iterator<Item = At<'w>>, scope: &Scope<'_, 'w>) -> Value {
        let mut all = Value::default();
        for at in expressions {
            all.add(&self.value(at, scope));
        }
        all
    }
}

/// Names of a list of column definitions.
fn definitions<'w>(at: At<'w>) -> Vec<&'w str> {
    match at.name() {
        "ColumnDef" => vec![at.text("colname")],
        _ => at.list("items").map(|column| column.text("colname")).collect(),
    }
}

fn of_names<'w>(names: impl Iterator<Item = &'w str>, value: &Value) -> Rows<'w> {
    Rows { fields: names.map(|name| Field { name, value: value.clone() }).collect(), open: None }
}

/// The columns of one beside those of the other.
pub fn append<'w>(rows: &mut Rows<'w>, other: Rows<'w>) {
    rows.fields.extend(other.fields);
    rows.open = match (rows.open.take(), other.open) {
        (Some(one), Some(other)) => {
            let whole = |open| Rows { fields: Vec::new(), open: Some(open) }.whole();
            let mut value = whole(one);
            value.add(&whole(other));
            Some(Open::Showing(value))
        }
        (one, other) => one.or(other),
    };
}

/// Under the alias that the item has.
fn aliased<'w>(at: At<'w>, name: &'w str, mut rows: Rows<'w>) -> From<'w> {
    let Some(alias) = at.get("alias") else { return From::table("", name, rows) };
    rows.rename(expression::strings(alias, "colnames"));
    From::table("", alias.text("aliasname"), rows)
}
