//! Where the store and the keys are, for commands that work beside the server: whoever may read its folder may do what they
//! do.

use std::{ffi::OsStr, path::PathBuf};

use clap::{Arg, Args, Command, builder::TypedValueParser, error::ErrorKind};

use crate::store::{Store, StoreError, StoreHandle, postgres::Url};

/// Name of the keys' folder in the data folder.
const KEYS: &str = "keys";

/// Where a control plane keeps what it has.
#[derive(Debug, Args)]
pub struct Place {
    /// Folder of the store
    #[arg(long, value_name = "DIR", env = "GUARD_CONTROL_DATA", default_value = "/var/lib/guard-control")]
    pub data: PathBuf,
    /// PostgreSQL instead of the embedded store, for more than one replica: postgresql://user@host/database; a password is
    /// better kept in the environment than on the command line
    #[arg(long, value_name = "URL", env = "GUARD_CONTROL_STORE", hide_env_values = true, value_parser = StoreUrl)]
    store: Option<Url>,
    /// Certificate authorities of PostgreSQL, PEM
    #[arg(long, value_name = "FILE", env = "GUARD_CONTROL_STORE_CA", requires = "store")]
    store_ca: Option<PathBuf>,
    /// Folder of the certificate authority (ca.pem, ca-key.pem) and of the signing keys; the same for all replicas
    /// [default: `keys` in the data folder]
    #[arg(long, value_name = "DIR", env = "GUARD_CONTROL_KEYS")]
    keys: Option<PathBuf>,
}

/// Reads the URL of a store. What is wrong with it is told without it: it may hold a password.
#[derive(Clone, Copy, Debug)]
pub struct StoreUrl;

impl TypedValueParser for StoreUrl {
    type Value = Url;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<Url, clap::Error> {
        value.to_str().unwrap_or_default().parse().map_err(|problem: String| {
            let told = format!("invalid value for '--store <URL>': {problem}\n");
            clap::Error::raw(ErrorKind::ValueValidation, told).with_cmd(command)
        })
    }
}

impl Place {
    /// Of people's book alone.
    pub fn of_people(data: PathBuf, store: Option<Url>, store_ca: Option<PathBuf>) -> Self {
        Self { data, store, store_ca, keys: None }
    }

    /// The keys' folder.
    pub fn keys(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| self.data.join(KEYS))
    }

    /// Opens the store for the server.
    pub async fn open(&self) -> Result<Opened, StoreError> {
        match &self.store {
            Some(url) => {
                Ok(Opened { store: Store::postgres(url, self.store_ca.clone()).await?, handle: None })
            }
            None => {
                let (store, handle) = Store::open(&self.data)?;
                Ok(Opened { store, handle: Some(handle) })
            }
        }
    }

    /// Whether the store is one that several replicas share.
    pub fn is_shared(&self) -> bool {
        self.store.is_some()
    }

    /// Where the store is, for people.
    pub fn shown(&self) -> String {
        match &self.store {
            Some(url) => url.place(),
            None => self.data.display().to_string(),
        }
    }

    /// Runs `work` on the store, beside the server.
    pub fn beside<T>(&self, work: impl AsyncFnOnce(&Store) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let opened = match &self.store {
            Some(_) => runtime.block_on(self.open())?,
            None => {
                let (store, handle) = Store::open_beside(&self.data)?;
                Opened { store, handle: Some(handle) }
            }
        };
        let result = runtime.block_on(work(&opened.store));
        opened.close();
        result
    }
}

/// A store, and what ends it.
pub struct Opened {
    /// The store.
    pub store: Store,
    handle: Option<StoreHandle>,
}

impl Opened {
    /// Ends it. Blocks: not for async code.
    pub fn close(self) {
        drop(self.store);
        if let Some(handle) = self.handle {
            handle.close();
        }
    }
}
