//! Lines of COPY's CSV format: <https://www.postgresql.org/docs/current/sql-copy.html>, "CSV Format".

use super::{CopyOptions, Field, Looked, any, marks::Marks};

/// Bytes of the row at the beginning of `bytes`: a line end within quotes does not end it.
pub(super) fn row_length(bytes: &[u8], options: &CopyOptions, looked: &mut Looked) -> Option<usize> {
    while looked.at < bytes.len() {
        let rest = &bytes[looked.at..];
        if looked.escaped {
            looked.escaped = false;
            looked.at += 1;
        } else if looked.quoted {
            let Some(found) = memchr::memchr2(options.quote, options.escape, rest) else {
                looked.at = bytes.len();
                return None;
            };
            // Where they are the same, a quote within quotes ends them, and the next begins them again.
            if rest[found] == options.quote {
                looked.quoted = false;
            } else {
                looked.escaped = true;
            }
            looked.at += found + 1;
        } else {
            let Some(found) = memchr::memchr2(options.quote, b'\n', rest) else {
                looked.at = bytes.len();
                return None;
            };
            looked.at += found + 1;
            if rest[found] == b'\n' {
                return Some(looked.at);
            }
            looked.quoted = true;
        }
    }
    None
}

/// The value that begins at `start`; `marks` are delimiters.
#[inline(always)]
pub(super) fn field<'a>(
    line: &'a [u8],
    start: usize,
    options: &CopyOptions,
    marks: &mut Marks<'_>,
) -> Option<Field<'a>> {
    let rest = line.get(start..)?;
    if rest.first() != Some(&options.quote) {
        let end = marks.from(start).unwrap_or(line.len());
        let raw = &line[start..end];
        return Some(Field { raw, end, null: raw == options.null, plain: true, quoted: false });
    }
    let (mut at, mut plain) = (start + 1, true);
    loop {
        at += memchr::memchr2(options.quote, options.escape, line.get(at..)?)?;
        let byte = *line.get(at)?;
        if byte == options.escape && line.get(at + 1).is_some_and(|next| is_escaped(*next, options)) {
            plain = false;
            at += 2;
        } else if byte == options.quote {
            break;
        } else {
            at += 1;
        }
    }
    let end = at + 1;
    // Behind its last quote a value ends.
    let ends = line.get(end).is_none_or(|next| *next == options.delimiter);
    ends.then_some(Field { raw: &line[start + 1..at], end, null: false, plain, quoted: true })
}

fn is_escaped(byte: u8, options: &CopyOptions) -> bool {
    byte == options.quote || byte == options.escape
}

/// What `raw`, which stood in quotes, stands for; its escapes stand in `shape`.
pub(super) fn unquote<'p>(
    (raw, shape): (&[u8], &[u8]),
    options: &CopyOptions,
    plain: &'p mut Vec<u8>,
) -> &'p [u8] {
    let mut at = 0;
    while let Some(byte) = shape.get(at) {
        if *byte == options.escape && shape.get(at + 1).is_some_and(|next| is_escaped(*next, options)) {
            at += 1;
        }
        plain.extend(raw.get(at));
        at += 1;
    }
    plain
}

/// Puts quotes around the value at the end of `out`, which begins at `place`, where it needs them or had them before.
/// `columns`: of the row. `aside` is for its own use.
#[inline]
pub(super) fn escape(
    options: &CopyOptions,
    (quoted, columns): (bool, usize),
    (place, aside): (usize, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let special =
        |byte: u8| (byte == options.delimiter) | (byte == options.quote) | (byte == b'\n') | (byte == b'\r');
    let value = &out[place..];
    // `\.` alone would end the data.
    let end = columns == 1 && value == b"\\.";
    if quoted || end || value == options.null || any(value, special) {
        aside.clear();
        aside.extend_from_slice(value);
        out.truncate(place);
        write(aside, options, out);
    }
}

/// Writes a value in quotes.
fn write(value: &[u8], options: &CopyOptions, out: &mut Vec<u8>) {
    out.push(options.quote);
    for byte in value {
        if is_escaped(*byte, options) {
            out.push(options.escape);
        }
        out.push(*byte);
    }
    out.push(options.quote);
}
