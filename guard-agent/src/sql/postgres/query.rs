//! A query's tree enters, its effects leave: tables read and written, functions called, locks taken.
//!
//! DML counts wherever it hides. A construct of another dialect means that the parser misread: nothing is concluded.

use std::collections::HashMap;
use std::ops::ControlFlow;

use guard_policy::vocabulary::{Action, Object, ObjectKind};
use sqlparser::ast::{
    BinaryOperator, Delete, Expr, FromTable, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Insert, Merge, MergeAction, MergeClauseKind, ObjectName, OnConflictAction, OnInsert, Query, Select,
    SelectFlavor, Statement, TableFactor, TableObject, Update, UpdateTableFromKind, Value, Visit, Visitor,
};

use super::calls;
use super::grammar::Parsed;
use super::keywords::{self, Category};
use super::predicate::Target;
use crate::sql::effects::Findings;

/// The tree holds what PostgreSQL's grammar does not have.
#[derive(Debug, PartialEq, Eq)]
pub struct Misread;

/// Adds the effects of one query.
///
/// # Errors
/// [`Misread`] when the tree can't be right; `findings` may then hold a part of the effects.
pub fn read(parsed: &Parsed, findings: &mut Findings) -> Result<(), Misread> {
    let before = findings.added();
    for (schema, name) in &parsed.creates {
        findings.add(Action::Create, Object::named(ObjectKind::Table, schema.as_deref(), name));
    }
    let mut walk = Walk {
        findings,
        frames: Vec::new(),
        stack: Vec::new(),
        known: HashMap::default(),
        targets: Vec::new(),
        locks: 0,
    };
    if parsed.query.visit(&mut walk).is_break() {
        return Err(Misread);
    }
    if findings.added() == before {
        // Computes without a table: `SELECT 1`.
        findings.add_any(Action::Select, ObjectKind::Session);
    }
    Ok(())
}

/// Names that one WITH brings in, and what was visible around it.
struct Frame {
    names: Vec<String>,
    outer: Option<usize>,
}

struct Walk<'a> {
    findings: &'a mut Findings,
    frames: Vec<Frame>,
    /// What each query that is being visited can see.
    stack: Vec<Option<usize>>,
    /// What the queries of CTEs can see, by address: less than their siblings.
    known: HashMap<*const Query, Option<usize>, ahash::RandomState>,
    /// Table factors that are targets, not sources.
    targets: Vec<*const TableFactor>,
    /// Queries with a locking clause that are being visited.
    locks: usize,
}

const GO_ON: ControlFlow<Misread> = ControlFlow::Continue(());

impl Visitor for Walk<'_> {
    type Break = Misread;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Misread> {
        if !query.pipe_operators.is_empty()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || query.for_clause.is_some()
        {
            return ControlFlow::Break(Misread);
        }
        let around = self.stack.last().copied().flatten();
        let mut visible = self.known.remove(&std::ptr::from_ref(query)).unwrap_or(around);
        if let Some(with) = &query.with {
            if with.recursive {
                let names = with.cte_tables.iter().map(|cte| cte.alias.name.value.clone()).collect();
                visible = self.frame(names, visible);
            }
            for cte in &with.cte_tables {
                self.known.insert(std::ptr::from_ref(cte.query.as_ref()), visible);
                if !with.recursive {
                    visible = self.frame(vec![cte.alias.name.value.clone()], visible);
                }
            }
        }
        self.stack.push(visible);
        self.locks += usize::from(!query.locks.is_empty());
        GO_ON
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Misread> {
        self.stack.pop();
        self.locks -= usize::from(!query.locks.is_empty());
        GO_ON
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Misread> {
        let foreign = !select.connect_by.is_empty()
            || select.prewhere.is_some()
            || select.qualify.is_some()
            || select.top.is_some()
            || select.into.is_some()
            || select.exclude.is_some()
            || select.value_table_mode.is_some()
            || !select.lateral_views.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || !matches!(select.flavor, SelectFlavor::Standard);
        if foreign { ControlFlow::Break(Misread) } else { GO_ON }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Misread> {
        if self.targets.contains(&std::ptr::from_ref(factor)) {
            return GO_ON;
        }
        match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                let first = match factor {
                    TableFactor::Table { args: Some(args), .. } => args.args.first(),
                    TableFactor::Function { args, .. } => args.first(),
                    _ => None,
                };
                self.call(name, first)
            }
            TableFactor::Table { name, .. } => self.source(name),
            TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::JsonTable { .. }
            | TableFactor::XmlTable { .. } => GO_ON,
            _ => ControlFlow::Break(Misread),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Misread> {
        match expr {
            Expr::Function(function) => self.function(function),
            Expr::BinaryOp { op: BinaryOperator::PGCustomBinaryOperator(parts), .. } => {
                // The parser keeps the quotes that names got on the way to it.
                if let [schema, operator] = parts.as_slice()
                    && schema.trim_matches('"') != "pg_catalog"
                {
                    let object =
                        Object::named(ObjectKind::Function, Some(schema.trim_matches('"')), operator);
                    self.findings.add(Action::Function, object);
                }
                GO_ON
            }
            Expr::JsonAccess { .. }
            | Expr::InUnnest { .. }
            | Expr::RLike { .. }
            | Expr::Convert { .. }
            | Expr::Prefixed { .. }
            | Expr::Struct { .. }
            | Expr::Dictionary(_)
            | Expr::Map(_)
            | Expr::MatchAgainst { .. }
            | Expr::OuterJoin(_)
            | Expr::Prior(_)
            | Expr::Lambda(_)
            | Expr::MemberOf(_) => ControlFlow::Break(Misread),
            _ => GO_ON,
        }
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Misread> {
        let read = match statement {
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            Statement::Merge(merge) => self.merge(merge),
            _ => None,
        };
        if read.is_some() { GO_ON } else { ControlFlow::Break(Misread) }
    }
}

impl Walk<'_> {
    fn frame(&mut self, names: Vec<String>, outer: Option<usize>) -> Option<usize> {
        self.frames.push(Frame { names, outer });
        Some(self.frames.len() - 1)
    }

    fn is_cte(&self, name: &str) -> bool {
        let mut at = self.stack.last().copied().flatten();
        while let Some(frame) = at.and_then(|index| self.frames.get(index)) {
            if frame.names.iter().any(|known| known == name) {
                return true;
            }
            at = frame.outer;
        }
        false
    }

    fn source(&mut self, name: &ObjectName) -> ControlFlow<Misread> {
        let Some((schema, table)) = last_two(name) else { return ControlFlow::Break(Misread) };
        if schema.is_none() && self.is_cte(table) {
            return GO_ON;
        }
        let object = Object::named(ObjectKind::Table, schema, table);
        if self.locks > 0 {
            self.findings.add(Action::Lock, object.clone());
        }
        self.findings.add(Action::Select, object);
        GO_ON
    }

    fn function(&mut self, function: &Function) -> ControlFlow<Misread> {
        let first = match &function.args {
            FunctionArguments::List(list) => list.args.first(),
            // `ARRAY(SELECT ..)`; no real function takes a query without parentheses of its own.
            FunctionArguments::Subquery(_) => {
                let array = matches!(function.name.0.as_slice(), [one] if one.as_ident().is_some_and(|ident| {
                    ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("array")
                }));
                return if array { GO_ON } else { ControlFlow::Break(Misread) };
            }
            FunctionArguments::None => None,
        };
        self.call(&function.name, first)
    }

    fn call(&mut self, name: &ObjectName, first: Option<&FunctionArg>) -> ControlFlow<Misread> {
        // A bare keyword is syntax, not a name: coalesce, greatest, current_date.
        let special = matches!(name.0.as_slice(), [one] if one.as_ident().is_some_and(|ident| {
            ident.quote_style.is_none()
                && matches!(keywords::category(&ident.value), Some(Category::Column | Category::Reserved))
        }));
        if special {
            return GO_ON;
        }
        let Some((schema, name)) = last_two(name) else { return ControlFlow::Break(Misread) };
        calls::add(self.findings, schema, name, first.and_then(literal));
        GO_ON
    }

    fn insert(&mut self, insert: &Insert) -> Option<()> {
        let TableObject::TableName(name) = &insert.table else { return None };
        if insert.or.is_some()
            || insert.overwrite
            || insert.replace_into
            || insert.partitioned.is_some()
            || !insert.assignments.is_empty()
            || insert.multi_table_insert_type.is_some()
        {
            return None;
        }
        let object = table(name)?;
        match &insert.on {
            None => {}
            Some(OnInsert::OnConflict(conflict)) => {
                if let OnConflictAction::DoUpdate(_) = conflict.action {
                    self.findings.add_filtered(Action::Update, object.clone(), true);
                }
            }
            Some(_) => return None,
        }
        self.findings.add(Action::Insert, object);
        Some(())
    }

    fn update(&mut self, update: &Update) -> Option<()> {
        if update.or.is_some()
            || !update.table.joins.is_empty()
            || !update.order_by.is_empty()
            || update.limit.is_some()
        {
            return None;
        }
        let joined = match &update.from {
            None => false,
            Some(UpdateTableFromKind::AfterSet(_)) => true,
            Some(UpdateTableFromKind::BeforeSet(_)) => return None,
        };
        let (object, alias) = self.target(&update.table.relation)?;
        let has_where = Target { name: &alias, joined }.restricted_by(update.selection.as_ref());
        calls::through_view(self.findings, &object);
        self.findings.add_filtered(Action::Update, object, has_where);
        Some(())
    }

    fn delete(&mut self, delete: &Delete) -> Option<()> {
        let FromTable::WithFromKeyword(from) = &delete.from else { return None };
        let [from] = from.as_slice() else { return None };
        if !delete.tables.is_empty()
            || !from.joins.is_empty()
            || !delete.order_by.is_empty()
            || delete.limit.is_some()
        {
            return None;
        }
        let (object, alias) = self.target(&from.relation)?;
        let has_where =
            Target { name: &alias, joined: delete.using.is_some() }.restricted_by(delete.selection.as_ref());
        self.findings.add_filtered(Action::Delete, object, has_where);
        Some(())
    }

    fn merge(&mut self, merge: &Merge) -> Option<()> {
        let (object, alias) = self.target(&merge.table)?;
        let target = Target { name: &alias, joined: true };
        let matched = target.restricted_by(Some(&merge.on));
        for clause in &merge.clauses {
            // BY SOURCE is every row that the condition did not choose.
            let chosen = matched && clause.clause_kind != MergeClauseKind::NotMatchedBySource;
            let has_where = chosen || target.restricted_by(clause.predicate.as_ref());
            match &clause.action {
                MergeAction::Insert(_) => self.findings.add(Action::Insert, object.clone()),
                MergeAction::Update(_) => {
                    self.findings.add_filtered(Action::Update, object.clone(), has_where)
                }
                MergeAction::Delete { .. } => {
                    self.findings.add_filtered(Action::Delete, object.clone(), has_where)
                }
                MergeAction::DoNothing { .. } => {}
            }
        }
        self.findings.add(Action::Merge, object);
        Some(())
    }

    /// The table that is changed, and the name under which its columns go.
    fn target(&mut self, factor: &TableFactor) -> Option<(Object, String)> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        self.targets.push(std::ptr::from_ref(factor));
        let object = table(name)?;
        let alias = alias.as_ref().map_or_else(|| object.name.clone(), |alias| alias.name.value.clone());
        Some((object, alias))
    }
}

fn table(name: &ObjectName) -> Option<Object> {
    last_two(name).map(|(schema, name)| Object::named(ObjectKind::Table, schema, name))
}

/// Schema and name of `name`, `schema.name` or `database.schema.name`.
fn last_two(name: &ObjectName) -> Option<(Option<&str>, &str)> {
    let part = |back: usize| {
        name.0.len().checked_sub(back).and_then(|at| name.0.get(at)).and_then(|part| part.as_ident())
    };
    if name.0.len() > 3 {
        return None;
    }
    let schema = part(2).map(|ident| ident.value.as_str());
    part(1).map(|ident| (schema, ident.value.as_str()))
}

fn literal(argument: &FunctionArg) -> Option<&str> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}
