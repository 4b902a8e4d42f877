//! Passwords. They enter as text, argon2id hashes leave; a wrong one costs as much time as a right one.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::{PeopleError, secret};

/// The shortest that people may choose, in letters.
pub const MIN_LETTERS: usize = 12;
/// The longest in bytes: it is hashed before anybody has signed in.
pub const MAX_BYTES: usize = 256;

/// KiB of memory, rounds, lanes: the second choice of RFC 9106 would take 64 MiB for each attempt; OWASP's has 19 MiB.
const COST: (u32, u32, u32) = (19_456, 2, 1);
const PREFIX: &str = "$argon2id$v=19$m=19456,t=2,p=1$";
const LEN: usize = 32;

/// Letters of one-time passwords: none that looks like another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The hash of a password, with its salt and cost.
pub fn hash(password: &str) -> Result<String, PeopleError> {
    let salt = &secret::random_bytes()?[..16];
    let hash = derive(password, salt)?;
    Ok(format!("{PREFIX}{}${}", STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash)))
}

/// Whether `password` gives `hash`. Without a hash it takes as long, and is wrong.
pub fn verify(password: &str, hash: Option<&str>) -> bool {
    let parts = hash.and_then(|hash| hash.strip_prefix(PREFIX)).and_then(|rest| rest.split_once('$'));
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).ok();
    let known = parts.and_then(|(salt, hash)| Some((decode(salt)?, decode(hash)?)));
    let (salt, wanted) = known.unwrap_or_else(|| (vec![0; 16], Vec::new()));
    password.len() <= MAX_BYTES && derive(password, &salt).is_ok_and(|found| secret::same(&found, &wanted))
}

fn derive(password: &str, salt: &[u8]) -> Result<[u8; LEN], PeopleError> {
    let (memory, rounds, lanes) = COST;
    let failed =
        |error: argon2::Error| PeopleError::request(format!("the password cannot be hashed: {error}"));
    let params = Params::new(memory, rounds, lanes, Some(LEN)).map_err(failed)?;
    let mut hash = [0; LEN];
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into(password.as_bytes(), salt, &mut hash).map_err(failed)?;
    Ok(hash)
}

/// Whether people may choose it.
pub fn check(password: &str, name: &str) -> Result<(), PeopleError> {
    let problem = if password.chars().count() < MIN_LETTERS {
        "a password has at least 12 letters"
    } else if password.len() > MAX_BYTES {
        "a password has at most 256 bytes"
    } else if password.to_lowercase().contains(&name.to_lowercase()) {
        "a password does not contain its owner's name"
    } else if password.chars().all(|letter| password.starts_with(letter)) {
        "a password is more than one letter over and over"
    } else {
        return Ok(());
    };
    Err(PeopleError::request(problem))
}

/// A password to be used once: 100 random bits, easy to type.
pub fn one_time() -> Result<String, PeopleError> {
    let random = secret::random_bytes()?;
    let letter = |byte: &u8| char::from(LETTERS[usize::from(byte % 32)]);
    let groups = random[..20].chunks(5).map(|group| group.iter().map(letter).collect::<String>());
    Ok(groups.collect::<Vec<_>>().join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_fits_its_hash() {
        let kept = hash("correct horse battery").unwrap();
        assert!(kept.starts_with("$argon2id$v=19$"));
        assert!(verify("correct horse battery", Some(&kept)));
        assert!(!verify("correct horse batterY", Some(&kept)));
        assert!(!verify("", None) && !verify("x", Some("")) && !verify("x", Some("$argon2id$v=19$m=8$a$")));
        assert_ne!(kept, hash("correct horse battery").unwrap(), "a salt of its own each time");
    }

    #[test]
    fn weak_ones_are_refused_with_the_reason() {
        assert!(check("short", "ann").is_err());
        assert!(check(&"a".repeat(20), "bob").is_err());
        assert!(check("my-Ann-is-here-now", "ann").is_err());
        assert!(check(&"ä".repeat(200), "ann").is_err());
        check("four quiet yellow boats", "ann").unwrap();
        check(&one_time().unwrap(), "zoë").unwrap();
    }
}
