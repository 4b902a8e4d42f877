//! What all sessions share for masking: configuration, the key of hashes, the catalogs of their databases.

use std::{
    collections::HashMap,
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::witnesses::Seen;
use crate::{
    catalog::{Catalogs, Limits, Pattern, Settings},
    config::Config,
    mask::{detector::ColumnNames, rewrite::HashKey},
};

/// Between two readings of a catalog where nothing is known to have changed.
const CATALOG_INTERVAL: Duration = Duration::from_secs(300);

/// Bytes of a new key.
const KEY_BYTES: usize = 32;

/// Longest key file.
const MAX_KEY_BYTES: u64 = 4_096;

/// What sessions need to mask.
#[derive(Debug)]
pub struct Masks {
    /// Mask at all.
    pub enabled: bool,
    /// Tell clients with a NOTICE.
    pub notice: bool,
    /// Longest row that is rewritten, in bytes.
    pub max_row: usize,
    /// The key of the rule `hash`.
    pub key: HashKey,
    /// The catalogs of databases.
    pub catalogs: Catalogs,
    /// What values of columns have shown.
    pub(super) seen: Seen,
}

/// Why the key of the rule `hash` cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the key of masking `{path}`: {error}; make the file readable for the agent, or name another one in `masking.hash_key_file`"
)]
pub struct KeyError {
    path: PathBuf,
    error: io::Error,
}

impl Masks {
    /// As `config` says. Makes the key where there is none.
    pub fn new(config: &Config) -> Result<Self, KeyError> {
        let masking = &config.masking;
        let path = masking.hash_key_file.clone().unwrap_or_else(|| config.paths.state.join("masking.key"));
        let key = if masking.enabled {
            key(&path).map_err(|error| KeyError { path, error })?
        } else {
            HashKey::new(&[])
        };
        Ok(Self {
            enabled: masking.enabled,
            notice: masking.notice,
            max_row: masking.max_row_mib.saturating_mul(1024 * 1024),
            key,
            catalogs: catalogs(config),
            seen: Seen::default(),
        })
    }

    /// No masking.
    pub fn off() -> Self {
        Self {
            enabled: false,
            notice: false,
            max_row: 0,
            key: HashKey::new(&[]),
            catalogs: catalogs(&Config::default()),
            seen: Seen::default(),
        }
    }
}

/// The catalogs, and what is said of columns by hand.
fn catalogs(config: &Config) -> Catalogs {
    let settings =
        Settings { interval: CATALOG_INTERVAL, limits: Limits::default(), names: Arc::new(ColumnNames) };
    let mut patterns: HashMap<String, Vec<Pattern>> = HashMap::new();
    for tagged in &config.masking.columns {
        // It was checked when the configuration was read.
        if let Ok(pattern) = Pattern::try_from(&tagged.to_tag()) {
            patterns.entry(tagged.server.clone().unwrap_or_default()).or_default().push(pattern);
        }
    }
    Catalogs::new(settings, patterns)
}

fn key(path: &Path) -> io::Result<HashKey> {
    match fs::metadata(path) {
        Ok(found) if found.len() > MAX_KEY_BYTES => Err(io::Error::other("it is longer than 4096 bytes")),
        Ok(_) => {
            let secret = fs::read(path)?;
            if secret.len() < KEY_BYTES {
                return Err(io::Error::other("it has less than 32 bytes: delete it, and a new one is made"));
            }
            Ok(HashKey::new(&secret))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(path),
        Err(error) => Err(error),
    }
}

/// A new key, whole or not at all.
fn make_key(path: &Path) -> io::Result<HashKey> {
    let mut secret = [0; KEY_BYTES];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut secret).map_err(|_| io::Error::other("no random numbers"))?;
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(HashKey::new(&secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("masking.key");
        key(&path).unwrap();
        let made = fs::read(&path).unwrap();
        assert_eq!(made.len(), KEY_BYTES);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        key(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), made);
        fs::write(&path, b"short").unwrap();
        assert!(key(&path).unwrap_err().to_string().contains("32 bytes"));
    }
}
