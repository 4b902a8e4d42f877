//! Sessions of browsers: a random cookie enters, a person leaves. Only the cookie's hash is kept.

use super::{
    Book, PeopleError, Person,
    book::{read, select},
    now,
    secret::{self, hash},
};
use crate::store::sql::Sql;

/// Seconds without a request after which a session ends.
pub const IDLE: i64 = 3_600;
/// Seconds after which it ends in any case.
pub const LONGEST: i64 = 12 * 3_600;
/// Sessions of one person; the one that was idle the longest goes.
const MOST: i64 = 10;
/// Seconds between notes that a session is in use: not every request writes.
const NOTED: i64 = 60;
/// Half a minute more or less does not matter to streams, which look again after ten times this.
pub const NOTED_SECONDS: u64 = 60;

impl Book {
    /// Begins one; gives what the cookie holds.
    pub fn begin(&self, person: i64, way: &str, address: &str) -> Result<String, PeopleError> {
        let cookie = secret::random()?;
        let old = Sql::new(
            "DELETE FROM people_sessions WHERE seen < $1 OR created < $2",
            [(now() - IDLE).into(), (now() - LONGEST).into()],
        );
        let insert = Sql::new(
            "INSERT INTO people_sessions (hash, person, way, address, created, seen) VALUES ($1, $2, $3, $4, $5, $5)",
            [hash(&cookie)[..].into(), person.into(), way.into(), address.into(), now().into()],
        );
        let beyond = Sql::new(
            "DELETE FROM people_sessions WHERE person = $1 AND hash NOT IN (SELECT hash FROM people_sessions
                 WHERE person = $1 ORDER BY seen DESC, created DESC, hash LIMIT $2)",
            [person.into(), MOST.into()],
        );
        self.desk().run(vec![old, insert, beyond])?;
        Ok(cookie)
    }

    /// Whose session it is and how they signed in, while it lasts.
    pub fn session(&self, cookie: &str) -> Result<Option<(Person, String)>, PeopleError> {
        let hash = hash(cookie);
        let select = "SELECT person, way, created, seen FROM people_sessions WHERE hash = $1";
        let found = self.ask(select, [hash[..].into()])?;
        let Some(found) = found.first() else { return Ok(None) };
        let (person, way, created, seen) = (found.int(0), found.text(1), found.int(2), found.int(3));
        if seen < now() - IDLE || created < now() - LONGEST {
            self.ask("DELETE FROM people_sessions WHERE hash = $1", [hash[..].into()])?;
            return Ok(None);
        }
        if seen < now() - NOTED {
            let update = "UPDATE people_sessions SET seen = $2 WHERE hash = $1";
            self.ask(update, [hash[..].into(), now().into()])?;
        }
        let found = self.ask(select!("WHERE id = $1 AND disabled = 0"), [person.into()])?;
        Ok(found.first().map(|line| (read(line), way.to_owned())))
    }

    /// Ends one.
    pub fn end(&self, cookie: &str) -> Result<(), PeopleError> {
        self.ask("DELETE FROM people_sessions WHERE hash = $1", [hash(cookie)[..].into()]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::book::BOOTSTRAP;

    #[test]
    fn a_session_ends_when_it_is_idle_or_old_or_its_person_is_switched_off() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        book.bootstrap().unwrap();
        let admin = book.named(BOOTSTRAP).unwrap();
        let ages = [
            ("UPDATE people_sessions SET seen = $1", IDLE + 2),
            ("UPDATE people_sessions SET created = $1", LONGEST + 2),
        ];
        for (age, seconds) in ages {
            let cookie = book.begin(admin.id, "password", "").unwrap();
            assert_eq!(book.session(&cookie).unwrap().unwrap().0.name, BOOTSTRAP);
            book.ask(age, [(now() - seconds).into()]).unwrap();
            assert!(book.session(&cookie).unwrap().is_none(), "{age}");
        }
        let cookie = book.begin(admin.id, "password", "").unwrap();
        book.ask("UPDATE people SET disabled = 1", []).unwrap();
        assert!(book.session(&cookie).unwrap().is_none());
        assert!(book.session("no such cookie").unwrap().is_none());
    }

    #[test]
    fn nobody_has_more_than_ten_and_a_new_password_ends_them() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        let password = book.bootstrap().unwrap().unwrap();
        let admin = book.named(BOOTSTRAP).unwrap();
        let cookies: Vec<_> = (0..12).map(|_| book.begin(admin.id, "password", "").unwrap()).collect();
        let open = || cookies.iter().filter(|cookie| book.session(cookie).unwrap().is_some()).count();
        assert_eq!(open(), 10);
        book.choose_password(admin.id, &password, "four quiet yellow boats").unwrap();
        assert_eq!(open(), 0);
    }
}
