//! A WHERE enters, whether it can choose among the rows of the target leaves.
//!
//! Conditions without a column of the target, and those whose columns cannot matter, choose nothing. It guards
//! against accidents and plain disguises; a condition that merely happens to be true for every row looks like any other.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, SetExpr, TableFactor, UnaryOperator, Value, Visit, Visitor,
};

/// The table that an UPDATE or DELETE changes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its alias, or its name without the schema.
    pub name: &'a str,
    /// There are other tables (FROM, USING): only columns that may be the target's count.
    pub joined: bool,
}

/// Deeper nesting than this counts as choosing nothing.
const MAX_DEPTH: usize = 64;

impl Target<'_> {
    /// Whether `condition` can choose among the target's rows.
    pub fn restricted_by(&self, condition: Option<&Expr>) -> bool {
        condition.is_some_and(|condition| self.restricts(condition, false, 0))
    }

    /// `negated`: under a NOT, where AND and OR change places.
    fn restricts(&self, expr: &Expr, negated: bool, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return false;
        }
        let next = depth + 1;
        match expr {
            Expr::Nested(inner) | Expr::Cast { expr: inner, .. } | Expr::Collate { expr: inner, .. } => {
                self.restricts(inner, negated, next)
            }
            Expr::IsTrue(inner) | Expr::IsNotFalse(inner) => self.restricts(inner, negated, next),
            Expr::IsFalse(inner) | Expr::IsNotTrue(inner) => self.restricts(inner, !negated, next),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => self.restricts(expr, !negated, next),
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                let operands = spine(expr, op);
                if (*op == BinaryOperator::And) == negated {
                    operands.iter().all(|operand| self.restricts(operand, negated, next))
                        && !covers_all(&operands)
                } else {
                    operands.iter().any(|operand| self.restricts(operand, negated, next))
                }
            }
            Expr::Function(function) if is_coalesce(function) => {
                self.depends(expr) && !first_argument_is_constant(self, function)
            }
            Expr::Case { conditions, else_result, .. } => {
                let mut results = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
                let first = results.next();
                let all_same = results.all(|result| first.is_some_and(|first| bare(first) == bare(result)));
                let varies =
                    !(all_same && else_result.is_some() && first.is_some_and(|first| !self.depends(first)));
                varies && self.depends(expr)
            }
            Expr::IsNotNull(inner) if is_system(inner) => false,
            Expr::Exists { subquery, .. } => self.correlated(subquery),
            Expr::InSubquery { expr, subquery, .. } => {
                self.depends(expr) && !self.selects_itself(expr, subquery)
            }
            Expr::InList { expr, list, .. } => {
                self.depends(expr) && !list.iter().any(|item| self.same(expr, item))
            }
            Expr::Between { expr, low, high, .. } => {
                self.depends(expr) && !(self.same(expr, low) && self.same(expr, high))
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.compares(left, right)
            }
            Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => match bare(right) {
                Expr::Array(array) => {
                    self.depends(left) && !array.elem.iter().any(|item| self.same(left, item))
                }
                Expr::Subquery(subquery) => self.depends(left) && !self.selects_itself(left, subquery),
                _ => self.depends(left) || self.depends(right),
            },
            Expr::Like { expr, pattern, .. }
            | Expr::ILike { expr, pattern, .. }
            | Expr::SimilarTo { expr, pattern, .. } => {
                self.compares(expr, pattern) && !matches_all(pattern, |c| c == '%')
            }
            Expr::BinaryOp { left, op, right } => {
                self.compares(left, right)
                    && !(is_like(op) && matches_all(right, |c| c == '%'))
                    && !(is_regex(op) && matches_all(right, |c| matches!(c, '.' | '*' | '^' | '$')))
            }
            _ => self.depends(expr),
        }
    }

    fn compares(&self, left: &Expr, right: &Expr) -> bool {
        (self.depends(left) || self.depends(right)) && !self.same(left, right)
    }

    /// The same expression twice: the same column however it is qualified.
    fn same(&self, left: &Expr, right: &Expr) -> bool {
        let (left, right) = (bare(left), bare(right));
        if left == right {
            return true;
        }
        match (self.column(left), self.column(right)) {
            (Some(left), Some(right)) => left == right,
            _ => false,
        }
    }

    /// The name of a column that is the target's own.
    fn column<'e>(&self, expr: &'e Expr) -> Option<&'e str> {
        match expr {
            Expr::Identifier(column) => Some(&column.value),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, column] if table.value == self.name => Some(&column.value),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the value of `expr` can differ from row to row of the target.
    fn depends(&self, expr: &Expr) -> bool {
        expr.visit(&mut References { target: *self, locals: Vec::new() }).is_break()
    }

    fn correlated(&self, subquery: &Query) -> bool {
        subquery.visit(&mut References { target: *self, locals: Vec::new() }).is_break()
    }

    /// `x IN (SELECT x)` and `x IN (SELECT x FROM target)`: every row.
    fn selects_itself(&self, expr: &Expr, subquery: &Query) -> bool {
        let SetExpr::Select(select) = subquery.body.as_ref() else { return false };
        if select.selection.is_some() || select.having.is_some() || subquery.limit_clause.is_some() {
            return false;
        }
        let itself = match select.from.as_slice() {
            [] => true,
            [one] => {
                one.joins.is_empty()
                    && matches!(&one.relation, TableFactor::Table { name, .. }
                if name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| ident.value == self.name))
            }
            _ => false,
        };
        let selected = match select.projection.as_slice() {
            [
                sqlparser::ast::SelectItem::UnnamedExpr(item)
                | sqlparser::ast::SelectItem::ExprWithAlias { expr: item, .. },
            ] => item,
            _ => return false,
        };
        itself && self.same(expr, selected)
    }
}

/// Breaks at the first column that may be the target's.
struct References<'a> {
    target: Target<'a>,
    /// Names of the tables of the subqueries that are being visited, and whether there are any.
    locals: Vec<Vec<String>>,
}

impl Visitor for References<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut names = Names::default();
        let _ = query.body.visit(&mut names);
        self.locals.push(names.0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.locals.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let counts = match expr {
            // In a subquery with tables of its own an unqualified column is most likely one of theirs.
            Expr::Identifier(_) => self.locals.iter().all(Vec::is_empty),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, _] => self.outer(table),
                _ => true,
            },
            // `inner.a = b`: whoever qualifies the one means another table by the other.
            Expr::BinaryOp { left, right, .. } if !self.locals.is_empty() => matches!(
                (left.as_ref(), right.as_ref()),
                (Expr::Identifier(_), Expr::CompoundIdentifier(_))
                    | (Expr::CompoundIdentifier(_), Expr::Identifier(_))
            ),
            Expr::QualifiedWildcard(..) | Expr::Wildcard(_) => self.locals.is_empty(),
            _ => false,
        };
        if counts { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl References<'_> {
    fn outer(&self, table: &Ident) -> bool {
        let local = self.locals.iter().flatten().any(|local| *local == table.value);
        !local && (!self.target.joined || table.value == self.target.name)
    }
}

/// Names of the tables that a query's own FROM brings in.
#[derive(Default)]
struct Names(Vec<String>);

impl Visitor for Names {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. } => alias,
            _ => &None,
        };
        match (alias, factor) {
            (Some(alias), _) => self.0.push(alias.name.value.clone()),
            (None, TableFactor::Table { name, .. }) => {
                self.0
                    .extend(name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone()));
            }
            _ => self.0.push(String::new()),
        }
        ControlFlow::Continue(())
    }
}

/// The operands of a chain of one operator, without recursion: chains may be long.
fn spine<'e>(expr: &'e Expr, op: &BinaryOperator) -> Vec<&'e Expr> {
    let mut operands = Vec::new();
    let mut rest = expr;
    while let Expr::BinaryOp { left, op: this, right } = rest
        && this == op
    {
        operands.push(right.as_ref());
        rest = left;
    }
    operands.push(rest);
    operands
}

/// `x IS NULL OR x IS NOT NULL`, `x = a OR x <> a`, `x < a OR x >= a`.
fn covers_all(operands: &[&Expr]) -> bool {
    const MOST: usize = 16;
    let complements = |left: &Expr, right: &Expr| match (bare(left), bare(right)) {
        (Expr::IsNull(left), Expr::IsNotNull(right)) => bare(left) == bare(right),
        (
            Expr::BinaryOp { left: a, op: first, right: b },
            Expr::BinaryOp { left: c, op: second, right: d },
        ) => {
            matches!(
                (first, second),
                (BinaryOperator::Eq, BinaryOperator::NotEq)
                    | (BinaryOperator::Lt, BinaryOperator::GtEq)
                    | (BinaryOperator::LtEq, BinaryOperator::Gt)
            ) && bare(a) == bare(c)
                && bare(b) == bare(d)
        }
        (positive, Expr::UnaryOp { op: UnaryOperator::Not, expr }) => positive == bare(expr),
        _ => false,
    };
    operands.len() <= MOST
        && operands.iter().any(|left| operands.iter().any(|right| complements(left, right)))
}

/// A system column: every row has it.
fn is_system(expr: &Expr) -> bool {
    const COLUMNS: [&str; 6] = ["tableoid", "xmin", "xmax", "cmin", "cmax", "ctid"];
    match bare(expr) {
        Expr::Identifier(column) => COLUMNS.contains(&column.value.as_str()),
        Expr::CompoundIdentifier(parts) => {
            parts.last().is_some_and(|column| COLUMNS.contains(&column.value.as_str()))
        }
        _ => false,
    }
}

/// Without the parentheses and casts around it.
fn bare(expr: &Expr) -> &Expr {
    let mut expr = expr;
    while let Expr::Nested(inner) | Expr::Cast { expr: inner, .. } = expr {
        expr = inner;
    }
    expr
}

fn is_like(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::PGLikeMatch
            | BinaryOperator::PGILikeMatch
            | BinaryOperator::PGNotLikeMatch
            | BinaryOperator::PGNotILikeMatch
    )
}

fn is_regex(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch
    )
}

fn matches_all(pattern: &Expr, wild: fn(char) -> bool) -> bool {
    match bare(pattern) {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => !text.is_empty() && text.chars().all(wild),
            _ => false,
        },
        _ => false,
    }
}

fn is_coalesce(function: &sqlparser::ast::Function) -> bool {
    matches!(function.name.0.as_slice(), [one] if one.as_ident().is_some_and(|ident| ident.value == "coalesce"))
}

fn first_argument_is_constant(target: &Target<'_>, function: &sqlparser::ast::Function) -> bool {
    use sqlparser::ast::{FunctionArg, FunctionArgExpr, FunctionArguments};
    match &function.args {
        FunctionArguments::List(list) => match list.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) => !target.depends(first),
            _ => false,
        },
        _ => false,
    }
}
