//! Certificates for tests: an authority, what it has signed, and a client that talks TLS the way a test wants.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::{Account, Folder};

/// The protocol's name in ALPN.
pub const ALPN: &[u8] = b"postgresql";

/// An authority with a folder for what it signs.
#[derive(Debug)]
pub struct Authority {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let folder = Folder::new("ca")?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "guard tests");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        folder.write("ca.crt", &certificate.pem())?;
        Ok(Self { folder, issuer: Issuer::new(params, key) })
    }

    /// Its own certificate, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Signs a server's certificate for `localhost` and 127.0.0.1.
    pub fn server(&self, file: &str) -> Result<Signed> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file, &params)
    }

    /// Signs a client's certificate for `name`, with a SPIFFE id.
    pub fn client(&self, file: &str, name: &str) -> Result<Signed> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://example.org/{name}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, &params)
    }

    fn sign(&self, file: &str, params: &CertificateParams) -> Result<Signed> {
        let key = KeyPair::generate()?;
        let certificate = self.folder.write(
            &format!("{file}.crt"),
            &params.signed_by(&key, &self.issuer).context("signing a certificate")?.pem(),
        )?;
        let key = self.folder.write(&format!("{file}.key"), &key.serialize_pem())?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        Ok(Signed { certificate, key })
    }

    /// What a client needs to check a server's certificate; with its own to present, and ALPN, where they are given.
    pub fn client_config(&self, own: Option<&Signed>, alpn: Option<&[u8]>) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match own {
            Some(own) => builder.with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&own.certificate)?],
                PrivateKeyDer::from_pem_file(&own.key)?,
            )?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
        Ok(Arc::new(config))
    }
}

impl Signed {
    /// Copies it over two other files, as a renewal does: each in one step.
    pub fn install(&self, certificate: &Path, key: &Path, owner: &Account) -> Result<()> {
        for (from, to, mode) in [(&self.key, key, 0o600), (&self.certificate, certificate, 0o644)] {
            let new = to.with_extension("new");
            fs::copy(from, &new).with_context(|| format!("copying to {}", new.display()))?;
            fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
            owner.own(&new)?;
            fs::rename(&new, to)?;
        }
        Ok(())
    }
}

/// The name that the servers of tests have in their certificates.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST).into())
}
