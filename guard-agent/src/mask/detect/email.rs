//! Mail addresses: RFC 5321 and 6531 as people use them, with quoted local parts, plus tags and international domains.
//!
//! Every `@` of a cell is looked at once, and at most a local part and a domain around it.

use guard_policy::vocabulary::DataKind;
use memchr::memchr_iter;

use super::{Evidence, hits::Hits};
use crate::mask::bits::{Address, lowest};

/// RFC 5321 4.5.3.1; in UTF-8 people may need more.
const LOCAL: usize = 128;
const DOMAIN: usize = 253;
/// Finds addresses.
pub fn scan(cell: &[u8], hits: &mut Hits) {
    let mut from = 0;
    for at in memchr_iter(b'@', cell) {
        if at < from {
            continue;
        }
        let Some(end) = domain(cell, at + 1) else { continue };
        let Some(start) = local(cell, from, at) else { continue };
        if is_repository(cell, start, at, end) || is_userinfo(cell, start, end) {
            continue;
        }
        hits.push(DataKind::Email, start..end, Evidence::Format);
        from = end;
    }
}

/// Whether a cell is nothing but an address of plain letters: then nothing else is in it. `false` is no answer.
pub fn is_whole(cell: &[u8]) -> bool {
    let Some(Address { letters, dots, at }) = Address::of(cell) else { return false };
    let all = lowest(cell.len());
    let signs = dots | at;
    // Letters and digits, with single dots between them, and one sign.
    let first_and_last = 1 | (all ^ all >> 1);
    if letters | signs != all || !at.is_power_of_two() || signs & (signs << 1 | first_and_last) != 0 {
        return false;
    }
    let at = at.trailing_zeros() as usize;
    let (local, domain) = (&cell[..at], &cell[at + 1..]);
    // INVARIANT: a dot behind the sign stands at most at 62.
    let dots = dots & !lowest(at);
    let Some(last) = dots.checked_ilog2() else { return false };
    let top = &domain[last as usize - at..];
    is_top(top) && !matches!(local, b"git" | b"hg")
}

/// Finds addresses in URLs, where the sign is written `%40`.
pub fn scan_escaped(cell: &[u8], hits: &mut Hits) {
    let mut from = 0;
    for at in memchr::memmem::find_iter(cell, b"%40") {
        if at < from {
            continue;
        }
        if let Some(end) = domain(cell, at + 3)
            && let Some(start) = local(cell, from, at)
        {
            hits.push(DataKind::Email, start..end, Evidence::Format);
            from = end;
        }
    }
}

/// Where the local part that ends at `at` starts.
fn local(cell: &[u8], from: usize, at: usize) -> Option<usize> {
    let floor = from.max(at.saturating_sub(LOCAL));
    if at > floor && cell[at - 1] == b'"' {
        return quoted(cell, floor, at);
    }
    let mut start = at;
    while start > floor && is_atom(cell[start - 1]) {
        start -= 1;
    }
    // A whole character, or none of it.
    while start < at && (0x80..0xC0).contains(&cell[start]) {
        start += 1;
    }
    // Punctuation that texts put before an address, and dots where none may be.
    while start < at
        && matches!(
            cell[start],
            b'.' | b'\''
                | b'='
                | b'*'
                | b'|'
                | b'/'
                | b'?'
                | b'&'
                | b'#'
                | b'!'
                | b'`'
                | b'{'
                | b'$'
                | b'^'
                | b'-'
        )
    {
        start += 1;
    }
    // `key=somebody@..`, `/path/somebody@..`: what is behind the last sign is the address.
    let cut = cell[start..at]
        .iter()
        .rposition(|byte| matches!(byte, b'=' | b'/' | b'?' | b'|' | b'&'))
        .map(|cut| start + cut + 1);
    let start = wide_end(cell, cut.unwrap_or(start), at);
    (start < at && cell[at - 1] != b'.' && cell[start] != b'.').then_some(start)
}

/// Behind CJK text that goes on into an address without a space; an address in such a script stays whole.
fn wide_end(cell: &[u8], start: usize, at: usize) -> usize {
    let Some(last) = cell[start..at].iter().rposition(|byte| *byte >= 0x80) else { return start };
    let wide = last >= 2 && cell[start + last - 2] >= 0xE2;
    if wide && start + last + 1 < at { start + last + 1 } else { start }
}

/// `"john doe"@example.com`
fn quoted(cell: &[u8], floor: usize, at: usize) -> Option<usize> {
    let body = &cell[floor..at - 1];
    let open = memchr::memrchr(b'"', body)?;
    let inside = &body[open + 1..];
    let printable = inside.iter().all(|&byte| byte >= b' ' && byte != 0x7F);
    (!inside.is_empty() && printable).then_some(floor + open)
}

fn is_atom(byte: u8) -> bool {
    const ATOM: [bool; 256] = {
        let (signs, mut bytes, mut at) = (b".!#$%&'*+/=?^_`{|}~-", [false; 256], 0);
        while at < 256 {
            bytes[at] = at >= 0x80 || (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        at = 0;
        while at < signs.len() {
            bytes[signs[at] as usize] = true;
            at += 1;
        }
        bytes
    };
    ATOM[usize::from(byte)]
}

/// Where the domain that starts at `start` ends.
fn domain(cell: &[u8], start: usize) -> Option<usize> {
    let text = &cell[start..cell.len().min(start + DOMAIN)];
    if let [b'[', rest @ ..] = text {
        let close = rest.iter().position(|&byte| byte == b']')?;
        let inside = &rest[..close];
        let literal = close >= 3
            && inside
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b'I' | b'P' | b'v'));
        return literal.then_some(start + close + 2);
    }
    let len = text
        .iter()
        .take_while(|&&byte| byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'.' | b'-'))
        .count();
    let mut end = len;
    // CJK text goes on behind an address without a space.
    if let Some(wide) = text[..end].iter().position(|byte| *byte >= 0xE2)
        && let Some(tld) = ascii_end(&text[..wide])
    {
        end = tld;
    }
    // The end of a sentence.
    while end > 0 && matches!(text[end - 1], b'.' | b'-') {
        end -= 1;
    }
    let domain = &text[..end];
    let (mut labels, mut last) = (0, &domain[..0]);
    for label in domain.split(|&byte| byte == b'.') {
        if label.is_empty() || label.len() > 63 && label.is_ascii() || label.starts_with(b"-") {
            return None;
        }
        labels += 1;
        last = label;
    }
    (labels >= 2 && is_top(last)).then_some(start + end)
}

/// Names of files, packages and images that look like domains: no top-level domain is called so.
fn is_no_domain(lower: &[u8]) -> bool {
    matches!(
        lower,
        b"png"
            | b"jpg"
            | b"jpeg"
            | b"gif"
            | b"svg"
            | b"webp"
            | b"avif"
            | b"bmp"
            | b"ico"
            | b"tif"
            | b"tiff"
            | b"heic"
            | b"css"
            | b"scss"
            | b"js"
            | b"mjs"
            | b"ts"
            | b"tsx"
            | b"jsx"
            | b"json"
            | b"html"
            | b"htm"
            | b"xml"
            | b"yaml"
            | b"yml"
            | b"toml"
            | b"txt"
            | b"pdf"
            | b"exe"
            | b"dll"
            | b"log"
            | b"lock"
            | b"csv"
            | b"doc"
            | b"docx"
            | b"xls"
            | b"xlsx"
            | b"tar"
            | b"gz"
            | b"tgz"
            | b"whl"
            | b"jar"
            | b"mp3"
            | b"service"
            | b"timer"
            | b"socket"
            | b"mount"
            | b"target"
            | b"conf"
            | b"cfg"
            | b"ini"
            | b"bak"
            | b"tmp"
            | b"sql"
            | b"rb"
            | b"java"
            | b"cpp"
            | b"class"
    )
}

/// Whether this can be a top-level domain.
fn is_top(last: &[u8]) -> bool {
    if !last.is_ascii() {
        return true;
    }
    let mut lower = [0; 24];
    let Some(lower) = lower.get_mut(..last.len()) else { return starts_xn(last) };
    lower.copy_from_slice(last);
    lower.make_ascii_lowercase();
    last.len() >= 2 && last.iter().all(u8::is_ascii_alphabetic) && !is_no_domain(lower) || starts_xn(last)
}

/// An international name, in Punycode.
fn starts_xn(label: &[u8]) -> bool {
    label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"xn--"))
}

/// Where an ASCII domain ends that other characters follow.
fn ascii_end(text: &[u8]) -> Option<usize> {
    let dot = memchr::memrchr(b'.', text)?;
    let letters = text[dot + 1..].iter().all(u8::is_ascii_alphabetic);
    (letters && (2..=24).contains(&(text.len() - dot - 1))).then_some(text.len())
}

/// `git@github.com:owner/name`
fn is_repository(cell: &[u8], start: usize, at: usize, end: usize) -> bool {
    matches!(&cell[start..at], b"git" | b"hg") && matches!(cell.get(end), None | Some(b':' | b'/'))
}

/// `ssh://somebody@host/`: a login, and with a password it is found as one.
fn is_userinfo(cell: &[u8], start: usize, end: usize) -> bool {
    let before = &cell[..start];
    let scheme = before.ends_with(b"://") && !before.ends_with(b"mailto://");
    scheme
        || before.ends_with(b":") && matches!(cell.get(end), Some(b'/' | b':')) && {
            let near = &before[before.len().saturating_sub(LOCAL)..];
            memchr::memmem::rfind(near, b"://")
                .is_some_and(|found| near[found..].iter().all(|byte| !byte.is_ascii_whitespace()))
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut hits = Hits::new();
        scan(text.as_bytes(), &mut hits);
        hits.into_iter().map(|hit| &text[hit.start..hit.end]).collect()
    }

    #[test]
    fn addresses_are_found() {
        for address in [
            "john@example.com",
            "john.doe+tag@mail.example.co.uk",
            "o'brien@example.ie",
            "\"john doe\"@example.com",
            "jürgen@müller.de",
            "用户@例子.广告",
            "user@xn--mller-kva.de",
            "user@[192.168.0.1]",
            "JOHN_DOE@EXAMPLE.ORG",
            "почта@пример.рф",
            "a@b.io",
            "x@museum.photography",
        ] {
            assert_eq!(found(address), [address]);
            assert_eq!(found(&format!("write to <{address}>, please.")), [address]);
            assert_eq!(found(&format!("mail: {address}. Thanks")), [address]);
        }
        assert_eq!(found("a@b.de,c@d.fr;e@f.it"), ["a@b.de", "c@d.fr", "e@f.it"]);
        assert_eq!(found("https://x.y/?mail=a@b.de&x=1"), ["a@b.de"]);
        assert_eq!(found("連絡先はa@b.jpです"), ["a@b.jp"]);
    }

    #[test]
    fn what_only_looks_like_one_is_not() {
        for other in [
            "a@2x.png",
            "icon@3x.webp",
            "lodash@4.17.21",
            "@types/node",
            "@user",
            "user@",
            "a @ b.com",
            "user@localhost",
            "git@github.com:owner/name.git",
            "getty@tty1.service",
            "https://user@host.example.com/",
            "x@.com",
            "x@-a.com",
        ] {
            assert_eq!(found(other), Vec::<&str>::new(), "{other}");
        }
    }
}
