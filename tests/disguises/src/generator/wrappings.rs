//! What can be put round a text of one form, and what form comes of it.

use super::Form;

/// A pattern in which `{}` stands for the text, `{'}` for the text as the inside of a literal.
#[derive(Clone, Copy, Debug)]
pub struct Wrapping {
    takes: &'static [Form],
    /// `None`: the form stays.
    gives: Option<Form>,
    /// The pattern.
    pub pattern: &'static str,
    /// What it runs cannot be seen in its text.
    pub hides: bool,
}

impl Wrapping {
    const fn new(takes: &'static [Form], gives: Form, pattern: &'static str) -> Self {
        Self { takes, gives: Some(gives), pattern, hides: false }
    }

    /// Whether it can go round a text of this form.
    pub fn takes(&self, form: Form) -> bool {
        self.takes.contains(&form)
    }

    /// The form that comes of it.
    pub fn gives(&self, form: Form) -> Form {
        self.gives.unwrap_or(form)
    }

    /// Puts it round `text`.
    pub fn apply(&self, text: &str) -> String {
        let quoted = text.replace('\'', "''");
        let (start, rest) = quoted.split_at(split(&quoted));
        // A body within a body of the same tag would end it.
        let pattern = match TAGS.iter().find(|tag| self.pattern.contains(*tag) && text.contains(*tag)) {
            Some(tag) => self.pattern.replace(tag, &format!("${}_{}$", tag.trim_matches('$'), text.len())),
            None => self.pattern.to_owned(),
        };
        pattern.replace("{'1}", start).replace("{'2}", rest).replace("{'}", &quoted).replace("{}", text)
    }
}

/// Tags of the bodies in patterns.
const TAGS: &[&str] = &["$do$", "$x$", "$y$", "$z$"];

/// A place to cut a literal's inside in two: never between doubled apostrophes.
fn split(quoted: &str) -> usize {
    let middle = quoted.len() / 2;
    (middle..quoted.len())
        .find(|at| {
            quoted.is_char_boundary(*at)
                && quoted[..*at].matches('\'').count().is_multiple_of(2)
                && !quoted[*at..].starts_with('\'')
        })
        .unwrap_or(0)
}

use Form::{Change, Expression, Query, Statement, Text, TopQuery};

const E: &[Form] = &[Expression];
const C: &[Form] = &[Change];
const Q: &[Form] = &[Query];
/// What EXPLAIN ANALYZE, PREPARE and COPY take.
const PLANNED: &[Form] = &[Change, Query, TopQuery];
const QUERIES: &[Form] = &[Query, TopQuery];
const SINGLE: &[Form] = &[Change, Query, TopQuery, Statement];
const ANY: &[Form] = &[Change, Query, TopQuery, Statement, Text];
const NO_ROWS: &[Form] = &[Change, Statement];

/// All of them.
pub const ALL: &[Wrapping] = &[
    Wrapping::new(E, Expression, "({})"),
    Wrapping::new(E, Expression, "coalesce({}, NULL)"),
    Wrapping::new(E, Expression, "CAST(({}) AS text)::text"),
    Wrapping::new(E, Expression, "CASE WHEN ({}) IS NULL THEN 0 ELSE 1 END"),
    Wrapping::new(E, Expression, "CASE 1 WHEN 1 THEN ({}) END"),
    Wrapping::new(E, Expression, "(ARRAY[{}])[1]"),
    Wrapping::new(E, Expression, "(SELECT {})"),
    Wrapping::new(E, Expression, "(SELECT x FROM (VALUES ({})) v (x))"),
    Wrapping::new(E, Expression, "length(({})::text)"),
    Wrapping::new(E, Expression, "greatest({}, NULL)"),
    Wrapping::new(E, Expression, "(ROW({}, 1) IS NULL)::int"),
    Wrapping::new(E, Expression, "(({}) IS DISTINCT FROM NULL)::int"),
    Wrapping::new(E, Expression, "json_build_object('a', {}) ->> 'a'"),
    Wrapping::new(E, Expression, "format('%s', VARIADIC ARRAY[{}])"),
    Wrapping::new(E, Expression, "(SELECT max(x::text) FROM (SELECT {} AS x) s)"),
    Wrapping::new(
        E,
        Expression,
        "(SELECT l.x FROM generate_series(1, 1) g, LATERAL (SELECT {} AS x OFFSET 0) l)",
    ),
    Wrapping::new(E, Query, "SELECT {}"),
    Wrapping::new(E, Query, "SELECT 1 AS a, {} AS \"from\""),
    Wrapping::new(E, Query, "SELECT 1 WHERE ({}) IS NOT NULL"),
    Wrapping::new(E, Query, "SELECT 1 ORDER BY {}"),
    Wrapping::new(E, Query, "SELECT 1 GROUP BY ({})"),
    Wrapping::new(E, Query, "SELECT count(*) HAVING ({}) IS NOT NULL"),
    Wrapping::new(E, Query, "SELECT DISTINCT ON ({}) 1"),
    Wrapping::new(E, Query, "SELECT 1 LIMIT length(({})::text)"),
    Wrapping::new(E, Query, "SELECT 1 OFFSET length(({})::text)"),
    Wrapping::new(E, Query, "SELECT rank() OVER (PARTITION BY ({}))"),
    Wrapping::new(E, Query, "SELECT count(*) FILTER (WHERE ({}) IS NOT NULL) FROM (VALUES (1)) v"),
    Wrapping::new(E, Query, "SELECT string_agg('a', 'b' ORDER BY ({}))"),
    Wrapping::new(E, Query, "VALUES (1, {})"),
    Wrapping::new(E, Query, "SELECT 1 UNION ALL SELECT length(({})::text)"),
    Wrapping::new(E, Query, "WITH c AS MATERIALIZED (SELECT {} AS x) SELECT * FROM c"),
    Wrapping::new(E, Query, "SELECT 1 FROM (VALUES (1)) a (x) JOIN (VALUES (1)) b (y) ON ({}) IS NOT NULL"),
    Wrapping::new(E, Query, "SELECT * FROM generate_series(1, length(({})::text))"),
    Wrapping::new(E, Change, "INSERT INTO log (what) VALUES (({})::text)"),
    Wrapping::new(E, Change, "UPDATE scripts SET line = line WHERE ({}) IS NULL"),
    Wrapping::new(C, TopQuery, "WITH x AS ({} RETURNING 1) SELECT 1"),
    Wrapping::new(C, TopQuery, "WITH x AS ({}) SELECT 1"),
    Wrapping::new(C, TopQuery, "WITH x AS ({} RETURNING 1 AS one) TABLE x"),
    Wrapping::new(C, TopQuery, "WITH a AS (SELECT 1), x AS ({}), b (c) AS (VALUES (2)) SELECT * FROM a, b"),
    Wrapping::new(
        C,
        TopQuery,
        "WITH RECURSIVE r (n) AS (SELECT 1 UNION SELECT n FROM r), x AS ({}) SELECT * FROM r",
    ),
    Wrapping::new(C, TopQuery, "((WITH x AS ({} RETURNING 1) SELECT * FROM x LIMIT 0))"),
    Wrapping::new(C, Change, "WITH x AS ({} RETURNING 1) INSERT INTO scripts SELECT 'x' FROM x"),
    Wrapping::new(C, Statement, "COPY ({} RETURNING 1) TO STDOUT"),
    Wrapping::new(C, Statement, "COPY ({} RETURNING *) TO STDOUT WITH (FORMAT csv, HEADER)"),
    Wrapping::new(C, Statement, "CREATE RULE g AS ON INSERT TO scripts DO ALSO {}"),
    Wrapping::new(Q, Query, "({})"),
    Wrapping::new(Q, Query, "SELECT * FROM ({}) q"),
    Wrapping::new(Q, Query, "SELECT * FROM customers, LATERAL ({}) AS \"where\""),
    Wrapping::new(Q, Query, "WITH w AS MATERIALIZED ({}) SELECT count(*) FROM w"),
    Wrapping::new(Q, Query, "SELECT count(*) FROM (({}) EXCEPT ({})) z"),
    Wrapping::new(Q, Query, "SELECT (SELECT count(*) FROM ({}) z)"),
    Wrapping::new(QUERIES, Statement, "COPY ({}) TO STDOUT"),
    Wrapping::new(Q, Statement, "CREATE TABLE g AS {}"),
    Wrapping::new(Q, Statement, "CREATE TEMP TABLE g AS ({}) WITH DATA"),
    Wrapping::new(Q, Text, "DECLARE g CURSOR FOR {}; FETCH ALL FROM g"),
    Wrapping::new(PLANNED, Statement, "EXPLAIN ANALYZE {}"),
    Wrapping::new(PLANNED, Statement, "EXPLAIN (COSTS off, ANALYZE) {}"),
    Wrapping::new(PLANNED, Statement, "EXPLAIN (ANALYZE 'true', FORMAT json) {}"),
    Wrapping::new(PLANNED, Text, "PREPARE g AS {}; EXECUTE g"),
    Wrapping::new(PLANNED, Text, "PREPARE \"execute\" AS {}; EXPLAIN ANALYZE EXECUTE \"execute\""),
    Wrapping::new(ANY, Text, "SELECT 1; {}"),
    Wrapping::new(ANY, Text, "{}; SELECT 1"),
    Wrapping::new(ANY, Text, ";; {} ;"),
    Wrapping::new(ANY, Text, "SAVEPOINT a; {}; RELEASE a"),
    Wrapping::new(ANY, Text, "SET LOCAL work_mem = '4MB'; {}"),
    Wrapping::new(ANY, Text, "SELECT '; --'; {}; SELECT $$'$$"),
    Wrapping::new(ANY, Text, "SELECT E'\\''; {}; --'"),
    Wrapping::new(ANY, Text, "/* /* */ ; */ {} -- ; SELECT 1"),
    Wrapping::new(NO_ROWS, Statement, "DO $do$ BEGIN {}; END $do$"),
    Wrapping::new(NO_ROWS, Statement, "DO LANGUAGE plpgsql 'BEGIN IF true THEN {'}; END IF; END'"),
    Wrapping::new(SINGLE, Statement, "DO $x$ BEGIN EXECUTE '{'}'; END $x$"),
    Wrapping {
        hides: true,
        ..Wrapping::new(SINGLE, Statement, "DO $y$ BEGIN EXECUTE '{'1}' || '{'2}'; END $y$")
    },
    Wrapping {
        hides: true,
        ..Wrapping::new(SINGLE, Statement, "DO $z$ BEGIN EXECUTE format('%s%s', '{'1}', '{'2}'); END $z$")
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_never_cut_between_its_apostrophes() {
        for text in ["a ''b'' c", "''''", "''a''", "a", ""] {
            let (start, rest) = text.split_at(split(text));
            assert!(
                start.matches('\'').count().is_multiple_of(2) && rest.matches('\'').count().is_multiple_of(2),
                "{text}"
            );
        }
        let wrapping = Wrapping::new(E, Text, "a '{'}' {}");
        assert_eq!(wrapping.apply("x 'y'"), "a 'x ''y''' x 'y'");
    }
}
