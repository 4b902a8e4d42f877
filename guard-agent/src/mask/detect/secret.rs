//! Secrets by what surrounds them: PEM blocks, JSON web tokens, passwords in URLs and behind `password=`, bearer tokens.

use guard_policy::vocabulary::DataKind;
use memchr::memmem;

use super::{Evidence, hits::Hits};
use crate::mask::columns::Named;

/// A header of a JSON web token is one short object.
const HEADER: usize = 1024;
/// Name and value of an assignment.
const NAME: usize = 40;
const VALUE: usize = 512;

/// Private keys in blocks of text: PEM, OpenSSH, PGP, PuTTY. A block that does not end reaches to the end of the cell.
pub fn scan_blocks(cell: &[u8], hits: &mut Hits) {
    let mut from = 0;
    while let Some(found) = memmem::find(&cell[from..], b"BEGIN ") {
        let begin = from + found;
        let line = &cell[begin..cell.len().min(begin + 96)];
        let line = &line[..memmem::find(line, b"---").unwrap_or(line.len())];
        let key =
            [&b"PRIVATE KEY"[..], b"SSH2 ENCRYPTED"].iter().any(|name| memmem::find(line, name).is_some());
        let Some(dashes) = dashes_before(cell, begin).filter(|_| key) else {
            from = begin + 6;
            continue;
        };
        let end = block_end(cell, begin + line.len());
        hits.push(DataKind::PrivateKey, begin - dashes..end, Evidence::Format);
        from = end;
    }
    if cell.starts_with(b"PuTTY-User-Key-File-") {
        hits.push(DataKind::PrivateKey, 0..cell.len(), Evidence::Format);
    }
}

/// Where the block ends whose text starts at `body`.
fn block_end(cell: &[u8], body: usize) -> usize {
    let ends = memmem::find_iter(&cell[body..], b"END ").map(|at| body + at);
    let Some(at) = ends.into_iter().find(|&at| dashes_before(&cell[body..], at - body).is_some()) else {
        return cell.len();
    };
    let at = at + 4;
    let name = cell[at..].iter().take(64).position(|&byte| byte == b'-').unwrap_or(0);
    at + name + cell[at + name..].iter().take(8).take_while(|&&byte| byte == b'-').count()
}

/// `---BEGIN`, `---- BEGIN`: how many dashes, up to eight, and blanks stand before the word.
fn dashes_before(cell: &[u8], word: usize) -> Option<usize> {
    let before = &cell[..word];
    let (before, blank) = match before {
        [before @ .., b' '] => (before, 1),
        _ => (before, 0),
    };
    let dashes = before.iter().rev().take(8).take_while(|&&byte| byte == b'-').count();
    (dashes >= 3 + blank).then_some(dashes + blank)
}

/// The length of the JSON web token that a text starts with: its header is decoded and has to name an algorithm.
pub fn jwt(text: &[u8]) -> Option<usize> {
    let part = |text: &[u8]| {
        text.iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'='))
            .count()
    };
    let header = part(&text[..text.len().min(HEADER)]);
    // What follows is looked at only where a header comes before it: it may be long.
    if header < 8 || text.get(header) != Some(&b'.') || !names_algorithm(&text[..header]) {
        return None;
    }
    let mut len = header;
    let mut parts = 1;
    while parts < 5 && text.get(len) == Some(&b'.') {
        let next = part(&text[len + 1..]);
        len += 1 + next;
        parts += 1;
        if next == 0 && parts > 3 {
            break;
        }
    }
    // Signed ones have three parts, the last empty without a signature; encrypted ones five.
    (parts >= 3).then_some(len)
}

/// Whether a header is one of a token.
fn names_algorithm(header: &[u8]) -> bool {
    let mut decoded = [0u8; HEADER];
    let decoded = decode(header, &mut decoded);
    decoded.is_some_and(|decoded| {
        [&b"\"alg\""[..], b"\"enc\"", b"\"typ\""].iter().any(|name| memmem::find(decoded, name).is_some())
    })
}

/// Base64 for URLs, RFC 4648.
fn decode<'a>(text: &[u8], out: &'a mut [u8; HEADER]) -> Option<&'a [u8]> {
    let (mut bits, mut count, mut len) = (0u32, 0, 0);
    for &byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            *out.get_mut(len)? = u8::try_from(bits >> count & 0xFF).unwrap_or(0);
            len += 1;
        }
    }
    Some(&out[..len])
}

/// The password of `scheme://user:password@host` in the word from `start` to `end`.
pub fn scan_url(cell: &[u8], start: usize, end: usize, hits: &mut Hits) {
    let mut from = start;
    while let Some(found) = memmem::find(&cell[from..end], b"://") {
        let authority = from + found + 3;
        let end = end.min(authority + VALUE);
        let stop = cell[authority..end]
            .iter()
            .position(|&byte| matches!(byte, b'/' | b'?' | b'#'))
            .map_or(end, |at| authority + at);
        let sign = memchr::memrchr(b'@', &cell[authority..stop])
            .or_else(|| memchr::memrchr(b'@', &cell[authority..end]));
        if let Some(sign) = sign {
            let userinfo = &cell[authority..authority + sign];
            if let Some(colon) = memchr::memchr(b':', userinfo)
                && colon + 1 < userinfo.len()
                && !userinfo.contains(&b'?')
            {
                hits.push(DataKind::Password, authority + colon + 1..authority + sign, Evidence::Format);
            }
        }
        from = authority;
    }
}

/// `Bearer ..`, `Basic ..`, `token ..` before a long word.
pub fn bearer(text: &[u8], before: &[u8]) -> Option<usize> {
    let before = before.strip_suffix(b" ")?;
    let tail = &before[before.len().saturating_sub(6)..];
    let word = tail.iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(tail, |at| &tail[at + 1..]);
    if ![&b"bearer"[..], b"basic", b"token", b"apikey"].iter().any(|name| word.eq_ignore_ascii_case(name)) {
        return None;
    }
    let part = |byte: &&u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/' | b'=' | b'~')
    };
    let len = text.iter().take_while(part).count();
    (len >= 16 && text[..len].iter().any(u8::is_ascii_digit)).then_some(len)
}

/// `password=..`, `pwd: ..`, `api_key = ".."`, `AccountKey=..;`: a name, a sign, a value.
pub fn scan_assignments(cell: &[u8], hits: &mut Hits) {
    let mut from = 0;
    while let Some(found) = memchr::memchr2(b':', b'=', &cell[from..]) {
        let sign = from + found;
        from = sign + 1;
        let Some((name, before)) = name_before(cell, sign) else { continue };
        let Some(kind) = assigned(name, before, hits) else { continue };
        let Some((start, end)) = value_behind(cell, sign + 1, kind) else { continue };
        hits.push(kind, start..end, Evidence::Context);
        from = end;
    }
}

/// The name that ends before the sign, and the text before the name.
fn name_before(cell: &[u8], sign: usize) -> Option<(&str, &[u8])> {
    let mut end = sign;
    while end > 0 && sign - end < 3 && matches!(cell[end - 1], b' ' | b'"' | b'\'' | b':') {
        end -= 1;
    }
    // Most signs stand behind numbers, in times.
    let last = *cell.get(end.checked_sub(1)?)?;
    if !last.is_ascii_alphabetic() && last < 0x80 && last != b'_' {
        return None;
    }
    let floor = end.saturating_sub(NAME);
    let len = cell[floor..end]
        .iter()
        .rev()
        .take_while(|&&byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || byte >= 0x80
        })
        .count();
    let mut start = end - len;
    while start < end && (0x80..0xC0).contains(&cell[start]) {
        start += 1;
    }
    let name = std::str::from_utf8(&cell[start..end]).ok()?;
    (name.len() >= 3 && len < NAME).then_some((name, &cell[..start]))
}

/// What a name says of the value that is assigned to it: only secrets; other kinds are found by their forms.
fn assigned(name: &str, before: &[u8], hits: &mut Hits) -> Option<DataKind> {
    let Named::Sensitive(kind) = hits.keys.assigned(name) else { return None };
    let secret = matches!(
        kind,
        DataKind::Password
            | DataKind::AccessToken
            | DataKind::CloudKey
            | DataKind::PrivateKey
            | DataKind::PasswordHash
    );
    (secret && !before.ends_with(b"//")).then_some(kind)
}

/// Where the value behind a sign starts and ends: to the next quote, space or separator.
fn value_behind(cell: &[u8], at: usize, kind: DataKind) -> Option<(usize, usize)> {
    let rest = &cell[at..cell.len().min(at + VALUE)];
    let gap = rest.iter().take(3).take_while(|&&byte| matches!(byte, b' ' | b'=' | b'>')).count();
    let (quote, start) = match rest.get(gap)? {
        &quote @ (b'"' | b'\'' | b'`') => (Some(quote), gap + 1),
        _ => (None, gap),
    };
    let body = &rest[start..];
    let ends = |byte: u8| match quote {
        Some(quote) => byte == quote,
        None => {
            byte.is_ascii_whitespace()
                || matches!(byte, b';' | b'&' | b',' | b'"' | b'\'' | b'<' | b'}' | b')')
        }
    };
    let mut len = body.iter().take_while(|&&byte| !ends(byte)).count();
    if at + start + len == at + VALUE {
        // Cut within a character: step back to its start.
        while len > 0 && cell.get(at + start + len).is_some_and(|byte| (0x80..0xC0).contains(byte)) {
            len -= 1;
        }
    }
    // A sentence ends.
    if quote.is_none() && body[..len].ends_with(b".") {
        len -= 1;
    }
    let value = &body[..len];
    let least = if kind == DataKind::Password { 4 } else { 8 };
    let word = value.iter().all(|byte| byte.is_ascii_alphabetic());
    let told = match kind {
        // `password: required`, `password=true`: words about it.
        DataKind::Password => !is_about(value),
        _ => !word || len >= 20,
    };
    let variable = value.starts_with(b"$") && !value.starts_with(b"$2")
        || value.starts_with(b"{{")
        || value.starts_with(b"%(")
        || value.starts_with(b"***");
    (len >= least && told && !variable).then_some((at + start, at + start + len))
}

fn is_about(value: &[u8]) -> bool {
    const ABOUT: &[&[u8]] = &[
        b"null",
        b"none",
        b"true",
        b"false",
        b"required",
        b"optional",
        b"invalid",
        b"expired",
        b"changed",
        b"reset",
        b"incorrect",
        b"wrong",
        b"empty",
        b"missing",
        b"string",
        b"must",
        b"should",
        b"cannot",
        b"your",
        b"please",
        b"text",
        b"undefined",
        b"the",
    ];
    ABOUT.iter().any(|word| value.eq_ignore_ascii_case(word))
}
