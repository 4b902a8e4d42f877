//! Short texts that are kept in place: a peer's text enters and is cut to size, nothing is allocated.

use std::fmt;

/// At most `N` bytes of text, `N` below 256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Short<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self { length: 0, bytes: [0; N] }
    }
}

impl<const N: usize> Short<N> {
    /// The beginning of `text`, cut between two letters.
    pub(super) fn new(text: &str) -> Self {
        let mut short = Self::default();
        let end = text.floor_char_boundary(N.min(u8::MAX.into()));
        short.bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        short.length = u8::try_from(end).unwrap_or(u8::MAX);
        short
    }

    /// The same for bytes that should be text; empty where they are none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self::new(std::str::from_utf8(&bytes[..bytes.len().min(N)]).unwrap_or_default())
    }

    pub(super) fn as_str(&self) -> &str {
        // INVARIANT: it was cut between two letters.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for Short<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_letters() {
        assert_eq!(Short::<5>::new("42P01").as_str(), "42P01");
        assert_eq!(Short::<5>::new("aaaa\u{e9}b").as_str(), "aaaa");
        assert_eq!(Short::<5>::from_bytes(b"\xff\xff").as_str(), "");
        assert_eq!(Short::<5>::default().as_str(), "");
    }
}
