//! People on their way to an identity provider and back: where they wanted to. They may come back to another replica.
//!
//! Of the state that a browser carries only the hash is kept, and it counts once. What proves the way to the provider follows
//! from the state and a key of the control plane, and is kept nowhere.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Book, PeopleError, now,
    secret::{self, hash},
};

/// People who are on their way at once.
const MOST: i64 = 2_000;
/// Seconds that it may take.
pub(super) const LONGEST: i64 = 600;

impl Book {
    /// Somebody leaves; false where too many are on their way.
    pub(super) fn set_out(&self, state: &str, wanted: &str) -> Result<bool, PeopleError> {
        self.ask("DELETE FROM people_journeys WHERE since < $1", [(now() - LONGEST).into()])?;
        if self.count("SELECT count(*) FROM people_journeys", [])? >= MOST {
            return Ok(false);
        }
        let insert = "INSERT INTO people_journeys (hash, since, wanted) VALUES ($1, $2, $3)";
        self.ask(insert, [hash(state)[..].into(), now().into(), wanted.into()])?;
        Ok(true)
    }

    /// Somebody is back: where they wanted to. Nothing where nobody has left with this state, or too long ago, or where they
    /// were back before.
    pub(super) fn come_back(&self, state: &str) -> Result<Option<String>, PeopleError> {
        let take = "DELETE FROM people_journeys WHERE hash = $1 RETURNING since, wanted";
        let found = self.ask(take, [hash(state)[..].into()])?;
        let in_time = found.first().filter(|line| line.int(0) >= now() - LONGEST);
        Ok(in_time.map(|line| line.text(1).to_owned()))
    }
}

/// What follows from a state for `purpose`, for whoever has the key.
pub(super) fn derived(key: &[u8], purpose: &str, state: &str) -> String {
    URL_SAFE_NO_PAD.encode(secret::sign(key, format!("guard sign-in {purpose}\n{state}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_counts_once_and_only_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        assert!(book.set_out("one", "/people").unwrap());
        assert_eq!(book.come_back("other").unwrap(), None);
        assert_eq!(book.come_back("one").unwrap().as_deref(), Some("/people"));
        assert_eq!(book.come_back("one").unwrap(), None);
        assert!(book.set_out("late", "/").unwrap());
        book.ask("UPDATE people_journeys SET since = since - $1", [(LONGEST + 5).into()]).unwrap();
        assert_eq!(book.come_back("late").unwrap(), None);
    }

    #[test]
    fn only_so_many_are_on_their_way_and_who_never_comes_back_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        assert!(book.set_out("first", "/").unwrap());
        let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1)
             INSERT INTO people_journeys (hash, since, wanted) SELECT randomblob(32), $2, '/' FROM n";
        book.ask(many, [(MOST - 1).into(), now().into()]).unwrap();
        assert!(!book.set_out("second", "/").unwrap());
        book.ask("UPDATE people_journeys SET since = since - $1", [(LONGEST + 5).into()]).unwrap();
        assert!(book.set_out("third", "/").unwrap());
    }

    #[test]
    fn what_follows_differs_by_purpose_state_and_key() {
        let one = derived(b"key", "nonce", "s");
        assert_eq!(one, derived(b"key", "nonce", "s"));
        for other in
            [derived(b"key", "verifier", "s"), derived(b"key", "nonce", "t"), derived(b"yek", "nonce", "s")]
        {
            assert_ne!(one, other);
        }
    }
}
