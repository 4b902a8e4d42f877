//! Sessions of browsers: a random cookie enters, a person leaves. Only the cookie's hash is kept.

use rusqlite::{OptionalExtension, params};

use super::{
    Book, PeopleError, Person,
    book::{SELECT, read},
    now,
    secret::{self, hash},
};

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
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute(
            "DELETE FROM sessions WHERE seen < ?1 OR created < ?2",
            params![now() - IDLE, now() - LONGEST],
        )?;
        transaction.execute(
            "INSERT INTO sessions (hash, person, way, address, created, seen) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
            params![&hash(&cookie)[..], person, way, address, now()],
        )?;
        transaction.execute(
            "DELETE FROM sessions WHERE person = ?1 AND hash NOT IN
                 (SELECT hash FROM sessions WHERE person = ?1 ORDER BY seen DESC, created DESC, hash LIMIT ?2)",
            params![person, MOST],
        )?;
        transaction.commit()?;
        Ok(cookie)
    }

    /// Whose session it is and how they signed in, while it lasts.
    pub fn session(&self, cookie: &str) -> Result<Option<(Person, String)>, PeopleError> {
        let hash = hash(cookie);
        let connection = self.lock();
        let found: Option<(i64, String, i64, i64)> = connection
            .prepare_cached("SELECT person, way, created, seen FROM sessions WHERE hash = ?1")?
            .query_row([&hash[..]], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((person, way, created, seen)) = found else { return Ok(None) };
        if seen < now() - IDLE || created < now() - LONGEST {
            connection.execute("DELETE FROM sessions WHERE hash = ?1", [&hash[..]])?;
            return Ok(None);
        }
        if seen < now() - NOTED {
            connection.execute("UPDATE sessions SET seen = ?2 WHERE hash = ?1", params![&hash[..], now()])?;
        }
        let sql = format!("{SELECT} WHERE id = ?1 AND disabled = 0");
        let person = connection.prepare_cached(&sql)?.query_row([person], read).optional()?;
        Ok(person.map(|person| (person, way)))
    }

    /// Ends one.
    pub fn end(&self, cookie: &str) -> Result<(), PeopleError> {
        self.lock().execute("DELETE FROM sessions WHERE hash = ?1", [&hash(cookie)[..]])?;
        Ok(())
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
        let age = |column: &str, seconds: i64| {
            book.lock().execute(&format!("UPDATE sessions SET {column} = ?1"), [now() - seconds]).unwrap();
        };
        for (column, seconds) in [("seen", IDLE + 2), ("created", LONGEST + 2)] {
            let cookie = book.begin(admin.id, "password", "").unwrap();
            assert_eq!(book.session(&cookie).unwrap().unwrap().0.name, BOOTSTRAP);
            age(column, seconds);
            assert!(book.session(&cookie).unwrap().is_none(), "{column}");
        }
        let cookie = book.begin(admin.id, "password", "").unwrap();
        book.lock().execute("UPDATE people SET disabled = 1", []).unwrap();
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
