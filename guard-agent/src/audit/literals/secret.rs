//! What may hold a password: a statement enters, why it is withheld leaves.
//!
//! By what it does, by the names in it, by the columns that it writes, and by the values themselves. What could not be read
//! is withheld as well.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ahash::RandomState;
use guard_policy::vocabulary::{Action, DataKind, ObjectKind, Parse};

use crate::{
    mask::{
        columns::{ColumnType, Named, by_name},
        detect::{Hint, Hits, scan},
    },
    sql::{Sent, Statement},
};

/// The tag of passwords, keys and tokens.
pub(crate) const SECRET_TAG: &str = "secret";

const PASSWORD: &str = "it may hold a password";

/// Words that are nowhere in a text, whatever stands around them, unless it may be about passwords.
const WORDS: [&str; 17] = [
    "passw",
    "passphrase",
    "passcode",
    "passkey",
    "pwd",
    "secret",
    "identified",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "private key",
    "private_key",
    "privatekey",
    "access_key",
    "encryption_key",
    "bearer ",
];

/// Functions that are given a password or a key: whole words.
const FUNCTIONS: [&str; 8] =
    ["crypt", "hmac", "encrypt", "decrypt", "encrypt_iv", "decrypt_iv", "set_config", "digest"];

/// The same, by their beginnings.
const FAMILIES: [&str; 3] = ["pgp_", "dblink", "pg_read"];

/// Names of tables are looked at with so many of them.
const TABLES: usize = 8;

/// Statements of which it is remembered what their names say; then it starts afresh.
const REMEMBERED: usize = 4_096;

/// Says what is withheld, and remembers what names say: they are the same for all texts of one fingerprint.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    known: Mutex<HashMap<String, Names, RandomState>>,
}

/// What the names in a statement say.
#[derive(Clone, Copy, Debug)]
struct Names {
    /// One of them is that of a secret.
    secret: bool,
    /// It writes columns that it does not name.
    unnamed: bool,
}

impl Secrets {
    /// Why what `statement` was sent with is not for the record; nothing where it is.
    pub(super) fn withheld(&self, statement: &Statement, sent: &Sent) -> Option<&'static str> {
        if let Some(why) = sent.withheld() {
            return Some(why);
        }
        if statement.parse != Parse::Full {
            return Some("it could not be read, so that it may hold a password");
        }
        if statement.is_cut() {
            return Some("it is too long for its names to be looked through, so that it may hold a password");
        }
        if statement.effects.iter().any(|effect| tells_nothing(effect.action, effect.object.kind)) {
            return Some(PASSWORD);
        }
        let names = self.names(statement);
        if names.unnamed && !sent.placed() {
            return Some("it writes columns that it does not name, and a password may be among them");
        }
        let values = sent.parameters().iter().filter_map(|parameter| parameter.value.as_deref());
        let told = names.secret || std::iter::once(sent.text().as_bytes()).chain(values).any(is_secret);
        told.then_some(PASSWORD)
    }

    fn names(&self, statement: &Statement) -> Names {
        // Every change below is complete before anything can panic.
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = known().get(&statement.fingerprint) {
            return *names;
        }
        let names = Names { secret: has_secret_name(statement), unnamed: writes_unnamed(&statement.text) };
        let mut known = known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(statement.fingerprint.clone(), names);
        names
    }
}

/// What an effect of this kind is given may be a password, or code that holds one.
fn tells_nothing(action: Action, kind: ObjectKind) -> bool {
    match action {
        Action::Role
        | Action::Do
        | Action::Call
        | Action::Execute
        | Action::Assume
        | Action::Configure
        | Action::Outbound
        | Action::Program
        | Action::Load
        | Action::Replicate
        | Action::Unreadable => true,
        // Servers, user mappings, subscriptions; functions hold code.
        Action::Create | Action::Alter => !matches!(
            kind,
            ObjectKind::Table
                | ObjectKind::View
                | ObjectKind::MaterializedView
                | ObjectKind::Index
                | ObjectKind::Sequence
                | ObjectKind::Column
                | ObjectKind::Schema
                | ObjectKind::Type
        ),
        Action::Connect
        | Action::Select
        | Action::Explain
        | Action::Show
        | Action::Set
        | Action::Transaction
        | Action::Session
        | Action::Sleep
        | Action::Function
        | Action::Lock
        | Action::CopyOut
        | Action::CopyIn
        | Action::Insert
        | Action::Update
        | Action::Delete
        | Action::Merge
        | Action::Truncate
        | Action::WriteObject
        | Action::Drop
        | Action::Comment
        | Action::Grant
        | Action::Revoke
        | Action::Maintain
        | Action::Terminate
        | Action::File => false,
    }
}

fn has_word(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    WORDS.iter().any(|word| memchr::memmem::find(&lower, word.as_bytes()).is_some())
}

/// Whether a name in the statement is that of a secret: literals are gone from this text, names are not.
fn has_secret_name(statement: &Statement) -> bool {
    let of_text = |word: &&str| !word.is_empty() && !word.starts_with(|first: char| first.is_ascii_digit());
    let words =
        statement.text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == '$'));
    let tables =
        || statement.effects.iter().filter(|effect| effect.object.kind == ObjectKind::Table).take(TABLES);
    words.filter(of_text).any(|word| {
        let lower = word.to_lowercase();
        FUNCTIONS.contains(&lower.as_str())
            || FAMILIES.iter().any(|family| lower.starts_with(family))
            || names_secret("", word)
            || tables().any(|table| names_secret(&table.object.name, word))
    })
}

/// Whether `word`, as a column of `table` or alone, is a name for passwords, keys or tokens.
pub(crate) fn names_secret(table: &str, word: &str) -> bool {
    match by_name(table, word, ColumnType::Unknown) {
        Named::Sensitive(kind) => is_secret_kind(kind),
        Named::Hint(hint) => hint.kind.is_some_and(is_secret_kind),
        Named::Plain => false,
    }
}

/// Passwords, their hashes, keys, tokens.
pub(crate) fn is_secret_kind(kind: DataKind) -> bool {
    kind.tags().contains(&SECRET_TAG)
}

fn is_secret(value: &[u8]) -> bool {
    let mut hits = Hits::new();
    scan(value, Hint::default(), &mut hits);
    has_word(value) || hits.as_slice().iter().any(|hit| is_secret_kind(hit.kind))
}

/// Whether an INSERT of this text, MERGE's included, names no columns. The text is as records have it: one blank at most
/// between two words.
fn writes_unnamed(text: &str) -> bool {
    let words = || text.match_indices(|letter: char| letter.is_ascii_alphabetic());
    let begins = |at: usize| {
        let boundary = |letter: Option<char>| {
            !letter.is_some_and(|one| one.is_alphanumeric() || one == '_' || one == '"')
        };
        let word = text.get(at..at + INSERT.len()).is_some_and(|word| word.eq_ignore_ascii_case(INSERT));
        word && boundary(text[..at].chars().next_back()) && boundary(text[at + INSERT.len()..].chars().next())
    };
    words().map(|(at, _)| at).filter(|at| begins(*at)).any(|at| !names_columns(&text[at + INSERT.len()..]))
}

const INSERT: &str = "insert";

/// Whether `rest`, behind the word INSERT, goes on to a list of columns.
fn names_columns(rest: &str) -> bool {
    let mut rest = rest.trim_start();
    if let Some(behind) = word(rest, "into") {
        // `INTO schema."a name" AS alias`.
        rest = name(behind.trim_start());
        while let Some(behind) = rest.trim_start().strip_prefix('.') {
            rest = name(behind.trim_start());
        }
        rest = rest.trim_start();
        if let Some(behind) = word(rest, "as") {
            rest = name(behind.trim_start()).trim_start();
        }
    }
    let Some(list) = rest.strip_prefix('(').map(str::trim_start) else {
        return word(rest, "default").is_some();
    };
    !["select", "with", "values", "table", "("].iter().any(|query| match *query {
        "(" => list.starts_with('('),
        query => word(list, query).is_some(),
    })
}

/// What follows `text` where it begins with this word.
fn word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (begin, rest) = text.split_at_checked(word.len())?;
    let ends = !rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    (ends && begin.eq_ignore_ascii_case(word)).then_some(rest)
}

/// What follows the name that `text` begins with.
fn name(text: &str) -> &str {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut rest = quoted;
        while let Some(end) = rest.find('"') {
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(more) => rest = more,
                None => return rest,
            }
        }
        return "";
    }
    text.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$')
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sent, *};
    use crate::sql::{Room, Touched};

    fn of(text: &str) -> Option<&'static str> {
        let statement = sent(text, Touched::default());
        Secrets::default().withheld(&statement, statement.sent.as_ref().unwrap())
    }

    #[test]
    fn what_may_hold_a_password_is_withheld() {
        for text in [
            "ALTER ROLE a PASSWORD 'x'",
            "CREATE USER a WITH ENCRYPTED PASSWORD 'x'",
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', password 'x')",
            "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'x')",
            "CREATE SUBSCRIPTION s CONNECTION 'host=x user=y pass' PUBLICATION p",
            "DO $$BEGIN EXECUTE 'ALTER ROLE a PASS' || 'WORD ''x'''; END$$",
            "SELECT dblink_connect('host=x user=a p=b')",
            "UPDATE users SET pw = 'x' WHERE id = 1",
            "UPDATE users SET \"Passwort\" = 'x'",
            "UPDATE users SET mot_de_passe = 'x'",
            "UPDATE users SET U&\"p\\0061ssword\" = 'x'",
            "INSERT INTO users (id, password_hash) VALUES (1, 'x')",
            "INSERT INTO users VALUES (1, 'ann', 'x')",
            "INSERT INTO \"my users\" AS u VALUES (1, 'x')",
            "INSERT INTO s.users SELECT 1, 'x'",
            "INSERT INTO users (SELECT 1, 'x')",
            "INSERT INTO users ((VALUES (1, 'x')))",
            "WITH w AS (INSERT INTO users VALUES (1, 'x') RETURNING id) SELECT * FROM w",
            "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (1, 'x')",
            "SELECT crypt('x', gen_salt('bf'))",
            "SELECT pgp_sym_encrypt('x', 'k')",
            "SELECT set_config('app.k', 'v', false)",
            "SET app.api_key = 'x'",
            "SELECT login('ann', 'x') /* password: x */",
            "INSERT INTO log (line) VALUES ('password=x')",
            "INSERT INTO log (line) VALUES ('{\"client_secret\": \"x\"}')",
            "INSERT INTO t (a) VALUES ('AKIAIOSFODNN7EXAMPLE')",
            "SELECT 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U'",
            "EXECUTE p('x')",
            "CALL p('x')",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT 'unfinished",
            "COPY t FROM PROGRAM 'curl x'",
            "ALTER SYSTEM SET primary_conninfo = 'x'",
        ] {
            assert!(of(text).is_some(), "{text}");
        }
    }

    #[test]
    fn names_that_are_not_looked_at_may_be_anything() {
        let columns = |count| (0..count).map(|number| format!("c{number} = 1, ")).collect::<String>();
        let update = |count| format!("UPDATE users SET {}pw = 'x'", columns(count));
        assert_eq!(of(&update(1)), Some(PASSWORD));
        assert!(of(&update(2_000)).is_some_and(|why| why.contains("too long")));
    }

    #[test]
    fn what_holds_none_is_kept() {
        for text in [
            "SELECT * FROM orders WHERE customer = 'Ann' AND total > 5",
            "INSERT INTO orders (id, note) VALUES (1, 'by hand')",
            "INSERT INTO public.\"my orders\" AS o (id) SELECT id FROM t",
            "INSERT INTO t DEFAULT VALUES",
            "UPDATE pgbench_accounts SET abalance = abalance + 5 WHERE aid = 7",
            "DELETE FROM inserts WHERE last_insert = '2020-01-01'",
            "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
            "CREATE TABLE t (id int PRIMARY KEY, state text DEFAULT 'new')",
            "DROP TABLE t",
            "SET search_path = a, b",
            "BEGIN",
            "SELECT count(*) FROM passengers WHERE compass = 'N'",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn columns_without_names_are_told_by_who_knows_the_table() {
        let placed = Touched { placed: true, ..Touched::default() };
        let statement = sent("INSERT INTO orders VALUES (1, 'x')", placed);
        assert_eq!(Secrets::default().withheld(&statement, statement.sent.as_ref().unwrap()), None);
        let secret = Touched { withheld: Some("the catalog says so"), placed: true };
        let statement = sent("INSERT INTO orders VALUES (1, 'x')", secret);
        assert!(Secrets::default().withheld(&statement, statement.sent.as_ref().unwrap()).is_some());
    }

    #[test]
    fn parameters_are_looked_at_as_literals_are() {
        let room = Room::new(1 << 20);
        let statement = sent("INSERT INTO log (line) VALUES ($1)", Touched::default());
        for (value, kept) in [("a line", true), ("user=a password=b", false), ("AKIAIOSFODNN7EXAMPLE", false)]
        {
            let mut values = vec![0, 0, 0, 1];
            values.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            values.extend(value.as_bytes());
            let bound = statement.with_values(Some(&values), &room).unwrap();
            assert_eq!(
                Secrets::default().withheld(&bound, bound.sent.as_ref().unwrap()).is_none(),
                kept,
                "{value}"
            );
        }
    }
}
