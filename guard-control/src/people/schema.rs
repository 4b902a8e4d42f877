//! The tables about people, as a list of migrations.

use rusqlite::{Connection, TransactionBehavior};

use super::PeopleError;

/// One per version, applied in order. Never changed once released: add another.
const MIGRATIONS: [&str; 3] = [
    "CREATE TABLE people (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE COLLATE NOCASE,
        full_name TEXT NOT NULL,
        -- Issuer and subject of who signs in elsewhere.
        subject TEXT UNIQUE,
        password TEXT,
        must_change INTEGER NOT NULL DEFAULT 0,
        roles TEXT NOT NULL,
        groups TEXT NOT NULL,
        disabled INTEGER NOT NULL DEFAULT 0,
        created INTEGER NOT NULL,
        seen INTEGER,
        failures INTEGER NOT NULL DEFAULT 0,
        locked_until INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE sessions (
        hash BLOB PRIMARY KEY,
        person INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        way TEXT NOT NULL,
        address TEXT NOT NULL,
        created INTEGER NOT NULL,
        seen INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE tokens (
        id INTEGER PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL,
        -- Whose it is; none: a machine's.
        person INTEGER REFERENCES people (id) ON DELETE CASCADE,
        roles TEXT NOT NULL,
        made_by TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        used INTEGER
    ) STRICT;

    CREATE TABLE searches (
        person INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        query TEXT NOT NULL,
        PRIMARY KEY (person, name)
    ) STRICT, WITHOUT ROWID;

    -- What the command line did, for the record.
    CREATE TABLE outbox (id INTEGER PRIMARY KEY, action BLOB NOT NULL) STRICT;

    CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;",
    // The names of a store that has other tables beside these. `folded`: by which a name is found, and taken.
    "ALTER TABLE sessions RENAME TO people_sessions;
    ALTER TABLE tokens RENAME TO people_tokens;
    ALTER TABLE searches RENAME TO people_searches;
    ALTER TABLE outbox RENAME TO people_outbox;
    ALTER TABLE settings RENAME TO people_settings;
    ALTER TABLE people ADD COLUMN folded TEXT NOT NULL DEFAULT '';
    UPDATE people SET folded = lower(name);
    CREATE UNIQUE INDEX people_by_name ON people (folded);",
    "CREATE TABLE people_journeys (hash BLOB PRIMARY KEY, since INTEGER NOT NULL, wanted TEXT NOT NULL) STRICT, WITHOUT ROWID;",
];

/// Brings the database up to the version of this program.
pub fn migrate(connection: &mut Connection) -> Result<(), PeopleError> {
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(PeopleError::Newer { found, known });
    }
    for migration in MIGRATIONS.iter().skip(found as usize) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_of_the_first_version_keeps_everybody() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let ann = "INSERT INTO people (name, full_name, roles, groups, created) VALUES ('Ann', '', 'admin', '[]', 1);
             INSERT INTO sessions VALUES (x'00', 1, 'password', '', 1, 1)";
        connection.execute_batch(ann).unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        let sql = "SELECT p.folded FROM people p JOIN people_sessions s ON s.person = p.id";
        let folded: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(folded, "ann");
    }
}
