//! A client that talks TLS the way a test wants.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use guard_common::api::control::{EnrolRequest, Enrolled, enrolment_client::EnrolmentClient};
use guard_control::{ca::Authority, enrol, store::Store};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

/// A key, and perhaps the certificate that goes with it.
pub struct Identity {
    pub key: KeyPair,
    pub certificate: CertificateDer<'static>,
}

pub fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

/// Trusts `authority`, and shows `identity`.
pub fn config(
    authority: &Authority,
    identity: Option<&Identity>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificates()[0].clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(Identity { key, certificate }) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

pub async fn connect(address: SocketAddr, config: ClientConfig) -> Result<Channel, Status> {
    let connector = TlsConnector::from(Arc::new(config));
    let service = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let socket = TcpStream::connect(address).await?;
            let stream = connector.connect("localhost".try_into().unwrap(), socket).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(Duration::from_secs(10));
    endpoint.connect_with_connector(service).await.map_err(|error| Status::unavailable(format!("{error:?}")))
}

/// A channel over TLS 1.3.
pub async fn channel(
    address: SocketAddr,
    authority: &Authority,
    identity: Option<&Identity>,
) -> Result<Channel, Status> {
    connect(address, config(authority, identity, &rustls::version::TLS13)).await
}

pub async fn token(store: &Store, ttl: Duration) -> String {
    enrol::create_token(store, "test", ttl).await.unwrap()
}

/// Enrols as `agent`.
pub async fn enrol(
    address: SocketAddr,
    authority: &Authority,
    token: &str,
    agent: &str,
) -> Result<(Identity, Enrolled), Status> {
    let key = KeyPair::generate().unwrap();
    let mut client = EnrolmentClient::new(channel(address, authority, None).await?);
    let request = EnrolRequest {
        token: token.to_owned(),
        request: request(&key),
        agent_id: agent.to_owned(),
        host: "db1".to_owned(),
        ..EnrolRequest::default()
    };
    let enrolled = client.enrol(request).await?.into_inner();
    let certificate = enrolled.certificate.clone().into();
    Ok((Identity { key, certificate }, enrolled))
}
