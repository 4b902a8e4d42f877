//! CopyOutResponse: COPY data follows, in which form.

use super::frame::WireError;

/// The body of a CopyOutResponse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOutResponse<'a> {
    /// True for the binary format; the textual ones are not told apart.
    pub binary: bool,
    formats: &'a [[u8; 2]],
}

impl<'a> CopyOutResponse<'a> {
    /// Reads and checks the body.
    ///
    /// # Errors
    /// Where it is not as long as its columns, or names a format that there is not.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let malformed = WireError::Malformed('H');
        let (&[overall, a, b], formats) = body.split_first_chunk().ok_or(malformed.clone())?;
        let (formats, rest) = formats.as_chunks();
        let fits = rest.is_empty() && formats.len() == usize::from(u16::from_be_bytes([a, b]));
        let binary = overall == 1;
        // In a textual COPY all columns are text, in a binary one those that are not text may be either.
        let known = |format: &[u8; 2]| *format == [0, 0] || binary && *format == [0, 1];
        if !fits || overall > 1 || !formats.iter().all(known) {
            return Err(malformed);
        }
        Ok(Self { binary, formats })
    }

    /// How many columns each row has.
    pub fn columns(&self) -> usize {
        self.formats.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_read() {
        let response = CopyOutResponse::read(b"\x01\0\x02\0\x01\0\x01").unwrap();
        assert!(response.binary && response.columns() == 2);
        assert_eq!(CopyOutResponse::read(b"\0\0\0").unwrap().columns(), 0);
        for lie in
            [&b""[..], b"\0\0", b"\x02\0\0", b"\0\0\x01", b"\0\0\x01\0", b"\0\0\x01\0\x01", b"\0\0\0\0\0"]
        {
            assert!(CopyOutResponse::read(lie).is_err(), "{lie:?}");
        }
    }
}
