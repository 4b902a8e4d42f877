//! A query enters; its result's columns leave, each with what it shows.

use std::cell::RefCell;

use super::from::append;
use super::naming;
use super::resolver::Resolver;
use super::scope::{Field, From, Known, Open, Rows, Scope, With};
use super::value::Value;
use super::{Usage, expression};
use crate::sql::postgres::reference::At;

/// `SETOP_UNION` and those after it.
const UNION: u64 = 2;
const EXCEPT: u64 = 4;

/// Whether this is the tree of a query.
pub fn is_query(at: At<'_>) -> bool {
    matches!(at.name(), "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt")
}

impl<'w> Resolver<'w> {
    /// The result of a query.
    pub fn query(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Rows<'w> {
        self.deeper(Rows::lost(), |this| {
            let with = at.get("with_clause").map(|with| With {
                queries: with.list("ctes").collect(),
                known: RefCell::new(with.list("ctes").map(|_| Known::Nothing).collect()),
                recursive: with.flag("recursive"),
            });
            let own =
                Scope { from: None, with: with.as_ref().map(|with| (with, usize::MAX)), outer: Some(scope) };
            let rows = match at.name() {
                "SelectStmt" => this.select(at, &own),
                _ => this.change(at, &own),
            };
            if let Some(with) = &with {
                // What nobody refers to may write.
                for index in 0..with.queries.len() {
                    this.query_of_with(with, index, scope);
                }
            }
            rows
        })
    }

    /// The result of one query of a WITH. `scope`: around the query that has the WITH.
    pub fn query_of_with(&mut self, with: &With<'w>, index: usize, scope: &Scope<'_, 'w>) -> Rows<'w> {
        match with.known.borrow().get(index) {
            Some(Known::All(rows) | Known::SoFar(rows)) => return rows.clone(),
            Some(Known::Nothing) => {}
            None => return Rows::lost(),
        }
        let set = |known: Known<'w>| {
            if let Some(slot) = with.known.borrow_mut().get_mut(index) {
                *slot = known;
            }
        };
        let Some(cte) = with.queries.get(index).copied() else { return Rows::lost() };
        let visible = if with.recursive { usize::MAX } else { index };
        let inside = Scope { from: None, with: Some((with, visible)), outer: Some(scope) };
        let mut rows = Rows::default();
        if let Some(first) = cte.get("ctequery").filter(|query| with.recursive && query.number("op") >= UNION)
            && let Some(base) = first.get("larg")
        {
            set(Known::SoFar(Rows::lost()));
            rows = self.query(base, &inside);
            rows.rename(expression::strings(cte, "aliascolnames"));
            extra_columns(cte, &mut rows);
        }
        // Values move from column to column with each round of a recursive query.
        const MOST_ROUNDS: usize = 6;
        for round in 0.. {
            set(Known::SoFar(rows.clone()));
            let mut next = cte.get("ctequery").map_or_else(Rows::lost, |query| self.query(query, &inside));
            next.rename(expression::strings(cte, "aliascolnames"));
            extra_columns(cte, &mut next);
            let values =
                |rows: &Rows<'w>| rows.fields.iter().map(|field| field.value.clone()).collect::<Vec<_>>();
            let stable = !with.recursive || values(&next) == values(&rows);
            rows = next;
            if stable || self.broken {
                break;
            }
            if round == MOST_ROUNDS {
                let whole = rows.whole();
                rows.fields.iter_mut().for_each(|field| field.value = whole.clone());
                break;
            }
        }
        set(Known::All(rows.clone()));
        rows
    }

    fn select(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Rows<'w> {
        let operation = at.number("op");
        let (rows, from) = if operation >= UNION {
            (self.set_operation(at, scope), From::default())
        } else if at.list("values_lists").next().is_some() {
            (self.values(at, scope), From::default())
        } else {
            return self.plain_select(at, scope);
        };
        self.tail(at, &rows, &from, scope);
        rows
    }

    /// SELECT .. FROM .. WHERE ..
    fn plain_select(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Rows<'w> {
        let from = self.from(at.list("from_clause"), scope);
        let inside = Scope { from: Some(&from), with: None, outer: Some(scope) };
        if let Some(filter) = at.get("where_clause") {
            self.condition(filter, Usage::Where, &inside);
        }
        let rows = self.targets(at.list("target_list"), &inside);
        self.group(at, &rows, &inside);
        if let Some(filter) = at.get("having_clause") {
            self.condition(filter, Usage::Where, &inside);
        }
        for window in at.list("window_clause") {
            self.window(window, &inside);
        }
        if at.has("distinct_clause") {
            let mut distinct = at.list("distinct_clause").peekable();
            if distinct.peek().is_none() {
                self.uses(&rows.whole(), Usage::Distinct, false);
            }
            for item in distinct {
                let value = self.by(item, &rows, &inside);
                self.uses(&value, Usage::Distinct, false);
            }
        }
        self.tail(at, &rows, &from, scope);
        rows
    }

    /// GROUP BY.
    fn group(&mut self, at: At<'w>, rows: &Rows<'w>, scope: &Scope<'_, 'w>) {
        let mut items: Vec<At<'w>> = at.list("group_clause").collect();
        while let Some(item) = items.pop() {
            if item.name() == "GroupingSet" {
                items.extend(item.list("content"));
                continue;
            }
            let value = self.by(item, rows, scope);
            self.uses(&value, Usage::Group, false);
        }
    }

    /// ORDER BY, LIMIT, OFFSET.
    fn tail(&mut self, at: At<'w>, rows: &Rows<'w>, from: &From<'w>, scope: &Scope<'_, 'w>) {
        let inside = Scope { from: Some(from), with: None, outer: Some(scope) };
        for sort in at.list("sort_clause").filter_map(|sort| sort.get("node")) {
            let value = self.by(sort, rows, &inside);
            self.uses(&value, Usage::Order, false);
        }
        for limit in at.list("limit_count").chain(at.list("limit_offset")) {
            let value = self.value(limit, &inside);
            self.uses(&value, Usage::Where, false);
        }
    }

    /// What an item of ORDER BY, GROUP BY or DISTINCT ON means: a column of the result by its place or its name, or an
    /// expression.
    fn by(&mut self, item: At<'w>, rows: &Rows<'w>, scope: &Scope<'_, 'w>) -> Value {
        if let Some(place) = item.get("ival").filter(|_| item.name() == "A_Const") {
            let place = usize::try_from(place.number("ival")).ok().and_then(|place| place.checked_sub(1));
            return match place.and_then(|place| rows.fields.get(place)) {
                Some(field) if rows.open.is_none() => field.value.clone(),
                _ => rows.whole(),
            };
        }
        if item.name() == "ColumnRef"
            && let [name] = item.names("fields").as_slice()
        {
            let mut named = rows.fields.iter().filter(|field| field.name == *name).peekable();
            if named.peek().is_some() {
                // The result's column or, in GROUP BY, the table's.
                let mut value = self.column_of(name, scope).unwrap_or_default();
                named.for_each(|field| value.add(&field.value));
                return value;
            }
        }
        self.value(item, scope)
    }

    /// The columns of a target list or of RETURNING.
    pub fn targets(&mut self, items: impl Iterator<Item = At<'w>>, scope: &Scope<'_, 'w>) -> Rows<'w> {
        let mut rows = Rows::default();
        for item in items {
            let Some(at) = item.get("val") else { continue };
            match self.listed(at, scope) {
                Some(several) => append(&mut rows, several),
                None => {
                    let name = match item.text("name") {
                        "" => naming::of(at),
                        name => name,
                    };
                    let value = self.value(at, scope);
                    rows.fields.push(Field { name, value });
                }
            }
            if self.broken {
                return Rows::lost();
            }
        }
        rows
    }

    /// The columns that `*`, `t.*` or `(expression).*` lists.
    fn listed(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Option<Rows<'w>> {
        let is_star = |part: At<'w>| part.name() == "A_Star";
        match at.name() {
            "ColumnRef" if at.list("fields").any(is_star) => Some(self.star(&at.names("fields"), scope)),
            "A_Indirection" if at.list("indirection").any(is_star) => {
                let arg = at.get("arg")?;
                match self.row_of(arg, scope) {
                    Some(rows) if at.list("indirection").count() == 1 => Some(rows),
                    _ => {
                        let mut value = self.value(arg, scope);
                        value.changed |= !value.shows.is_empty();
                        Some(Rows::showing(value))
                    }
                }
            }
            _ => None,
        }
    }

    /// UNION, INTERSECT, EXCEPT: chains of them are as long as people like.
    fn set_operation(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Rows<'w> {
        let mut chain = Vec::new();
        let mut first = at;
        // What has clauses of its own is a query of its own.
        while first.number("op") >= UNION && (chain.is_empty() || is_bare(first)) {
            let Some(left) = first.get("larg") else { return Rows::lost() };
            chain.push(first);
            first = left;
        }
        let mut rows = self.query(first, scope);
        for operation in chain.into_iter().rev() {
            let right = operation.get("rarg").map_or_else(Rows::lost, |right| self.query(right, scope));
            if operation.number("op") != UNION || !operation.flag("all") {
                self.uses(&rows.whole(), Usage::Distinct, false);
                self.uses(&right.whole(), Usage::Distinct, false);
            }
            rows = combine(rows, right, operation.number("op") == EXCEPT);
        }
        rows
    }

    /// VALUES: each column shows what any row has there.
    fn values(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) -> Rows<'w> {
        const NAMES: [&str; 8] =
            ["column1", "column2", "column3", "column4", "column5", "column6", "column7", "column8"];
        let mut rows = Rows::default();
        for row in at.list("values_lists") {
            for (index, item) in row.list("items").enumerate() {
                let value = self.value(item, scope);
                match rows.fields.get_mut(index) {
                    Some(field) => field.value.add(&value),
                    None => {
                        let name = NAMES.get(index).copied().unwrap_or("");
                        rows.fields.push(Field { name, value });
                    }
                }
            }
        }
        rows
    }
}

/// Nothing but its two sides.
fn is_bare(at: At<'_>) -> bool {
    let clauses =
        ["with_clause", "sort_clause", "limit_count", "limit_offset", "locking_clause", "into_clause"];
    clauses.iter().all(|clause| !at.has(clause))
}

/// The two sides of a set operation.
fn combine<'w>(mut left: Rows<'w>, right: Rows<'w>, except: bool) -> Rows<'w> {
    let known = left.open.is_none() && right.open.is_none() && left.fields.len() == right.fields.len();
    if known {
        for (field, other) in left.fields.iter_mut().zip(&right.fields) {
            match except {
                true => field.value.steer_by(&other.value),
                false => field.value.add(&other.value),
            }
        }
        return left;
    }
    let mut whole = left.whole();
    whole.add(&right.whole());
    left.fields.iter_mut().for_each(|field| field.value = whole.clone());
    left.open = Some(Open::Showing(whole));
    left
}

/// Columns that SEARCH and CYCLE add.
fn extra_columns<'w>(cte: At<'w>, rows: &mut Rows<'w>) {
    let of = |rows: &Rows<'w>, names: &[&str]| {
        let mut value = Value { changed: true, ..Value::default() };
        for name in names {
            match rows.fields.iter().find(|field| field.name == *name) {
                Some(field) => value.add(&field.value),
                None => value.add(&rows.whole()),
            }
        }
        value
    };
    if let Some(search) = cte.get("search_clause") {
        let value = of(rows, &search.names("search_col_list"));
        rows.fields.push(Field { name: search.text("search_seq_column"), value });
    }
    if let Some(cycle) = cte.get("cycle_clause") {
        let value = of(rows, &cycle.names("cycle_col_list"));
        rows.fields.push(Field { name: cycle.text("cycle_mark_column"), value: Value::default() });
        rows.fields.push(Field { name: cycle.text("cycle_path_column"), value });
    }
}
