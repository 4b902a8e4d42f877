//! What of a command line is for the record: arguments enter, the same without passwords and literals leave.
//!
//! Programs are given passwords by their arguments, and psql whole statements. A password becomes `?`, wherever it is
//! recognised; a statement stands as it does in the record of statements. Who ran what stays readable.

use crate::{
    audit::{is_secret_kind, names_secret},
    mask::detect::{Hint, Hits, scan},
    sql,
};

const HIDDEN: &str = "?";

/// Programs that are given statements: what their file names begin with.
const CLIENTS: [&str; 10] =
    ["psql", "mysql", "mariadb", "pgcli", "mycli", "usql", "cockroach", "pgbench", "clickhouse", "sqlite"];

/// Words with which statements that hold literals begin.
const VERBS: [&str; 41] = [
    "alter", "analyze", "begin", "call", "change", "comment", "copy", "create", "declare", "delete", "do",
    "drop", "execute", "explain", "fetch", "from", "grant", "handler", "import", "insert", "listen", "load",
    "lock", "merge", "notify", "perform", "prepare", "purge", "refresh", "reindex", "replace", "revoke",
    "security", "select", "set", "show", "table", "truncate", "update", "values", "with",
];

/// Programs whose options hold a password without naming it: what their file names begin with, the option, and whether
/// the password is written right behind it.
const SHORT: [(&str, &str, bool); 9] = [
    ("mysql", "-p", true),
    ("mariadb", "-p", true),
    ("mycli", "-p", true),
    ("redis-cli", "-a", false),
    ("valkey-cli", "-a", false),
    ("sshpass", "-p", true),
    ("sshpass", "-p", false),
    ("mongosh", "-p", false),
    ("curl", "-u", false),
];

/// With these a statement begins within another text, such as a shell's: literals are hidden from there on.
const WITHIN: [&str; 14] = [
    "select ",
    "insert into ",
    "update ",
    "delete from ",
    "merge into ",
    "values (",
    "values(",
    "where ",
    "alter ",
    "create user ",
    "create role ",
    "set password",
    "identified by ",
    "password ",
];

/// Parts of names that hold passwords, whatever else is in them.
const PARTS: [&str; 6] = ["passw", "pwd", "secret", "token", "apikey", "api_key"];

/// Options whose arguments are read as statements, written in one word with them.
const GLUED: [&str; 2] = ["-c", "-e"];

/// The arguments as they may stand in a record; `truncated` where the last one is not whole.
pub(super) fn for_record(argv: &[String], truncated: bool) -> Vec<String> {
    let mut hits = Hits::new();
    let (mut program, mut hidden, mut client) = ("", false, false);
    let mut shown = Vec::with_capacity(argv.len());
    for (number, argument) in argv.iter().enumerate() {
        if std::mem::take(&mut hidden) && !argument.starts_with('-') {
            shown.push(HIDDEN.to_owned());
            continue;
        }
        // A client may be run by another program: `docker exec db psql -c ..`.
        let file = argument.rsplit('/').next().unwrap_or_default();
        client |= CLIENTS.iter().any(|begin| file.starts_with(begin));
        if SHORT.iter().any(|(begin, ..)| file.starts_with(begin)) {
            program = file;
        }
        hidden = number > 0 && next_is_password(program, argument);
        let cut = truncated && number + 1 == argv.len();
        shown.push(one(program, client, argument, cut, &mut hits));
    }
    shown
}

/// Whether the argument behind this option is a password.
fn next_is_password(program: &str, option: &str) -> bool {
    let Some(name) = option.strip_prefix('-') else { return false };
    let short =
        || SHORT.iter().any(|(begin, short, glued)| !glued && program.starts_with(begin) && *short == option);
    !option.contains('=') && (is_secret_name(name) || short())
}

fn one(program: &str, client: bool, argument: &str, cut: bool, hits: &mut Hits) -> String {
    for (begin, option, glued) in SHORT {
        if glued
            && program.starts_with(begin)
            && argument.len() > option.len()
            && argument.starts_with(option)
        {
            return format!("{option}{HIDDEN}");
        }
    }
    if client && let Some((option, text)) = statement(argument) {
        return format!("{option}{}", sql::redacted(text));
    }
    let argument = assignments(&within(argument));
    scan(argument.as_bytes(), Hint::default(), hits);
    let mut shown = String::with_capacity(argument.len());
    let mut from = 0;
    for hit in hits.as_slice().iter().filter(|hit| is_secret_kind(hit.kind)) {
        if let Some(before) = argument.get(from..hit.start) {
            shown.push_str(before);
            shown.push_str(HIDDEN);
            from = hit.end;
        }
    }
    shown.push_str(argument.get(from..).unwrap_or_default());
    if cut { without_cut_address(shown) } else { shown }
}

/// The statement in an argument, and what stands before it.
fn statement(argument: &str) -> Option<(&str, &str)> {
    let option = match argument.strip_prefix("--").and_then(|rest| rest.find('=')) {
        Some(sign) => argument.len().min(sign + 3),
        None => GLUED.iter().find(|option| argument.starts_with(**option)).map_or(0, |option| option.len()),
    };
    let (option, text) = argument.split_at_checked(option)?;
    is_statement(text).then_some((option, text))
}

fn is_statement(text: &str) -> bool {
    let mut rest =
        text.trim_start_matches(|letter: char| letter.is_whitespace() || matches!(letter, '(' | ';'));
    // Behind comments.
    loop {
        let behind = if rest.starts_with("--") {
            rest.split_once('\n').map(|(_, behind)| behind)
        } else if rest.starts_with("/*") {
            rest.split_once("*/").map(|(_, behind)| behind)
        } else {
            break;
        };
        let Some(behind) = behind else { return true };
        rest = behind.trim_start();
    }
    let end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (verb, behind) = rest.split_at(end);
    let goes_on = behind
        .starts_with(|letter: char| letter.is_whitespace() || matches!(letter, '\'' | '(' | '/' | '$' | '"'));
    goes_on && VERBS.binary_search(&verb.to_ascii_lowercase().as_str()).is_ok()
}

fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    PARTS.iter().any(|part| lower.contains(part)) || names_secret("", name)
}

/// Hides the literals of a statement within another text.
fn within(argument: &str) -> String {
    let lower = argument.to_ascii_lowercase();
    let begins = |phrase: &&str| {
        lower
            .match_indices(*phrase)
            .map(|(at, _)| at)
            .find(|at| !lower[..*at].ends_with(|letter: char| letter.is_alphanumeric()))
    };
    let Some(begin) = WITHIN.iter().filter_map(begins).min() else { return argument.to_owned() };
    let (before, mut rest) = argument.split_at(begin);
    let mut shown = before.to_owned();
    while let Some(quote) = rest.find('\'') {
        shown.push_str(&rest[..=quote]);
        rest = &rest[quote + 1..];
        let end = rest.find('\'').unwrap_or(rest.len());
        shown.push_str(HIDDEN);
        rest = &rest[end..];
        if rest.starts_with('\'') {
            shown.push('\'');
            rest = &rest[1..];
        }
    }
    shown.push_str(rest);
    shown
}

/// Hides what is assigned to a name of a secret: `--password=x`, `host=h password='x y'`, `PGPASSWORD=x`.
fn assignments(argument: &str) -> String {
    let mut shown = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(sign) = rest.find('=') {
        let (before, behind) = rest.split_at(sign + 1);
        shown.push_str(before);
        rest = behind;
        let name = before[..sign].trim_end();
        let begin =
            name.rfind(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.')));
        let name =
            begin.map_or(name, |at| name[at..].trim_start_matches(|letter: char| !letter.is_alphanumeric()));
        if !is_secret_name(name.trim_start_matches('-')) {
            continue;
        }
        let blank = rest.len() - rest.trim_start().len();
        let value = &rest[blank..];
        let length = match value.chars().next() {
            Some(quote @ ('\'' | '"')) => value[1..].find(quote).map_or(value.len(), |end| end + 2),
            _ => value.find(|letter: char| letter.is_whitespace() || letter == '&').unwrap_or(value.len()),
        };
        if length > 0 {
            shown.push_str(HIDDEN);
        }
        rest = &value[length..];
    }
    shown.push_str(rest);
    shown
}

/// A word of an address that is not whole may end within its password.
fn without_cut_address(argument: String) -> String {
    let word = argument.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let Some(authority) = argument[word..].find("://").map(|at| word + at + 3) else { return argument };
    let rest = &argument[authority..];
    match rest.find(':') {
        Some(colon) if !rest.contains(['@', '/']) => {
            format!("{}{HIDDEN}", &argument[..authority + colon + 1])
        }
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &[&str]) -> Vec<String> {
        let argv: Vec<String> = line.iter().map(|argument| (*argument).to_owned()).collect();
        for_record(&argv, false)
    }

    #[test]
    fn no_password_is_left() {
        assert!(VERBS.is_sorted());
        for line in [
            &["psql", "-c", "ALTER ROLE a PASSWORD 's3cr3tWord'"][..],
            &["psql", "-cALTER ROLE a PASSWORD 's3cr3tWord'"],
            &["psql", "--command=SELECT 's3cr3tWord'"],
            &["psql", "-c", "/* x */ select 's3cr3tWord"],
            &["psql", "-c", "select E'a\\\\', 's3cr3tWord'"],
            &["psql", "postgresql://ann:s3cr3tWord@db/shop"],
            &["psql", "host=db user=ann password=s3cr3tWord dbname=shop"],
            &["psql", "host=db password = 's3cr3tWord x' dbname=shop"],
            &["psql", "host=db sslpassword=s3cr3tWord"],
            &["env", "PGPASSWORD=s3cr3tWord", "psql"],
            &["tool", "--password=s3cr3tWord"],
            &["tool", "--db-password", "s3cr3tWord"],
            &["tool", "--api-key", "s3cr3tWord"],
            &["/usr/bin/mysql", "-uroot", "-ps3cr3tWord", "-e", "SELECT 's3cr3tWord'"],
            &["redis-cli", "-a", "s3cr3tWord"],
            &["docker", "exec", "db", "redis-cli", "-a", "s3cr3tWord"],
            &["sudo", "/usr/bin/mysql", "-ps3cr3tWord", "shop"],
            &["sshpass", "-p", "s3cr3tWord", "ssh", "db"],
            &["sshpass", "-ps3cr3tWord", "ssh", "db"],
            &["curl", "-u", "ann:s3cr3tWord", "https://db"],
            &["docker", "exec", "db", "psql", "-c", "SELECT 's3cr3tWord'"],
            &["sh", "-c", "psql -c \"ALTER ROLE a PASSWORD 's3cr3tWord'\""],
            &["su", "-c", "psql -c \"select * from t where a = 'it''s' and b = 's3cr3tWord'\" shop"],
            &["python3", "-c", "db.execute(\"UPDATE t SET a = 's3cr3tWord'\")"],
            &["tool", "--db.password=s3cr3tWord"],
            &["curl", "https://db?api_key=s3cr3tWord&x=1"],
        ] {
            let shown = shown(line);
            assert!(!shown.concat().contains("s3cr3tWord"), "{shown:?}");
            assert_eq!(shown.len(), line.len());
        }
        let short = &["psql", "host=h password=x"];
        assert_eq!(shown(short), ["psql", "host=h password=?"], "however short");
    }

    #[test]
    fn what_is_cut_within_a_password_hides_it() {
        let cut = for_record(&["psql".to_owned(), "postgresql://ann:s3cr3tWo".to_owned()], true);
        assert_eq!(cut[1], "postgresql://ann:?");
        let cut = for_record(&["psql".to_owned(), "postgresql://db:5432/sho".to_owned()], true);
        assert_eq!(cut[1], "postgresql://db:5432/sho");
    }

    #[test]
    fn everything_else_stays() {
        for line in [
            &["psql", "-U", "app", "-h", "127.0.0.1", "-p", "5432", "shop"][..],
            &["psql", "postgresql://ann@db:5432/shop?sslmode=require"],
            &["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 5432))"],
            &["/bin/bash", "-c", ": 7; exec psql"],
            &["pg_dump", "--table=orders", "--file=a b.sql"],
            &["mysql", "-h", "db", "-P", "3306"],
            &["node", "server.js", "--port=1", "--workers=4"],
            &["bash", "with-env.sh", "select", "update.sh"],
            &["with\nnewline", ""],
        ] {
            assert_eq!(shown(line), line);
        }
        assert_eq!(
            shown(&["psql", "-c", "SELECT * FROM t WHERE name = 'Ann'"])[2],
            "select * from t where name = ?"
        );
    }
}
