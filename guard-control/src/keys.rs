//! The control plane's own signing key: it signs tree heads and policies.
//!
//! It lies in the keys' folder, for its owner alone, and is never shown or logged. All replicas have the same one.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use guard_common::audit::checkpoint::PublicKey;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};

/// PKCS#8, DER.
const KEY: &str = "signing-key";
/// Longest key file in bytes: an Ed25519 key in PKCS#8 has 85.
const MAX_KEY_BYTES: u64 = 1_024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("the signing key `{}` cannot be used: {reason}", path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: String,
}

/// Signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// The key in `dir`; a new one where there is none.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        match Self::load(dir) {
            Err(error) if !dir.join(KEY).exists() => {
                let failed = |reason: String| KeyError { path: dir.join(KEY), reason };
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
                let made = made.map_err(|_| failed("there are no random numbers".to_owned()))?;
                write(dir, made.as_ref()).map_err(|error| failed(error.to_string()))?;
                // Of two replicas that start together, the one that was quicker.
                Self::load(dir).map_err(|_| error)
            }
            result => result,
        }
    }

    /// The key in `dir`, for a command beside a server.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        let path = dir.join(KEY);
        let failed = |reason: String| KeyError { path: path.clone(), reason };
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(|error| {
            failed(match error.kind() {
                io::ErrorKind::NotFound => "there is none yet: `guard-control serve` makes one".to_owned(),
                _ => error.to_string(),
            })
        })?;
        file.take(MAX_KEY_BYTES).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        let pair = Ed25519KeyPair::from_pkcs8(&bytes)
            .map_err(|error| failed(format!("it holds no Ed25519 key ({error})")))?;
        let public =
            PublicKey::from_bytes(pair.public_key().as_ref()).map_err(|error| failed(error.to_string()))?;
        Ok(Self { pair, public })
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs `message`, which says what it is for.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// Whole or not at all, and never over another.
fn write(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = dir.join(format!("{KEY}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let linked = match fs::hard_link(&temporary, dir.join(KEY)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    fs::remove_file(&temporary)?;
    linked?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        assert!(SigningKey::load(&keys).unwrap_err().to_string().contains("guard-control serve"));
        let key = SigningKey::open(&keys).unwrap();
        assert_eq!(SigningKey::open(&keys).unwrap().public(), key.public());
        assert!(key.public().signed(b"message", &key.sign(b"message")));
        assert_eq!(fs::metadata(keys.join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 1);
    }
}
