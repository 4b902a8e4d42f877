//! The people's book: who there is, with which roles and groups. It lies at a [`Desk`].

use std::path::Path;

use tokio::runtime::Handle;

use super::{PeopleError, Role, Roles, desk::Desk, now, password, secret};
use crate::store::{
    Store,
    sql::{Line, Sql, Value},
};

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

/// Everything that [`read`] reads, of those who are chosen.
macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT id, name, full_name, subject IS NULL, must_change, roles, groups, disabled, seen FROM people ",
            $which
        )
    };
}
pub(super) use select;

/// The book.
pub struct Book {
    desk: Desk,
}

impl Book {
    /// Opens or makes it in `dir`.
    pub fn open(dir: &Path) -> Result<Self, PeopleError> {
        Ok(Self { desk: Desk::open(dir)? })
    }

    /// The one in a store that several replicas share. `runtime` drives the store's connections: a runtime of several
    /// threads, or one on which the caller is not.
    pub fn shared(store: Store, runtime: Handle) -> Self {
        Self { desk: Desk::Shared { store, runtime } }
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Runs one statement.
    pub(super) fn ask(
        &self,
        text: &'static str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Line>, PeopleError> {
        Ok(self.desk.run(vec![Sql::new(text, values)])?.pop().unwrap_or_default())
    }

    /// The number that one statement gives.
    pub(super) fn count(
        &self,
        text: &'static str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<i64, PeopleError> {
        Ok(self.ask(text, values)?.first().map_or(0, |line| line.int(0)))
    }

    /// Where there is nobody: makes the first admin, and gives the password for the first time.
    pub fn bootstrap(&self) -> Result<Option<String>, PeopleError> {
        if self.count("SELECT count(*) FROM people", [])? > 0 {
            return Ok(None);
        }
        match self.add(BOOTSTRAP, "", &"admin".parse().map_err(PeopleError::Request)?, &[]) {
            Ok(password) => Ok(Some(password)),
            // Another replica was quicker, and has printed the password.
            Err(_) if self.count("SELECT count(*) FROM people", [])? > 0 => Ok(None),
            Err(error) => Err(error),
        }
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
        let insert =
            "INSERT INTO people (name, folded, full_name, password, must_change, roles, groups, created)
             VALUES ($1, $2, $3, $4, 1, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING id";
        let values = [
            name.as_str().into(),
            folded(&name).into(),
            checked_full_name(full_name)?.into(),
            hash.into(),
            roles.to_string().into(),
            groups.into(),
            now().into(),
        ];
        match self.ask(insert, values)?.is_empty() {
            false => Ok(password),
            true => Err(PeopleError::request(format!("there is somebody with the name `{name}`"))),
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
        let stays_admin = roles.has(Role::Admin) && !disabled;
        let update = "UPDATE people SET roles = $2, groups = $3, disabled = $4 WHERE id = $1
             AND (CAST($5 AS BIGINT) = 1 OR EXISTS (SELECT 1 FROM people
                 WHERE id <> $1 AND disabled = 0 AND ' ' || roles || ' ' LIKE '% admin %')) RETURNING id";
        let values = [
            id.into(),
            roles.to_string().into(),
            groups.into(),
            i64::from(disabled).into(),
            i64::from(stays_admin).into(),
        ];
        let end = "DELETE FROM people_sessions WHERE person = $1
             AND EXISTS (SELECT 1 FROM people WHERE id = $1 AND disabled = 1)";
        let answers = self.desk.run(vec![Sql::new(update, values), Sql::new(end, [id.into()])])?;
        match answers.first().is_some_and(|changed| !changed.is_empty()) {
            true => Ok(()),
            false => Err(PeopleError::request("somebody has to stay admin: make another one first")),
        }
    }

    /// A password for the first time again; ends all sessions, and every wait.
    pub fn reset(&self, id: i64) -> Result<String, PeopleError> {
        let password = password::one_time()?;
        let hash = password::hash(&password)?;
        let update = "UPDATE people SET password = $2, must_change = 1, failures = 0, locked_until = 0
             WHERE id = $1 AND subject IS NULL RETURNING id";
        let end = "DELETE FROM people_sessions WHERE person = $1
             AND EXISTS (SELECT 1 FROM people WHERE id = $1 AND subject IS NULL)";
        let statements = vec![Sql::new(update, [id.into(), hash.into()]), Sql::new(end, [id.into()])];
        match self.desk.run(statements)?.first().is_some_and(|changed| !changed.is_empty()) {
            true => Ok(password),
            false => Err(PeopleError::request("who signs in elsewhere has no password here")),
        }
    }

    /// Somebody chooses a password. Ends all their sessions: a new one begins with it.
    pub fn choose_password(&self, id: i64, old: &str, new: &str) -> Result<(), PeopleError> {
        let select = "SELECT name, password FROM people WHERE id = $1 AND disabled = 0";
        let found = self.ask(select, [id.into()])?;
        let found = found.first().ok_or_else(|| PeopleError::request("there is no such person"))?;
        if !password::verify(old, found.maybe_text(1)) {
            return Err(PeopleError::request("the old password is not that"));
        }
        password::check(new, found.text(0))?;
        if secret::same(old.as_bytes(), new.as_bytes()) {
            return Err(PeopleError::request("the new password is the old one"));
        }
        let hash = password::hash(new)?;
        let update = "UPDATE people SET password = $2, must_change = 0 WHERE id = $1";
        let end = "DELETE FROM people_sessions WHERE person = $1";
        self.desk.run(vec![Sql::new(update, [id.into(), hash.into()]), Sql::new(end, [id.into()])])?;
        Ok(())
    }

    /// Somebody with this name and password. Takes as long for nobody.
    pub fn sign_in(&self, name: &str, password: &str) -> Result<Result<Person, Denied>, PeopleError> {
        let select = "SELECT id, password, failures, locked_until FROM people WHERE folded = $1";
        let found = self.ask(select, [folded(name).into()])?;
        let Some(found) = found.first() else {
            password::verify(password, None);
            return Ok(Err(Denied::Wrong));
        };
        let (id, locked_until) = (found.int(0), found.int(3));
        if locked_until > now() {
            return Ok(Err(Denied::Wait(locked_until - now())));
        }
        if !password::verify(password, found.maybe_text(1)) {
            let wait = wait_after(u32::try_from(found.int(2)).unwrap_or(u32::MAX).saturating_add(1));
            let until = if wait == 0 { 0 } else { now() + wait };
            let update = "UPDATE people SET failures = failures + 1, locked_until = $2 WHERE id = $1";
            self.ask(update, [id.into(), until.into()])?;
            return Ok(Err(Denied::Wrong));
        }
        let person = self.person(id)?;
        if person.disabled {
            return Ok(Err(Denied::Disabled));
        }
        let update = "UPDATE people SET failures = 0, locked_until = 0, seen = $2 WHERE id = $1";
        self.ask(update, [id.into(), now().into()])?;
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
        let known = self.count("SELECT count(*) FROM people WHERE subject = $1", [subject.into()])?;
        if known == 0 && self.count("SELECT count(*) FROM people", [])? >= MAX_PEOPLE {
            return Err(PeopleError::request("the people's book is full"));
        }
        // A name that somebody else has is not taken over: it says who may not decide on their own.
        let insert = "INSERT INTO people (name, folded, full_name, subject, roles, groups, created, seen)
             SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT),
                 CAST($6 AS TEXT), CAST($7 AS BIGINT), CAST($7 AS BIGINT)
             WHERE NOT EXISTS
                 (SELECT 1 FROM people WHERE folded = $2 AND (subject IS NULL OR subject <> $4))
             ON CONFLICT (subject) DO UPDATE
                 SET name = excluded.name, folded = excluded.folded, full_name = excluded.full_name,
                     roles = excluded.roles, groups = excluded.groups, seen = excluded.seen
             RETURNING id";
        let values = [
            name.as_str().into(),
            folded(&name).into(),
            full_name.into(),
            subject.into(),
            roles.to_string().into(),
            groups.into(),
            now().into(),
        ];
        let found = self.ask(insert, values)?;
        let taken = || {
            PeopleError::request(format!(
                "the name `{name}` belongs to somebody else here: an admin has to free it"
            ))
        };
        let person = self.person(found.first().ok_or_else(taken)?.int(0))?;
        Ok(if person.disabled { Err(Denied::Disabled) } else { Ok(person) })
    }

    /// One person.
    pub fn person(&self, id: i64) -> Result<Person, PeopleError> {
        let found = self.ask(select!("WHERE id = $1"), [id.into()])?;
        found.first().map(read).ok_or_else(|| PeopleError::request("there is no such person"))
    }

    /// One person, by name.
    pub fn named(&self, name: &str) -> Result<Person, PeopleError> {
        let found = self.ask(select!("WHERE folded = $1"), [folded(name).into()])?;
        found
            .first()
            .map(read)
            .ok_or_else(|| PeopleError::request(format!("there is nobody with the name `{name}`")))
    }

    /// Everybody, by name; the first thousand.
    pub fn people(&self) -> Result<Vec<Person>, PeopleError> {
        Ok(self.ask(select!("ORDER BY folded LIMIT 1000"), [])?.iter().map(read).collect())
    }

    /// A secret or a number that is kept under `name`; made where there is none.
    pub fn setting(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Vec<u8>, PeopleError>,
    ) -> Result<Vec<u8>, PeopleError> {
        let kept = || {
            let found = self.ask("SELECT value FROM people_settings WHERE name = $1", [name.into()])?;
            Ok::<_, PeopleError>(found.first().map(|line| line.bytes(0).to_vec()))
        };
        if let Some(found) = kept()? {
            return Ok(found);
        }
        let made = make()?;
        let insert = "INSERT INTO people_settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.ask(insert, [name.into(), made.clone().into()])?;
        // Another replica may have been quicker.
        Ok(kept()?.unwrap_or(made))
    }
}

pub(super) fn read(line: &Line) -> Person {
    Person {
        id: line.int(0),
        name: line.text(1).to_owned(),
        full_name: line.text(2).to_owned(),
        local: line.int(3) != 0,
        must_change: line.int(4) != 0,
        // A role that this version does not know lets nobody do anything.
        roles: line.text(5).split(' ').filter_map(|name| name.parse().ok()).collect(),
        groups: serde_json::from_str(line.text(6)).unwrap_or_default(),
        disabled: line.int(7) != 0,
        seen: line.maybe_int(8),
    }
}

/// As names are compared: in the one way that all stores have.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
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
