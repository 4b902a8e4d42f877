//! Searches that people keep under a name of theirs.

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
        let others = self.count(
            "SELECT count(*) FROM people_searches WHERE person = $1 AND name <> $2",
            [person.into(), name.into()],
        )?;
        if others >= MOST {
            return Err(PeopleError::request("50 searches are kept: delete one first"));
        }
        let insert = "INSERT INTO people_searches (person, name, query) VALUES ($1, $2, $3)
             ON CONFLICT (person, name) DO UPDATE SET query = excluded.query";
        self.ask(insert, [person.into(), name.into(), query.into()]).map(drop)
    }

    /// Forgets one.
    pub fn forget_search(&self, person: i64, name: &str) -> Result<(), PeopleError> {
        let delete = "DELETE FROM people_searches WHERE person = $1 AND name = $2";
        self.ask(delete, [person.into(), name.into()]).map(drop)
    }

    /// All of one person, by name.
    pub fn searches(&self, person: i64) -> Result<Vec<Saved>, PeopleError> {
        let select = "SELECT name, query FROM people_searches WHERE person = $1 ORDER BY name";
        let lines = self.ask(select, [person.into()])?;
        Ok(lines
            .iter()
            .map(|line| Saved { name: line.text(0).to_owned(), query: line.text(1).to_owned() })
            .collect())
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
