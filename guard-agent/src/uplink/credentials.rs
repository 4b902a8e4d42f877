//! What the agent is known by at the control plane: its key, its certificate, and whom it trusts.
//!
//! A folder in the state folder, readable by its owner alone. The key never leaves it and is never logged. Key and
//! certificate are one file, so that a crash leaves the old pair or the new one.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use uuid::Uuid;
use x509_cert::{
    Certificate,
    der::{Decode, oid::AssociatedOid},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// Key and certificate, PEM.
const IDENTITY: &str = "identity.pem";
/// Authorities, PEM.
const AUTHORITIES: &str = "authorities.pem";
/// URL of the control plane.
const CONTROL: &str = "control";
/// Keys that sign policies, hex, one per line.
const POLICY_KEYS: &str = "policy-keys";
/// How agents are named in their certificates.
const AGENT_URI: &str = "spiffe://guard/agent/";
/// Largest file in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read or written.
    #[error("cannot use `{}`: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("`{}` {problem}: enroll this agent again with `guard-agent enroll`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Credentials {
    dir: PathBuf,
}

/// What lies in it.
pub struct Held {
    /// The secret key.
    pub key: PrivateKeyDer<'static>,
    /// The certificate that goes with it.
    pub certificate: CertificateDer<'static>,
    /// Who may have signed the control plane's certificate.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Whom the certificate names.
    pub named: Named,
}

/// What a certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The agent.
    pub agent_id: Uuid,
    /// The first moment of its validity.
    pub begins: SystemTime,
    /// The last one.
    pub expires: SystemTime,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("named", &self.named).finish_non_exhaustive()
    }
}

/// What is to be kept.
#[derive(Debug)]
pub struct Kept<'a> {
    /// PKCS#8, PEM.
    pub key: &'a str,
    /// DER.
    pub certificate: &'a [u8],
    /// DER.
    pub authorities: &'a [Vec<u8>],
    /// Keys that sign policies.
    pub policy_keys: &'a [Vec<u8>],
}

impl Named {
    /// Of a certificate.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
        let extensions = certificate.extensions.unwrap_or_default();
        let names = extensions.iter().find(|extension| extension.extn_id == SubjectAltName::OID)?;
        let names = SubjectAltName::from_der(names.extn_value.as_bytes()).ok()?.0;
        let [GeneralName::UniformResourceIdentifier(uri)] = &names[..] else { return None };
        Some(Self {
            agent_id: Uuid::try_parse(uri.as_str().strip_prefix(AGENT_URI)?).ok()?,
            begins: certificate.validity.not_before.to_system_time(),
            expires: certificate.validity.not_after.to_system_time(),
        })
    }

    /// When the next certificate should be asked for: with a third of its time left.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.expires.duration_since(self.begins).unwrap_or_default();
        self.expires - life / 3
    }

    /// How long it is still good.
    pub fn left(&self) -> Duration {
        self.expires.duration_since(SystemTime::now()).unwrap_or_default()
    }
}

impl Credentials {
    /// In this state folder.
    pub fn in_state(state: &Path) -> Self {
        Self { dir: state.join("uplink") }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The control plane at which this agent has enrolled.
    pub fn control(&self) -> Option<String> {
        let text = self.read(CONTROL).ok()??;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Keys that sign policies, in hex.
    pub fn policy_keys(&self) -> Vec<String> {
        let text = self.read(POLICY_KEYS).ok().flatten().unwrap_or_default();
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    /// Key, certificate and authorities; nothing where the agent has not enrolled.
    pub fn load(&self) -> Result<Option<Held>, CredentialError> {
        let path = self.dir.join(IDENTITY);
        let content =
            |problem: &str| CredentialError::Content { path: path.clone(), problem: problem.to_owned() };
        let Some(identity) = self.read(IDENTITY)? else { return Ok(None) };
        let key = PrivateKeyDer::from_pem_slice(identity.as_bytes()).map_err(|_| content("holds no key"))?;
        let certificate = CertificateDer::from_pem_slice(identity.as_bytes())
            .map_err(|_| content("holds no certificate"))?;
        let named = Named::of(&certificate).ok_or_else(|| content("holds the certificate of no agent"))?;
        let authorities = self.read(AUTHORITIES)?.unwrap_or_default();
        let authorities =
            CertificateDer::pem_slice_iter(authorities.as_bytes()).collect::<Result<Vec<_>, _>>();
        let authorities =
            authorities.ok().filter(|found| !found.is_empty()).ok_or_else(|| CredentialError::Content {
                path: self.dir.join(AUTHORITIES),
                problem: "holds no certificate authority".to_owned(),
            })?;
        Ok(Some(Held { key, certificate, authorities, named }))
    }

    /// Keeps what the control plane has given.
    pub fn save(&self, kept: &Kept<'_>) -> Result<(), CredentialError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| CredentialError::File { path: self.dir.clone(), error })?;
        let authorities: String = kept.authorities.iter().map(|der| pem(der)).collect();
        let policy_keys: String = kept.policy_keys.iter().map(|key| hex::encode(key) + "\n").collect();
        self.write(POLICY_KEYS, &policy_keys)?;
        self.write(AUTHORITIES, &authorities)?;
        // Last: with it the agent is enrolled.
        self.write(IDENTITY, &format!("{}{}", kept.key, pem(kept.certificate)))
    }

    /// Keeps where the control plane is.
    pub fn save_control(&self, url: &str) -> Result<(), CredentialError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| CredentialError::File { path: self.dir.clone(), error })?;
        self.write(CONTROL, &format!("{url}\n"))
    }

    fn read(&self, name: &str) -> Result<Option<String>, CredentialError> {
        let path = self.dir.join(name);
        let mut text = String::new();
        let read = match fs::File::open(&path) {
            Ok(file) => file.take(MAX_FILE).read_to_string(&mut text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        read.map_err(|error| CredentialError::File { path, error })?;
        Ok(Some(text))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CredentialError> {
        let temporary = self.dir.join(format!("{name}.new"));
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, self.dir.join(name))?;
            fs::File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| CredentialError::File { path: self.dir.join(name), error })
    }
}

/// A certificate as PEM: base64 in lines of 64 (RFC 7468).
fn pem(der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let mut lines = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        lines.push_str(line);
        lines.push('\n');
        rest = after;
    }
    lines + "-----END CERTIFICATE-----\n"
}
