//! The people's book: who there is, with which roles and groups. Kept in a database of its own beside the store.

use std::{
    fs::{DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{PeopleError, Roles, now, password, schema, secret};

/// Name of the database in the data folder.
const FILE: &str = "people.sqlite";
/// The first person, made where there is nobody.
pub const BOOTSTRAP: &str = "admin";
/// Longest name in bytes: agents take no longer one.
const MAX_NAME: usize = 64;
/// Groups of one person, as many as agents take, and the longest name of one.
const MAX_GROUPS: usize = 64;
const MAX_GROUP: usize = 128;
/// Wrong passwords in a row after which somebody has to wait, and for how many seconds: it doubles.
const FREE_FAILURES: u32 = 5;
const FIRST_WAIT: i64 = 15;
const LONGEST_WAIT: i64 = 900;
/// People in the book, so that nobody fills the disk by signing in from elsewhere.
const MAX_PEOPLE: i64 = 100_000;

/// Somebody.
#[derive(Clone, Debug)]
pub struct Person {
    /// Of this book alone.
    pub id: i64,
    /// As agents know them too: whoever asks does not decide.
    pub name: String,
    /// As people call them.
    pub full_name: String,
    /// Signs in with a password that is kept here.
    pub local: bool,
    /// Has to choose a password before anything else.
    pub must_change: bool,
    /// What they may do.
    pub roles: Roles,
    /// For which they decide.
    pub groups: Vec<String>,
    /// May not sign in.
    pub disabled: bool,
    /// Seconds since 1970; nothing: never.
    pub seen: Option<i64>,
}

/// Why somebody can't sign in. To them it all looks the same but for the wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is nobody with that name and password.
    Wrong,
    /// Too many wrong passwords: for so many seconds more.
    Wait(i64),
    /// The account is switched off.
    Disabled,
}

/// The book.
pub struct Book {
    connection: Mutex<Connection>,
}

impl Book {
    /// Opens or makes it in `dir`.
    pub fn open(dir: &Path) -> Result<Self, PeopleError> {
        let path = dir.join(FILE);
        let failed = |error| PeopleError::Folder { path: path.display().to_string(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        // SQLite would make it readable for everybody.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", "on")?;
        schema::migrate(&mut connection)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where there is nobody: makes the first admin, and gives the password for the first time.
    pub fn bootstrap(&self) -> Result<Option<String>, PeopleError> {
        let people: i64 = self.lock().query_row("SELECT count(*) FROM people", [], |row| row.get(0))?;
        if people > 0 {
            return Ok(None);
        }
        let password = self.add(BOOTSTRAP, "", &"admin".parse().map_err(PeopleError::Request)?, &[])?;
        Ok(Some(password))
    }

    /// Adds somebody, with a password for the first time, which leaves.
    pub fn add(
        &self,
        name: &str,
        full_name: &str,
        roles: &Roles,
        groups: &[String],
    ) -> Result<String, PeopleError> {
        let name = checked_name(name)?;
        let groups = checked_groups(groups)?;
        let password = password::one_time()?;
        let hash = password::hash(&password)?;
        let added = self.lock().execute(
            "INSERT INTO people (name, full_name, password, must_change, roles, groups, created)
             VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            params![name, checked_full_name(full_name)?, hash, roles.to_string(), groups, now()],
        )?;
        match added {
            1 => Ok(password),
            _ => Err(PeopleError::request(format!("there is somebody with the name `{name}`"))),
        }
    }

    /// Changes roles and groups of somebody, and whether they may sign in. There is always an admin who can.
    pub fn change(
        &self,
        id: i64,
        roles: &Roles,
        groups: &[String],
        disabled: bool,
    ) -> Result<(), PeopleError> {
        let groups = checked_groups(groups)?;
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute(
            "UPDATE people SET roles = ?2, groups = ?3, disabled = ?4 WHERE id = ?1",
            params![id, roles.to_string(), groups, disabled],
        )?;
        if disabled {
            transaction.execute("DELETE FROM sessions WHERE person = ?1", [id])?;
        }
        let admins: i64 = transaction.query_row(
            "SELECT count(*) FROM people WHERE disabled = 0 AND ' ' || roles || ' ' LIKE '% admin %'",
            [],
            |row| row.get(0),
        )?;
        if admins == 0 {
            return Err(PeopleError::request("somebody has to stay admin: make another one first"));
        }
        Ok(transaction.commit()?)
    }

    /// A password for the first time again; ends all sessions, and every wait.
    pub fn reset(&self, id: i64) -> Result<String, PeopleError> {
        let password = password::one_time()?;
        let hash = password::hash(&password)?;
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let changed = transaction.execute(
            "UPDATE people SET password = ?2, must_change = 1, failures = 0, locked_until = 0
             WHERE id = ?1 AND subject IS NULL",
            params![id, hash],
        )?;
        if changed == 0 {
            return Err(PeopleError::request("who signs in elsewhere has no password here"));
        }
        transaction.execute("DELETE FROM sessions WHERE person = ?1", [id])?;
        transaction.commit()?;
        Ok(password)
    }

    /// Somebody chooses a password. Ends all their sessions: a new one begins with it.
    pub fn choose_password(&self, id: i64, old: &str, new: &str) -> Result<(), PeopleError> {
        let (name, kept): (String, Option<String>) = self.lock().query_row(
            "SELECT name, password FROM people WHERE id = ?1 AND disabled = 0",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if !password::verify(old, kept.as_deref()) {
            return Err(PeopleError::request("the old password is not that"));
        }
        password::check(new, &name)?;
        if secret::same(old.as_bytes(), new.as_bytes()) {
            return Err(PeopleError::request("the new password is the old one"));
        }
        let hash = password::hash(new)?;
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction
            .execute("UPDATE people SET password = ?2, must_change = 0 WHERE id = ?1", params![id, hash])?;
        transaction.execute("DELETE FROM sessions WHERE person = ?1", [id])?;
        Ok(transaction.commit()?)
    }

    /// Somebody with this name and password. Takes as long for nobody.
    pub fn sign_in(&self, name: &str, password: &str) -> Result<Result<Person, Denied>, PeopleError> {
        let found = self
            .lock()
            .query_row(
                "SELECT id, password, failures, locked_until FROM people WHERE name = ?1",
                [name],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .optional()?;
        let Some((id, hash, failures, locked_until)) = found else {
            password::verify(password, None);
            return Ok(Err(Denied::Wrong));
        };
        let (id, hash, failures, locked_until): (i64, Option<String>, u32, i64) =
            (id, hash, failures, locked_until);
        if locked_until > now() {
            return Ok(Err(Denied::Wait(locked_until - now())));
        }
        if !password::verify(password, hash.as_deref()) {
            let wait = wait_after(failures + 1);
            self.lock().execute(
                "UPDATE people SET failures = failures + 1, locked_until = ?2 WHERE id = ?1",
                params![id, if wait == 0 { 0 } else { now() + wait }],
            )?;
            return Ok(Err(Denied::Wrong));
        }
        let person = self.person(id)?;
        if person.disabled {
            return Ok(Err(Denied::Disabled));
        }
        self.lock().execute(
            "UPDATE people SET failures = 0, locked_until = 0, seen = ?2 WHERE id = ?1",
            params![id, now()],
        )?;
        Ok(Ok(person))
    }

    /// Somebody of whom an identity provider has made sure; they are added when they come first.
    pub fn sign_in_from_elsewhere(
        &self,
        subject: &str,
        name: &str,
        full_name: &str,
        (roles, groups): (&Roles, &[String]),
    ) -> Result<Result<Person, Denied>, PeopleError> {
        let name = checked_name(name)?;
        let groups = checked_groups(groups)?;
        let full_name = checked_full_name(full_name)?;
        let connection = self.lock();
        let people: i64 = connection.query_row("SELECT count(*) FROM people", [], |row| row.get(0))?;
        let known: Option<i64> = connection
            .query_row("SELECT id FROM people WHERE subject = ?1", [subject], |row| row.get(0))
            .optional()?;
        if known.is_none() && people >= MAX_PEOPLE {
            return Err(PeopleError::request("the people's book is full"));
        }
        // A name that somebody else has is not taken over: it says who may not decide on their own.
        let taken = format!("the name `{name}` belongs to somebody else here: an admin has to free it");
        let id: Option<i64> = connection
            .query_row(
                "INSERT INTO people (name, full_name, subject, roles, groups, created, seen)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
                 ON CONFLICT (subject) DO UPDATE
                     SET name = ?1, full_name = ?2, roles = ?4, groups = ?5, seen = ?6
                 RETURNING id",
                params![name, full_name, subject, roles.to_string(), groups, now()],
                |row| row.get(0),
            )
            .optional()
            .or_else(|error| match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::ConstraintViolation) => Ok(None),
                _ => Err(error),
            })?;
        drop(connection);
        let person = self.person(id.ok_or(PeopleError::Request(taken))?)?;
        Ok(if person.disabled { Err(Denied::Disabled) } else { Ok(person) })
    }

    /// One person.
    pub fn person(&self, id: i64) -> Result<Person, PeopleError> {
        let sql = format!("{SELECT} WHERE id = ?1");
        let found = self.lock().query_row(&sql, [id], read).optional()?;
        found.ok_or_else(|| PeopleError::request("there is no such person"))
    }

    /// One person, by name.
    pub fn named(&self, name: &str) -> Result<Person, PeopleError> {
        let sql = format!("{SELECT} WHERE name = ?1");
        let found = self.lock().query_row(&sql, [name], read).optional()?;
        found.ok_or_else(|| PeopleError::request(format!("there is nobody with the name `{name}`")))
    }

    /// Everybody, by name; the first thousand.
    pub fn people(&self) -> Result<Vec<Person>, PeopleError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY name LIMIT 1000"))?;
        let people = statement.query_map([], read)?;
        Ok(people.collect::<Result<_, _>>()?)
    }

    /// A secret or a number that is kept under `name`; made where there is none.
    pub fn setting(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Vec<u8>, PeopleError>,
    ) -> Result<Vec<u8>, PeopleError> {
        let connection = self.lock();
        let found = connection
            .query_row("SELECT value FROM settings WHERE name = ?1", [name], |row| row.get(0))
            .optional()?;
        if let Some(found) = found {
            return Ok(found);
        }
        let made = make()?;
        connection.execute("INSERT INTO settings (name, value) VALUES (?1, ?2)", params![name, made])?;
        Ok(made)
    }
}

/// Columns that [`read`] reads.
pub(super) const SELECT: &str =
    "SELECT id, name, full_name, subject IS NULL, must_change, roles, groups, disabled, seen FROM people";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Person> {
    let (roles, groups): (String, String) = (row.get(5)?, row.get(6)?);
    Ok(Person {
        id: row.get(0)?,
        name: row.get(1)?,
        full_name: row.get(2)?,
        local: row.get(3)?,
        must_change: row.get(4)?,
        // A role that this version does not know lets nobody do anything.
        roles: roles.split(' ').filter_map(|name| name.parse().ok()).collect(),
        groups: serde_json::from_str(&groups).unwrap_or_default(),
        disabled: row.get(7)?,
        seen: row.get(8)?,
    })
}

/// Seconds to wait after so many wrong passwords in a row.
fn wait_after(failures: u32) -> i64 {
    match failures.checked_sub(FREE_FAILURES) {
        None => 0,
        Some(more) => FIRST_WAIT.saturating_mul(1 << more.min(16)).min(LONGEST_WAIT),
    }
}

fn checked_name(name: &str) -> Result<String, PeopleError> {
    let name = name.trim();
    let good = |letter: char| letter.is_alphanumeric() || "._-@+".contains(letter);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(good) {
        return Err(PeopleError::request(
            "a name has 1 to 64 bytes: letters, digits, dots, dashes, underscores, plus and @",
        ));
    }
    Ok(name.to_owned())
}

fn checked_full_name(name: &str) -> Result<String, PeopleError> {
    let name = name.trim();
    match name.len() <= 4 * MAX_NAME && !name.chars().any(char::is_control) {
        true => Ok(name.to_owned()),
        false => Err(PeopleError::request("a full name has at most 256 bytes, and no control characters")),
    }
}

/// As JSON.
fn checked_groups(groups: &[String]) -> Result<String, PeopleError> {
    let good = |group: &String| {
        !group.is_empty() && group.len() <= MAX_GROUP && !group.chars().any(char::is_control)
    };
    if groups.len() > MAX_GROUPS || !groups.iter().all(good) {
        return Err(PeopleError::request("somebody is in at most 64 groups, with names of 1 to 128 bytes"));
    }
    Ok(serde_json::to_string(groups).unwrap_or_else(|_| "[]".to_owned()))
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
