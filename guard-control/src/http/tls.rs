//! The console's certificate: from files, or made here and kept, so that its fingerprint stays the same.

use std::{
    fs,
    io::{ErrorKind, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use super::{HttpError, config::Settings};

/// What the console shows to browsers.
pub struct Identity {
    /// For its connections.
    pub acceptor: TlsAcceptor,
    /// Of a certificate that was made here.
    pub fingerprint: Option<String>,
}

/// As the settings say.
pub fn identity(settings: &Settings, data: &Path) -> Result<Identity, HttpError> {
    let (certificate, key, own) = match (&settings.file.certificate, &settings.file.key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone(), false),
        _ => {
            let (certificate, key) = (data.join("console.crt"), data.join("console.key"));
            if !(certificate.exists() && key.exists()) {
                make(settings, &certificate, &key)?;
            }
            (certificate, key, true)
        }
    };
    let failed = |path: &Path, error: &dyn std::fmt::Display| {
        HttpError::Certificate(format!("cannot use `{}`: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(&certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| failed(&key, &error))?;
    let fingerprint = chain.first().filter(|_| own).map(|one| hex::encode(Sha256::digest(one)));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| failed(&certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Identity { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint })
}

fn make(settings: &Settings, certificate: &Path, key: &Path) -> Result<(), HttpError> {
    let failed = |error: rcgen::Error| HttpError::Certificate(format!("cannot be made: {error}"));
    let pair = KeyPair::generate().map_err(failed)?;
    let host = hostname();
    let mut names = vec!["localhost".to_owned()];
    names.extend(host.clone());
    names.extend(settings.file.url.as_ref().and_then(|url| url.host_str()).map(str::to_owned));
    names.dedup();
    let mut params = CertificateParams::new(names).map_err(failed)?;
    let addresses =
        [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), settings.listen.ip()];
    params.subject_alt_names.extend(addresses.map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, host.unwrap_or_else(|| "guard".to_owned()));
    let made = params.self_signed(&pair).map_err(failed)?;
    write(key, pair.serialize_pem().as_bytes(), 0o600)?;
    write(certificate, made.pem().as_bytes(), 0o644)
}

fn hostname() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let good = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
    (!name.is_empty() && name.chars().all(good)).then(|| name.to_owned())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), HttpError> {
    let failed =
        |error: std::io::Error| HttpError::Certificate(format!("cannot write `{}`: {error}", path.display()));
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(failed(error));
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}
