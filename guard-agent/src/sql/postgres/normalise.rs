//! Tokens enter; the same tokens without what does not matter, their canonical spelling and the text for records leave.
//!
//! Two statements with one spelling have the same effects: whatever classification reads is in the spelling. The text
//! for records holds no literal at all.

use super::functions;
use super::lexer::{Kind, Lexed, Rules, Token, lex};

/// Marks the literals that matter, shortens lists of the others, drops empty statements.
///
/// Only lists in which nothing is told by its place are shortened: those of IN and of arrays, and rows of VALUES that hold
/// literals alone. What a query's columns and a function's arguments are made of stays where it is.
pub fn simplify(lexed: &mut Lexed) {
    let tokens = std::mem::take(&mut lexed.tokens);
    let mut out: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut keeper = Keeper::default();
    let mut lists = Lists::default();
    for (index, &token) in tokens.iter().enumerate() {
        let next = tokens.get(index + 1).map(|token| token.kind);
        match token.kind {
            Kind::Semicolon => {
                (keeper, lists) = (Keeper::default(), Lists::default());
                if out.last().is_some_and(|last| last.kind != Kind::Semicolon) {
                    out.push(token);
                }
                continue;
            }
            Kind::Word | Kind::Quoted => keeper.word(lexed.value(token)),
            Kind::Number if keeper.is_place(&out) => {
                out.push(token.kept());
                continue;
            }
            Kind::Open | Kind::Close => keeper.by = false,
            _ => {}
        }
        if token.kind == Kind::Text && (keeper.keeps(lexed, &out) || is_pattern(lexed.value(token))) {
            out.push(token.kept());
            continue;
        }
        let ends = matches!(next, None | Some(Kind::Comma | Kind::Close | Kind::Semicolon));
        if lists.shortens() && ends && is_element(lexed, token) && continues_list(lexed, &mut out) {
            continue;
        }
        lists.token(lexed, token, &mut out);
        out.push(token);
        if token.kind == Kind::Close {
            drop_repeated_row(&mut out);
        }
    }
    while out.last().is_some_and(|last| last.kind == Kind::Semicolon) {
        out.pop();
    }
    lexed.tokens = out;
}

/// What the parentheses and brackets around a token hold.
#[derive(Default)]
struct Lists {
    open: Vec<List>,
    /// The last that was closed.
    last: Option<List>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    /// Elements that are alike: of IN, of an array.
    Alike,
    /// A row of VALUES, from this token on.
    Row(usize),
    /// Anything else.
    Other,
}

impl Lists {
    fn shortens(&self) -> bool {
        self.open.last() == Some(&List::Alike)
    }

    /// Takes note of a token that is about to be appended; literals alone in a row become one.
    fn token(&mut self, lexed: &Lexed, token: Token, out: &mut Vec<Token>) {
        let before = |back: usize| {
            let index = out.len().checked_sub(back)?;
            out.get(index).map(|&token| (token.kind, lexed.value(token)))
        };
        match (token.kind, lexed.value(token)) {
            (Kind::Open, _) => {
                let list = match (before(1), self.last) {
                    (Some((Kind::Word, "in")), _) => List::Alike,
                    (Some((Kind::Word, "values")), _) => List::Row(out.len()),
                    (Some((Kind::Comma, _)), Some(List::Row(_)))
                        if before(2).is_some_and(|(kind, _)| kind == Kind::Close) =>
                    {
                        List::Row(out.len())
                    }
                    _ => List::Other,
                };
                self.open.push(list);
            }
            (Kind::Op, "[") => self.open.push(List::Alike),
            (Kind::Close, _) | (Kind::Op, "]") => {
                self.last = self.open.pop();
                if let Some(List::Row(start)) = self.last {
                    shorten_row(lexed, out, start);
                }
            }
            _ => {}
        }
    }
}

/// `( literal , - literal` becomes `( literal`; what holds anything else stays.
fn shorten_row(lexed: &Lexed, out: &mut Vec<Token>, start: usize) {
    let row = out.get(start + 1..).unwrap_or(&[]);
    let sign = |token: &Token| token.kind == Kind::Op && matches!(lexed.value(*token), "-" | "+");
    let mut end = None;
    for (index, element) in row.split(|token| token.kind == Kind::Comma).enumerate() {
        let literal = match element {
            [literal] => is_element(lexed, *literal),
            [first, literal] => sign(first) && is_element(lexed, *literal),
            _ => false,
        };
        if !literal {
            return;
        }
        if index == 0 {
            end = Some(start + 1 + element.len());
        }
    }
    if let Some(end) = end {
        out.truncate(end);
    }
}

/// Which literals of the statement at hand say what it does.
#[derive(Default)]
struct Keeper {
    words: usize,
    verb: Verb,
    body: bool,
    /// It calls a function that runs the text that it is given.
    code: bool,
    /// It sets a role or the search path.
    role: bool,
    /// Within ORDER BY or GROUP BY: a number is the place of a column.
    by: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Verb {
    #[default]
    Other,
    Do,
    Create,
    Set,
}

impl Keeper {
    fn word(&mut self, word: &str) {
        if self.words == 0 {
            self.verb = match word {
                "do" => Verb::Do,
                "create" => Verb::Create,
                "set" => Verb::Set,
                _ => Verb::Other,
            };
        }
        self.words += 1;
        const AFTER_BY: [&str; 13] = [
            "limit",
            "offset",
            "fetch",
            "for",
            "having",
            "window",
            "union",
            "intersect",
            "except",
            "select",
            "from",
            "rows",
            "range",
        ];
        self.by = word == "by" || (self.by && !AFTER_BY.contains(&word));
        self.body |= self.verb == Verb::Create && self.words <= 4 && matches!(word, "function" | "procedure");
        self.code |= functions::runs_text(word);
        self.role |=
            matches!(word, "role" | "session_authorization" | "authorization" | "search_path" | "schema");
    }

    /// Whether a number here is the place of a column.
    fn is_place(&self, before: &[Token]) -> bool {
        self.by && before.last().is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Comma))
    }

    fn keeps(&self, lexed: &Lexed, before: &[Token]) -> bool {
        let word = |back: usize| {
            let index = before.len().checked_sub(back)?;
            before.get(index).filter(|token| token.kind == Kind::Word).map(|&token| lexed.value(token))
        };
        let opened = before.last().is_some_and(|token| token.kind == Kind::Open);
        match self.verb {
            Verb::Do => true,
            _ if self.code => true,
            Verb::Set => self.role,
            Verb::Create if self.body => matches!(word(1), Some("as" | "language")),
            _ => opened && word(2) == Some("set_config"),
        }
    }
}

/// A pattern that may match everything.
fn is_pattern(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'%' | b'_' | b'.' | b'*' | b'^' | b'$'))
}

fn is_element(lexed: &Lexed, token: Token) -> bool {
    match token.kind {
        Kind::Text => !token.keep,
        Kind::Number => !token.keep,
        Kind::Param => true,
        Kind::Word => matches!(lexed.value(token), "null" | "default"),
        _ => false,
    }
}

/// `.. literal ,` or `.. literal , -` comes before: one more element adds nothing. Removes the comma (and the sign).
fn continues_list(lexed: &Lexed, out: &mut Vec<Token>) -> bool {
    let sign =
        out.last().is_some_and(|token| token.kind == Kind::Op && matches!(lexed.value(*token), "-" | "+"));
    let comma = out.len().checked_sub(1 + usize::from(sign));
    let Some(comma) =
        comma.filter(|&at| at > 0 && out.get(at).is_some_and(|token| token.kind == Kind::Comma))
    else {
        return false;
    };
    let follows = out.get(comma - 1).is_some_and(|&token| is_element(lexed, token));
    if follows {
        out.truncate(comma);
    }
    follows
}

/// `( literal ) , ( literal )` becomes `( literal )`.
fn drop_repeated_row(out: &mut Vec<Token>) {
    let is_literal = |kind: Kind| matches!(kind, Kind::Text | Kind::Number | Kind::Param);
    let Some(start) = out.len().checked_sub(7) else { return };
    if let Some([a, b, c, comma, d, e, f]) = out.get(start..) {
        let row = |open: &Token, value: &Token, close: &Token| {
            open.kind == Kind::Open && is_literal(value.kind) && !value.keep && close.kind == Kind::Close
        };
        if row(a, b, c) && comma.kind == Kind::Comma && row(d, e, f) {
            out.truncate(start + 3);
        }
    }
}

/// The canonical spelling: one space between tokens, literals as `?` and `0` but for those that matter.
pub fn spell(lexed: &Lexed, into: &mut String) {
    into.clear();
    for (index, &token) in lexed.tokens.iter().enumerate() {
        if index > 0 {
            into.push(' ');
        }
        match token.kind {
            Kind::Text if token.keep => spell_literal(lexed.value(token), into),
            Kind::Text => into.push_str("'?'"),
            Kind::Number if !token.keep => into.push('0'),
            Kind::Quoted => spell_quoted(lexed.value(token), into),
            _ => into.push_str(lexed.value(token)),
        }
    }
}

fn spell_literal(value: &str, into: &mut String) {
    if value.contains('\\') {
        into.push('E');
    }
    into.push('\'');
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            into.push(c);
        }
        into.push(c);
    }
    into.push('\'');
}

fn spell_quoted(value: &str, into: &mut String) {
    into.push('"');
    for c in value.chars() {
        if c == '"' {
            into.push(c);
        }
        into.push(c);
    }
    into.push('"');
}

/// The longest text that a record carries, without the mark of a cut.
pub const MAX_RECORD_TEXT: usize = 8 * 1024;

/// The text for records. Bodies of code are shown with their own literals gone, or not at all.
pub fn record_text(lexed: &Lexed, rules: Rules) -> String {
    let mut text = String::new();
    let mut previous: Option<Token> = None;
    for &token in &lexed.tokens {
        if let Some(before) = previous.filter(|&before| spaced(lexed, before, token)) {
            text.push(if before.kind == Kind::Semicolon { '\n' } else { ' ' });
        }
        match token.kind {
            Kind::Text if token.keep => text.push_str(&redacted_body(lexed.value(token), rules)),
            Kind::Text | Kind::Number => text.push('?'),
            Kind::Quoted => spell_quoted(lexed.value(token), &mut text),
            _ => text.push_str(lexed.value(token)),
        }
        if text.len() > MAX_RECORD_TEXT {
            let mut end = MAX_RECORD_TEXT;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(" ...");
            break;
        }
        previous = Some(token);
    }
    text
}

fn spaced(lexed: &Lexed, before: Token, token: Token) -> bool {
    let tight = |token: Token| matches!(lexed.value(token), "::" | "[" | "]");
    let call = token.kind == Kind::Open
        && before.kind == Kind::Word
        && super::keywords::category(lexed.value(before)).is_none();
    !(matches!(before.kind, Kind::Open | Kind::Dot)
        || matches!(token.kind, Kind::Close | Kind::Comma | Kind::Semicolon | Kind::Dot)
        || (before.kind == Kind::Op && tight(before))
        || (token.kind == Kind::Op && tight(token))
        || call)
}

/// Code begins like this; a connection string or a password does not.
fn begins_code(first: Token, lexed: &Lexed) -> bool {
    const WORDS: [&str; 24] = [
        "alter", "begin", "call", "copy", "create", "declare", "delete", "do", "drop", "execute", "explain",
        "grant", "insert", "lock", "merge", "perform", "reset", "revoke", "select", "set", "table",
        "truncate", "update", "with",
    ];
    first.kind == Kind::Op && lexed.value(first) == "<<"
        || first.kind == Kind::Word && WORDS.contains(&lexed.value(first))
}

fn redacted_body(body: &str, rules: Rules) -> String {
    let mut inner = Lexed::default();
    let rules = Rules { standard_strings: true, ..rules };
    let code = body.contains(char::is_whitespace)
        && lex(body, rules, &mut inner).is_ok()
        && inner.tokens.first().is_some_and(|&first| begins_code(first, &inner));
    if !code || inner.ambiguous {
        return "?".to_owned();
    }
    for token in &mut inner.tokens {
        token.keep = false;
    }
    format!("$${}$$", record_text(&inner, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { standard_strings: true, ascii_names: false, max_tokens: 10_000, max_depth: 64 };

    fn spelled(text: &str) -> String {
        let (mut lexed, mut into) = (Lexed::default(), String::new());
        lex(text, RULES, &mut lexed).unwrap();
        simplify(&mut lexed);
        spell(&lexed, &mut into);
        into
    }

    fn recorded(text: &str) -> String {
        let mut lexed = Lexed::default();
        lex(text, RULES, &mut lexed).unwrap();
        simplify(&mut lexed);
        record_text(&lexed, RULES)
    }

    #[test]
    fn literals_and_lists_leave_no_trace() {
        assert_eq!(spelled("SELECT 1,'a', -2 ;;"), "select 0 , '?' , - 0");
        assert_eq!(spelled("insert INTO T values (1,NULL,'x'),(2,'y',$3) , (DEFAULT, 1)"), {
            "insert into t values ( 0 ) , ( default )"
        });
        assert_eq!(spelled("select * from t where a in (1,2,3) and b = 'x' || 'y'"), {
            "select * from t where a in ( 0 ) and b = '?' || '?'"
        });
        assert_eq!(spelled("select 1, 2 + f(x), 3"), "select 0 , 0 + f ( x ) , 0");
        assert_eq!(spelled("select array[1, 2, 3], x[1]"), "select array [ 0 , 0 ] , x [ 0 ]");
    }

    #[test]
    fn what_its_place_tells_stays_in_its_place() {
        assert_eq!(spelled("select 1, 2, email"), "select 0 , 0 , email");
        assert_eq!(spelled("select substr(email, 1, 2)"), "select substr ( email , 0 , 0 )");
        assert_eq!(spelled("select * from (values (1, 2, c.email), (3, 4, 'x')) v"), {
            "select * from ( values ( 0 , 0 , c . email ) , ( 0 ) ) v"
        });
        assert_eq!(spelled("select a, b from t group by 1, 2 order by 2 desc, 1 limit 3"), {
            "select a , b from t group by 1 , 2 order by 2 desc , 1 limit 0"
        });
        assert_eq!(spelled("select a from t order by a + 1, f(2), 2"), {
            "select a from t order by a + 0 , f ( 0 ) , 0"
        });
    }

    #[test]
    fn literals_that_matter_stay() {
        assert_eq!(spelled("delete from t where a like '%%'"), "delete from t where a like '%%'");
        assert_eq!(
            spelled("select set_config('role', 'x', false)"),
            "select set_config ( 'role' , '?' , false )"
        );
        assert_eq!(spelled("set role 'Bob'"), "set role 'Bob'");
        assert_eq!(spelled(r"do E'a\\''b'"), r"do E'a\\''b'");
        assert_eq!(spelled("set search_path = 'a', b"), "set search_path = 'a' , b");
        assert_eq!(spelled("set work_mem = 'a'"), "set work_mem = '?'");
    }

    #[test]
    fn names_are_as_the_server_reads_them() {
        assert_eq!(spelled(r#"select "Abc", "abc", "select" from "a""b""#), {
            r#"select "Abc" , abc , "select" from "a""b""#
        });
    }

    #[test]
    fn records_hold_no_literal() {
        assert_eq!(recorded("alter role bob password 'hunter2'"), "alter role bob password ?");
        let body = recorded("do $$ begin perform set_config('x.y', 'hunter2', false); end $$");
        assert_eq!(body, "do $$begin perform set_config(?, ?, false);\nend$$");
        let link = recorded("select dblink_exec('host=x password=hunter2', 'drop table t where a = 7')");
        assert_eq!(link, "select dblink_exec(?, $$drop table t where a = ?$$)");
        assert!(!recorded("set role 'hunter2'").contains("hunter2"));
        assert_eq!(
            recorded("select a::int, f(1) from s.t;select 2"),
            "select a::int, f(?) from s.t;\nselect ?"
        );
    }

    #[test]
    fn long_records_are_cut() {
        let text = format!("select {}", "é, ".repeat(5000));
        let mut lexed = Lexed::default();
        lex(&text, Rules { max_tokens: 100_000, ..RULES }, &mut lexed).unwrap();
        let text = record_text(&lexed, RULES);
        assert!(text.len() <= MAX_RECORD_TEXT + 4 && text.ends_with(" ..."));
    }
}
