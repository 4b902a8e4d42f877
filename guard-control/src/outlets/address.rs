//! Where receivers are, and the way to them: TCP, and TLS by rustls.
//!
//! Enters: settings. Leaves: an open stream. Without TLS it goes to this host alone.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::OutletError;

/// How long it may take to reach a receiver.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Bytes that the kernel keeps for a receiver: what may be lost with it.
const SEND_BUFFER: u32 = 256 * 1024;

/// A host, or an address, and a port.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Address {
    /// Without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = || format!("`{text}` is no host with a port, as in siem.example:6514");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match host.is_empty() || host.contains(char::is_whitespace) {
            true => Err(wrong()),
            false => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(formatter, "[{}]:{}", self.host, self.port),
            false => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

/// TLS to a receiver: who is trusted there, and who the control plane is.
pub(super) fn tls(ca: Option<&Path>, own: Option<(&PathBuf, &PathBuf)>) -> Result<ClientConfig, OutletError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => {
            let wrong = |problem: String| OutletError::Certificates { path: ca.to_owned(), problem };
            for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| wrong(error.to_string()))? {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("it holds no certificate".to_owned()));
            }
        }
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    let path = ca.map(Path::to_owned).unwrap_or_default();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| OutletError::Certificates { path, problem: error.to_string() })?
        .with_root_certificates(roots);
    let Some((certificate, key)) = own else { return Ok(builder.with_no_client_auth()) };
    let wrong = |path: &Path, problem: String| OutletError::Certificates { path: path.to_owned(), problem };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(certificate, error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| wrong(key, error.to_string()))
}

/// An open stream to a receiver.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for tokio_rustls::client::TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Opens a stream; without `tls` to this host alone.
pub(super) async fn connect(
    address: &Address,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, OutletError> {
    let late = |_| OutletError::Late { address: address.to_string(), within: CONNECT_TIME };
    timeout(CONNECT_TIME, open(address, tls)).await.map_err(late)?
}

async fn open(address: &Address, tls: Option<&Arc<ClientConfig>>) -> Result<Box<dyn Stream>, OutletError> {
    let failed =
        |error: io::Error| OutletError::Receiver { address: address.to_string(), problem: error.to_string() };
    let mut problem = None;
    for found in lookup_host((address.host.as_str(), address.port)).await.map_err(failed)? {
        if tls.is_none() && !found.ip().to_canonical().is_loopback() {
            return Err(OutletError::Plaintext(address.to_string()));
        }
        let socket = match dial(found).await {
            Ok(socket) => socket,
            Err(error) => {
                problem = Some(error);
                continue;
            }
        };
        let Some(tls) = tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(address.host.clone())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, socket).await.map_err(failed)?;
        return Ok(Box::new(stream));
    }
    Err(failed(
        problem.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name leads to no address")),
    ))
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let read = |text: &str| Address::try_from(text.to_owned());
        assert_eq!(read("siem.example:6514").unwrap().to_string(), "siem.example:6514");
        let six = read("[::1]:601").unwrap();
        assert_eq!((six.host.as_str(), six.to_string().as_str()), ("::1", "[::1]:601"));
        for wrong in ["", "siem", "siem:", "siem:0", ":514", "siem:70000", "si em:1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn plaintext_stays_on_this_host() {
        let away = Address::try_from("192.0.2.1:514".to_owned()).unwrap();
        assert!(matches!(connect(&away, None).await, Err(OutletError::Plaintext(_))));
    }
}
