//! How often the bytes occur that detectors start from: one pass over a cell, in blocks that compilers vectorise.

/// Counts of telling bytes, saturated per block where only "some" matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// ASCII digits.
    pub digits: u32,
    /// `@`.
    pub at: u32,
    /// `:`.
    pub colons: u32,
    /// `-`.
    pub dashes: u32,
    /// `=`.
    pub equals: u32,
    /// `%`.
    pub percent: u32,
    /// `$`, `{` and `*`: how hashes of passwords start.
    pub marks: u32,
}

/// Bytes per block: a counter of one byte cannot overflow in it.
const BLOCK: usize = 128;

impl Census {
    /// Of a cell.
    pub fn of(cell: &[u8]) -> Self {
        let mut census = Self::default();
        for block in cell.chunks(BLOCK) {
            let mut counts = [0u8; 7];
            for &byte in block {
                counts[0] += u8::from(byte.wrapping_sub(b'0') < 10);
                counts[1] += u8::from(byte == b'@');
                counts[2] += u8::from(byte == b':');
                counts[3] += u8::from(byte == b'-');
                counts[4] += u8::from(byte == b'=');
                counts[5] += u8::from(byte == b'%');
                counts[6] += u8::from((byte == b'$') | (byte == b'{') | (byte == b'*'));
            }
            let [digits, at, colons, dashes, equals, percent, marks] = counts.map(u32::from);
            census.digits += digits;
            census.at += at;
            census.colons += colons;
            census.dashes += dashes;
            census.equals += equals;
            census.percent += percent;
            census.marks += marks;
        }
        census
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_length_are_counted() {
        for len in [0, 1, 127, 128, 129, 1000] {
            let text: Vec<u8> = (0..len).map(|at| b"7@:-=%$x"[at % 8]).collect();
            let count = |byte| u32::try_from(text.iter().filter(|&&found| found == byte).count()).unwrap();
            let census = Census::of(&text);
            assert_eq!(
                (census.digits, census.at, census.marks),
                (count(b'7'), count(b'@'), count(b'$')),
                "{len}"
            );
        }
        assert_eq!(Census::of(&[b'9'; 1024]).digits, 1024);
    }
}
