//! How often the bytes occur that detectors start from: one pass over a cell, in blocks that compilers vectorise.

/// Counts of telling bytes.
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
}

/// Bytes that are counted at once, each in a lane of its own.
const LANES: usize = 16;
/// Blocks after which a lane's counter could overflow.
const BLOCKS: usize = 255;

/// How often each class stands in each lane.
#[derive(Default)]
struct Counters([[u8; LANES]; 6]);

impl Counters {
    #[inline(always)]
    fn block(&mut self, block: &[u8; LANES]) {
        let [digits, at, colons, dashes, equals, percent] = &mut self.0;
        for lane in 0..LANES {
            let byte = block[lane];
            digits[lane] += u8::from(byte.wrapping_sub(b'0') < 10);
            at[lane] += u8::from(byte == b'@');
            colons[lane] += u8::from(byte == b':');
            dashes[lane] += u8::from(byte == b'-');
            equals[lane] += u8::from(byte == b'=');
            percent[lane] += u8::from(byte == b'%');
        }
    }

    fn add_to(&self, census: &mut Census) {
        let [digits, at, colons, dashes, equals, percent] = &self.0;
        census.digits += sum(digits);
        census.at += sum(at);
        census.colons += sum(colons);
        census.dashes += sum(dashes);
        census.equals += sum(equals);
        census.percent += sum(percent);
    }
}

/// The sum of all lanes, in four parts of sixteen bits.
#[inline(always)]
fn sum(lanes: &[u8; LANES]) -> u32 {
    const EVEN: u64 = 0x00FF_00FF_00FF_00FF;
    let parts = u128::from_le_bytes(*lanes);
    let (low, high) = (parts as u64, (parts >> 64) as u64);
    let sums = (low & EVEN) + (low >> 8 & EVEN) + (high & EVEN) + (high >> 8 & EVEN);
    // INVARIANT: four times 4 x 255 fits into the highest part.
    (sums.wrapping_mul(0x0001_0001_0001_0001) >> 48) as u32
}

impl Census {
    /// Of a cell.
    pub fn of(cell: &[u8]) -> Self {
        let mut census = Self::default();
        let (blocks, tail) = cell.as_chunks::<LANES>();
        // The tail is a block that zeros fill: they are of no class.
        let mut last = [0; LANES];
        last[..tail.len()].copy_from_slice(tail);
        let mut rounds = blocks.chunks(BLOCKS - 1);
        let mut counters = Counters::default();
        counters.block(&last);
        for block in rounds.next().unwrap_or_default() {
            counters.block(block);
        }
        counters.add_to(&mut census);
        for round in rounds {
            let mut counters = Counters::default();
            for block in round {
                counters.block(block);
            }
            counters.add_to(&mut census);
        }
        census
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_any_length_are_counted() {
        for len in [0, 1, 15, 16, 17, 127, 128, 129, 1000, 16 * 254, 16 * 255, 16 * 600 + 3] {
            let text: Vec<u8> = (0..len).map(|at| b"7@:-=%$x"[at % 8]).collect();
            let count = |byte| u32::try_from(text.iter().filter(|&&found| found == byte).count()).unwrap();
            let census = Census::of(&text);
            let Census { digits, at, colons, dashes, equals, percent } = census;
            let counted = [digits, at, colons, dashes, equals, percent];
            assert_eq!(counted, [b'7', b'@', b':', b'-', b'=', b'%'].map(count), "{len}");
        }
        assert_eq!(Census::of(&[b'9'; 100_000]).digits, 100_000);
    }
}
