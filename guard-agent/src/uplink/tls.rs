//! TLS 1.3 to the control plane: credentials, or the fingerprint of an authority, enter; a channel leaves.
//!
//! The agent knows the control plane by the authority that it joined with, and by nothing else: no public authority can
//! stand in for it.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Uri};

use super::{UplinkError, credentials::Held, endpoint::Way};

/// SHA-256 of an authority's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl std::str::FromStr for Fingerprint {
    type Err = &'static str;

    /// 64 hex digits, with or without colons and `sha256:` before them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let text = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("SHA256:")).unwrap_or(text);
        let digits: String = text.chars().filter(|letter| *letter != ':').collect();
        let bytes = hex::decode(digits).map_err(|_| "a fingerprint is 64 hex digits")?;
        bytes.try_into().map(Self).map_err(|_| "a fingerprint is 64 hex digits: SHA-256 of a certificate")
    }
}

/// With the agent's own certificate.
pub fn known(held: &Held) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    for authority in &held.authorities {
        roots.add(authority.clone())?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    Ok(finished(builder.with_client_auth_cert(vec![held.certificate.clone()], held.key.clone_key())?))
}

/// Without a certificate, to an authority of which only the fingerprint is known.
pub fn unknown(fingerprint: Fingerprint) -> Result<ClientConfig, Error> {
    let provider = Arc::new(default_provider());
    let verifier = Pinned { fingerprint, provider: provider.clone() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(finished(builder.with_no_client_auth()))
}

fn finished(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Another certificate must count at once.
    config.resumption = Resumption::disabled();
    config
}

/// Connects.
pub async fn connect(
    way: &Way,
    name: &ServerName<'static>,
    config: ClientConfig,
) -> Result<Channel, UplinkError> {
    let connector = TlsConnector::from(Arc::new(config));
    let (name, host, port) = (name.clone(), way.host.clone(), way.port);
    let service = tower::service_fn(move |_: Uri| {
        let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
        async move {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            socket.set_nodelay(true)?;
            let stream = connector.connect(name, socket).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let channel = way.endpoint.connect_with_connector(service).await;
    channel.map_err(|error| UplinkError::Unreachable {
        endpoint: way.address.clone(),
        reason: super::root_cause(&error),
    })
}

/// Takes a server's certificate if an authority with this fingerprint has signed it. The server sends the authority along.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let fits = |certificate: &&CertificateDer<'_>| Sha256::digest(certificate)[..] == self.fingerprint.0;
        let Some(authority) = intermediates.iter().find(fits) else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        chain.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Only TLS 1.3 is offered.
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_write_them() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        let expected: Fingerprint = plain.parse().unwrap();
        for text in [colons.clone(), format!("sha256:{plain}"), format!(" {colons}\n")] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "ab", &"ab".repeat(33), &"zz".repeat(32)] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
