//! What a proxy offers its clients: certificate, key and rules, ready for handshakes.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use super::{
    files::{FileError, Root, Stamp},
    keys,
    own::{OwnError, OwnFiles},
};
use crate::config::{ClientCertificateMode, TlsConfig, TlsVersion};

/// The protocol's name in ALPN (PostgreSQL 17 and later).
const ALPN: &[u8] = b"postgresql";

/// Why clients are offered no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It is switched off, or nobody has looked yet.
    #[error("TLS towards clients is switched off")]
    Off,
    /// There is no certificate of the server's own.
    #[error("no certificate: {0}; set `tls.certificate` and `tls.key`, or let the server have `ssl = on`")]
    NoneOfItsOwn(#[from] OwnError),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificate and key are no pair, or of a kind that is not spoken.
    #[error("certificate `{certificate}` and key `{key}` cannot be used: {problem}")]
    Pair {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// Why.
        problem: String,
    },
    /// The clients' authorities cannot be used.
    #[error("cannot check clients' certificates: {0}")]
    Authorities(String),
}

impl TlsError {
    /// What was offered before is no longer true.
    pub(super) fn withdraws(&self) -> bool {
        matches!(self, Self::Off | Self::NoneOfItsOwn(_))
    }
}

/// Whose certificate is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The database server's own.
    Server,
    /// The one in guard's configuration.
    Configured,
}

/// Certificate, key and rules for handshakes with clients.
#[derive(Debug)]
pub struct Offer {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
    origin: Origin,
    file: String,
    asks: bool,
    pid: Option<u32>,
    stamps: Vec<Stamp>,
}

/// The files' contents on their way to a `ServerConfig`.
struct Pieces {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Option<RootCertStore>,
    revoked: Option<(Vec<u8>, std::path::PathBuf)>,
    only_13: bool,
    stamps: Vec<Stamp>,
}

impl Offer {
    /// Reads the files that `config` names; those of the server whose process is `pid` where it names none.
    pub(super) fn find(config: &TlsConfig, pid: Option<u32>) -> Result<Self, TlsError> {
        match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => {
                let own = OwnFiles {
                    root: Root::Host,
                    certificate: certificate.clone(),
                    key: key.clone(),
                    client_ca: None,
                    client_crl: None,
                    only_13: false,
                    settings: Vec::new(),
                };
                Self::build(config, own, Origin::Configured, None)
            }
            _ => Self::build(config, OwnFiles::of(pid)?, Origin::Server, pid),
        }
    }

    fn build(
        config: &TlsConfig,
        files: OwnFiles,
        origin: Origin,
        pid: Option<u32>,
    ) -> Result<Self, TlsError> {
        let pieces = read(config, &files)?;
        let pair = |problem: rustls::Error| TlsError::Pair {
            certificate: files.certificate.display().to_string(),
            key: files.key.display().to_string(),
            problem: problem.to_string(),
        };
        let certificate = pieces.chain[0].clone();
        let versions: &[_] = if pieces.only_13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .map_err(pair)?;
        let asks = pieces.authorities.is_some();
        let builder = match pieces.authorities {
            Some(authorities) => {
                let required = config.client_certificate == ClientCertificateMode::Required;
                let revoked = pieces.revoked.as_ref().map(|(pem, path)| (&pem[..], path.as_path()));
                let verifier = keys::client_verifier(authorities, revoked, required);
                builder.with_client_cert_verifier(verifier.map_err(TlsError::Authorities)?)
            }
            None if config.client_certificate == ClientCertificateMode::Required => {
                let problem =
                    "`client_certificate = \"required\"` needs `client_ca`, or the server's `ssl_ca_file`";
                return Err(TlsError::Authorities(problem.to_owned()));
            }
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(pieces.chain, pieces.key).map_err(pair)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // As the server itself: sessions are long, and a resumed one would skip the look at a certificate.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            config: Arc::new(server),
            certificate,
            origin,
            file: files.certificate.display().to_string(),
            asks,
            pid,
            stamps: pieces.stamps,
        })
    }

    /// Whether the files are those that it was made of.
    pub(super) fn is_current(&self, config: &TlsConfig, pid: Option<u32>) -> bool {
        let root = match self.origin {
            Origin::Configured => Root::Host,
            Origin::Server => match pid.filter(|_| pid == self.pid).map(Root::of) {
                Some(Ok(root)) => root,
                _ => return false,
            },
        };
        // Files in guard's own configuration are the host's.
        let own = [&config.client_ca, &config.client_crl];
        self.stamps.iter().all(|stamp| {
            let host = own.iter().any(|path| path.as_ref() == Some(&stamp.path));
            if host { Root::Host.unchanged(stamp) } else { root.unchanged(stamp) }
        })
    }

    /// For handshakes.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The certificate that clients see.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whose certificate it is.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The certificate's file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Clients are asked for a certificate.
    pub fn asks(&self) -> bool {
        self.asks
    }
}

fn read(config: &TlsConfig, files: &OwnFiles) -> Result<Pieces, TlsError> {
    let root = &files.root;
    let (chain, chain_stamp) = root.read(&files.certificate)?;
    let (key, key_stamp) = root.read_key(&files.key)?;
    let mut stamps = vec![chain_stamp, key_stamp];
    stamps.extend(files.settings.iter().cloned());
    let mut optional = |configured: &Option<std::path::PathBuf>, own: &Option<std::path::PathBuf>| {
        let (root, path) = match (configured, own) {
            (Some(path), _) => (&Root::Host, path),
            (None, Some(path)) => (root, path),
            (None, None) => return Ok(None),
        };
        let (bytes, stamp) = root.read(path)?;
        stamps.push(stamp);
        Ok::<_, FileError>(Some((bytes, path.clone())))
    };
    let authorities = optional(&config.client_ca, &files.client_ca)?;
    let revoked = optional(&config.client_crl, &files.client_crl)?;
    Ok(Pieces {
        chain: keys::certificates(&chain, &files.certificate)?,
        key: keys::private_key(&key, &files.key)?,
        authorities: authorities.map(|(pem, path)| keys::authorities(&pem, &path)).transpose()?,
        revoked,
        only_13: files.only_13 || config.min_version == TlsVersion::V13,
        stamps,
    })
}
