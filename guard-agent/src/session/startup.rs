//! The beginning of a connection: PROXY protocol, TLS and GSSAPI requests answered, the startup packet read.
//!
//! A client's first bytes enter, its startup packet leaves, with what TLS has proved of it. Nothing that came in clear is
//! ever taken for something that came under TLS.

use guard_common::audit::v1::ClientCertificate;
use rustls::{ProtocolVersion, ServerConnection, pki_types::CertificateDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{SessionError, stream::Stream};
use crate::{
    tls::{self, Offer},
    wire::{
        postgres::{StartupPacket, WireError},
        proxy_protocol::{PREFIX_BYTES, Prefix, Route},
    },
};

/// The first byte of a TLS handshake: no startup packet is that long.
const TLS_HANDSHAKE: u8 = 0x16;

/// A startup packet as it came, and what it says.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) bytes: Vec<u8>,
    pub(super) packet: StartupPacket,
}

/// What a handshake with a client has shown.
#[derive(Debug)]
pub(super) struct Secured {
    /// As in `TLSv1.3`.
    pub(super) version: &'static str,
    /// The certificate that the client holds, verified.
    pub(super) client: Option<ClientCertificate>,
    /// The certificate that was presented to it.
    pub(super) presented: CertificateDer<'static>,
}

/// Reads the header that a load balancer puts in front of a connection. `None`: it left without a word.
pub(super) async fn route(client: &mut Stream) -> Result<Option<Route>, SessionError> {
    let mut prefix = [0; PREFIX_BYTES];
    if !fill(client, &mut prefix).await? {
        return Ok(None);
    }
    let prefix = Prefix::read(&prefix)?;
    let mut rest = vec![0; prefix.rest];
    if !rest.is_empty() && !fill(client, &mut rest).await? {
        return Err(SessionError::ClientVanished);
    }
    Ok(Some(prefix.route(&rest)?))
}

/// Reads up to the startup packet. `None`: the client left without a word (a health check). `secured` is set as soon as TLS
/// stands, whatever comes of the rest.
pub(super) async fn negotiate(
    client: &mut Stream,
    offer: Option<&Offer>,
    secured: &mut Option<Secured>,
) -> Result<Option<Opening>, SessionError> {
    let mut first = [0];
    if !fill(client, &mut first).await? {
        return Ok(None);
    }
    if first[0] == TLS_HANDSHAKE {
        let offer = offer.ok_or(WireError::Startup("TLS is not offered here"))?;
        *secured = Some(handshake(client, offer, &first).await?);
        if !speaks_postgresql(client) {
            return Err(WireError::Startup("direct TLS needs the protocol `postgresql` in ALPN").into());
        }
        return match fill(client, &mut first).await? {
            true => in_session(client, first[0]).await,
            false => Ok(None),
        };
    }
    let mut bytes = read_packet(client, first[0]).await?;
    let (mut asked_tls, mut asked_gss) = (false, false);
    loop {
        match StartupPacket::read(&bytes)? {
            StartupPacket::Ssl if !asked_tls => {
                asked_tls = true;
                if let Some(offer) = offer {
                    if client.waiting_byte().await?.is_some() {
                        return Err(
                            WireError::Startup("received unencrypted data after the TLS request").into()
                        );
                    }
                    client.write_all(b"S").await?;
                    *secured = Some(handshake(client, offer, b"").await?);
                    return match fill(client, &mut first).await? {
                        true => in_session(client, first[0]).await,
                        false => Ok(None),
                    };
                }
            }
            StartupPacket::Gss if !asked_gss => asked_gss = true,
            StartupPacket::Ssl | StartupPacket::Gss => {
                return Err(
                    WireError::Startup("expected a startup message after the encryption requests").into()
                );
            }
            packet => return Ok(Some(Opening { bytes, packet })),
        }
        // It is not offered here: the client goes on in clear or leaves, as it was told to.
        client.write_all(b"N").await?;
        if !fill(client, &mut first).await? {
            return Ok(None);
        }
        bytes = read_packet(client, first[0]).await?;
    }
}

/// The startup packet of a client whose connection is encrypted already.
async fn in_session(client: &mut Stream, first: u8) -> Result<Option<Opening>, SessionError> {
    let bytes = read_packet(client, first).await?;
    match StartupPacket::read(&bytes)? {
        StartupPacket::Ssl | StartupPacket::Gss => {
            Err(WireError::Startup("the connection is encrypted already").into())
        }
        packet => Ok(Some(Opening { bytes, packet })),
    }
}

/// Puts `client` under TLS. `first` is what has been read of its handshake.
async fn handshake(client: &mut Stream, offer: &Offer, first: &[u8]) -> Result<Secured, SessionError> {
    let plain = std::mem::replace(client, Stream::Taken);
    let begun = |session: &mut ServerConnection| {
        // Reading nothing would tell the session that the connection has ended.
        if !first.is_empty() {
            // A slice can always be read; a session that takes none of it fails when it misses the byte.
            let _ = session.read_tls(&mut &first[..]);
        }
    };
    let accepted = TlsAcceptor::from(offer.config()).accept_with(plain, begun).await;
    let stream = accepted.map_err(SessionError::Handshake)?;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let secured = Secured {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        client: certificate.map(tls::client_certificate),
        presented: offer.certificate().clone(),
    };
    *client = Stream::Tls(Box::new(stream.into()));
    Ok(secured)
}

/// Whether the client has named the protocol: a page in a browser that is led here does not (ALPACA).
fn speaks_postgresql(client: &Stream) -> bool {
    match client {
        Stream::Tls(stream) => stream.get_ref().1.alpn_protocol().is_some(),
        _ => false,
    }
}

/// Fills `bytes`; false where the client left before the first of them.
async fn fill(client: &mut Stream, bytes: &mut [u8]) -> Result<bool, SessionError> {
    let mut read = 0;
    while read < bytes.len() {
        match client.read(&mut bytes[read..]).await? {
            0 if read == 0 => return Ok(false),
            0 => return Err(SessionError::ClientVanished),
            count => read += count,
        }
    }
    Ok(true)
}

async fn read_packet(client: &mut Stream, first: u8) -> Result<Vec<u8>, SessionError> {
    let mut bytes = vec![first, 0, 0, 0];
    if !fill(client, &mut bytes[1..]).await? {
        return Err(SessionError::ClientVanished);
    }
    let Some(length) = StartupPacket::length(&bytes)? else {
        return Err(SessionError::ClientVanished);
    };
    bytes.resize(length, 0);
    if !fill(client, &mut bytes[4..]).await? {
        return Err(SessionError::ClientVanished);
    }
    Ok(bytes)
}
