//! Keyed BLAKE3 of several short values at once: blocks enter, the first halves of their digests leave.
//!
//! Each lane is one value of at most 64 bytes, which is one block of one chunk:
//! <https://github.com/BLAKE3-team/BLAKE3-specs/blob/master/blake3.pdf>, section 2.2. The digests are those of the `blake3`
//! crate, which hashes what is longer, and everything on processors without AVX2.

/// Values that are hashed together.
pub(super) const LANES: usize = 8;

/// Longest value.
pub(super) const BLOCK: usize = 64;

/// Bytes of a digest that are kept.
pub(super) const HALF: usize = 16;

const WORDS: usize = BLOCK / 4;

/// Values that wait to be hashed, with what belongs to each.
#[derive(Debug)]
pub(super) struct Lanes {
    /// INVARIANT: what is no part of a value is zero.
    blocks: [[u8; BLOCK]; LANES],
    lengths: [u32; LANES],
    count: usize,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { blocks: [[0; BLOCK]; LANES], lengths: [0; LANES], count: 0 }
    }
}

impl Lanes {
    /// Whether this processor can hash so.
    pub(super) fn are_there() -> bool {
        #[cfg(target_arch = "x86_64")]
        return std::arch::is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// How many values wait.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Forgets those that wait.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds a value that `write` writes to a block of zeros and tells the length of; `false` where it has none. INVARIANT:
    /// there is a lane left.
    #[inline]
    pub(super) fn add(&mut self, write: impl FnOnce(&mut [u8; BLOCK]) -> Option<usize>) -> bool {
        let lane = self.count % LANES;
        let block = &mut self.blocks[lane];
        *block = [0; BLOCK];
        let Some(length) = write(block) else { return false };
        self.lengths[lane] = u32::try_from(length).unwrap_or(0);
        self.count = lane + 1;
        true
    }

    /// The digests of the values that wait, in order; then none waits.
    pub(super) fn digests(&mut self, key: &[u8; 32]) -> [[u8; HALF]; LANES] {
        self.count = 0;
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor has both, and AVX2 with them.
            return unsafe { vector::digests_avx512(key, &self.blocks, &self.lengths) };
        }
        #[cfg(target_arch = "x86_64")]
        if Self::are_there() {
            // SAFETY: the processor has AVX2.
            return unsafe { vector::digests_avx2(key, &self.blocks, &self.lengths) };
        }
        // INVARIANT: nobody asks for this where there are no lanes; the same digests all the same.
        let mut digests = [[0; HALF]; LANES];
        for ((digest, block), length) in digests.iter_mut().zip(&self.blocks).zip(self.lengths) {
            let length = usize::try_from(length).unwrap_or(0).min(BLOCK);
            let whole = blake3::keyed_hash(key, &block[..length]);
            digest.copy_from_slice(&whole.as_bytes()[..HALF]);
        }
        digests
    }
}

#[cfg(target_arch = "x86_64")]
mod vector {
    //! One vector for each word of the state, one lane in it for each value.

    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256,
        _mm256_ror_epi32, _mm256_set1_epi32, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
        _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32,
        _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
    };

    use super::{BLOCK, HALF, LANES, WORDS};

    const IV: [u32; 4] = [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A];

    /// The beginning and the end of its chunk, the root of its tree, and keyed.
    const FLAGS: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 4;

    /// Which word comes in which place in each of the rounds.
    const SCHEDULE: [[usize; WORDS]; 7] = {
        let permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
        let mut rounds = [[0; WORDS]; 7];
        let mut round = 0;
        while round < 7 {
            let mut at = 0;
            while at < WORDS {
                rounds[round][at] = if round == 0 { at } else { rounds[round - 1][permutation[at]] };
                at += 1;
            }
            round += 1;
        }
        rounds
    };

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate<const LEFT: i32, const RIGHT: i32>(word: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_srli_epi32::<RIGHT>(word), _mm256_slli_epi32::<LEFT>(word))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate_16(word: __m256i) -> __m256i {
        let places = _mm256_setr_epi8(
            2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14,
            15, 12, 13,
        );
        _mm256_shuffle_epi8(word, places)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate_8(word: __m256i) -> __m256i {
        let places = _mm256_setr_epi8(
            1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13,
            14, 15, 12,
        );
        _mm256_shuffle_epi8(word, places)
    }

    /// Eight words of each of the blocks from `from` on: word by word, in each the blocks side by side.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn eight_words(blocks: &[[u8; BLOCK]; LANES], from: usize) -> [__m256i; 8] {
        let load = |lane: usize| {
            let (bytes, _): (&[[u8; BLOCK / 2]], _) = blocks[lane].as_chunks();
            // SAFETY: half a block are the 32 bytes that are read.
            unsafe { _mm256_loadu_si256(bytes[from].as_ptr().cast()) }
        };
        // Pairs of words of two blocks, then four of four, then halves.
        let mut pairs = [_mm256_setzero_si256(); 8];
        for at in 0..4 {
            let (one, other) = (load(2 * at), load(2 * at + 1));
            pairs[2 * at] = _mm256_unpacklo_epi32(one, other);
            pairs[2 * at + 1] = _mm256_unpackhi_epi32(one, other);
        }
        let mut fours = [_mm256_setzero_si256(); 8];
        for at in [0, 4] {
            for half in 0..2 {
                let (one, other) = (pairs[at + half], pairs[at + half + 2]);
                fours[at + 2 * half] = _mm256_unpacklo_epi64(one, other);
                fours[at + 2 * half + 1] = _mm256_unpackhi_epi64(one, other);
            }
        }
        let mut words = [_mm256_setzero_si256(); 8];
        for word in 0..4 {
            words[word] = _mm256_permute2x128_si256::<0x20>(fours[word], fours[word + 4]);
            words[word + 4] = _mm256_permute2x128_si256::<0x31>(fours[word], fours[word + 4]);
        }
        words
    }

    /// Each round by itself: with places that are known, words stay where they are.
    macro_rules! rounds {
        ($mix:ident, $state:ident, $words:ident, $($round:literal)*) => {$({
            const ORDER: [usize; WORDS] = SCHEDULE[$round];
            $mix(&mut $state, [0, 4, 8, 12], [$words[ORDER[0]], $words[ORDER[1]]]);
            $mix(&mut $state, [1, 5, 9, 13], [$words[ORDER[2]], $words[ORDER[3]]]);
            $mix(&mut $state, [2, 6, 10, 14], [$words[ORDER[4]], $words[ORDER[5]]]);
            $mix(&mut $state, [3, 7, 11, 15], [$words[ORDER[6]], $words[ORDER[7]]]);
            $mix(&mut $state, [0, 5, 10, 15], [$words[ORDER[8]], $words[ORDER[9]]]);
            $mix(&mut $state, [1, 6, 11, 12], [$words[ORDER[10]], $words[ORDER[11]]]);
            $mix(&mut $state, [2, 7, 8, 13], [$words[ORDER[12]], $words[ORDER[13]]]);
            $mix(&mut $state, [3, 4, 9, 14], [$words[ORDER[14]], $words[ORDER[15]]]);
        })*};
    }

    /// The digests with these rotations to the right: by 16, 12, 8 and 7 bits.
    macro_rules! digests {
        ($(#[$doc:meta])* $name:ident, $features:literal, [$by_16:expr, $by_12:expr, $by_8:expr, $by_7:expr]) => {
            $(#[$doc])*
            #[target_feature(enable = $features)]
            pub(super) fn $name(
                key: &[u8; 32],
                blocks: &[[u8; BLOCK]; LANES],
                lengths: &[u32; LANES],
            ) -> [[u8; HALF]; LANES] {
                let all = |word: u32| _mm256_set1_epi32(word.cast_signed());
                let mut words = [_mm256_setzero_si256(); WORDS];
                words[..8].copy_from_slice(&eight_words(blocks, 0));
                words[8..].copy_from_slice(&eight_words(blocks, 1));
                let mut state = [_mm256_setzero_si256(); 16];
                for (place, bytes) in state.iter_mut().zip(key.as_chunks::<4>().0) {
                    *place = all(u32::from_le_bytes(*bytes));
                }
                for (place, word) in state[8..].iter_mut().zip(IV) {
                    *place = all(word);
                }
                // The counter of chunks, which is zero, stands in between.
                // SAFETY: eight lengths are the 32 bytes that are read.
                state[14] = unsafe { _mm256_loadu_si256(lengths.as_ptr().cast()) };
                state[15] = all(FLAGS);
                // The quarter round on four words of the state, with two of the values.
                let mix = |state: &mut [__m256i; 16], [a, b, c, d]: [usize; 4], [first, second]: [__m256i; 2]| {
                    state[a] = _mm256_add_epi32(_mm256_add_epi32(state[a], state[b]), first);
                    state[d] = $by_16(_mm256_xor_si256(state[d], state[a]));
                    state[c] = _mm256_add_epi32(state[c], state[d]);
                    state[b] = $by_12(_mm256_xor_si256(state[b], state[c]));
                    state[a] = _mm256_add_epi32(_mm256_add_epi32(state[a], state[b]), second);
                    state[d] = $by_8(_mm256_xor_si256(state[d], state[a]));
                    state[c] = _mm256_add_epi32(state[c], state[d]);
                    state[b] = $by_7(_mm256_xor_si256(state[b], state[c]));
                };
                rounds!(mix, state, words, 0 1 2 3 4 5 6);
                let mut digests = [[0; HALF]; LANES];
                for word in 0..HALF / 4 {
                    let mut lanes = [0_u32; LANES];
                    let sum = _mm256_xor_si256(state[word], state[word + 8]);
                    // SAFETY: eight words are the 32 bytes that are written.
                    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
                    for (digest, lane) in digests.iter_mut().zip(lanes) {
                        digest[4 * word..4 * word + 4].copy_from_slice(&lane.to_le_bytes());
                    }
                }
                digests
            }
        };
    }

    digests!(digests_avx2, "avx2", [rotate_16, rotate::<20, 12>, rotate_8, rotate::<25, 7>]);
    digests!(
        /// With rotations as instructions, and twice as many places to keep words in.
        digests_avx512,
        "avx2,avx512f,avx512vl",
        [_mm256_ror_epi32::<16>, _mm256_ror_epi32::<12>, _mm256_ror_epi32::<8>, _mm256_ror_epi32::<7>]
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_is_hashed_as_if_alone() {
        let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        for count in 1..=LANES {
            for length in 0..=BLOCK {
                let mut lanes = Lanes::default();
                let mut expected = Vec::new();
                for lane in 0..count {
                    let length = (length + 9 * lane) % (BLOCK + 1);
                    let value: Vec<u8> =
                        (0..length).map(|at| u8::try_from((at * 31 + lane * 5) % 256).unwrap()).collect();
                    let added = lanes.add(|block| {
                        block[..length].copy_from_slice(&value);
                        Some(length)
                    });
                    assert!(added && !(lanes.count() < LANES && lanes.add(|_| None)));
                    expected.push(blake3::keyed_hash(&key, &value));
                }
                assert_eq!(lanes.count(), count);
                #[cfg(target_arch = "x86_64")]
                if Lanes::are_there() {
                    // SAFETY: the processor has AVX2.
                    let digests = unsafe { vector::digests_avx2(&key, &lanes.blocks, &lanes.lengths) };
                    for (digest, whole) in digests.iter().zip(&expected) {
                        assert_eq!(digest, &whole.as_bytes()[..HALF], "{count} of {length}");
                    }
                }
                let digests = lanes.digests(&key);
                for (digest, whole) in digests.iter().zip(&expected) {
                    assert_eq!(digest, &whole.as_bytes()[..HALF], "{count} of {length}");
                }
                assert_eq!(lanes.count(), 0);
            }
        }
    }
}
