//! Numbers that look random and are the same for the same seed: splitmix64.

/// A generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.next() % from.len() as u64).unwrap_or(0);
        &from[at]
    }

    /// `#` becomes a digit, `%` one from 1 to 9, `@` a letter in upper case, `&` a letter or digit, `~` a hexadecimal
    /// digit; the rest stays.
    pub fn fill(&mut self, pattern: &str) -> String {
        const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut one = |from: &[u8]| char::from(*self.pick(from));
        pattern
            .chars()
            .map(|character| match character {
                '#' => one(&LETTERS[52..]),
                '%' => one(&LETTERS[53..]),
                '@' => one(&LETTERS[..26]),
                '&' => one(LETTERS),
                '~' => one(b"0123456789abcdef"),
                other => other,
            })
            .collect()
    }

    pub fn digits(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| u32::try_from(self.next() % 10).unwrap_or(0)).collect()
    }
}
