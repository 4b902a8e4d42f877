//! Tuples of COPY's binary format: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".

use super::{CopyRewriter, Detector, RewriteError, Rewritten};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Signature, flags and the length of the extension.
const HEADER_BYTES: usize = 19;

/// Longest extension of the header; none is known.
const MAX_EXTENSION: usize = 1_024;

/// Bytes of the header with the tuple or trailer behind it, or of a tuple alone; `None` where its end has not come.
pub(super) fn length(bytes: &[u8], begun: bool) -> Result<Option<usize>, RewriteError> {
    let head = match begun {
        true => 0,
        false => match header_length(bytes)? {
            Some(head) => head,
            None => return Ok(None),
        },
    };
    Ok(tuple_length(&bytes[head.min(bytes.len())..])?.map(|length| head + length))
}

fn header_length(bytes: &[u8]) -> Result<Option<usize>, RewriteError> {
    let here = bytes.len().min(SIGNATURE.len());
    if bytes[..here] != SIGNATURE[..here] {
        return Err(RewriteError::Copy("it does not begin with the signature of the binary format"));
    }
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Ok(None);
    };
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    // The upper half is critical; bit 16 says that tuples begin with an OID, until PostgreSQL 11.
    if word(11) >> 16 != 0 {
        return Err(RewriteError::Copy("its header has flags that are not known"));
    }
    match usize::try_from(word(15)) {
        Ok(extension @ ..=MAX_EXTENSION) => Ok(Some(HEADER_BYTES + extension)),
        _ => Err(RewriteError::Copy("its header is too long")),
    }
}

/// Bytes of the tuple or trailer at the beginning of `bytes`.
fn tuple_length(bytes: &[u8]) -> Result<Option<usize>, RewriteError> {
    let Some(count) = bytes.first_chunk().map(|count| i16::from_be_bytes(*count)) else {
        return Ok(None);
    };
    let mut at = 2;
    for _ in 0..count.max(0) {
        let Some(length) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        at += 4;
        match i32::from_be_bytes(*length) {
            -1 => {}
            length => at += usize::try_from(length).map_err(|_| RewriteError::Malformed)?,
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

impl<D: Detector> CopyRewriter<D> {
    /// Rewrites a tuple with the header before it, or passes the trailer.
    pub(super) fn binary_row(&mut self, row: &[u8], out: &mut Vec<u8>) -> Result<Rewritten, RewriteError> {
        let head = if self.begun { 0 } else { header_length(row)?.unwrap_or(0) };
        self.begun = true;
        let (header, tuple) = row.split_at_checked(head).ok_or(RewriteError::Malformed)?;
        if tuple == [0xff, 0xff] {
            self.ended = true;
            return Ok(Rewritten::Untouched);
        }
        out.extend_from_slice(header);
        let (rewritten, end) = self.rows.tuple(tuple, out)?;
        if end == tuple.len() { Ok(rewritten) } else { Err(RewriteError::Malformed) }
    }
}
