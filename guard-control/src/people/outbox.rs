//! What was done from the command line while the server may be running: it waits here until the server takes it into its
//! record.

use guard_common::audit::v1::PersonAction;
use prost::Message;

use super::{Book, PeopleError};

/// Actions that may wait.
const MOST: i64 = 10_000;

impl Book {
    /// Notes what is about to be done.
    pub fn leave_for_record(&self, action: &PersonAction) -> Result<(), PeopleError> {
        let connection = self.lock();
        let waiting: i64 = connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?;
        if waiting >= MOST {
            return Err(PeopleError::request(
                "too much waits for the record: start `guard-control serve` first",
            ));
        }
        connection.execute("INSERT INTO outbox (action) VALUES (?1)", [action.encode_to_vec()])?;
        Ok(())
    }

    /// What waits, the oldest first.
    pub fn left_for_record(&self) -> Result<Vec<(i64, PersonAction)>, PeopleError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT id, action FROM outbox ORDER BY id LIMIT 100")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
        Ok(rows
            .into_iter()
            .map(|(id, bytes)| (id, PersonAction::decode(&*bytes).unwrap_or_default()))
            .collect())
    }

    /// One is on record.
    pub fn is_recorded(&self, id: i64) -> Result<(), PeopleError> {
        self.lock().execute("DELETE FROM outbox WHERE id = ?1", [id])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        for action in ["person-add", "password-reset"] {
            book.leave_for_record(&PersonAction { action: action.to_owned(), ..PersonAction::default() })
                .unwrap();
        }
        let left = book.left_for_record().unwrap();
        let names: Vec<_> = left.iter().map(|(_, action)| action.action.as_str()).collect();
        assert_eq!(names, ["person-add", "password-reset"]);
        book.is_recorded(left[0].0).unwrap();
        assert_eq!(book.left_for_record().unwrap().len(), 1);
    }
}
