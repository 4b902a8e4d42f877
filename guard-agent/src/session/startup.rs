//! The beginning of a connection: TLS and GSSAPI requests answered, the startup packet read.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{SessionError, stream::Stream};
use crate::wire::postgres::{StartupPacket, WireError};

/// Negotiations before the startup packet: TLS, then GSSAPI, and no third.
const MAX_REQUESTS: usize = 2;

/// A startup packet as it came, and what it says.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) bytes: Vec<u8>,
    pub(super) packet: StartupPacket,
}

/// Reads up to the startup packet. `None`: the client left without a word (a health check).
pub(super) async fn negotiate(client: &mut Stream) -> Result<Option<Opening>, SessionError> {
    for _ in 0..=MAX_REQUESTS {
        let Some(bytes) = read_packet(client).await? else {
            return Ok(None);
        };
        match StartupPacket::read(&bytes)? {
            // Neither is offered here: the client goes on in clear or leaves, as it was told to.
            StartupPacket::Ssl | StartupPacket::Gss => client.write_all(b"N").await?,
            packet => return Ok(Some(Opening { bytes, packet })),
        }
    }
    Err(WireError::Startup("expected a startup message after the encryption requests").into())
}

async fn read_packet(client: &mut Stream) -> Result<Option<Vec<u8>>, SessionError> {
    let mut bytes = vec![0; 4];
    let mut read = 0;
    while read < 4 {
        match client.read(&mut bytes[read..]).await? {
            0 if read == 0 => return Ok(None),
            0 => return Err(SessionError::ClientVanished),
            count => read += count,
        }
    }
    let Some(length) = StartupPacket::length(&bytes)? else {
        return Err(SessionError::ClientVanished);
    };
    bytes.resize(length, 0);
    match client.read_exact(&mut bytes[4..]).await {
        Ok(_) => Ok(Some(bytes)),
        Err(_) => Err(SessionError::ClientVanished),
    }
}
