//! Check digits: digits enter as numbers from 0 to 9, true or the digit that has to stand there leaves.
//!
//! Only arithmetic. Which number carries which check is known by the modules that call.

/// Luhn, ISO/IEC 7812-1: from the right, every second digit doubled.
pub fn luhn(digits: &[u8]) -> bool {
    let mut sum = 0;
    for (at, &digit) in digits.iter().rev().enumerate() {
        let digit = u32::from(digit);
        // Without branches: half of all digits are above four.
        let doubled = digit * 2 - 9 * u32::from(digit > 4);
        sum += if at % 2 == 0 { digit } else { doubled };
    }
    sum.is_multiple_of(10)
}

/// Sum of digits times weights, as far as there are weights.
pub fn weighted(digits: &[u8], weights: &[u8]) -> u32 {
    digits.iter().zip(weights).map(|(&digit, &weight)| u32::from(digit) * u32::from(weight)).sum()
}

/// The digits as one number; only for up to 18 of them.
pub fn number(digits: &[u8]) -> u64 {
    digits.iter().take(18).fold(0, |value, &digit| value * 10 + u64::from(digit))
}

/// ISO/IEC 7064 MOD 11,10: one check digit at the end.
pub fn mod_11_10(digits: &[u8]) -> bool {
    let Some((&check, body)) = digits.split_last() else { return false };
    let product = body.iter().fold(10, |product, &digit| {
        let sum = (u32::from(digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == u32::from(check)
}

/// EAN-13 and what borrows from it: weights 1 and 3 from the left.
pub fn ean13(digits: &[u8]) -> bool {
    digits.len() == 13 && weighted(digits, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]).is_multiple_of(10)
}

/// Verhoeff: the dihedral group of a pentagon.
pub fn verhoeff(digits: &[u8]) -> bool {
    const TIMES: [[u8; 10]; 10] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
        [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
        [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
        [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
        [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
        [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
        [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
        [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ];
    const TURNED: [[u8; 10]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 5, 7, 6, 2, 8, 3, 0, 9, 4],
        [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
        [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
        [9, 4, 5, 3, 1, 2, 6, 8, 7, 0],
        [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
        [2, 7, 9, 3, 8, 0, 6, 4, 1, 5],
        [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
    ];
    let step = |state: u8, (at, &digit): (usize, &u8)| {
        let turned = TURNED[at % 8][usize::from(digit % 10)];
        TIMES[usize::from(state)][usize::from(turned)]
    };
    digits.iter().rev().enumerate().fold(0, step) == 0
}

/// ISO/IEC 7064 MOD 97-10 over letters and digits, the first four moved to the end: IBAN.
pub fn mod_97(text: &[u8]) -> bool {
    let (Some(head), Some(body)) = (text.get(..4), text.get(4..)) else { return false };
    let mut rest: u32 = 0;
    for &byte in body.iter().chain(head) {
        rest = match byte {
            b'0'..=b'9' => rest * 10 + u32::from(byte - b'0'),
            b'A'..=b'Z' => rest * 100 + u32::from(byte - b'A') + 10,
            _ => return false,
        } % 97;
    }
    rest == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().map(|byte| byte - b'0').collect()
    }

    #[test]
    fn well_known_numbers_pass_and_their_neighbours_do_not() {
        for (check, good) in [
            (luhn as fn(&[u8]) -> bool, "4111111111111111"),
            (luhn, "378282246310005"),
            (mod_11_10, "86095742719"),
            (ean13, "4006381333931"),
            (verhoeff, "2363"),
            (verhoeff, "123451"),
        ] {
            let mut digits = digits(good);
            assert!(check(&digits), "{good}");
            let last = digits.len() - 1;
            digits[last] = (digits[last] + 1) % 10;
            assert!(!check(&digits), "{good} with another check digit");
        }
        assert!(mod_97(b"GB82WEST12345698765432"));
        assert!(!mod_97(b"GB82WEST12345698765433"));
        assert!(!mod_97(b"GB"));
    }
}
