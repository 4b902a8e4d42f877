//! TLS towards a server: which certificates count, ready for handshakes.

use std::{net::IpAddr, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{
    files::{FileError, Root},
    keys,
};
use crate::config::UpstreamTlsMode;

/// Why there can be no TLS towards a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The authorities' file cannot be used.
    #[error("`upstream_ca`: {0}")]
    File(#[from] FileError),
    /// rustls cannot use the settings.
    #[error("TLS towards the server: {0}")]
    Tls(#[from] Error),
    /// The authorities cannot be used.
    #[error("`upstream_ca`: {0}")]
    Authorities(#[from] rustls::client::VerifierBuilderError),
}

/// Makes handshakes with one server.
#[derive(Clone, Debug)]
pub struct Connector {
    /// What rustls needs.
    pub config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl Connector {
    /// For a server whose certificate counts as `mode` says: signed by an authority in the file `ca`, and naming `name`, or
    /// its address.
    pub fn new(mode: UpstreamTlsMode, ca: Option<&Path>, name: Option<&str>) -> Result<Self, ConnectorError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = match ca.filter(|_| mode.verifies()) {
            Some(path) => {
                let (pem, _) = Root::Host.read(path)?;
                let roots = keys::authorities(&pem, path)?;
                let inner =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                Some(inner.build()?)
            }
            None => None,
        };
        let names = mode == UpstreamTlsMode::VerifyFull;
        let verifier = Arc::new(Verifier { chain: verifier, names, provider: Arc::clone(&provider) });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let name = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        Ok(Self { config: Arc::new(config), name })
    }

    /// The name that the certificate of the server at `address` has to have.
    pub fn server_name(&self, address: IpAddr) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }
}

/// Checks as much of a server's certificate as is configured; that the server holds its key, always.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    names: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is checked before the name.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
