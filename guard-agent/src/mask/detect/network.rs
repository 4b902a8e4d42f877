//! IPv6 and MAC addresses: words with colons or dashes between groups of hexadecimal digits. IPv4 are figures.

use std::net::Ipv6Addr;

use guard_policy::vocabulary::DataKind;

use super::{Evidence, hits::Hits};

/// Longest IPv6 address in text: with an IPv4 address at its end.
const LONGEST: usize = 45;

/// Finds them.
pub fn scan(cell: &[u8], hits: &mut Hits) {
    let mut at = 0;
    while at < cell.len() {
        if !is_part(cell[at]) {
            at += 1;
            continue;
        }
        let end = at + cell[at..].iter().take_while(|&&byte| is_part(byte)).count();
        // A word that letters go on with is another word.
        let before = at.checked_sub(1).map(|before| cell[before]);
        let glued = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
            || cell.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if !glued && (7..=LONGEST + 4).contains(&(end - at)) {
            word(cell, at, end, hits);
        }
        at = end;
    }
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b':' | b'-' | b'.')
}

fn word(cell: &[u8], start: usize, end: usize, hits: &mut Hits) {
    // `MAC:00:11:..`, `addr: fe80::1.`: signs around it.
    let trimmed = cell[start..end].trim_ascii();
    let lead = trimmed.iter().take_while(|&&byte| matches!(byte, b'-' | b'.')).count();
    let tail = trimmed.iter().rev().take_while(|&&byte| matches!(byte, b'-' | b'.')).count();
    if lead + tail >= trimmed.len() {
        return;
    }
    let (start, end) = (start + lead, end - tail);
    let text = &cell[start..end];
    if is_mac(text) {
        hits.push(DataKind::Device, start..end, Evidence::Format);
        return;
    }
    let stripped = text.strip_suffix(b":").filter(|text| !text.ends_with(b":")).unwrap_or(text);
    if is_ipv6(stripped) {
        hits.push(DataKind::IpAddress, start..start + stripped.len(), Evidence::Format);
    }
}

/// Six groups of two, by colons or dashes; three of four, by dots.
fn is_mac(text: &[u8]) -> bool {
    let (separator, groups, len) = match text.len() {
        17 => (text[2], 6, 2),
        14 => (text[4], 3, 4),
        _ => return false,
    };
    let right = if groups == 6 { matches!(separator, b':' | b'-') } else { separator == b'.' };
    let mut count = 0;
    let good = text.split(|&byte| byte == separator).all(|group| {
        count += 1;
        group.len() == len && group.iter().all(u8::is_ascii_hexdigit)
    });
    let first = text[0];
    let told = text.iter().any(|&byte| byte != first && byte != separator);
    // Three groups of four digits with dots are also how numbers are written.
    let letters = groups == 6 || text.iter().any(u8::is_ascii_alphabetic);
    right && good && count == groups && told && letters
}

fn is_ipv6(text: &[u8]) -> bool {
    let colons = text.iter().filter(|&&byte| byte == b':').count();
    if !(2..=7).contains(&colons) || text.len() > LONGEST {
        return false;
    }
    let Some(address) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Ipv6Addr>().ok()) else {
        return false;
    };
    let first = address.segments()[0];
    // `12:30::` and `a::b` parse; addresses that are routed, local or mapped are what occurs.
    let known = matches!(first, 0x2000..=0x3FFF | 0xFC00..=0xFDFF | 0xFE80..=0xFEBF | 0xFF00..=0xFFFF)
        || address.to_ipv4_mapped().is_some()
        || first == 0x64
        || colons == 7;
    known && !address.is_unspecified() && text.len() >= 5
}

/// Whether four octets are an address, and not a version: parts of versions are small.
pub fn is_ipv4(octets: [u32; 4], named: bool) -> bool {
    if octets.iter().any(|&octet| octet > 255) {
        return false;
    }
    let large = octets.iter().filter(|&&octet| octet >= 32).count();
    match octets {
        _ if named => true,
        [0 | 127 | 255, ..] => false,
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [169, 254, ..] | [100, 64..=127, ..] => true,
        [1, 1, 1, 1] | [8, 8, 8 | 4, 8 | 4] | [9, 9, 9, 9] | [1, 0, 0, 1] => true,
        // Browsers and others have a 0 in the second place.
        [_, 0, ..] => octets.iter().any(|&octet| octet >= 100),
        _ => large >= 2 || large == 1 && octets[0] >= 11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(DataKind, &str)> {
        let mut hits = Hits::new();
        scan(text.as_bytes(), &mut hits);
        hits.into_iter().map(|hit| (hit.kind, &text[hit.start..hit.end])).collect()
    }

    #[test]
    fn addresses_of_networks_and_devices_are_found() {
        for address in [
            "2001:db8::1",
            "fe80::1ff:fe23:4567:890a",
            "::ffff:192.0.2.128",
            "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        ] {
            assert_eq!(found(&format!("from {address}.")), [(DataKind::IpAddress, address)]);
        }
        for address in ["00:1A:2B:3C:4D:5E", "00-1a-2b-3c-4d-5e", "001a.2b3c.4d5e"] {
            assert_eq!(found(&format!("({address})")), [(DataKind::Device, address)]);
        }
        for other in [
            "12:30:45",
            "2024-05-12T12:30:45",
            "a::b",
            "std::vec",
            "00:00:00:00:00:00",
            "16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
            "f47ac10b-58cc-4372-a567-0e02b2c3d479",
            "::",
        ] {
            assert_eq!(found(other), [], "{other}");
        }
    }

    #[test]
    fn versions_are_no_addresses() {
        assert!(is_ipv4([203, 0, 113, 77], false));
        assert!(is_ipv4([192, 168, 0, 1], false));
        assert!(!is_ipv4([1, 2, 3, 45], false));
        assert!(!is_ipv4([6, 1, 7601, 17514], false));
        assert!(is_ipv4([1, 2, 3, 4], true));
    }
}
