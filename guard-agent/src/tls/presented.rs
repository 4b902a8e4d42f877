//! Asks a server which certificate it presents: for `doctor`, which compares it with what the proxy presents.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rustls::{ClientConnection, pki_types::CertificateDer};

use super::Connector;

/// An SSLRequest.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// How long a server may take for each step.
const LIMIT: Duration = Duration::from_secs(3);

/// The certificate of the server at `address`; `None` where it offers no TLS. Waits for the server.
pub fn presented(address: SocketAddr, connector: &Connector) -> io::Result<Option<CertificateDer<'static>>> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(&REQUEST)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer != *b"S" {
        return Ok(None);
    }
    let name = connector.server_name(address.ip());
    let mut session = ClientConnection::new(connector.config.clone(), name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(session.peer_certificates().and_then(<[_]>::first).map(|certificate| certificate.clone().into_owned()))
}
