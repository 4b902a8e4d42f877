//! International bank account numbers, ISO 13616: letters and digits enter, whether they are one leaves.
//!
//! The lengths are those of SWIFT's registry. A country that the registry does not have yet is no IBAN.

use super::checksum;

/// Country and length.
#[rustfmt::skip]
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22),
    (b"BH", 22), (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24),
    (b"DE", 22), (b"DJ", 27), (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18),
    (b"FK", 18), (b"FO", 18), (b"FR", 27), (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27),
    (b"GT", 28), (b"HN", 28), (b"HR", 21), (b"HU", 28), (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26),
    (b"IT", 27), (b"JO", 30), (b"KW", 30), (b"KZ", 20), (b"LB", 28), (b"LC", 32), (b"LI", 21), (b"LT", 20),
    (b"LU", 20), (b"LV", 21), (b"LY", 25), (b"MC", 27), (b"MD", 24), (b"ME", 22), (b"MK", 19), (b"MN", 20),
    (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23), (b"PK", 24),
    (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"RU", 33), (b"SA", 24),
    (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"SO", 23), (b"ST", 25),
    (b"SV", 28), (b"TL", 23), (b"TN", 24), (b"TR", 26), (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20),
    (b"YE", 30),
];

/// Shortest text that is taken for one where the registry does not tell its length.
const SHORTEST: usize = 14;

/// Whether letters (in upper case) and digits are an IBAN. A length that the registry does not have (a country that
/// joined since, or test data) is let pass where most of it are digits: two check digits are evidence.
pub fn is_iban(text: &[u8]) -> bool {
    let [first, second, tens @ b'0'..=b'9', ones @ b'0'..=b'9', body @ ..] = text else { return false };
    if !first.is_ascii_uppercase() || !second.is_ascii_uppercase() || text.len() < SHORTEST {
        return false;
    }
    let registered =
        LENGTHS.iter().any(|&(country, length)| country == &[*first, *second] && length == text.len());
    let check = (tens - b'0') * 10 + ones - b'0';
    let digits = body.iter().filter(|byte| byte.is_ascii_digit()).count();
    let plausible = (2..=98).contains(&check) && digits * 3 >= body.len() * 2 && text.len() <= 34;
    (registered || plausible) && checksum::mod_97(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_registry_are_ibans() {
        for iban in [
            "DE89370400440532013000",
            "GB29NWBK60161331926819",
            "FR1420041010050500013M02606",
            "NL91ABNA0417164300",
            "NO9386011117947",
            "CH9300762011623852957",
            "IT60X0542811101000000123456",
            "PL61109010140000071219812874",
            "MT84MALT011000012345MTLCAST001S",
            "SA0380000000608010167519",
            "BR1800360305000010009795493C1",
        ] {
            assert!(is_iban(iban.as_bytes()), "{iban}");
        }
        for other in ["DE89370400440532013001", "DE8937040044053201300", "DE893704", "DE", ""] {
            assert!(!is_iban(other.as_bytes()), "{other}");
        }
    }
}
