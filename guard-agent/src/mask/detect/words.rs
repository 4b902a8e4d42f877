//! Eight bytes at a time: where the next digit stands, and which blocks have a gap between words in them.
//!
//! Plain arithmetic on 64-bit words, so that cells without anything to find are passed over at the speed of memory.

/// Bytes of a block.
pub const BLOCK: usize = 8;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// High bits where a byte of `word` is below `limit`, exact up to the first of them.
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * limit as u64) & !word & HIGH
}

/// The first ASCII digit at or behind `from`.
pub fn next_digit(cell: &[u8], from: usize) -> Option<usize> {
    let rest = cell.get(from..)?;
    let (blocks, tail) = rest.as_chunks::<BLOCK>();
    for (index, block) in blocks.iter().enumerate() {
        // Digits become 0 to 9; bytes beyond ASCII keep their high bit and count as no digit.
        let digits = below(u64::from_le_bytes(*block) ^ (ONES * b'0' as u64), 10);
        if digits != 0 {
            let first = usize::try_from(digits.trailing_zeros() / 8).unwrap_or(0);
            return Some(from + index * BLOCK + first);
        }
    }
    let at = tail.iter().position(u8::is_ascii_digit)?;
    Some(from + blocks.len() * BLOCK + at)
}

/// Whether a blank, a control character or a byte beyond ASCII stands in a block.
pub fn has_gap(block: [u8; BLOCK]) -> bool {
    let word = u64::from_le_bytes(block);
    (below(word, b'!') | (word & HIGH)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_found_as_byte_by_byte() {
        let all: Vec<u8> = (0..=255).collect();
        for len in 0..40 {
            for byte in &all {
                for at in 0..len {
                    let mut cell = vec![b'a'; len];
                    cell[at] = *byte;
                    for from in 0..=len {
                        let slow = cell[from..].iter().position(u8::is_ascii_digit).map(|at| from + at);
                        assert_eq!(next_digit(&cell, from), slow, "{byte} at {at} of {len} from {from}");
                    }
                }
            }
        }
        // A borrow from a digit must not make one of the byte behind it the first.
        assert_eq!(next_digit(b"zzzz0:zzz", 0), Some(4));
        assert_eq!(next_digit(b"/:/:/:/:", 0), None);
    }

    #[test]
    fn gaps_are_what_no_word_has() {
        for byte in 0..=255 {
            for at in 0..BLOCK {
                let mut block = *b"abcdefgh";
                block[at] = byte;
                assert_eq!(has_gap(block), byte <= b' ' || byte >= 0x80, "{byte}");
            }
        }
    }
}
