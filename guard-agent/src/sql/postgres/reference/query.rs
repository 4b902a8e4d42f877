//! The tree of a query enters, its effects leave: tables read and written, functions called, locks taken.
//!
//! Every node is visited, whatever its kind. Only names that a WITH brings in and the targets of changes are told
//! apart from tables that are read.

use guard_policy::vocabulary::{Action, Object, ObjectKind};

use super::super::calls;
use super::predicate::Target;
use super::tree::At;
use crate::sql::effects::Findings;

/// `ONCONFLICT_UPDATE`.
const CONFLICT_UPDATE: u64 = 3;
/// `COERCE_SQL_SYNTAX`: a call that only the grammar makes, as of `EXTRACT`.
const BY_SYNTAX: u64 = 4;
/// `AEXPR_BETWEEN`.
const BETWEEN: u64 = 11;
/// `CMD_UPDATE`, `CMD_INSERT`, `CMD_DELETE` of a MERGE's clause.
const CMD_UPDATE: u64 = 3;
const CMD_INSERT: u64 = 4;
const CMD_DELETE: u64 = 5;
/// `MERGE_WHEN_NOT_MATCHED_BY_SOURCE`.
const BY_SOURCE: u64 = 2;

/// Whether this is the tree of a query.
pub fn is_query(at: At<'_>) -> bool {
    matches!(at.name(), "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt")
}

/// Adds the effects of a query.
pub fn read(at: At<'_>, findings: &mut Findings) {
    let before = findings.added();
    expressions(at, findings);
    if findings.added() == before {
        // Computes without a table: `SELECT 1`.
        findings.add_any(Action::Select, ObjectKind::Session);
    }
}

/// Adds the effects of every query and call below `at`.
pub fn expressions(at: At<'_>, findings: &mut Findings) {
    let mut walk = Walk { findings, frames: Vec::new(), stack: Vec::new() };
    walk.push(at, Around { scope: None, lock: false, query: is_query(at) });
    while let Some((at, around)) = walk.stack.pop() {
        walk.visit(at, around);
    }
}

/// Names that a WITH brings in, and what was visible around it.
struct Frame<'t> {
    names: Vec<&'t str>,
    outer: Option<usize>,
}

/// What a node inherits from those around it.
#[derive(Clone, Copy)]
struct Around {
    scope: Option<usize>,
    /// Within a query with a locking clause.
    lock: bool,
    /// Within a query: tables are read.
    query: bool,
}

struct Walk<'t, 'f> {
    findings: &'f mut Findings,
    frames: Vec<Frame<'t>>,
    stack: Vec<(At<'t>, Around)>,
}

impl<'t> Walk<'t, '_> {
    fn push(&mut self, at: At<'t>, around: Around) {
        self.stack.push((at, around));
    }

    fn visit(&mut self, at: At<'t>, mut around: Around) {
        if is_query(at) {
            around.query = true;
            around.lock |= at.list("locking_clause").next().is_some();
            around.scope = self.with(at, around);
        }
        match at.name() {
            "SelectStmt" => {
                if let Some(target) = at.get("into_clause").and_then(|into| into.get("rel")) {
                    self.findings.add(Action::Create, table(target));
                }
            }
            "InsertStmt" => self.insert(at),
            "UpdateStmt" => self.update(at),
            "DeleteStmt" => self.delete(at),
            "MergeStmt" => self.merge(at),
            "RangeVar" if around.query => self.source(at, around),
            "FuncCall" => self.call(at),
            // The kinds from `AEXPR_BETWEEN` on have a keyword for a name.
            "A_Expr" if at.number("kind") < BETWEEN => self.operator(&at.names("name")),
            "SubLink" => self.operator(&at.names("oper_name")),
            "SortBy" => self.operator(&at.names("use_op")),
            _ => {}
        }
        for child in at.children().rev() {
            let target = is_query(at)
                && (matches!(child.field(), "with_clause" | "into_clause" | "locking_clause")
                    || (child.field() == "relation" && child.name() == "RangeVar"));
            // A sequence of locked names refers to tables that stand elsewhere in the query.
            if !target {
                self.push(child, around);
            }
        }
    }

    /// Visits what the WITH of a query holds; returns what the query itself can see.
    fn with(&mut self, at: At<'t>, around: Around) -> Option<usize> {
        let Some(with) = at.get("with_clause") else { return around.scope };
        let recursive = with.flag("recursive");
        let mut visible = around.scope;
        if recursive {
            visible = self.frame(with.list("ctes").map(|cte| cte.text("ctename")).collect(), visible);
        }
        for cte in with.list("ctes") {
            // What the locking clause of the outer query means does not reach into a WITH, but caution does not hurt.
            self.push(cte, Around { scope: visible, ..around });
            if !recursive {
                visible = self.frame(vec![cte.text("ctename")], visible);
            }
        }
        visible
    }

    fn frame(&mut self, names: Vec<&'t str>, outer: Option<usize>) -> Option<usize> {
        self.frames.push(Frame { names, outer });
        Some(self.frames.len() - 1)
    }

    fn is_cte(&self, name: &str, scope: Option<usize>) -> bool {
        let mut at = scope;
        while let Some(frame) = at.and_then(|index| self.frames.get(index)) {
            if frame.names.contains(&name) {
                return true;
            }
            at = frame.outer;
        }
        false
    }

    fn source(&mut self, at: At<'t>, around: Around) {
        if at.text("schemaname").is_empty() && self.is_cte(at.text("relname"), around.scope) {
            return;
        }
        let object = table(at);
        if around.lock {
            self.findings.add(Action::Lock, object.clone());
        }
        self.findings.add(Action::Select, object);
    }

    fn call(&mut self, at: At<'t>) {
        if at.number("funcformat") == BY_SYNTAX {
            return;
        }
        let names = at.names("funcname");
        let first = at.list("args").next().and_then(literal);
        if let [.., name] = names.as_slice() {
            let schema = names.len().checked_sub(2).and_then(|index| names.get(index)).copied();
            calls::add(self.findings, schema, name, first);
        }
    }

    fn operator(&mut self, names: &[&str]) {
        if let [.., operator] = names {
            let schema = names.len().checked_sub(2).and_then(|index| names.get(index)).copied();
            calls::operator(self.findings, schema, operator);
        }
    }

    fn insert(&mut self, at: At<'t>) {
        let Some(target) = at.get("relation") else { return };
        let object = table(target);
        if at.get("on_conflict_clause").is_some_and(|clause| clause.number("action") == CONFLICT_UPDATE) {
            self.findings.add_filtered(Action::Update, object.clone(), true);
        }
        self.findings.add(Action::Insert, object);
    }

    fn update(&mut self, at: At<'t>) {
        let Some(target) = at.get("relation") else { return };
        let object = table(target);
        let has_where = among(target, at.list("from_clause")).restricted_by(at.get("where_clause"));
        calls::through_view(self.findings, &object);
        self.findings.add_filtered(Action::Update, object, has_where);
    }

    fn delete(&mut self, at: At<'t>) {
        let Some(target) = at.get("relation") else { return };
        let has_where = among(target, at.list("using_clause")).restricted_by(at.get("where_clause"));
        self.findings.add_filtered(Action::Delete, table(target), has_where);
    }

    fn merge(&mut self, at: At<'t>) {
        let Some(relation) = at.get("relation") else { return };
        let object = table(relation);
        let target = Target { joined: true, ..among(relation, at.list("source_relation")) };
        let matched = target.restricted_by(at.get("join_condition"));
        for clause in at.list("merge_when_clauses") {
            // BY SOURCE is every row that the condition did not choose.
            let chosen = matched && clause.number("match_kind") != BY_SOURCE;
            let has_where = chosen || target.restricted_by(clause.get("condition"));
            match clause.number("command_type") {
                CMD_INSERT => self.findings.add(Action::Insert, object.clone()),
                CMD_UPDATE => self.findings.add_filtered(Action::Update, object.clone(), has_where),
                CMD_DELETE => self.findings.add_filtered(Action::Delete, object.clone(), has_where),
                _ => {}
            }
        }
        self.findings.add(Action::Merge, object);
    }
}

/// The table that a `RangeVar` names.
pub fn table(range: At<'_>) -> Object {
    object(ObjectKind::Table, range)
}

/// The object of `kind` that a `RangeVar` names.
pub fn object(kind: ObjectKind, range: At<'_>) -> Object {
    let schema = Some(range.text("schemaname")).filter(|schema| !schema.is_empty());
    Object::named(kind, schema, range.text("relname"))
}

fn alias<'t>(range: At<'t>) -> &'t str {
    range.get("alias").map_or_else(|| range.text("relname"), |alias| alias.text("aliasname"))
}

/// The table that a change is about, among the `others` of its FROM or USING.
fn among<'t>(target: At<'t>, others: impl Iterator<Item = At<'t>>) -> Target<'t> {
    let mut twins = Vec::new();
    let mut stack: Vec<At<'t>> = others.collect();
    let joined = !stack.is_empty();
    let schemas = |at: At<'t>| (at.text("schemaname"), target.text("schemaname"));
    while let Some(at) = stack.pop() {
        match at.name() {
            "JoinExpr" => stack.extend(at.get("larg").into_iter().chain(at.get("rarg"))),
            "RangeVar" if at.text("relname") == target.text("relname") => match schemas(at) {
                (one, other) if one == other || one.is_empty() || other.is_empty() => twins.push(alias(at)),
                _ => {}
            },
            _ => {}
        }
    }
    Target { name: alias(target), joined, twins }
}

/// The literal that an argument is, casts aside.
fn literal(at: At<'_>) -> Option<&str> {
    let mut at = at;
    while at.name() == "TypeCast" {
        at = at.get("arg")?;
    }
    if at.name() == "A_Const" { at.string() } else { None }
}
