//! What an approval is bound to: everything that says what a statement does, by whom and where.

use sha2::{Digest, Sha256};

use super::Exact;
use crate::{decide::Session, sql::Modes};

/// SHA-256 over what is approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding([u8; 32]);

/// What is bound.
#[derive(Debug)]
pub struct Bound<'a> {
    /// Who asks, in which database, in whose name, on which search path.
    pub session: &'a Session,
    /// How its text is read.
    pub modes: Modes,
    /// What is asked for; several where it is not certain which one it will be. Empty: nobody knows the text.
    pub exacts: &'a [&'a Exact],
}

impl Bound<'_> {
    /// The binding; `None` where the text is not known, so that nothing later can be told to be the same.
    pub fn binding(&self) -> Option<Binding> {
        let Self { session, modes, exacts } = self;
        if exacts.is_empty() {
            return None;
        }
        let mut hasher = Sha256::new();
        hasher.update(session.principal.bound_as());
        let (path, roles) = (session.search_path.as_key(), session.roles.as_key());
        let modes = format!("{modes:?}");
        for part in [session.target.id(), session.db_user.as_str(), &path, &roles, &modes] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        for exact in *exacts {
            hasher.update(exact.digest());
        }
        Some(Binding(hasher.finalize().into()))
    }
}

impl Binding {
    /// Its bytes, for the request.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}
