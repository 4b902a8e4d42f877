//! PEM text becomes certificates, keys and lists of what is revoked.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::files::FileError;

fn content(path: &Path, problem: impl Into<String>) -> FileError {
    FileError::Content { path: path.to_owned(), problem: problem.into() }
}

/// The certificates in `pem`, at least one.
pub(super) fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(content(path, "it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")),
    }
}

/// The private key in `pem`.
pub(super) fn private_key(pem: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let encrypted = b"ENCRYPTED";
    if pem.windows(encrypted.len()).any(|window| window == encrypted) {
        return Err(content(
            path,
            "the key is protected by a passphrase, which guard cannot ask for: configure `tls.certificate` and \
             `tls.key` with a key that has none",
        ));
    }
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| content(path, "it holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"))
}

/// The authorities in `pem`.
pub(super) fn authorities(pem: &[u8], path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        roots.add(certificate).map_err(|error| content(path, error.to_string()))?;
    }
    Ok(roots)
}

/// Checks clients' certificates against authorities and what they have revoked; a client without one passes where
/// `required` is false.
pub(super) fn client_verifier(
    authorities: RootCertStore,
    revoked: Option<(&[u8], &Path)>,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    if let Some((pem, path)) = revoked {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        let lists = lists.map_err(|_| {
            format!(
                "`{}`: it holds no revocation list in PEM form (-----BEGIN X509 CRL-----)",
                path.display()
            )
        })?;
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    if !required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(|verifier| verifier as Arc<dyn ClientCertVerifier>).map_err(|error| error.to_string())
}
