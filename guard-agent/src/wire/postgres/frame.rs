//! The frame around every message: a tag and a length that counts itself.

/// Bytes of tag and length.
pub const HEADER_BYTES: usize = 5;

/// Longest message body that the server itself takes (`PQ_LARGE_MESSAGE_LIMIT`, 1 GiB less one).
pub const MAX_MESSAGE_BYTES: usize = 0x3fff_ffff;

/// What makes bytes from a peer no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length does not count itself, or is beyond what is allowed here.
    #[error("message `{tag}` has an invalid length of {length}")]
    Length {
        /// The message's tag, printable.
        tag: char,
        /// The length it gives.
        length: i64,
    },
    /// No such message from this side.
    #[error("unknown message `{0}`")]
    Unknown(char),
    /// The body does not have the message's form.
    #[error("message `{0}` is malformed")]
    Malformed(char),
    /// The startup packet is not one.
    #[error("invalid startup packet: {0}")]
    Startup(&'static str),
    /// A protocol that is not spoken here.
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    Version(u16, u16),
}

/// Tag and body length of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Names the kind of message.
    pub tag: u8,
    /// Bytes of the body, header not counted.
    pub body: usize,
}

impl Header {
    /// The header at the start of `buffer`; `None` until all of it is there. `limit` bounds the body.
    pub fn read(buffer: &[u8], limit: usize) -> Result<Option<Self>, WireError> {
        let Some(&[tag, a, b, c, d]) = buffer.first_chunk() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes([a, b, c, d]);
        match usize::try_from(length).ok().and_then(|length| length.checked_sub(4)) {
            Some(body) if body <= limit => Ok(Some(Self { tag, body })),
            _ => Err(WireError::Length { tag: printable(tag), length: length.into() }),
        }
    }

    /// Header and body together.
    pub const fn total(self) -> usize {
        HEADER_BYTES + self.body
    }
}

/// `tag` as a character that can stand in a message.
pub(super) fn printable(tag: u8) -> char {
    if tag.is_ascii_graphic() { tag.into() } else { '?' }
}

/// Splits a NUL-terminated string off `bytes`; `None` where there is no NUL.
pub fn cstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Puts a message together: tag, length, and the body that `body` writes.
pub(super) fn write(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_checked_before_it_is_believed() {
        assert_eq!(Header::read(b"Q\0\0\0", 100), Ok(None));
        assert_eq!(Header::read(b"Q\0\0\0\x08body", 100), Ok(Some(Header { tag: b'Q', body: 4 })));
        for length in [0_i32, 3, -1, i32::MIN, i32::MAX, 105] {
            let mut bytes = vec![b'Q'];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert_eq!(Header::read(&bytes, 100), Err(WireError::Length { tag: 'Q', length: length.into() }));
        }
    }
}
