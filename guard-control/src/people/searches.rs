//! Searches that people keep under a name of theirs.

use rusqlite::params;

use super::{Book, PeopleError};

/// Searches of one person.
const MOST: i64 = 50;

/// A search under a name.
#[derive(Clone, Debug)]
pub struct Saved {
    /// As its owner calls it.
    pub name: String,
    /// As it stands in an address, behind `?`.
    pub query: String,
}

impl Book {
    /// Keeps one; the same name again replaces it.
    pub fn save_search(&self, person: i64, name: &str, query: &str) -> Result<(), PeopleError> {
        let name = name.trim();
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) || query.len() > 2048 {
            return Err(PeopleError::request("a search's name has 1 to 64 bytes"));
        }
        let connection = self.lock();
        let others: i64 = connection.query_row(
            "SELECT count(*) FROM searches WHERE person = ?1 AND name != ?2",
            params![person, name],
            |row| row.get(0),
        )?;
        if others >= MOST {
            return Err(PeopleError::request("50 searches are kept: delete one first"));
        }
        connection.execute(
            "INSERT INTO searches (person, name, query) VALUES (?1, ?2, ?3)
             ON CONFLICT (person, name) DO UPDATE SET query = ?3",
            params![person, name, query],
        )?;
        Ok(())
    }

    /// Forgets one.
    pub fn forget_search(&self, person: i64, name: &str) -> Result<(), PeopleError> {
        self.lock().execute("DELETE FROM searches WHERE person = ?1 AND name = ?2", params![person, name])?;
        Ok(())
    }

    /// All of one person, by name.
    pub fn searches(&self, person: i64) -> Result<Vec<Saved>, PeopleError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT name, query FROM searches WHERE person = ?1 ORDER BY name")?;
        let searches =
            statement.query_map([person], |row| Ok(Saved { name: row.get(0)?, query: row.get(1)? }))?;
        Ok(searches.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_are_bounded_and_replaced_under_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        book.bootstrap().unwrap();
        let me = book.people().unwrap()[0].id;
        for n in 0..MOST {
            book.save_search(me, &format!("search {n}"), "verdict=refused").unwrap();
        }
        assert!(book.save_search(me, "one more", "").is_err());
        book.save_search(me, "search 1", "verdict=allowed").unwrap();
        book.forget_search(me, "search 0").unwrap();
        let searches = book.searches(me).unwrap();
        assert_eq!(searches.len() as i64, MOST - 1);
        assert_eq!(searches[0].query, "verdict=allowed");
    }
}
