//! What was asked for, letter by letter: text and parameters enter, their digest and what a reviewer may see leave.
//!
//! Texts are kept in memory alone, bounded, and never logged: they hold what statements hold.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use sha2::{Digest, Sha256};

use crate::{sql::Statement, wire::postgres::bind_values};

/// Longest text that is kept for reviewers, in bytes: what is longer does not wait.
const MAX_TEXT: usize = 1024 * 1024;

/// Bytes of texts of one session's prepared statements that are kept.
const MAX_TEXTS: usize = 4 * 1024 * 1024;

/// Most parameters that are kept for reviewers, and the longest of them.
const MAX_PARAMETERS: usize = 256;
const MAX_PARAMETER: usize = 1_024;

/// Statements of one session whose texts are kept.
const MAX_KEPT: usize = 256;

/// A statement as its client sent it.
#[derive(Clone)]
pub struct Exact {
    digest: [u8; 32],
    text: Option<Box<str>>,
    parameters: Vec<Box<str>>,
    count: usize,
    reason: Option<Box<str>>,
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exact").field("digest", &hex::encode(self.digest)).finish_non_exhaustive()
    }
}

impl Exact {
    /// Of `text` with the types of its parameters as the client declared them.
    pub fn new(text: &[u8], types: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        for part in [text, types] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let kept = (text.len() <= MAX_TEXT).then(|| String::from_utf8_lossy(text).into());
        let reason = super::from_text(text).map(Into::into);
        Self { digest: hasher.finalize().into(), text: kept, parameters: Vec::new(), count: 0, reason }
    }

    /// Of a call of the function with this number; `body` is the whole message's.
    pub fn call(body: &[u8]) -> Self {
        Self { text: None, ..Self::new(body, b"function call") }
    }

    /// With the parameters of a Bind: `body` is its body behind the two names. `None` where that is malformed.
    pub fn bind(&self, body: &[u8]) -> Option<Self> {
        let (shown, count) = parameters(body)?;
        let mut hasher = Sha256::new();
        hasher.update(self.digest);
        hasher.update(body);
        Some(Self { digest: hasher.finalize().into(), parameters: shown, count, ..self.clone() })
    }

    /// SHA-256 over all of it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.count
    }

    /// The reason that stands in a comment of its text.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Bytes of the text that is kept.
    fn length(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.len())
    }

    /// The text for a reviewer; the error says why there is none. What may set a password is never shown.
    pub fn text(&self) -> Result<&str, &'static str> {
        let text = self.text.as_deref().ok_or("it is too long to be kept, or a function call")?;
        if text.to_ascii_lowercase().contains("password") {
            return Err("it may set a password");
        }
        Ok(text)
    }

    /// The parameters for a reviewer, as far as they are kept.
    pub fn parameters(&self) -> &[Box<str>] {
        &self.parameters
    }
}

/// What a reviewer sees of parameters, and how many there are.
fn parameters(body: &[u8]) -> Option<(Vec<Box<str>>, usize)> {
    let mut shown = Vec::new();
    let count = bind_values(body, |value, binary| {
        if shown.len() < MAX_PARAMETERS {
            shown.push(parameter(value, binary));
        }
    })?;
    Some((shown, count))
}

fn parameter(value: Option<&[u8]>, binary: bool) -> Box<str> {
    let Some(value) = value else { return "NULL".into() };
    let cut = &value[..value.len().min(MAX_PARAMETER)];
    let more = if cut.len() < value.len() { format!(" .. ({} bytes)", value.len()) } else { String::new() };
    if binary {
        format!("\\x{}{more}", hex::encode(cut)).into()
    } else {
        format!("{}{more}", String::from_utf8_lossy(cut)).into()
    }
}

/// The exact texts of statements that a session has prepared, and that will wait when they are run.
///
/// INVARIANT: a statement that is kept here is one of its own, shared with no other text: what holds of it holds of what
/// the server was sent under its name.
#[derive(Debug, Default)]
pub struct Exacts(Vec<(Weak<Statement>, Arc<Exact>)>);

impl Exacts {
    /// `statement` as one of its own, of which `exact` is known.
    pub fn keep(&mut self, statement: &Statement, exact: Exact) -> Arc<Statement> {
        let own = Arc::new(statement.clone());
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|(known, _)| known.strong_count() > 0);
        }
        if self.0.len() >= MAX_KEPT {
            self.0.remove(0);
        }
        let texts = |kept: &Self| kept.0.iter().map(|(_, exact)| exact.length()).sum::<usize>();
        let exact = match texts(self) + exact.length() {
            ..=MAX_TEXTS => exact,
            // It can wait all the same; who is asked to approve it is told that it cannot be shown.
            _ => Exact { text: None, ..exact },
        };
        self.0.push((Arc::downgrade(&own), Arc::new(exact)));
        own
    }

    /// What is known of `statement`.
    pub fn of(&self, statement: &Arc<Statement>) -> Option<&Arc<Exact>> {
        let found =
            self.0.iter().rev().find(|(known, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(statement)));
        found.map(|(_, exact)| exact)
    }

    /// True where nothing is known of any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_body(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = u16::try_from(formats.len()).unwrap().to_be_bytes().to_vec();
        formats.iter().for_each(|format| body.extend(format.to_be_bytes()));
        body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            match value {
                None => body.extend((-1_i32).to_be_bytes()),
                Some(value) => {
                    body.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
                    body.extend(*value);
                }
            }
        }
        body.extend([0, 0]);
        body
    }

    #[test]
    fn every_part_counts() {
        let base = Exact::new(b"DELETE FROM t WHERE a = $1", b"");
        let digest = |exact: &Exact| *exact.digest();
        assert_ne!(digest(&base), digest(&Exact::new(b"DELETE FROM t WHERE a = $2", b"")));
        assert_ne!(digest(&base), digest(&Exact::new(b"DELETE FROM t WHERE a = $1", b"\0\0\0\x17")));
        let one = base.bind(&bind_body(&[], &[Some(b"1")])).unwrap();
        assert_eq!(digest(&one), digest(&base.bind(&bind_body(&[], &[Some(b"1")])).unwrap()));
        for other in [bind_body(&[], &[Some(b"2")]), bind_body(&[1], &[Some(b"1")]), bind_body(&[], &[None])]
        {
            assert_ne!(digest(&one), digest(&base.bind(&other).unwrap()));
        }
    }

    #[test]
    fn parameters_are_shown_and_malformed_ones_refused() {
        let base = Exact::new(b"x", b"");
        let bound = base.bind(&bind_body(&[0, 1, 0], &[Some(b"ann"), Some(&[1, 2]), None])).unwrap();
        let shown: Vec<&str> = bound.parameters().iter().map(|text| &**text).collect();
        assert_eq!((shown, bound.parameter_count()), (vec!["ann", "\\x0102", "NULL"], 3));
        let body = bind_body(&[], &[Some(b"abc")]);
        for end in 0..body.len() - 2 {
            assert!(base.bind(&body[..end]).is_none(), "{end}");
        }
        let long = base.bind(&bind_body(&[], &[Some(&[b'x'; 5_000])])).unwrap();
        assert!(long.parameters()[0].ends_with("(5000 bytes)") && long.parameters()[0].len() < 1_100);
    }

    #[test]
    fn passwords_are_not_shown() {
        assert!(Exact::new(b"ALTER ROLE a PassWord 'x'", b"").text().is_err());
        assert!(Exact::new(b"SELECT 1", b"").text().is_ok());
        let long = vec![b' '; MAX_TEXT + 1];
        assert!(Exact::new(&long[1..], b"").text().is_ok());
        assert!(Exact::new(&long, b"").text().is_err());
    }

    #[test]
    fn texts_of_one_session_are_bounded() {
        let text = vec![b' '; MAX_TEXT];
        let statement = crate::sql::Classifier::new(crate::sql::Limits::default())
            .classify(b"SELECT 1", &crate::sql::Modes::default());
        let mut exacts = Exacts::default();
        let kept: Vec<_> = (0..6).map(|_| exacts.keep(&statement, Exact::new(&text, b""))).collect();
        let shown = kept.iter().filter(|own| exacts.of(own).is_some_and(|exact| exact.text().is_ok()));
        assert_eq!(shown.count(), MAX_TEXTS / MAX_TEXT);
        assert!(kept.iter().all(|own| exacts.of(own).is_some()), "each can wait");
    }
}
