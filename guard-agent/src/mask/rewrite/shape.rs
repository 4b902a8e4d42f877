//! What `partial` keeps of a text, by its kind.
//!
//! Never keeps more than half of what tells one value from another; what is too short for that is masked whole.

use guard_policy::vocabulary::DataKind;

/// What takes the place of a text of which nothing is left. As long for every value.
pub(super) const FULL: &[u8] = b"***";

/// Letters and digits that a number must have so that its last four are kept.
const LAST_FOUR_OF: usize = 8;

/// Words of a name of which initials are kept.
const MAX_WORDS: usize = 8;

/// Writes what is left of `value`.
pub(super) fn partial(kind: DataKind, value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let written = match kind {
        DataKind::Email => email(value, out),
        DataKind::Phone
        | DataKind::PaymentCard
        | DataKind::Iban
        | DataKind::BankAccount
        | DataKind::NationalId
        | DataKind::Document => last_four(value, out),
        DataKind::Device => vendor(value, out).or_else(|| last_four(value, out)),
        DataKind::PersonName => initials(value, out),
        DataKind::BirthDate => year(value, out),
        DataKind::IpAddress => network(value, out),
        DataKind::Location => degrees(value, out),
        DataKind::Jwt | DataKind::CloudKey | DataKind::AccessToken => beginning(value, 4, 16, out),
        DataKind::Address | DataKind::Tagged => beginning(value, 2, 8, out),
        // Few values are so likely that a part of them tells all, or any part is too much.
        DataKind::Income
        | DataKind::Health
        | DataKind::Special
        | DataKind::PrivateKey
        | DataKind::Password
        | DataKind::PasswordHash => None,
    };
    if written.is_none() {
        out.truncate(start);
        out.extend_from_slice(FULL);
    }
}

/// `j***@example.com`.
fn email(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let value = value.trim_ascii();
    let at = memchr::memchr(b'@', value)?;
    let (local, domain) = (&value[..at], &value[at + 1..]);
    if domain.is_empty() || local.is_empty() || is_strange(domain) || is_strange(local) {
        return None;
    }
    if local.len() > 2 {
        out.extend_from_slice(first_letter(local)?);
    }
    out.extend_from_slice(FULL);
    out.extend_from_slice(&value[at..]);
    Some(())
}

/// Blanks and signs that no part of an address has. All bytes are looked at: that is faster than to stop early.
fn is_strange(part: &[u8]) -> bool {
    const STRANGE: [bool; 256] = {
        let (strange, mut bytes, mut at) = (b" \t\n\x0c\r@<>\",;:()", [false; 256], 0);
        while at < strange.len() {
            bytes[strange[at] as usize] = true;
            at += 1;
        }
        bytes
    };
    part.iter().fold(false, |found, byte| found | STRANGE[usize::from(*byte)])
}

/// `****-****-****-1111`: separators stay.
fn last_four(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut kept, mut cut) = (0, value.len());
    while kept < 4 && cut > 0 {
        cut -= 1;
        kept += usize::from(value[cut].is_ascii_alphanumeric());
    }
    let (hidden, shown) = value.split_at(cut);
    let mut count = kept;
    let (blocks, tail) = hidden.as_chunks::<LANES>();
    for block in blocks {
        let (stars, letters) = hide(block);
        out.extend_from_slice(&stars);
        count += letters;
    }
    let mut last = [0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    let (stars, letters) = hide(&last);
    out.extend_from_slice(&stars[..tail.len()]);
    out.extend_from_slice(shown);
    (count + letters >= LAST_FOUR_OF && value.is_ascii()).then_some(())
}

/// Bytes that are dealt with at once.
const LANES: usize = 16;

/// Stars in place of letters and digits, and how many there are.
#[inline(always)]
fn hide(block: &[u8; LANES]) -> ([u8; LANES], usize) {
    let (mut stars, mut letters) = (*block, [0_u8; LANES]);
    for lane in 0..LANES {
        let byte = block[lane];
        let is_letter = ((byte | 32).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'0') < 10);
        letters[lane] = u8::from(is_letter);
        stars[lane] = if is_letter { b'*' } else { byte };
    }
    // INVARIANT: each lane is 0 or 1, so that no sum of eight leaves its byte.
    let word = u128::from_le_bytes(letters);
    let sums = (word as u64).wrapping_add((word >> 64) as u64);
    (stars, (sums.wrapping_mul(0x0101_0101_0101_0101) >> 56) as usize)
}

/// `J*** D***`.
fn initials(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = std::str::from_utf8(value).ok()?;
    // First bytes of the blanks beyond ASCII, and of much else.
    if value.iter().any(|byte| matches!(byte, 0xC2 | 0xE1..=0xE3)) {
        let mut words = 0;
        for word in text.split_whitespace() {
            words += 1;
            initial(word.as_bytes(), (word.chars().take(3).count(), words), out)?;
        }
        return (words > 0).then_some(());
    }
    let (mut words, mut letters, mut start) = (0, 0, 0);
    for (at, byte) in value.iter().enumerate() {
        if matches!(byte, b' ' | 9..=13) {
            if letters > 0 {
                words += 1;
                initial(&value[start..at], (letters, words), out)?;
                letters = 0;
            }
        } else {
            if letters == 0 {
                start = at;
            }
            // Letters, not bytes.
            letters += usize::from(byte & 0xC0 != 0x80);
        }
    }
    if letters > 0 {
        words += 1;
        initial(&value[start..], (letters, words), out)?;
    }
    (words > 0).then_some(())
}

/// One word of so many letters, the how manieth it is.
fn initial(word: &[u8], (letters, words): (usize, usize), out: &mut Vec<u8>) -> Option<()> {
    if words > MAX_WORDS {
        return None;
    }
    if words > 1 {
        out.push(b' ');
    }
    // Of a word of one or two letters the first is half or all.
    if letters > 2 {
        out.extend_from_slice(first_letter(word)?);
    }
    out.extend_from_slice(FULL);
    Some(())
}

/// The first letter, in UTF-8.
fn first_letter(text: &[u8]) -> Option<&[u8]> {
    if text.first()?.is_ascii() {
        return text.get(..1);
    }
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(head) => head,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
    };
    let letter = valid.chars().next()?;
    Some(&text[..letter.len_utf8()])
}

/// `1985-**-**`: four digits that stand alone, or begin eight (`19850312`).
fn year(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // A year alone would stay whole.
    if !value.is_ascii() || value.len() < 8 {
        return None;
    }
    let mut years = runs_of_digits(value).filter(|(start, end)| {
        let length = end - start;
        matches!(length, 4 | 8) && matches!(&value[*start..*start + 2], b"18" | b"19" | b"20")
    });
    let (start, _) = years.next()?;
    if years.next().is_some() {
        return None;
    }
    out.extend(value.iter().enumerate().map(|(at, byte)| {
        if (start..start + 4).contains(&at) || !byte.is_ascii_alphanumeric() { *byte } else { b'*' }
    }));
    Some(())
}

/// Where runs of digits begin and end.
fn runs_of_digits(value: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += value.get(at..)?.iter().position(u8::is_ascii_digit)?;
        let start = at;
        at += value[at..].iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len() - at);
        Some((start, at))
    })
}

/// `192.168.0.0`, `2001:db8:1::`; what comes after a slash stays.
fn network(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    use std::io::Write as _;
    let text = std::str::from_utf8(value).ok()?.trim();
    let (address, rest) = text.find('/').map_or((text, ""), |at| text.split_at(at));
    if rest.len() > 4 {
        return None;
    }
    let address: std::net::IpAddr = address.parse().ok()?;
    write!(out, "{}{rest}", network_of(address)).ok()
}

/// The first half of the address, at most: what providers assign.
pub(super) fn network_of(address: std::net::IpAddr) -> std::net::IpAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    match address {
        IpAddr::V4(address) => {
            let [a, b, _, _] = address.octets();
            Ipv4Addr::new(a, b, 0, 0).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            // An IPv4 address within: nothing of its end is left, and its beginning tells nothing.
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// `52.****,13.****`: whole degrees.
fn degrees(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut fraction = false;
    let mut cut = false;
    for byte in value {
        match byte {
            b'0'..=b'9' if fraction => {
                cut = true;
                out.push(b'*');
            }
            b'.' => {
                fraction = true;
                out.push(b'.');
            }
            b'0'..=b'9' => out.push(*byte),
            b'-' | b'+' | b',' | b';' | b' ' | b'(' | b')' => {
                fraction = false;
                out.push(*byte);
            }
            // Degrees and minutes, or something else altogether.
            _ => return None,
        }
    }
    cut.then_some(())
}

/// `08:00:2b:**:**:**`: who made the device.
fn vendor(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let value = value.trim_ascii();
    let separator = *value.get(2)?;
    let form = |(at, byte): (usize, &u8)| match at % 3 {
        2 => *byte == separator && matches!(separator, b':' | b'-'),
        _ => byte.is_ascii_hexdigit(),
    };
    if value.len() != 17 || !value.iter().enumerate().all(form) {
        return None;
    }
    out.extend_from_slice(&value[..8]);
    out.extend(value[8..].iter().map(|byte| if *byte == separator { separator } else { b'*' }));
    Some(())
}

/// The first `kept` letters of a text of at least `least`.
fn beginning(value: &[u8], kept: usize, least: usize, out: &mut Vec<u8>) -> Option<()> {
    let text = std::str::from_utf8(value).ok()?;
    text.char_indices().nth(least - 1)?;
    let (end, _) = text.char_indices().nth(kept)?;
    out.extend_from_slice(&value[..end]);
    out.extend_from_slice(FULL);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(kind: DataKind, value: &str) -> String {
        let mut out = b"before ".to_vec();
        partial(kind, value.as_bytes(), &mut out);
        String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
    }

    #[test]
    fn partial_keeps_the_shape_of_each_kind() {
        use DataKind as K;
        for (kind, value, expected) in [
            (K::Email, "john.doe@example.com", "j***@example.com"),
            (K::Email, "jo@example.com", "***@example.com"),
            (K::Email, "élodie@example.fr", "é***@example.fr"),
            (K::Email, "a@b.com, c@d.com", "***"),
            (K::Email, "John <john@example.com>", "***"),
            (K::Email, "@", "***"),
            (K::Phone, "+49 (30) 123-4567", "+** (**) ***-4567"),
            (K::Phone, "1234567", "***"),
            (K::PaymentCard, "4111-1111-1111-1234", "****-****-****-1234"),
            (K::Iban, "DE89 3704 0044 0532 0130 00", "**** **** **** **** **30 00"),
            (K::NationalId, "078-05-1120", "***-**-1120"),
            (K::PersonName, "Ada Lovelace", "A*** L***"),
            (K::PersonName, "Li Na", "*** ***"),
            (K::PersonName, "Łukasz  Żak", "Ł*** Ż***"),
            (K::PersonName, "  ", "***"),
            (K::BirthDate, "1985-03-12", "1985-**-**"),
            (K::BirthDate, "12 March 1985", "** ***** 1985"),
            (K::BirthDate, "19850312", "1985****"),
            (K::BirthDate, "12/03/85", "***"),
            (K::BirthDate, "1985 or 1986", "***"),
            (K::IpAddress, "192.168.17.4", "192.168.0.0"),
            (K::IpAddress, "192.168.17.4/24", "192.168.0.0/24"),
            (K::IpAddress, "2001:db8:1:2::5", "2001:db8:1::"),
            (K::IpAddress, "host", "***"),
            (K::Location, "52.5200,-13.4050", "52.****,-13.****"),
            (K::Location, "52", "***"),
            (K::Device, "08:00:2b:01:02:03", "08:00:2b:**:**:**"),
            (K::Device, "490154203237518", "***********7518"),
            (K::AccessToken, "ghp_0123456789abcdef", "ghp_***"),
            (K::AccessToken, "short", "***"),
            (K::Address, "10 Downing Street", "10***"),
            (K::Password, "correct horse battery staple", "***"),
            (K::Health, "diabetes mellitus", "***"),
        ] {
            assert_eq!(left(kind, value), expected, "{kind} {value}");
        }
    }

    /// Word by word, as for names beyond ASCII.
    #[test]
    fn initials_of_names_of_any_length() {
        for name in
            ["Ana", "a b", "  Jo  ", "Élodie de la Tour", "Ab\tcd\n", "x", "é é", "Ünal Øst", "Li\u{a0}Na Po"]
        {
            for times in [1, 2, 3, 7] {
                let value = name.repeat(times);
                let words = value.split_whitespace().map(|word| {
                    let first = word.chars().next().unwrap();
                    if word.chars().count() > 2 { format!("{first}***") } else { "***".to_owned() }
                });
                let words: Vec<_> = words.collect();
                let expected = if words.len() > MAX_WORDS { "***".to_owned() } else { words.join(" ") };
                assert_eq!(left(DataKind::PersonName, &value), expected, "{value:?}");
            }
        }
    }

    #[test]
    fn never_more_than_half_of_a_number_is_left() {
        for length in 0..40 {
            let value = "7".repeat(length);
            for kind in DataKind::ALL.iter().filter(|kind| **kind != DataKind::Location) {
                let kept = left(*kind, &value).matches('7').count();
                assert!(kept * 2 <= length, "{kind} {length}");
            }
        }
    }
}
