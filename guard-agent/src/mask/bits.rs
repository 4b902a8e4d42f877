//! Which bytes of a short value are of which class, as bits: sixteen bytes are looked at together.
//!
//! INVARIANT: processors with vectors and without give the same bits. Nothing is allocated.

/// Longest value.
pub(super) const LONGEST: usize = 64;
const LANES: usize = 16;

/// The lowest bits.
#[inline]
pub(super) fn lowest(count: usize) -> u64 {
    if count >= LONGEST { u64::MAX } else { (1 << count) - 1 }
}

/// One bit for each byte of a value, by class.
#[inline(always)]
fn classes<const N: usize>(value: &[u8], of: impl Fn(&[u8; LANES]) -> [u16; N]) -> Option<[u64; N]> {
    if value.len() > LONGEST {
        return None;
    }
    let mut bits = [0; N];
    let mut add = |block: &[u8; LANES], at: usize| {
        for (bits, found) in bits.iter_mut().zip(of(block)) {
            *bits |= u64::from(found) << at;
        }
    };
    let (blocks, tail) = value.as_chunks::<LANES>();
    for (number, block) in blocks.iter().enumerate() {
        add(block, LANES * number);
    }
    match value.last_chunk::<LANES>() {
        _ if tail.is_empty() => {}
        // The last bytes, some of them once more.
        Some(last) => add(last, value.len() - LANES),
        None => {
            add(&padded(tail), 0);
            let kept = lowest(tail.len());
            bits.iter_mut().for_each(|bits| *bits &= kept);
        }
    }
    Some(bits)
}

/// Fewer than sixteen bytes with zeros behind them.
#[inline(always)]
pub(super) fn padded(tail: &[u8]) -> [u8; LANES] {
    let both = |first: u128, last: u128, width: usize| first | last << (8 * (tail.len() - width));
    let all = if let (Some(first), Some(last)) = (tail.first_chunk(), tail.last_chunk()) {
        both(u64::from_le_bytes(*first).into(), u64::from_le_bytes(*last).into(), 8)
    } else if let (Some(first), Some(last)) = (tail.first_chunk(), tail.last_chunk()) {
        both(u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into(), 4)
    } else {
        tail.iter().rev().fold(0, |all, byte| all << 8 | u128::from(*byte))
    };
    all.to_le_bytes()
}

/// What a name is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// ASCII's blanks.
    pub(super) blanks: u64,
    /// Bytes within a letter, behind its first.
    pub(super) inner: u64,
    /// Not ASCII.
    pub(super) high: u64,
    /// First bytes of the blanks beyond ASCII, and of much else.
    pub(super) wide: u64,
}

impl Name {
    /// `None`: the value is too long.
    #[inline]
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let [blanks, inner, high, wide] = classes(value, block::name)?;
        Some(Self { blanks, inner, high, wide })
    }
}

/// What a mail address is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mail {
    /// `@`.
    pub(super) at: u64,
    /// Blanks and signs that no part of an address has.
    pub(super) strange: u64,
}

impl Mail {
    /// `None`: the value is too long.
    #[inline]
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let [at, strange] = classes(value, block::mail)?;
        Some(Self { at, strange })
    }
}

/// What an address of plain letters is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// ASCII's letters and digits.
    pub(super) letters: u64,
    /// `.`.
    pub(super) dots: u64,
    /// `@`.
    pub(super) at: u64,
}

impl Address {
    /// `None`: the value is too long.
    #[inline]
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let [letters, dots, at] = classes(value, block::address)?;
        Some(Self { letters, dots, at })
    }
}

/// What a number in groups is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    /// ASCII's digits.
    pub(super) digits: u64,
    /// Blanks and dashes.
    pub(super) between: u64,
    /// Bytes that are the same as the second.
    pub(super) second: u64,
}

impl Groups {
    /// `None`: the value is too long, or too short.
    #[inline]
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let second = *value.get(1)?;
        let [digits, between, second] = classes(value, |block| block::groups(block, second))?;
        Some(Self { digits, between, second })
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

/// Blanks and signs that no part of a mail address has, but for `@`.
pub(super) fn is_strange(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b'"' | b'(' | b')' | b',' | b':'..=b'<' | b'>')
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod bytes {
    //! Byte by byte.

    use super::{LANES, is_blank, is_strange};

    fn each(block: &[u8; LANES], is: impl Fn(u8) -> bool) -> u16 {
        block.iter().enumerate().fold(0, |bits, (at, byte)| bits | u16::from(is(*byte)) << at)
    }

    pub(super) fn name(block: &[u8; LANES]) -> [u16; 4] {
        [
            each(block, is_blank),
            each(block, |byte| byte & 0xC0 == 0x80),
            each(block, |byte| !byte.is_ascii()),
            each(block, |byte| matches!(byte, 0xC2 | 0xE1..=0xE3)),
        ]
    }

    pub(super) fn mail(block: &[u8; LANES]) -> [u16; 2] {
        [each(block, |byte| byte == b'@'), each(block, is_strange)]
    }

    pub(super) fn address(block: &[u8; LANES]) -> [u16; 3] {
        [
            each(block, |byte| byte.is_ascii_alphanumeric()),
            each(block, |byte| byte == b'.'),
            each(block, |byte| byte == b'@'),
        ]
    }

    pub(super) fn groups(block: &[u8; LANES], second: u8) -> [u16; 3] {
        [
            each(block, |byte| byte.is_ascii_digit()),
            each(block, |byte| matches!(byte, b' ' | b'-')),
            each(block, |byte| byte == second),
        ]
    }
}

#[cfg(not(target_arch = "x86_64"))]
use bytes as block;

#[cfg(target_arch = "x86_64")]
mod block {
    //! With SSE2, which every x86-64 has.

    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8,
        _mm_or_si128, _mm_set1_epi8, _mm_sub_epi8,
    };

    use super::LANES;

    #[inline(always)]
    fn load(block: &[u8; LANES]) -> __m128i {
        // SAFETY: a block has the 16 bytes that are read, and every x86-64 has SSE2.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[inline(always)]
    fn all(byte: u8) -> __m128i {
        // SAFETY: every x86-64 has SSE2.
        unsafe { _mm_set1_epi8(byte.cast_signed()) }
    }

    #[inline(always)]
    fn is(bytes: __m128i, byte: u8) -> __m128i {
        // SAFETY: every x86-64 has SSE2.
        unsafe { _mm_cmpeq_epi8(bytes, all(byte)) }
    }

    /// From `first` on, so many more.
    #[inline(always)]
    fn within(bytes: __m128i, first: u8, more: u8) -> __m128i {
        // SAFETY: every x86-64 has SSE2.
        unsafe {
            let moved = _mm_sub_epi8(bytes, all(first));
            _mm_cmpeq_epi8(_mm_min_epu8(moved, all(more)), moved)
        }
    }

    #[inline(always)]
    fn or(one: __m128i, other: __m128i) -> __m128i {
        // SAFETY: every x86-64 has SSE2.
        unsafe { _mm_or_si128(one, other) }
    }

    #[inline(always)]
    fn bits(lanes: __m128i) -> u16 {
        // SAFETY: every x86-64 has SSE2.
        unsafe { _mm_movemask_epi8(lanes) as u16 }
    }

    #[inline(always)]
    pub(super) fn name(block: &[u8; LANES]) -> [u16; 4] {
        let bytes = load(block);
        let blanks = or(is(bytes, b' '), within(bytes, 9, 4));
        // SAFETY: every x86-64 has SSE2.
        let inner = is(unsafe { _mm_and_si128(bytes, all(0xC0)) }, 0x80);
        let wide = or(is(bytes, 0xC2), within(bytes, 0xE1, 2));
        [bits(blanks), bits(inner), bits(bytes), bits(wide)]
    }

    #[inline(always)]
    pub(super) fn mail(block: &[u8; LANES]) -> [u16; 2] {
        let bytes = load(block);
        let blanks = or(is(bytes, b' '), within(bytes, 9, 4));
        let quotes = or(is(bytes, b'"'), within(bytes, b'(', 1));
        let lists = or(is(bytes, b','), within(bytes, b':', 2));
        let strange = or(or(blanks, quotes), or(lists, is(bytes, b'>')));
        [bits(is(bytes, b'@')), bits(strange)]
    }

    #[inline(always)]
    pub(super) fn address(block: &[u8; LANES]) -> [u16; 3] {
        let bytes = load(block);
        let letters = or(within(or(bytes, all(0x20)), b'a', 25), within(bytes, b'0', 9));
        [bits(letters), bits(is(bytes, b'.')), bits(is(bytes, b'@'))]
    }

    #[inline(always)]
    pub(super) fn groups(block: &[u8; LANES], second: u8) -> [u16; 3] {
        let bytes = load(block);
        let between = or(is(bytes, b' '), is(bytes, b'-'));
        [bits(within(bytes, b'0', 9)), bits(between), bits(is(bytes, second))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_seen_wherever_it_stands() {
        for byte in 0..=255 {
            for length in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64] {
                for at in [0, length / 2, length - 1] {
                    let mut value = vec![b'x'; length];
                    value[at] = byte;
                    let name = classes(&value, bytes::name).unwrap();
                    let Name { blanks, inner, high, wide } = Name::of(&value).unwrap();
                    assert_eq!([blanks, inner, high, wide], name, "{byte} at {at} of {length}");
                    let mail = classes(&value, bytes::mail).unwrap();
                    let Mail { at: sign, strange } = Mail::of(&value).unwrap();
                    assert_eq!([sign, strange], mail, "{byte} at {at} of {length}");
                    let address = classes(&value, bytes::address).unwrap();
                    let Address { letters, dots, at: sign } = Address::of(&value).unwrap();
                    assert_eq!([letters, dots, sign], address, "{byte} at {at} of {length}");
                    if let Some(second) = value.get(1) {
                        let groups = classes(&value, |block| bytes::groups(block, *second)).unwrap();
                        let Groups { digits, between, second } = Groups::of(&value).unwrap();
                        let kept = lowest(length);
                        assert_eq!([digits, between, second & kept], groups.map(|bits| bits & kept));
                    }
                    assert_eq!(blanks, u64::from(is_blank(byte)) << at);
                    assert_eq!(sign, u64::from(byte == b'@') << at);
                }
            }
        }
        assert_eq!(Name::of(&[b'x'; 65]), None);
        assert_eq!(Mail::of(b""), Some(Mail { at: 0, strange: 0 }));
    }
}
