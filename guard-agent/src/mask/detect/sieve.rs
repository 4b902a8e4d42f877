//! Whether a cell can be passed over: one vectorised pass says that nothing stands in it that any detector starts from.
//!
//! INVARIANT: a cell that is clean has no hit, whatever is known of its column, and neither has any part of it, nor what its
//! escapes stand for. A cell that is not clean may have none as well: only the detectors tell. Keeps and allocates nothing.

use super::token::SHORTEST;

/// Fewer digits than this are no number of anything.
const DIGITS: u32 = 4;

/// Fewer dashes than this are no key in blocks of text, and no address of a device.
const DASHES: u32 = 4;

/// The sign of a mail address.
const AT: u8 = 1;
/// `:` and `=`: assignments, documents, URLs, addresses of networks.
const SIGN: u8 = 1 << 1;
/// `%`: a mail address in a URL.
const PERCENT: u8 = 1 << 2;
/// What it hides, only who reads the escape knows.
const BACKSLASH: u8 = 1 << 3;
/// `{`, and
const BRACE: u8 = 1 << 4;
/// `$`, `*`: hashes of passwords begin so.
const SIGIL: u8 = 1 << 5;
const DASH: u8 = 1 << 6;
const DIGIT: u8 = 1 << 7;

/// With one of these no cell is clean.
const TRIGGERS: u8 = AT | SIGN | PERCENT | BACKSLASH;
/// One of these, or a capital, stands in every token.
const OF_TOKENS: u8 = BRACE | SIGIL | DIGIT;

/// The classes of a byte are those that both of its halves have: first the lower, then the upper half.
static HALVES: ([u8; 16], [u8; 16]) = {
    let (mut low, mut high) = ([0; 16], [0; 16]);
    let mut digit = 0;
    while digit < 10 {
        low[digit] = DIGIT;
        digit += 1;
    }
    // INVARIANT: each class is all pairs of some lower and some upper halves.
    low[0x0] |= AT;
    low[0x4] |= SIGIL;
    low[0x5] |= PERCENT;
    low[0xA] |= SIGN | SIGIL;
    low[0xB] |= BRACE;
    low[0xC] |= BACKSLASH;
    low[0xD] |= SIGN | DASH;
    high[0x2] = PERCENT | SIGIL | DASH;
    high[0x3] = SIGN | DIGIT;
    high[0x4] = AT;
    high[0x5] = BACKSLASH;
    high[0x7] = BRACE;
    (low, high)
};

/// What has been seen of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    classes: u8,
    capitals: bool,
    /// ASCII digits.
    pub digits: u32,
    /// `-`.
    pub dashes: u32,
    /// A word of at least [`SHORTEST`] bytes: of what is neither blank nor control character nor beyond ASCII.
    long: bool,
}

impl Seen {
    /// What stands in the cell that ends with `bytes` and begins at `start` in it. What stands before the cell does not
    /// count; that it is there saves a copy of short ones.
    #[inline]
    pub fn in_cell(bytes: &[u8], start: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt") {
            // SAFETY: the processor has both.
            return unsafe { vector::look(bytes, start) };
        }
        look(bytes.get(start..).unwrap_or_default())
    }

    /// True where no detector finds anything in it. False says nothing.
    pub fn is_clean(self) -> bool {
        self.classes & TRIGGERS == 0
            && self.digits < DIGITS
            && self.dashes < DASHES
            && !(self.long && (self.capitals || self.classes & OF_TOKENS != 0))
    }

    /// `@`.
    pub fn has_at(self) -> bool {
        self.classes & AT != 0
    }

    /// `:` or `=`.
    pub fn has_sign(self) -> bool {
        self.classes & SIGN != 0
    }

    /// `%`.
    pub fn has_percent(self) -> bool {
        self.classes & PERCENT != 0
    }

    /// Long words, or what stands around keys in blocks of text.
    pub fn may_hold_token(self) -> bool {
        self.long || self.dashes >= DASHES
    }
}

/// True where no detector finds anything in the cell that ends with `bytes` and begins at `start` in it. False says
/// nothing.
#[inline]
pub fn is_clean(bytes: &[u8], start: usize) -> bool {
    Seen::in_cell(bytes, start).is_clean()
}

/// Bytes that are looked at together without instructions of a certain processor.
const LANES: usize = 16;

/// Looks at a cell on any processor: in lanes that compilers vectorise.
fn look(cell: &[u8]) -> Seen {
    let (mut lanes, mut words) = (Lanes::default(), Words::default());
    let (blocks, tail) = cell.as_chunks::<LANES>();
    for block in blocks {
        words.add(u64::from(lanes.block(block)), LANES);
    }
    // Zeros are of no class, and end a word.
    let mut last = [0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    words.add(u64::from(lanes.block(&last)), LANES);
    let sum = |lanes: [u8; LANES]| lanes.iter().map(|&count| u32::from(count)).sum();
    let any = |lanes: [u8; LANES]| lanes.iter().fold(0, |all, &one| all | one);
    Seen {
        classes: any(lanes.classes),
        capitals: any(lanes.capitals) != 0,
        digits: sum(lanes.digits),
        dashes: sum(lanes.dashes),
        long: words.long(),
    }
}

/// What has been seen in each lane.
#[derive(Default)]
struct Lanes {
    classes: [u8; LANES],
    capitals: [u8; LANES],
    /// INVARIANT: counted up to 255, which is more than enough.
    digits: [u8; LANES],
    dashes: [u8; LANES],
}

impl Lanes {
    /// Which bytes of the block are parts of words, as bits.
    #[inline(always)]
    fn block(&mut self, block: &[u8; LANES]) -> u16 {
        let mut parts = [0_u8; LANES];
        for lane in 0..LANES {
            let byte = block[lane];
            let is = |what: bool, class: u8| if what { class } else { 0 };
            let digit = byte.wrapping_sub(b'0') < 10;
            self.classes[lane] |= is(byte == b'@', AT)
                | is((byte == b':') | (byte == b'='), SIGN)
                | is(byte == b'%', PERCENT)
                | is(byte == b'\\', BACKSLASH)
                | is(byte == b'{', BRACE)
                | is((byte == b'$') | (byte == b'*'), SIGIL)
                | is(byte == b'-', DASH)
                | is(digit, DIGIT);
            self.capitals[lane] |= u8::from(byte.wrapping_sub(b'A') < 26);
            self.digits[lane] = self.digits[lane].saturating_add(u8::from(digit));
            self.dashes[lane] = self.dashes[lane].saturating_add(u8::from(byte == b'-'));
            parts[lane] = u8::from(byte.wrapping_sub(b'!') < 0x80 - b'!');
        }
        // INVARIANT: each byte is 0 or 1; the product has their bits side by side in its highest byte.
        let bits = |word: u64| word.wrapping_mul(0x0102_0408_1020_4080) >> 56;
        let parts = u128::from_le_bytes(parts);
        (bits(parts as u64) | bits((parts >> 64) as u64) << 8) as u16
    }
}

/// How long words are, told by bits: one for each byte that is a part of one.
#[derive(Clone, Copy, Default)]
struct Words {
    /// Those of the last bytes, in its lowest bits: as many as a word must have to be long.
    before: u64,
    long: u64,
}

impl Words {
    /// The next `count` bytes, of which the first is the lowest bit; at least [`SHORTEST`], at most 48 of them.
    #[inline(always)]
    fn add(&mut self, parts: u64, count: usize) {
        let all = parts << SHORTEST | self.before;
        // Where sixteen bits in a row are set one is left.
        let mut rows = all & all >> 1;
        rows &= rows >> 2;
        rows &= rows >> 4;
        rows &= rows >> 8;
        self.long |= rows;
        self.before = all >> count;
    }

    fn long(self) -> bool {
        self.long != 0
    }
}
const _: () = assert!(SHORTEST == 16);

#[cfg(target_arch = "x86_64")]
mod vector {
    //! The same, 32 bytes at once.

    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm256_add_epi8, _mm256_and_si256, _mm256_broadcastsi128_si256,
        _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
        _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_testz_si256,
    };

    use super::{DASH, DIGIT, HALVES, Seen, Words};

    /// Bytes of a block.
    const BYTES: usize = 32;
    const _: () = assert!(DIGIT == 1 << 7 && DASH == 1 << 6);

    /// Bytes that are kept, behind as many that are not.
    static KEPT: [[u8; BYTES]; 2] = [[0; BYTES], [0xFF; BYTES]];

    struct Vectors {
        low: __m256i,
        high: __m256i,
        classes: __m256i,
        capitals: __m256i,
        digits: u32,
        dashes: u32,
        words: Words,
    }

    /// Looks at the cell that ends with `bytes` and begins at `start` in it.
    #[target_feature(enable = "avx2,popcnt")]
    pub fn look(bytes: &[u8], start: usize) -> Seen {
        // SAFETY: both tables have the 16 bytes that are read.
        let (low, high) =
            unsafe { (_mm_loadu_si128(HALVES.0.as_ptr().cast()), _mm_loadu_si128(HALVES.1.as_ptr().cast())) };
        let mut vectors = Vectors {
            low: _mm256_broadcastsi128_si256(low),
            high: _mm256_broadcastsi128_si256(high),
            classes: _mm256_setzero_si256(),
            capitals: _mm256_setzero_si256(),
            digits: 0,
            dashes: 0,
            words: Words::default(),
        };
        let (blocks, tail) = bytes.get(start..).unwrap_or_default().as_chunks::<BYTES>();
        for block in blocks {
            vectors.block(load(block), 0);
        }
        if tail.is_empty() {
            return vectors.seen();
        }
        // The last bytes again, of which only the tail is kept.
        let gone = BYTES - tail.len();
        match bytes.last_chunk() {
            Some(last) => {
                // SAFETY: there are twice as many bytes as are read, and `gone` is at most half of them; fewer are left
                // out than there are.
                let kept = unsafe { _mm256_loadu_si256(KEPT.as_ptr().cast::<u8>().add(BYTES - gone).cast()) };
                vectors.block(_mm256_and_si256(load(last), kept), gone);
            }
            None => {
                let mut last = [0; BYTES];
                last[..tail.len()].copy_from_slice(tail);
                vectors.block(load(&last), 0);
            }
        }
        vectors.seen()
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(block: &[u8; BYTES]) -> __m256i {
        // SAFETY: a block has the 32 bytes that are read.
        unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
    }

    impl Vectors {
        /// Adds a block; its first `gone` bytes are zero and do not count.
        #[inline]
        #[target_feature(enable = "avx2,popcnt")]
        fn block(&mut self, bytes: __m256i, gone: usize) {
            let half = _mm256_set1_epi8(0xF);
            let low = _mm256_shuffle_epi8(self.low, _mm256_and_si256(bytes, half));
            let high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), half);
            let classes = _mm256_and_si256(low, _mm256_shuffle_epi8(self.high, high));
            self.classes = _mm256_or_si256(self.classes, classes);
            // Bytes are compared as signed ones: those beyond ASCII are below all others. Capitals become the largest.
            let moved = _mm256_add_epi8(bytes, _mm256_set1_epi8(0x7F - b'Z' as i8));
            let capitals = _mm256_cmpgt_epi8(moved, _mm256_set1_epi8(0x7F - 26));
            self.capitals = _mm256_or_si256(self.capitals, capitals);
            let dashes = _mm256_slli_epi16(classes, 1);
            self.digits += _mm256_movemask_epi8(classes).count_ones();
            self.dashes += _mm256_movemask_epi8(dashes).count_ones();
            let parts = _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(b' ' as i8));
            self.words.add(u64::from(_mm256_movemask_epi8(parts) as u32) >> gone, BYTES);
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn seen(&self) -> Seen {
            let mut lanes = [0_u64; 4];
            // SAFETY: four words are the 32 bytes that are written.
            unsafe { std::arch::x86_64::_mm256_storeu_si256(lanes.as_mut_ptr().cast(), self.classes) };
            let mut classes = lanes[0] | lanes[1] | lanes[2] | lanes[3];
            classes |= classes >> 32;
            classes |= classes >> 16;
            classes |= classes >> 8;
            Seen {
                classes: classes as u8,
                capitals: _mm256_testz_si256(self.capitals, self.capitals) == 0,
                digits: self.digits,
                dashes: self.dashes,
                long: self.words.long(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte by byte.
    fn slow(cell: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let mut word = 0;
        for &byte in cell {
            seen.classes |= match byte {
                b'@' => AT,
                b':' | b'=' => SIGN,
                b'%' => PERCENT,
                b'\\' => BACKSLASH,
                b'{' => BRACE,
                b'$' | b'*' => SIGIL,
                b'-' => DASH,
                b'0'..=b'9' => DIGIT,
                _ => 0,
            };
            seen.capitals |= byte.is_ascii_uppercase();
            seen.digits += u32::from(byte.is_ascii_digit());
            seen.dashes += u32::from(byte == b'-');
            word = if byte > b' ' && byte < 0x80 { word + 1 } else { 0 };
            seen.long |= word >= SHORTEST;
        }
        seen
    }

    fn assert_alike(cell: &[u8]) {
        let expected = slow(cell);
        assert_eq!(look(cell), expected, "{cell:?}");
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            for before in [&b""[..], b"7", b"@:=%-7A{ 4111 1111 1111 1111 \\ long-long-long-long-long"] {
                let bytes = [before, cell].concat();
                // SAFETY: the processor has AVX2, and none that has it lacks POPCNT.
                assert_eq!(unsafe { vector::look(&bytes, before.len()) }, expected, "{cell:?}");
            }
        }
    }

    #[test]
    fn every_byte_is_seen_wherever_it_stands() {
        for byte in 0..=255 {
            for (len, at) in [(1, 0), (16, 15), (31, 30), (32, 0), (33, 32), (40, 37), (100, 63), (100, 64)] {
                for filling in [b' ', b'x'] {
                    let mut cell = vec![filling; len];
                    cell[at] = byte;
                    assert_alike(&cell);
                }
            }
        }
    }

    #[test]
    fn words_are_measured_across_blocks() {
        for start in 0..70 {
            for len in 0..40 {
                let cell = [vec![b' '; start], vec![b'x'; len], vec![b' '; 9]].concat();
                assert_eq!(look(&cell).long, len >= SHORTEST, "{start} {len}");
                assert_alike(&cell);
                assert_alike(&cell[..start + len]);
            }
        }
        assert_alike(b"");
    }

    #[test]
    fn counts_of_long_cells_do_not_run_over() {
        for byte in [b'7', b'-'] {
            let seen = look(&vec![byte; 16 * 300]);
            assert!(seen.digits.max(seen.dashes) >= 16 * 255, "{seen:?}");
        }
    }
}
