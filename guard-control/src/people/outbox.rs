//! What was done from the command line while the server may be running: it waits here until the server takes it into its
//! record. A shared store takes it into the record at once.

use guard_common::audit::v1::PersonAction;
use prost::Message;

use super::{Book, PeopleError};

/// Actions that may wait.
const MOST: i64 = 10_000;

impl Book {
    /// Notes what is about to be done.
    pub fn leave_for_record(&self, action: &PersonAction) -> Result<(), PeopleError> {
        if self.desk().record(action)? {
            return Ok(());
        }
        if self.count("SELECT count(*) FROM people_outbox", [])? >= MOST {
            return Err(PeopleError::request(
                "too much waits for the record: start `guard-control serve` first",
            ));
        }
        self.ask("INSERT INTO people_outbox (action) VALUES ($1)", [action.encode_to_vec().into()]).map(drop)
    }

    /// What waits, the oldest first.
    pub fn left_for_record(&self) -> Result<Vec<(i64, PersonAction)>, PeopleError> {
        let lines = self.ask("SELECT id, action FROM people_outbox ORDER BY id LIMIT 100", [])?;
        Ok(lines
            .iter()
            .map(|line| (line.int(0), PersonAction::decode(line.bytes(1)).unwrap_or_default()))
            .collect())
    }

    /// One is on record.
    pub fn is_recorded(&self, id: i64) -> Result<(), PeopleError> {
        self.ask("DELETE FROM people_outbox WHERE id = $1", [id.into()]).map(drop)
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
