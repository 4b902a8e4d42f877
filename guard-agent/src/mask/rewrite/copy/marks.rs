//! Where one of two bytes stands in a line: 64 bytes are looked at together, and remembered while places within them are
//! asked for.

/// Bytes that are looked at together.
const BYTES: usize = 64;
const LANES: usize = 16;

/// The places of two bytes in a line.
#[derive(Debug)]
pub(super) struct Marks<'a> {
    line: &'a [u8],
    marks: (u8, u8),
    /// The bytes from here on have been looked at.
    start: usize,
    /// One bit for each of them that is a mark.
    bits: u64,
}

impl<'a> Marks<'a> {
    /// The places of either of `marks` in `line`.
    pub(super) fn of(line: &'a [u8], marks: (u8, u8)) -> Self {
        let mut places = Self { line, marks, start: 0, bits: 0 };
        places.look(0);
        places
    }

    /// The first place at or behind `at`.
    #[inline]
    pub(super) fn from(&mut self, at: usize) -> Option<usize> {
        if let Some(behind) = at.checked_sub(self.start)
            && behind < BYTES
        {
            let bits = self.bits & (u64::MAX << behind);
            if bits != 0 {
                return Some(self.start + bits.trailing_zeros() as usize);
            }
        }
        self.further(at)
    }

    /// The same where none is among the bytes that have been looked at.
    fn further(&mut self, at: usize) -> Option<usize> {
        if at < self.start || at - self.start >= BYTES {
            self.look(at);
        }
        loop {
            // INVARIANT: less than 64, here and in the next round.
            let bits = self.bits & u64::MAX << at.saturating_sub(self.start);
            if bits != 0 {
                return Some(self.start + bits.trailing_zeros() as usize);
            }
            if self.line.len().saturating_sub(self.start) <= BYTES {
                return None;
            }
            self.look(self.start + BYTES);
        }
    }

    fn look(&mut self, start: usize) {
        self.start = start;
        self.bits = 0;
        let rest = self.line.get(start..).unwrap_or_default();
        let rest = &rest[..rest.len().min(BYTES)];
        let (blocks, tail) = rest.as_chunks::<LANES>();
        for (index, block) in blocks.iter().enumerate() {
            self.bits |= u64::from(either(block, self.marks)) << (LANES * index);
        }
        if !tail.is_empty() {
            let mut last = [0; LANES];
            last[..tail.len()].copy_from_slice(tail);
            let bits = either(&last, self.marks) & ((1 << tail.len()) - 1);
            self.bits |= u64::from(bits) << (LANES * blocks.len());
        }
    }
}

/// One bit for each byte of a block that is one of the two.
#[cfg(target_arch = "x86_64")]
fn either(block: &[u8; LANES], marks: (u8, u8)) -> u16 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    // SAFETY: a block has the 16 bytes that are read, and every x86-64 has SSE2.
    unsafe {
        let bytes = _mm_loadu_si128(block.as_ptr().cast());
        let first = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(marks.0.cast_signed()));
        let second = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(marks.1.cast_signed()));
        _mm_movemask_epi8(_mm_or_si128(first, second)) as u16
    }
}

/// One bit for each byte of a block that is one of the two.
#[cfg(not(target_arch = "x86_64"))]
fn either(block: &[u8; LANES], marks: (u8, u8)) -> u16 {
    let place = |(at, &byte): (usize, &u8)| u16::from((byte == marks.0) | (byte == marks.1)) << at;
    block.iter().enumerate().map(place).fold(0, |bits, bit| bits | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_as_byte_by_byte() {
        for length in [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200] {
            for step in [1, 3, 7, 40, 64, 500] {
                let line: Vec<u8> =
                    (0..length).map(|at| if at % step == step - 1 { b"\t\\"[at % 2] } else { 0 }).collect();
                let slow = |at: usize| {
                    let rest = line.get(at..)?;
                    rest.iter().position(|byte| matches!(byte, b'\t' | b'\\')).map(|found| at + found)
                };
                for skip in [1, 2, 5, 70] {
                    let mut marks = Marks::of(&line, (b'\t', b'\\'));
                    for at in (0..length + 3).step_by(skip) {
                        assert_eq!(marks.from(at), slow(at), "{at} of {length}, {step}");
                    }
                    assert_eq!(marks.from(0), slow(0), "back");
                }
            }
        }
    }
}
