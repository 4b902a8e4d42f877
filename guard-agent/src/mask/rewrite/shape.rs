//! What `partial` keeps of a text, by its kind.
//!
//! Never keeps more than half of what tells one value from another; what is too short for that is masked whole.

use guard_policy::vocabulary::DataKind;

use crate::mask::bits::{self, Mail, Name, lowest};

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
    let at = match Mail::of(value) {
        Some(Mail { at, strange }) => {
            (strange == 0 && at.is_power_of_two()).then(|| at.trailing_zeros() as usize)
        }
        None => long_email(value),
    }?;
    let (local, domain) = (&value[..at], &value[at + 1..]);
    if domain.is_empty() || local.is_empty() {
        return None;
    }
    if local.len() > 2 {
        out.extend_from_slice(first_letter(local)?);
    }
    out.extend_from_slice(FULL);
    out.extend_from_slice(&value[at..]);
    Some(())
}

/// Where the sign of an address stands that is longer than most.
fn long_email(value: &[u8]) -> Option<usize> {
    let mut signs = memchr::memchr_iter(b'@', value);
    let (at, None) = (signs.next()?, signs.next()) else { return None };
    (!value.iter().any(|byte| bits::is_strange(*byte))).then_some(at)
}

/// `****-****-****-1111`: separators stay.
fn last_four(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut kept, mut cut, mut all) = (0, value.len(), 0);
    while kept < 4 && cut > 0 {
        cut -= 1;
        all |= value[cut];
        kept += usize::from(value[cut].is_ascii_alphanumeric());
    }
    let start = out.len();
    out.extend_from_slice(value);
    let place = &mut out[start..start + cut];
    let hidden = &value[..cut];
    let hidden = hide(hidden, place);
    let ascii = all.is_ascii() && hidden.all & 0x8080_8080_8080_8080 == 0;
    (kept + hidden.letters >= LAST_FOUR_OF && ascii).then_some(())
}

/// What has been hidden.
#[derive(Default)]
struct Hidden {
    /// Letters and digits.
    letters: usize,
    /// The bits that any byte has.
    all: u64,
}

/// Bytes that are dealt with at once.
const LANES: usize = 8;

/// Writes `value` to `place`, which holds it already, with stars for its letters and digits.
#[inline]
fn hide(value: &[u8], place: &mut [u8]) -> Hidden {
    let mut hidden = Hidden::default();
    let (blocks, tail) = value.as_chunks::<LANES>();
    for (block, place) in blocks.iter().zip(place.as_chunks_mut::<LANES>().0) {
        *place = hidden.block(*block, 0);
    }
    match (value.last_chunk::<LANES>(), place.last_chunk_mut()) {
        _ if tail.is_empty() => {}
        // The last bytes, some of them once more.
        (Some(last), Some(place)) => *place = hidden.block(*last, LANES - tail.len()),
        _ => {
            let mut last = [0; LANES];
            last[..tail.len()].copy_from_slice(tail);
            let stars = hidden.block(last, 0);
            place.copy_from_slice(&stars[..tail.len()]);
        }
    }
    hidden
}

impl Hidden {
    /// Adds a block, whose first `before` bytes have been counted; what takes its place.
    #[inline(always)]
    fn block(&mut self, block: [u8; LANES], before: usize) -> [u8; LANES] {
        const EACH: u64 = 0x0101_0101_0101_0101;
        let word = u64::from_le_bytes(block);
        self.all |= word;
        // INVARIANT: seven bits of each byte, so that no sum leaves it; its highest bit says whether it is at least ..
        let low = word & (0x7F * EACH);
        let lower = low | (0x20 * EACH);
        let digits = (low + (0x80 - 0x30) * EACH) & !(low + (0x80 - 0x3A) * EACH);
        let letters = (lower + (0x80 - 0x61) * EACH) & !(lower + (0x80 - 0x7B) * EACH);
        let found = ((digits | letters) & !word) >> 7 & EACH;
        let counted = found >> (8 * before);
        self.letters += (counted.wrapping_mul(EACH) >> 56) as usize;
        let hidden = found * 0xFF;
        (word & !hidden | hidden & (u64::from(b'*') * EACH)).to_le_bytes()
    }
}

/// `J*** D***`.
fn initials(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let Some(Name { blanks, inner, high, wide }) = Name::of(value) else { return long_initials(value, out) };
    if wide != 0 || high != 0 && std::str::from_utf8(value).is_err() {
        return long_initials(value, out);
    }
    let ends = blanks | !lowest(value.len());
    let mut rest = !ends;
    let mut initials = Initials::default();
    while rest != 0 {
        let start = rest.trailing_zeros() as usize;
        let end = start + (ends >> start).trailing_zeros() as usize;
        let word = lowest(end) & !lowest(start);
        // Letters, not bytes.
        let letters = (word & !inner).count_ones() as usize;
        initials.add(value.get(start..end.min(value.len()))?, letters)?;
        rest &= !lowest(end);
    }
    initials.finish(out)
}

/// Of what is long, is no UTF-8, or has blanks beyond ASCII.
fn long_initials(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = std::str::from_utf8(value).ok()?;
    let mut initials = Initials::default();
    for word in text.split_whitespace() {
        initials.add(word.as_bytes(), word.chars().take(3).count())?;
    }
    initials.finish(out)
}

/// The initials of some words.
struct Initials {
    text: [u8; MAX_WORDS * 8],
    length: usize,
    words: usize,
}

impl Default for Initials {
    fn default() -> Self {
        Self { text: [0; MAX_WORDS * 8], length: 0, words: 0 }
    }
}

impl Initials {
    /// Adds a word of so many letters.
    fn add(&mut self, word: &[u8], letters: usize) -> Option<()> {
        if self.words == MAX_WORDS {
            return None;
        }
        if self.words > 0 {
            self.push(b' ');
        }
        self.words += 1;
        // Of a word of one or two letters the first is half or all.
        if letters > 2 {
            // INVARIANT: four bytes at most.
            first_letter(word)?.iter().for_each(|byte| self.push(*byte));
        }
        FULL.iter().for_each(|byte| self.push(*byte));
        Some(())
    }

    fn push(&mut self, byte: u8) {
        // INVARIANT: a word takes eight at most: a blank, a letter and three stars.
        self.text[self.length % (MAX_WORDS * 8)] = byte;
        self.length += 1;
    }

    fn finish(&self, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(self.text.get(..self.length)?);
        (self.words > 0).then_some(())
    }
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
