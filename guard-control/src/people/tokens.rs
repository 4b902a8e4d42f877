//! API tokens: of machines, and of people for their own programs. Only their hashes are kept.
//!
//! A person's token can never do more than the person; a machine's decides nothing.

use super::{
    Book, PeopleError, Person, Role, Roles,
    book::{read, select},
    now,
    secret::{self, hash},
};
use crate::store::sql::Line;

/// What tokens begin with, so that scanners of leaked secrets know them.
const PREFIX: &str = "guard_";
/// Days that one lasts, at most.
pub const MAX_DAYS: i64 = 365;
/// Tokens in all.
const MOST: i64 = 10_000;
/// Seconds between notes that a token is in use.
const NOTED: i64 = 60;

/// A token, without the token.
#[derive(Clone, Debug)]
pub struct Token {
    /// Of this book alone.
    pub id: i64,
    /// What it is for.
    pub name: String,
    /// Whose it is; nothing: a machine's.
    pub person: Option<String>,
    /// What it may do.
    pub roles: Roles,
    /// Who made it.
    pub made_by: String,
    /// Seconds since 1970.
    pub expires: i64,
    /// Seconds since 1970; nothing: never.
    pub used: Option<i64>,
}

impl Book {
    /// Makes one for `owner`, or for a machine; gives the token itself, once.
    pub fn make_token(
        &self,
        name: &str,
        owner: Option<&Person>,
        roles: &Roles,
        (made_by, days): (&str, i64),
    ) -> Result<String, PeopleError> {
        let name = name.trim();
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(PeopleError::request("a token's name has 1 to 64 bytes"));
        }
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(PeopleError::request("a token lasts 1 to 365 days"));
        }
        if owner.is_none() && (roles.has(Role::Approver) || roles.has(Role::Admin)) {
            return Err(PeopleError::request(
                "a machine's token is for a viewer or an auditor: people decide",
            ));
        }
        let roles = owner.map_or_else(|| roles.clone(), |owner| roles.within(&owner.roles));
        if roles.is_empty() {
            return Err(PeopleError::request("a token needs a role, and its owner has to have it"));
        }
        let token = format!("{PREFIX}{}", secret::random()?);
        self.ask("DELETE FROM people_tokens WHERE expires < $1", [now().into()])?;
        if self.count("SELECT count(*) FROM people_tokens", [])? >= MOST {
            return Err(PeopleError::request("there are too many tokens: revoke some"));
        }
        let insert = "INSERT INTO people_tokens (hash, name, person, roles, made_by, created, expires)
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = [
            hash(&token)[..].into(),
            name.into(),
            owner.map(|owner| owner.id).into(),
            roles.to_string().into(),
            made_by.into(),
            now().into(),
            (now() + days * 86_400).into(),
        ];
        self.ask(insert, values)?;
        Ok(token)
    }

    /// Who comes with this token, and its name, while it lasts.
    pub fn bearer(&self, token: &str) -> Result<Option<(Person, String)>, PeopleError> {
        if !token.starts_with(PREFIX) {
            return Ok(None);
        }
        let select =
            "SELECT id, name, person, roles, used FROM people_tokens WHERE hash = $1 AND expires > $2";
        let found = self.ask(select, [hash(token)[..].into(), now().into()])?;
        let Some(found) = found.first() else { return Ok(None) };
        let name = found.text(1).to_owned();
        if found.maybe_int(4).is_none_or(|used| used < now() - NOTED) {
            let update = "UPDATE people_tokens SET used = $2 WHERE id = $1";
            self.ask(update, [found.int(0).into(), now().into()])?;
        }
        let roles = roles_of(found.text(3));
        let Some(owner) = found.maybe_int(2) else { return Ok(Some((machine(&name, roles), name))) };
        let found =
            self.ask(select!("WHERE id = $1 AND disabled = 0 AND must_change = 0"), [owner.into()])?;
        let person = found.first().map(read);
        Ok(person.map(|person| (Person { roles: roles.within(&person.roles), ..person }, name)))
    }

    /// All tokens, or those of one person; the first thousand.
    pub fn tokens(&self, of: Option<i64>) -> Result<Vec<Token>, PeopleError> {
        let select = "SELECT t.id, t.name, p.name, t.roles, t.made_by, t.expires, t.used
             FROM people_tokens t LEFT JOIN people p ON p.id = t.person
             WHERE t.expires > $1 AND (CAST($2 AS BIGINT) IS NULL OR t.person = $2)
             ORDER BY t.name, t.id LIMIT 1000";
        let token = |line: &Line| Token {
            id: line.int(0),
            name: line.text(1).to_owned(),
            person: line.maybe_text(2).map(str::to_owned),
            roles: roles_of(line.text(3)),
            made_by: line.text(4).to_owned(),
            expires: line.int(5),
            used: line.maybe_int(6),
        };
        Ok(self.ask(select, [now().into(), of.into()])?.iter().map(token).collect())
    }

    /// Ends a token; with `of`, only one of that person. Gives its name.
    pub fn revoke(&self, id: i64, of: Option<i64>) -> Result<String, PeopleError> {
        let delete = "DELETE FROM people_tokens
             WHERE id = $1 AND (CAST($2 AS BIGINT) IS NULL OR person = $2) RETURNING name";
        let gone = self.ask(delete, [id.into(), of.into()])?;
        let gone = gone.first().map(|line| line.text(0).to_owned());
        gone.ok_or_else(|| PeopleError::request("there is no such token"))
    }
}

fn roles_of(names: &str) -> Roles {
    names.split(' ').filter_map(|name| name.parse().ok()).collect()
}

fn machine(token: &str, roles: Roles) -> Person {
    Person {
        id: 0,
        name: format!("token:{token}"),
        full_name: String::new(),
        local: false,
        must_change: false,
        roles,
        groups: Vec::new(),
        disabled: false,
        seen: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_what_its_owner_may_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        book.bootstrap().unwrap();
        let password = book.add("ann", "", &"viewer approver".parse().unwrap(), &[]).unwrap();
        let ann = book.named("ann").unwrap();
        book.choose_password(ann.id, &password, "four quiet yellow boats").unwrap();
        let ann = book.named("ann").unwrap();
        let wanted: Roles = "approver admin".parse().unwrap();
        let token = book.make_token("cli", Some(&ann), &wanted, ("ann", 7)).unwrap();
        let (bearer, name) = book.bearer(&token).unwrap().unwrap();
        assert_eq!((bearer.name.as_str(), name.as_str()), ("ann", "cli"));
        assert_eq!(bearer.roles.to_string(), "approver");
        book.change(ann.id, &"viewer".parse().unwrap(), &[], false).unwrap();
        assert!(book.bearer(&token).unwrap().unwrap().0.roles.is_empty());
        book.change(ann.id, &"viewer".parse().unwrap(), &[], true).unwrap();
        assert!(book.bearer(&token).unwrap().is_none());
    }

    #[test]
    fn machines_decide_nothing_and_tokens_end() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).unwrap();
        let make = |roles: &str, days| book.make_token("scraper", None, &roles.parse().unwrap(), ("x", days));
        assert!(make("approver", 7).is_err() && make("admin", 7).is_err());
        assert!(make("viewer", 0).is_err() && make("viewer", 400).is_err() && make("", 7).is_err());
        let token = make("viewer", 7).unwrap();
        assert!(token.starts_with(PREFIX));
        assert_eq!(book.bearer(&token).unwrap().unwrap().0.name, "token:scraper");
        let id = book.tokens(None).unwrap()[0].id;
        assert!(book.revoke(id, Some(5)).is_err(), "it is nobody's");
        book.revoke(id, None).unwrap();
        assert!(book.bearer(&token).unwrap().is_none());
        let token = make("viewer", 7).unwrap();
        book.ask("UPDATE people_tokens SET expires = 1", []).unwrap();
        assert!(book.bearer(&token).unwrap().is_none());
    }
}
