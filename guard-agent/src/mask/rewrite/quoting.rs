//! Texts within texts: elements of arrays, fields of rows, bounds of ranges, in quotes or bare.

/// A part of a literal, as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Without its quotes; escapes stand in it still.
    pub(super) raw: &'a [u8],
    pub(super) quoted: bool,
    /// The byte after it, quotes included.
    pub(super) end: usize,
}

/// Of what a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    /// An array.
    Array,
    /// A row.
    Row,
    /// An hstore; a key of it cannot be NULL.
    Key,
    Value,
}

impl Literal {
    /// What stands for NULL.
    pub(super) fn null(self) -> &'static [u8] {
        match self {
            Self::Array | Self::Value => b"NULL",
            Self::Row => b"",
            Self::Key => b"\"***\"",
        }
    }

    /// Writes a part, in quotes where the server would.
    pub(super) fn write(self, value: &[u8], out: &mut Vec<u8>) {
        let special: &[u8] = match self {
            Self::Array if value.eq_ignore_ascii_case(b"NULL") => return quote(value, out),
            Self::Array => b"{},\"\\",
            Self::Row => b"(),\"\\",
            Self::Key | Self::Value => return quote(value, out),
        };
        let space = |byte: &u8| matches!(byte, b' ' | 9..=13);
        if value.is_empty() || value.iter().any(|byte| special.contains(byte) || space(byte)) {
            quote(value, out);
        } else {
            out.extend_from_slice(value);
        }
    }
}

/// The part that begins at `start` and ends before one of `delimiters`. `None`: its quotes do not end.
pub(super) fn part<'a>(text: &'a [u8], start: usize, delimiters: &[u8]) -> Option<Part<'a>> {
    if text.get(start) == Some(&b'"') {
        let mut at = start + 1;
        loop {
            match text.get(at)? {
                b'\\' => at += 2,
                b'"' if text.get(at + 1) == Some(&b'"') => at += 2,
                b'"' => break,
                _ => at += 1,
            }
        }
        return Some(Part { raw: &text[start + 1..at], quoted: true, end: at + 1 });
    }
    let mut at = start;
    while let Some(byte) = text.get(at)
        && !delimiters.contains(byte)
    {
        at += if *byte == b'\\' { 2 } else { 1 };
    }
    (at <= text.len()).then(|| Part { raw: &text[start..at], quoted: false, end: at })
}

/// Writes what `raw` stands for: `\x` is x, `""` is one quote.
pub(super) fn unquote(raw: &[u8], out: &mut Vec<u8>) {
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            b'"' => {
                bytes.next();
                out.push(b'"');
            }
            other => out.push(*other),
        }
    }
}

/// True where `raw` holds nothing that [`unquote`] changes.
pub(super) fn is_plain(raw: &[u8]) -> bool {
    !raw.iter().any(|byte| matches!(byte, b'\\' | b'"'))
}

/// Writes `value` in quotes, as arrays, rows, ranges and hstore all read it.
pub(super) fn quote(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_reads_back() {
        for value in ["", "a", "a\"b", "\\", "a,b", "{}", "\"\"", "é\\\""] {
            let mut text = Vec::new();
            quote(value.as_bytes(), &mut text);
            text.extend_from_slice(b",next");
            let part = part(&text, 0, b",").unwrap();
            assert_eq!((part.quoted, part.end), (true, text.len() - 5));
            let mut read = Vec::new();
            unquote(part.raw, &mut read);
            assert_eq!(read, value.as_bytes());
        }
    }

    #[test]
    fn quotes_and_escapes_must_end() {
        for text in [&b"\"abc"[..], b"\"abc\\", b"\"abc\\\"", b"abc\\"] {
            assert_eq!(part(text, 0, b","), None, "{text:?}");
        }
        assert_eq!(part(b"", 0, b",").unwrap().end, 0);
        assert_eq!(part(b"a\\,b,c", 0, b",").unwrap().raw, b"a\\,b");
    }
}
