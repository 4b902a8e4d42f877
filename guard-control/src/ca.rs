//! The authority that certificates come from: its own, made at the first start, or the files of another.
//!
//! Requests and names enter, certificates leave. Its secret key stays in its file and is never shown; of a request only
//! the public key counts, so that nobody writes themselves a certificate that says more than it should.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::{
    RootCertStore,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;
use x509_cert::{
    Certificate,
    der::{Decode, oid::AssociatedOid},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// The authority's certificate, PEM; more may follow that agents shall trust as well.
const CERTIFICATE: &str = "ca.pem";
/// Its secret key, PEM.
const KEY: &str = "ca-key.pem";
/// How agents are named in their certificates.
const AGENT_URI: &str = "spiffe://guard/agent/";
/// How long the built-in authority is good for.
const OWN_YEARS: u32 = 10;
/// How long a certificate of the control plane's own is good for; a new one is made when a third of it is left.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// How much clocks may differ.
const SKEW: Duration = Duration::from_secs(300);
/// Largest file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Why the authority cannot be used, or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("cannot use `{}` of the certificate authority: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// There is no authority yet.
    #[error(
        "there is no certificate authority in `{}`: `guard-control serve --listen-tls ..` makes one at its first start, or \
         put your own there as `{CERTIFICATE}` and `{KEY}`",
        .0.display()
    )]
    Absent(PathBuf),
    /// A file holds something else.
    #[error("`{}` does not hold what it should: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A request is none, or its signature does not hold.
    #[error("the request for a certificate is not valid: {0}")]
    Request(rcgen::Error),
    /// A name for the control plane is none.
    #[error("`{0}` is neither a host name nor an address: see --tls-name")]
    Name(String),
    /// Signing failed.
    #[error("cannot sign a certificate: {0}")]
    Sign(rcgen::Error),
    /// The certificate of the control plane cannot be used.
    #[error("cannot use the control plane's own certificate: {0}")]
    Own(#[from] rustls::Error),
}

/// A certificate for an agent.
#[derive(Clone, Debug)]
pub struct Issued {
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// In hex.
    pub serial: String,
    /// When it begins to be valid, and when it ends.
    pub validity: (SystemTime, SystemTime),
}

/// Whom a verified certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The agent.
    pub agent_id: Uuid,
    /// In hex.
    pub serial: String,
    /// When it expires.
    pub expires: SystemTime,
}

/// An authority that signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The one that signs first.
    certificates: Vec<CertificateDer<'static>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority whose files are in `dir`; a new one where there are none.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| CaError::File { path, error }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
        let text = match read(&key).map_err(at(&key))? {
            Some(text) => text,
            None if certificate.exists() => {
                let problem = format!("its key is missing: put it beside, as `{KEY}`");
                return Err(CaError::Content { path: certificate, problem });
            }
            None => {
                let made = KeyPair::generate().map_err(CaError::Sign)?.serialize_pem();
                write(dir, KEY, &made).map_err(at(&key))?;
                made
            }
        };
        let pair = KeyPair::from_pem(&text).map_err(|error| CaError::Content {
            path: key.clone(),
            problem: format!("no private key that can be used ({error})"),
        })?;
        let text = match read(&certificate).map_err(at(&certificate))? {
            Some(text) => text,
            None => {
                let made = own(&pair).map_err(CaError::Sign)?;
                write(dir, CERTIFICATE, &made).map_err(at(&certificate))?;
                made
            }
        };
        let problem = |problem: String| CaError::Content { path: certificate.clone(), problem };
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| problem(error.to_string()))?;
        let first = certificates.first().ok_or_else(|| problem("no certificate".to_owned()))?;
        let parsed = Certificate::from_der(first).map_err(|error| problem(error.to_string()))?;
        let public = parsed.tbs_certificate.subject_public_key_info.subject_public_key;
        if public.raw_bytes() != pair.der_bytes() {
            return Err(problem(format!("its first certificate does not belong to the key in `{KEY}`")));
        }
        let issuer = Issuer::from_ca_cert_der(first, pair).map_err(|error| problem(error.to_string()))?;
        Ok(Self { issuer, certificates })
    }

    /// The authority whose files are in `dir`, for a command beside a server.
    pub fn load(dir: &Path) -> Result<Self, CaError> {
        match dir.join(CERTIFICATE).exists() {
            true => Self::open(dir),
            false => Err(CaError::Absent(dir.to_owned())),
        }
    }

    /// What agents are told beforehand: SHA-256 over the signing certificate, in hex.
    pub fn fingerprint(&self) -> String {
        self.certificates
            .first()
            .map(|certificate| hex::encode(Sha256::digest(certificate)))
            .unwrap_or_default()
    }

    /// The certificates that are trusted, the one that signs first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The same for rustls.
    pub fn roots(&self) -> Result<RootCertStore, CaError> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.certificates {
            roots.add(certificate.clone())?;
        }
        Ok(roots)
    }

    /// A certificate for the agent `agent_id` with the key of `request` (PKCS#10, DER), good for `lifetime`.
    pub fn issue(&self, request: &[u8], agent_id: Uuid, lifetime: Duration) -> Result<Issued, CaError> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).map_err(CaError::Request)?;
        let uri = format!("{AGENT_URI}{agent_id}");
        let uri = SanType::URI(uri.try_into().map_err(CaError::Sign)?);
        self.sign(&request.public_key, &agent_id.to_string(), vec![uri], lifetime)
    }

    /// A certificate for the control plane itself, under these names.
    pub fn own_certificate(&self, names: &[String]) -> Result<Arc<CertifiedKey>, CaError> {
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let alternatives = names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
        let issued = self.sign(&key, "guard-control", alternatives, SERVER_LIFETIME)?;
        let mut chain = vec![issued.certificate];
        // With the authority's own: an agent that enrols knows nothing but its fingerprint.
        chain.extend(self.certificates.first().cloned());
        let der = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|problem| rustls::Error::General(problem.to_owned()))?;
        Ok(Arc::new(CertifiedKey::new(chain, any_supported_type(&der)?)))
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        name: &str,
        alternatives: Vec<SanType>,
        lifetime: Duration,
    ) -> Result<Issued, CaError> {
        let now = SystemTime::now();
        let validity = (now - SKEW.min(lifetime / 10), now + lifetime);
        // Random and positive; 122 bits of it.
        let mut serial = Uuid::new_v4().into_bytes();
        serial[0] = (serial[0] & 0x3f) | 0x40;
        let usage = match alternatives.iter().any(|name| matches!(name, SanType::URI(_))) {
            true => ExtendedKeyUsagePurpose::ClientAuth,
            false => ExtendedKeyUsagePurpose::ServerAuth,
        };
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::from(validity.0);
        params.not_after = OffsetDateTime::from(validity.1);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = alternatives;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).map_err(CaError::Sign)?;
        Ok(Issued { certificate: certificate.into(), serial: hex::encode(serial), validity })
    }
}

/// Whom a certificate names that rustls has verified against the authority; nothing where it is no agent's.
pub fn named(certificate: &CertificateDer<'_>) -> Option<Named> {
    let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
    let extensions = certificate.extensions.unwrap_or_default();
    let names = extensions.iter().find(|extension| extension.extn_id == SubjectAltName::OID)?;
    let names = SubjectAltName::from_der(names.extn_value.as_bytes()).ok()?.0;
    // Exactly one name: nobody is two agents.
    let [GeneralName::UniformResourceIdentifier(uri)] = &names[..] else { return None };
    let agent_id = Uuid::try_parse(uri.as_str().strip_prefix(AGENT_URI)?).ok()?;
    Some(Named {
        agent_id,
        serial: hex::encode(certificate.serial_number.as_bytes()),
        expires: certificate.validity.not_after.to_system_time(),
    })
}

fn own(key: &KeyPair) -> Result<String, rcgen::Error> {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now - SKEW;
    params.not_after = now + Duration::from_secs(u64::from(OWN_YEARS) * 365 * 86_400);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("guard-control {}", Uuid::new_v4()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.pem())
}

fn alternative(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || CaError::Name(name.to_owned());
    let valid = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if !valid {
        return Err(wrong());
    }
    Ok(SanType::DnsName(name.to_owned().try_into().map_err(|_| wrong())?))
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match fs::File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_string(&mut text).map(|_| Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole or not at all, and readable by its owner alone.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(params: &CertificateParams) -> Vec<u8> {
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn it_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap().fingerprint();
        assert_eq!(Authority::open(dir.path()).unwrap().fingerprint(), first);
        fs::remove_file(dir.path().join(KEY)).unwrap();
        assert!(Authority::open(dir.path()).unwrap_err().to_string().contains("key is missing"));
        let other = tempfile::tempdir().unwrap();
        Authority::open(other.path()).unwrap();
        fs::copy(other.path().join(KEY), dir.path().join(KEY)).unwrap();
        assert!(Authority::open(dir.path()).unwrap_err().to_string().contains("does not belong"));
    }

    #[test]
    fn a_certificate_names_the_agent_and_nothing_that_the_request_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let agent = Uuid::new_v4();
        let mut greedy = CertificateParams::new(vec!["control.example".to_owned()]).unwrap();
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issued = authority.issue(&request(&greedy), agent, Duration::from_secs(60)).unwrap();
        let named = named(&issued.certificate).unwrap();
        assert_eq!((named.agent_id, &named.serial), (agent, &issued.serial));
        let parsed = Certificate::from_der(&issued.certificate).unwrap();
        let text = format!("{parsed:?}");
        assert!(!text.contains("control.example"));
        let constraints = parsed.tbs_certificate.get::<x509_cert::ext::pkix::BasicConstraints>().unwrap();
        assert!(constraints.is_none_or(|(_, constraints)| !constraints.ca));
    }

    #[test]
    fn requests_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let good = request(&CertificateParams::default());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // A flipped bit breaks the signature, or the form.
            assert!(authority.issue(&bad, Uuid::new_v4(), Duration::from_secs(60)).is_err(), "byte {at}");
        }
        assert!(authority.issue(&[], Uuid::new_v4(), Duration::from_secs(60)).is_err());
    }

    #[test]
    fn a_name_of_the_control_plane_must_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        authority.own_certificate(&names).unwrap();
        for bad in ["", "a b", "control\0.example", "*"] {
            assert!(authority.own_certificate(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }
}
