//! A keyed hash (SipHash-2-4, 128 bits) of texts in a process's memory: without the key nobody finds two with the same.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_user_str;

/// Bytes that are read at once.
const CHUNK: usize = 64;
/// Words of a chunk, and one for the zero byte behind it.
const WORDS: usize = CHUNK / 8;

/// The key: random, put here by the agent before loading, and frozen.
#[unsafe(no_mangle)]
static HASH_KEY: [u64; 2] = [0, 0];

/// The state of a hash.
#[derive(Clone, Copy)]
pub struct Hash {
    v: [u64; 4],
}

impl Hash {
    /// Of nothing yet.
    #[inline(always)]
    pub fn new() -> Self {
        let key = &raw const HASH_KEY;
        // SAFETY: a constant of this object; volatile, since the agent changes it before loading.
        let [k0, k1] = unsafe { core::ptr::read_volatile(key) };
        Self {
            v: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32);
        c = c.wrapping_add(b);
        a = a.wrapping_add(d);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }

    /// Takes up one word.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    /// Takes up the text at `address`, of at most `CHUNKS` chunks, and its length. Returns the length; nothing where it is
    /// longer, or cannot be read.
    #[inline(always)]
    pub fn text<const CHUNKS: usize>(&mut self, address: u64) -> Option<u64> {
        let mut length = 0_u64;
        let mut ended = false;
        for _ in 0..CHUNKS {
            // What is behind the end stays zero: the same text gives the same words. Word by word: as an array they
            // would be a call that goes byte by byte.
            let mut words = [MaybeUninit::<u64>::uninit(); WORDS + 1];
            macro_rules! zero {
                ($($index:literal)*) => {$(
                    // SAFETY: a word of the array.
                    unsafe { words[$index].as_mut_ptr().write_volatile(0) };
                )*};
            }
            zero!(0 1 2 3 4 5 6 7 8);
            // SAFETY: one byte more than a chunk fits into the words; the helper checks the source.
            let read = unsafe {
                let from = (address + length) as *const _;
                bpf_probe_read_user_str(words.as_mut_ptr().cast(), CHUNK as u32 + 1, from)
            };
            if read <= 0 {
                break;
            }
            // All of them, whatever the length: with a branch for each the verifier finds no end.
            for word in words.iter().take(WORDS) {
                // SAFETY: all were written above.
                self.word(unsafe { word.assume_init() });
            }
            // With the zero byte, which the helper puts behind what it cuts off as well.
            length += read as u64 - 1;
            if read <= CHUNK as i64 {
                ended = true;
                break;
            }
        }
        self.word(length);
        ended.then_some(length)
    }

    /// The hash.
    #[inline(always)]
    pub fn finish(mut self) -> [u64; 2] {
        self.v[2] ^= 0xee;
        self.rounds();
        let first = self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3];
        self.v[1] ^= 0xdd;
        self.rounds();
        [first, self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]]
    }

    #[inline(always)]
    fn rounds(&mut self) {
        for _ in 0..4 {
            self.round();
        }
    }
}
