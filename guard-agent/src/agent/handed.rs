//! Policies that the control plane hands down: signed versions enter, the set to run leaves, or why it is not taken.
//!
//! Only where `policy.from_control` is set. Nothing counts that is not signed by a key that this agent was given when it
//! joined, and nothing that is not newer than what it has: whoever plays an old version back gets nowhere.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use guard_common::{
    api::control::{PolicyBundle, SignedPolicy},
    audit::{checkpoint::PublicKey, policy::message},
};
use guard_policy::{Origin, PolicyError, PolicySet};
use prost::Message;

use crate::{config::Config, uplink::Credentials};

/// The version that is in force, signed as it came.
const FILE: &str = "policy-from-control";
/// Largest bundle in bytes.
const MAX_BYTES: u64 = 5 * 1024 * 1024;

/// Why a version is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// Not signed, or by nobody who counts.
    #[error(
        "the policies that the control plane hands down are not signed by a key that this agent was given when it joined"
    )]
    Unsigned,
    /// What was signed is no bundle.
    #[error("the policies that the control plane hands down cannot be read")]
    Unreadable,
    /// Played back.
    #[error(
        "the control plane hands down policies of version {offered}, and this agent has version {known} already"
    )]
    Older {
        /// The version that was offered.
        offered: u64,
        /// The version that it has.
        known: u64,
    },
    /// They do not load.
    #[error("version {version} of the policies: {error}")]
    Policies {
        /// The version.
        version: u64,
        /// Why not.
        error: PolicyError,
    },
    /// The file cannot be read or written.
    #[error("cannot use `{}`: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Where they are kept, and who may sign.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    path: PathBuf,
    credentials: Credentials,
}

impl Handed {
    /// Where the configuration lets the control plane hand down policies.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        config.policy.from_control.then(|| Self {
            path: config.paths.state.join(FILE),
            credentials: Credentials::in_state(&config.paths.state),
        })
    }

    /// The version that was taken last, checked anew; nothing where none was.
    pub(crate) fn load(&self) -> Result<Option<(u64, PolicySet)>, HandedError> {
        let Some(bundle) = self.kept()? else { return Ok(None) };
        set(bundle).map(Some)
    }

    /// Takes a version: from now on it is the one that is kept.
    pub(crate) fn take(&self, signed: &SignedPolicy) -> Result<(u64, PolicySet), HandedError> {
        let bundle = self.open(signed)?;
        let known = self.kept().ok().flatten().map_or(0, |bundle| bundle.version);
        if bundle.version <= known {
            return Err(HandedError::Older { offered: bundle.version, known });
        }
        let taken = set(bundle)?;
        self.write(&signed.encode_to_vec()).map_err(|error| self.failed(error))?;
        Ok(taken)
    }

    fn kept(&self) -> Result<Option<PolicyBundle>, HandedError> {
        let mut bytes = Vec::new();
        let read = match fs::File::open(&self.path) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        read.map_err(|error| self.failed(error))?;
        let signed = SignedPolicy::decode(&*bytes).map_err(|_| HandedError::Unreadable)?;
        self.open(&signed).map(Some)
    }

    /// What was signed, if it was.
    fn open(&self, signed: &SignedPolicy) -> Result<PolicyBundle, HandedError> {
        let keys = self.credentials.policy_keys();
        let keys = keys.iter().filter_map(|key| key.parse::<PublicKey>().ok());
        let key = keys.into_iter().find(|key| key.id() == signed.key_id).ok_or(HandedError::Unsigned)?;
        if !key.signed(&message(&signed.bundle), &signed.signature) {
            return Err(HandedError::Unsigned);
        }
        PolicyBundle::decode(&*signed.bundle).map_err(|_| HandedError::Unreadable)
    }

    fn failed(&self, error: io::Error) -> HandedError {
        HandedError::File { path: self.path.clone(), error }
    }

    /// Whole or not at all.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        match self.path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn set(bundle: PolicyBundle) -> Result<(u64, PolicySet), HandedError> {
    let version = bundle.version;
    let files = bundle.files.into_iter().map(|file| (file.name, file.content)).collect();
    let set = PolicySet::from_files(files, Origin::Control(version));
    set.map(|set| (version, set)).map_err(|error| HandedError::Policies { version, error })
}

#[cfg(test)]
mod tests {
    use guard_common::api::control::PolicyFile;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    const POLICY: &str = "@id(\"all\")\npermit (principal, action, resource);";

    struct Site {
        dir: tempfile::TempDir,
        key: Ed25519KeyPair,
    }

    impl Site {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
            let folder = dir.path().join("uplink");
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("policy-keys"), hex::encode(key.public_key()) + "\n").unwrap();
            Self { dir, key }
        }

        fn handed(&self) -> Handed {
            let mut config = Config::default();
            config.policy.from_control = true;
            config.paths.state = self.dir.path().to_owned();
            Handed::of(&config).unwrap()
        }

        fn signed(&self, key: &Ed25519KeyPair, version: u64, text: &str) -> SignedPolicy {
            let file = PolicyFile { name: "a/policy.cedar".to_owned(), content: text.to_owned() };
            let bundle =
                PolicyBundle { version, files: vec![file], ..PolicyBundle::default() }.encode_to_vec();
            let public = PublicKey::from_bytes(key.public_key().as_ref()).unwrap();
            let signature = key.sign(&message(&bundle)).as_ref().to_vec();
            SignedPolicy { bundle, key_id: public.id(), signature }
        }
    }

    #[test]
    fn newer_signed_versions_are_taken_and_kept() {
        let site = Site::new();
        assert!(site.handed().load().unwrap().is_none());
        let (version, _) = site.handed().take(&site.signed(&site.key, 3, POLICY)).unwrap();
        assert_eq!(version, 3);
        assert_eq!(site.handed().load().unwrap().unwrap().0, 3);
        for old in [2, 3] {
            let refused = site.handed().take(&site.signed(&site.key, old, POLICY)).unwrap_err();
            assert!(matches!(refused, HandedError::Older { known: 3, .. }), "{refused}");
        }
        assert_eq!(site.handed().take(&site.signed(&site.key, 4, POLICY)).unwrap().0, 4);
    }

    #[test]
    fn what_is_unsigned_changed_or_broken_is_refused_and_the_version_before_stays() {
        let site = Site::new();
        site.handed().take(&site.signed(&site.key, 1, POLICY)).unwrap();
        let other = Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap();
        let mut changed = site.signed(&site.key, 2, POLICY);
        changed.bundle.push(0);
        let mut forged = site.signed(&other, 2, POLICY);
        forged.key_id = site.signed(&site.key, 2, POLICY).key_id;
        for bad in [site.signed(&other, 2, POLICY), changed, forged, SignedPolicy::default()] {
            assert!(matches!(site.handed().take(&bad), Err(HandedError::Unsigned)));
        }
        for broken in ["permit (", "", "permit (principal, action, resource);"] {
            let refused = site.handed().take(&site.signed(&site.key, 2, broken));
            assert!(matches!(refused, Err(HandedError::Policies { version: 2, .. })), "{broken}");
        }
        assert_eq!(site.handed().load().unwrap().unwrap().0, 1);
        // Somebody has been at the file.
        let path = site.dir.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[10] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(site.handed().load().is_err());
    }
}
