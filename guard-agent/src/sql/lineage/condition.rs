//! A condition enters; how it uses which columns is noted, and what decides it leaves.

use super::functions;
use super::resolver::Resolver;
use super::scope::Scope;
use super::value::Value;
use super::{Usage, expression};
use crate::sql::postgres::reference::At;

/// `AEXPR_OP`, `AEXPR_OP_ANY`, `AEXPR_IN`, `AEXPR_NULLIF`, `AEXPR_DISTINCT`, `AEXPR_NOT_DISTINCT`.
const OPERATOR: u64 = 1;
const ANY: u64 = 2;
const NOT_DISTINCT: u64 = 5;
const NULLIF: u64 = 6;
const IN: u64 = 7;

impl<'w> Resolver<'w> {
    /// Notes what a condition uses. Of the answer, `shows` is what it tells completely.
    pub fn condition(&mut self, at: At<'w>, usage: Usage, scope: &Scope<'_, 'w>) -> Value {
        let mut total = Value::default();
        let mut stack = vec![at];
        while let Some(at) = stack.pop() {
            if self.broken {
                return Value::lost();
            }
            let part = match at.name() {
                "BoolExpr" => {
                    stack.extend(at.list("args"));
                    continue;
                }
                "BooleanTest" => {
                    stack.extend(at.list("arg"));
                    continue;
                }
                "NullTest" => {
                    let value = self.all_of(at.list("arg"), scope);
                    self.uses(&value, usage, true);
                    let mut decides = Value::default();
                    decides.steer_by(&value);
                    decides
                }
                "A_Expr" if is_comparison(at) => self.comparison(at, usage, scope),
                "SubLink" => self.compare_with_query(at, usage, scope),
                _ => {
                    let value = self.value(at, scope);
                    self.uses(&value, usage, false);
                    value
                }
            };
            total.add(&part);
        }
        total
    }

    fn comparison(&mut self, at: At<'w>, usage: Usage, scope: &Scope<'_, 'w>) -> Value {
        let operator = at.names("name").last().copied().unwrap_or("");
        let equality = match at.number("kind") {
            OPERATOR | ANY | IN | NULLIF => operator == "=",
            NOT_DISTINCT => true,
            _ => false,
        };
        let side = |field| -> Vec<At<'w>> { at.list(field).flat_map(parts).collect() };
        self.compare(&side("lexpr"), &side("rexpr"), equality, usage, scope)
    }

    /// Notes a comparison of what stands on its two sides.
    pub fn compare(
        &mut self,
        left: &[At<'w>],
        right: &[At<'w>],
        equality: bool,
        usage: Usage,
        scope: &Scope<'_, 'w>,
    ) -> Value {
        let values = [left, right].map(|side| self.all_of(side.iter().copied(), scope));
        let constant = [left, right].map(|side| side.iter().all(|at| is_constant(*at)));
        let whole = [left, right].map(|side| side.iter().all(|at| is_whole(*at)));
        let mut total = Value::default();
        for (index, value) in values.iter().enumerate() {
            let other = 1 - index;
            let with_constant = constant.get(other).copied().unwrap_or(false);
            let as_it_is = whole.get(index).copied().unwrap_or(false);
            let usage = if with_constant { usage } else { Usage::Join };
            self.uses(value, usage, equality && with_constant && as_it_is);
            total.steer_by(value);
            // True or false is all that such a column holds.
            for place in self.booleans(value) {
                total.add(&Value { changed: true, ..Value::column(place) });
            }
        }
        total
    }

    /// EXISTS, IN, ANY, ALL of a query.
    fn compare_with_query(&mut self, at: At<'w>, usage: Usage, scope: &Scope<'_, 'w>) -> Value {
        let Some(query) = at.get("subselect") else { return Value::lost() };
        let kind = at.number("sub_link_type");
        const COMPARING: [u64; 3] = [2, 3, 4];
        if !COMPARING.contains(&kind) && kind != expression::EXISTS {
            let value = self.value(at, scope);
            self.uses(&value, usage, false);
            return value;
        }
        let rows = self.query(query, scope);
        let mut total = Value::default();
        if let Some(tested) = at.get("testexpr") {
            let tested = self.value(tested, scope);
            for value in [&tested, &rows.whole()] {
                self.uses(value, Usage::Join, false);
                total.steer_by(value);
            }
        }
        total
    }

    /// PARTITION BY, ORDER BY and the frame of a window.
    pub fn window(&mut self, at: At<'w>, scope: &Scope<'_, 'w>) {
        let value = self.all_of(at.list("partition_clause"), scope);
        self.uses(&value, Usage::Group, false);
        let value = self.all_of(at.list("order_clause").filter_map(|sort| sort.get("node")), scope);
        self.uses(&value, Usage::Order, false);
        let value = self.all_of(at.list("start_offset").chain(at.list("end_offset")), scope);
        self.uses(&value, Usage::Where, false);
    }
}

/// The parts of a list, or the one part that it is.
fn parts(at: At<'_>) -> Vec<At<'_>> {
    if at.name() == "List" { at.list("items").collect() } else { vec![at] }
}

fn is_comparison(at: At<'_>) -> bool {
    at.number("kind") != OPERATOR || functions::is_comparison(&at.names("name"))
}

/// Whether no column has a say in it.
fn is_constant(at: At<'_>) -> bool {
    let mut stack = vec![at];
    while let Some(at) = stack.pop() {
        if matches!(at.name(), "ColumnRef" | "SubLink") {
            return false;
        }
        stack.extend(at.children());
    }
    true
}

/// Whether it is a column as it is, but for its type and the case of its letters: no part cut out of it.
fn is_whole(at: At<'_>) -> bool {
    let mut stack = vec![at];
    while let Some(at) = stack.pop() {
        match at.name() {
            "ColumnRef" => {}
            "CollateClause" => stack.extend(at.get("arg")),
            "TypeCast" if at.get("type_name").is_some_and(|ty| ty.list("typmods").next().is_none()) => {
                stack.extend(at.get("arg"));
            }
            "RowExpr" => stack.extend(at.list("args")),
            "FuncCall"
                if matches!(at.names("funcname").last(), Some(&("lower" | "upper" | "btrim")))
                    && at.list("args").count() == 1 =>
            {
                stack.extend(at.list("args"));
            }
            _ => return false,
        }
    }
    true
}
