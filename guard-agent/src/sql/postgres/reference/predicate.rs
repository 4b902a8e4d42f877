//! A WHERE enters, whether it can choose among the rows of the target leaves.
//!
//! Conditions without a column of the target, and those whose columns cannot matter, choose nothing. What a literal
//! says never matters: statements that differ in literals share one reading.

use super::tree::At;

/// `AND_EXPR`, `OR_EXPR`.
const AND: u64 = 1;
const OR: u64 = 2;
/// Kinds of `A_Expr`.
const OP_ANY: u64 = 2;
const OP_ALL: u64 = 3;
const IN: u64 = 7;
const LIKE: std::ops::RangeInclusive<u64> = 8..=10;
const BETWEEN: std::ops::RangeInclusive<u64> = 11..=14;
/// `EXISTS_SUBLINK`, `ALL_SUBLINK`, `ANY_SUBLINK`.
const EXISTS: u64 = 1;
const COMPARING: std::ops::RangeInclusive<u64> = 2..=4;

/// The table that an UPDATE or DELETE changes.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// Its alias, or its name without the schema.
    pub name: &'a str,
    /// There are other tables (FROM, USING): only columns that may be the target's count.
    pub joined: bool,
    /// What the same table is called where it stands among the others once more: each row finds itself there.
    pub twins: Vec<&'a str>,
}

/// Deeper nesting than this counts as choosing nothing.
const MAX_DEPTH: usize = 64;

impl Target<'_> {
    /// Whether `condition` can choose among the target's rows.
    pub fn restricted_by(&self, condition: Option<At<'_>>) -> bool {
        condition.is_some_and(|condition| self.restricts(condition, false, 0))
    }

    /// `negated`: under a NOT, where AND and OR change places.
    fn restricts(&self, at: At<'_>, negated: bool, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return false;
        }
        let next = depth + 1;
        let at = bare(at);
        match at.name() {
            // INVARIANT: BooleanTest counts from IS_TRUE = 1: IS_NOT_TRUE, IS_FALSE, IS_NOT_FALSE, IS_UNKNOWN.
            "BooleanTest" => match (at.get("arg"), at.number("booltesttype")) {
                (Some(arg), 1 | 4) => self.restricts(arg, negated, next),
                (Some(arg), 2 | 3) => self.restricts(arg, !negated, next),
                _ => self.depends(at),
            },
            "BoolExpr" => self.combined(at, negated, next),
            // One row: where the cursor stands.
            "CurrentOfExpr" => true,
            // `IS_NOT_NULL` of what is never null.
            "NullTest" if at.number("nulltesttype") == 2 && at.get("arg").is_some_and(is_system) => false,
            "CoalesceExpr" => {
                self.depends(at) && at.list("args").next().is_some_and(|first| self.depends(first))
            }
            "CaseExpr" => self.depends(at) && self.varies(at),
            "SubLink" => self.sublink(at),
            "A_Expr" => self.comparison(at),
            _ => self.depends(at),
        }
    }

    fn combined(&self, at: At<'_>, negated: bool, depth: usize) -> bool {
        let mut operands = at.list("args");
        match at.number("boolop") {
            kind @ (AND | OR) if (kind == AND) == negated => {
                operands.clone().all(|operand| self.restricts(operand, negated, depth))
                    && !covers_all(&operands.collect::<Vec<_>>())
            }
            AND | OR => operands.any(|operand| self.restricts(operand, negated, depth)),
            _ => operands.next().is_some_and(|operand| self.restricts(operand, !negated, depth)),
        }
    }

    /// Whether the results of a CASE differ.
    fn varies(&self, at: At<'_>) -> bool {
        let Some(otherwise) = at.get("defresult") else { return true };
        let mut results = at.list("args").filter_map(|when| when.get("result"));
        self.depends(otherwise) || !results.all(|result| bare(result).same(bare(otherwise)))
    }

    fn sublink(&self, at: At<'_>) -> bool {
        let subquery = at.get("subselect");
        match at.number("sub_link_type") {
            EXISTS => subquery.is_some_and(|subquery| self.depends(subquery)),
            kind if COMPARING.contains(&kind) => at.get("testexpr").is_some_and(|tested| {
                self.depends(tested)
                    && !subquery.is_some_and(|subquery| self.selects_itself(tested, subquery))
            }),
            _ => self.depends(at),
        }
    }

    fn comparison(&self, at: At<'_>) -> bool {
        let (Some(left), Some(right)) = (at.get("lexpr"), at.get("rexpr")) else {
            return self.depends(at);
        };
        let items = || right.list("items");
        match at.number("kind") {
            IN => self.depends(left) && !items().any(|item| self.same(left, item)),
            kind if BETWEEN.contains(&kind) => {
                self.depends(left) && !items().all(|item| self.same(left, item))
            }
            OP_ANY | OP_ALL if bare(right).name() == "A_ArrayExpr" => {
                self.depends(left) && !bare(right).list("elements").any(|item| self.same(left, item))
            }
            kind => {
                let operator = at.names("name").last().copied().unwrap_or("");
                let like = LIKE.contains(&kind) || matches!(operator, "~~" | "~~*" | "!~~" | "!~~*");
                let regex = matches!(operator, "~" | "~*" | "!~" | "!~*");
                (self.depends(left) || self.depends(right))
                    && !self.same(left, right)
                    && !(operator == "=" && self.finds_itself(left, right))
                    && !(like && matches_all(right, |c| c == '%'))
                    && !(regex && matches_all(right, |c| matches!(c, '.' | '*' | '^' | '$')))
            }
        }
    }

    /// The same expression twice: the same column however it is qualified.
    fn same(&self, left: At<'_>, right: At<'_>) -> bool {
        let (left, right) = (bare(left), bare(right));
        match (self.column(left), self.column(right)) {
            (Some(left), Some(right)) => left == right,
            _ => left.same(right),
        }
    }

    /// The same column of the table and of its twin.
    fn finds_itself(&self, left: At<'_>, right: At<'_>) -> bool {
        let column = |at| match bare(at).names("fields").as_slice() {
            [.., table, column] if bare(at).name() == "ColumnRef" => Some((*table, *column)),
            _ => None,
        };
        let twin = |table: &str| self.twins.contains(&table);
        match (column(left), column(right)) {
            (Some((own, left)), Some((other, right))) => {
                left == right && ((own == self.name && twin(other)) || (other == self.name && twin(own)))
            }
            _ => false,
        }
    }

    /// The name of a column that is the target's own.
    fn column<'t>(&self, at: At<'t>) -> Option<&'t str> {
        if at.name() != "ColumnRef" {
            return None;
        }
        match at.names("fields").as_slice() {
            [column] => Some(column),
            [.., table, column] if *table == self.name => Some(column),
            _ => None,
        }
    }

    /// `x IN (SELECT x)` and `x IN (SELECT x FROM target)`: every row.
    fn selects_itself(&self, tested: At<'_>, subquery: At<'_>) -> bool {
        let narrowed = ["where_clause", "having_clause", "limit_count", "limit_offset"];
        if narrowed.iter().any(|field| subquery.get(field).is_some()) {
            return false;
        }
        let mut from = subquery.list("from_clause");
        let itself = match (from.next(), from.next()) {
            (None, _) => true,
            (Some(only), None) => only.name() == "RangeVar" && only.text("relname") == self.name,
            _ => false,
        };
        let mut selected = subquery.list("target_list").filter_map(|target| target.get("val"));
        itself && selected.next().is_some_and(|selected| self.same(tested, selected))
    }

    /// Whether the value of an expression can differ from row to row of the target.
    fn depends(&self, at: At<'_>) -> bool {
        let mut frames: Vec<Locals<'_>> = Vec::new();
        let mut stack = vec![(at, None)];
        while let Some((at, mut scope)) = stack.pop() {
            if at.name() == "SelectStmt" {
                frames.push(Locals { names: local_names(at), outer: scope });
                scope = Some(frames.len() - 1);
            }
            if self.refers(at, &frames, scope) {
                return true;
            }
            stack.extend(at.children().map(|child| (child, scope)));
        }
        false
    }

    fn refers(&self, at: At<'_>, frames: &[Locals<'_>], scope: Option<usize>) -> bool {
        match at.name() {
            "ColumnRef" => match at.names("fields").as_slice() {
                // `*` alone; in a query's own list it means that query's tables.
                [] => scope.is_none(),
                // In a subquery with tables of its own an unqualified column is most likely one of theirs.
                [_] => !frames_around(frames, scope).any(|frame| !frame.names.is_empty()),
                [.., table, _] => {
                    !frames_around(frames, scope).any(|frame| frame.names.contains(table))
                        && (!self.joined || *table == self.name)
                }
            },
            // `inner.a = b`: whoever qualifies the one means another table by the other.
            "A_Expr" if scope.is_some() => {
                let parts = |field| at.get(field).filter(|side| side.name() == "ColumnRef");
                match (parts("lexpr"), parts("rexpr")) {
                    (Some(left), Some(right)) => {
                        let (left, right) = (left.names("fields").len(), right.names("fields").len());
                        (left == 1) != (right == 1)
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

/// Names of the tables of a subquery.
struct Locals<'t> {
    names: Vec<&'t str>,
    outer: Option<usize>,
}

fn frames_around<'f, 't>(
    frames: &'f [Locals<'t>],
    scope: Option<usize>,
) -> impl Iterator<Item = &'f Locals<'t>> {
    std::iter::successors(scope.and_then(|index| frames.get(index)), |frame| {
        frame.outer.and_then(|index| frames.get(index))
    })
}

/// Names that a query's own FROM brings in.
fn local_names<'t>(select: At<'t>) -> Vec<&'t str> {
    let mut names = Vec::new();
    let mut stack: Vec<At<'t>> = select.list("from_clause").collect();
    while let Some(at) = stack.pop() {
        match (at.get("alias"), at.name()) {
            (Some(alias), _) => names.push(alias.text("aliasname")),
            (None, "RangeVar") => names.push(at.text("relname")),
            (None, "JoinExpr") => {}
            _ => names.push(""),
        }
        if at.name() == "JoinExpr" {
            stack.extend(at.get("larg").into_iter().chain(at.get("rarg")));
        }
    }
    names
}

/// `x IS NULL OR x IS NOT NULL`, `x = a OR x <> a`, `x < a OR x >= a`, `x OR NOT x`.
fn covers_all(operands: &[At<'_>]) -> bool {
    const MOST: usize = 16;
    let name = |at: At<'_>| at.names("name").last().copied().unwrap_or("").to_owned();
    let complements = |left: At<'_>, right: At<'_>| {
        let pair = (left.name(), right.name());
        let all_same = |fields: &[&'static str]| {
            fields.iter().all(|field| match (left.get(field), right.get(field)) {
                (Some(left), Some(right)) => bare(left).same(bare(right)),
                _ => false,
            })
        };
        match pair {
            ("NullTest", "NullTest") => {
                left.number("nulltesttype") != right.number("nulltesttype") && all_same(&["arg"])
            }
            ("A_Expr", "A_Expr") => {
                matches!(
                    (name(left).as_str(), name(right).as_str()),
                    ("=", "<>" | "!=") | ("<", ">=") | ("<=", ">")
                ) && all_same(&["lexpr", "rexpr"])
            }
            (_, "BoolExpr") => right
                .list("args")
                .next()
                .is_some_and(|inner| right.number("boolop") > OR && bare(inner).same(left)),
            _ => false,
        }
    };
    operands.len() <= MOST
        && operands.iter().any(|left| operands.iter().any(|right| complements(bare(*left), bare(*right))))
}

/// A system column: every row has it.
fn is_system(at: At<'_>) -> bool {
    const COLUMNS: [&str; 6] = ["tableoid", "xmin", "xmax", "cmin", "cmax", "ctid"];
    let at = bare(at);
    at.name() == "ColumnRef" && at.names("fields").last().is_some_and(|column| COLUMNS.contains(column))
}

/// Without the casts and collations around it.
fn bare(at: At<'_>) -> At<'_> {
    let mut at = at;
    while matches!(at.name(), "TypeCast" | "CollateClause") {
        match at.get("arg") {
            Some(inner) => at = inner,
            None => break,
        }
    }
    at
}

fn matches_all(pattern: At<'_>, wild: fn(char) -> bool) -> bool {
    bare(pattern).string().is_some_and(|text| !text.is_empty() && text.chars().all(wild))
}
