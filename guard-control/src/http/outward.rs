//! Requests that the control plane itself makes: to an identity provider, to webhooks.
//!
//! HTTP/1.1, TLS by rustls with the system's authorities. One connection for each, bounded in time and size; redirects are
//! not followed, so that an answer cannot lead into the network behind.

use std::{path::Path, sync::Arc, time::Duration};

use axum::http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// How long all of it may take.
const TIME: Duration = Duration::from_secs(10);
/// Longest answer in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutwardError {
    /// The address is none.
    #[error("`{0}` is no address that can be asked")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot reach {0}: {1}")]
    Connect(String, std::io::Error),
    /// It is not HTTP, or it broke off.
    #[error("{0} does not answer as HTTP: {1}")]
    Http(String, String),
    /// It took too long.
    #[error("{0} has not answered within 10 seconds")]
    Late(String),
    /// A certificate authority can't be used.
    #[error("cannot use the certificates in `{0}`")]
    Authority(String),
}

/// Makes requests; cheap to clone.
#[derive(Clone)]
pub struct Outward {
    tls: Arc<ClientConfig>,
}

impl Outward {
    /// Trusts the system's authorities, and those in `ca`.
    pub fn new(ca: Option<&Path>) -> Result<Self, OutwardError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(ca) = ca {
            let bad = || OutwardError::Authority(ca.display().to_string());
            for certificate in CertificateDer::pem_file_iter(ca).map_err(|_| bad())? {
                roots.add(certificate.map_err(|_| bad())?).map_err(|_| bad())?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| OutwardError::Authority(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config) })
    }

    /// Sends `request`, whose URI is whole, and gives the answer whole.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, OutwardError> {
        let shown = request.uri().host().unwrap_or("?").to_owned();
        tokio::time::timeout(TIME, self.talk(request)).await.map_err(|_| OutwardError::Late(shown))?
    }

    async fn talk(&self, mut request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, OutwardError> {
        let uri = request.uri().clone();
        let bad = || OutwardError::Address(uri.to_string());
        let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let authority = uri.authority().map(ToString::to_string).ok_or_else(bad)?;
        request.headers_mut().insert(header::HOST, authority.parse().map_err(|_| bad())?);
        *request.uri_mut() =
            uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(|_| bad())?;
        let failed = |error| OutwardError::Connect(host.clone(), error);
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(failed)?;
        if !secure {
            return exchange(stream, &host, request).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(failed)?;
        exchange(stream, &host, request).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    request: Request<Vec<u8>>,
) -> Result<Response<Vec<u8>>, OutwardError> {
    let failed = |error: String| OutwardError::Http(host.to_owned(), error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let driven = tokio::spawn(connection);
    let answer = sender.send_request(request.map(|body| Full::new(Bytes::from(body)))).await;
    let (parts, body) = answer.map_err(|error| failed(error.to_string()))?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| failed(error.to_string()))?;
    driven.abort();
    Ok(Response::from_parts(parts, body.to_bytes().to_vec()))
}
