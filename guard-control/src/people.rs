//! Who may look at the fleet and decide on what waits there.
//!
//! Names, passwords, tokens and cookies enter; persons with their roles leave. Secrets are kept as hashes alone, and leave
//! neither in logs nor in records. What people do goes into a chain of its own: [`record`].

pub mod book;
mod desk;
mod journeys;
pub mod oidc;
mod outbox;
pub mod password;
pub mod record;
pub mod role;
mod schema;
pub mod searches;
pub mod secret;
pub mod sessions;
pub mod tokens;

use std::{path::Path, sync::Arc};

use tokio::runtime::Handle;

pub use self::{
    book::{Book, Person},
    role::{Right, Role, Roles},
};
use crate::store::{Store, StoreError};

/// Why something about people can't be done.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// SQLite refused.
    #[error("the people's database cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The data folder can't be used.
    #[error("cannot use `{path}`: {error}")]
    Folder {
        /// The file.
        path: String,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// A later version of guard-control wrote it.
    #[error(
        "the people's database has version {found}, this program knows {known}: install the later guard-control"
    )]
    Newer {
        /// The version that was found.
        found: u32,
        /// The latest version that is known.
        known: u32,
    },
    /// The store can't.
    #[error("people cannot be looked up: {0}")]
    Store(#[from] StoreError),
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
    /// What was asked for can't be.
    #[error("{0}")]
    Request(String),
    /// The work ended in a panic, or the program is stopping.
    #[error("the control plane is stopping")]
    Closed,
}

impl PeopleError {
    /// A request that can't be met.
    pub fn request(why: impl Into<String>) -> Self {
        Self::Request(why.into())
    }
}

/// The people's book, off the threads that serve.
#[derive(Clone)]
pub struct People {
    book: Arc<Book>,
}

impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("People").finish_non_exhaustive()
    }
}

impl People {
    /// Opens the book in `dir`, making it if need be.
    pub fn open(dir: &Path) -> Result<Self, PeopleError> {
        Ok(Self { book: Arc::new(Book::open(dir)?) })
    }

    /// The book in a store that several replicas share.
    pub fn shared(store: Store, runtime: Handle) -> Self {
        Self { book: Arc::new(Book::shared(store, runtime)) }
    }

    /// Runs `work` on a thread that may wait for the disk, or for a password's hash.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Book) -> Result<T, PeopleError> + Send + 'static,
    ) -> Result<T, PeopleError> {
        let book = self.book.clone();
        tokio::task::spawn_blocking(move || work(&book)).await.map_err(|_| PeopleError::Closed)?
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}
