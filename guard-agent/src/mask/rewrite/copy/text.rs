//! Lines of COPY's text format: <https://www.postgresql.org/docs/current/sql-copy.html>, "Text Format".

use super::{CopyOptions, Field, Looked, any, marks::Marks};

/// Bytes of the line at the beginning of `bytes`: line ends within values are escaped.
pub(super) fn row_length(bytes: &[u8], looked: &mut Looked) -> Option<usize> {
    let end = memchr::memchr(b'\n', &bytes[looked.at..]);
    let length = end.map(|end| looked.at + end + 1);
    looked.at = bytes.len();
    length
}

/// The value that begins at `start`; `marks` are delimiters and backslashes.
#[inline(always)]
pub(super) fn field<'a>(
    line: &'a [u8],
    start: usize,
    options: &CopyOptions,
    marks: &mut Marks<'_>,
) -> Option<Field<'a>> {
    let (mut at, mut plain) = (start, true);
    let end = loop {
        match marks.from(at) {
            Some(found) if line.get(found) == Some(&b'\\') => {
                plain = false;
                at = found + 2;
            }
            Some(found) => break found,
            // A backslash at the end escapes nothing.
            None if at > line.len() => return None,
            None => break line.len(),
        }
    };
    let raw = line.get(start..end)?;
    Some(Field { raw, end, null: raw == options.null, plain, quoted: false })
}

/// What `raw` stands for, whose escapes stand in `shape`.
pub(super) fn unescape<'p>((raw, shape): (&[u8], &[u8]), plain: &'p mut Vec<u8>) -> &'p [u8] {
    let mut bytes = raw.iter().zip(shape);
    while let Some((byte, of_shape)) = bytes.next() {
        if *of_shape != b'\\' {
            plain.push(*byte);
            continue;
        }
        plain.extend(bytes.next().map(|(escape, of_shape)| match of_shape {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            _ => *escape,
        }));
    }
    plain
}

/// Escapes the value at the end of `out`, which begins at `place`, as the server would. `aside` is for its own use.
#[inline]
pub(super) fn escape(options: &CopyOptions, (place, aside): (usize, &mut Vec<u8>), out: &mut Vec<u8>) {
    let special = |byte: u8| (byte.wrapping_sub(8) < 6) | (byte == b'\\') | (byte == options.delimiter);
    if any(&out[place..], special) {
        aside.clear();
        aside.extend_from_slice(&out[place..]);
        out.truncate(place);
        write(aside, options, out);
    }
}

/// Writes a value with its escapes.
fn write(value: &[u8], options: &CopyOptions, out: &mut Vec<u8>) {
    for byte in value {
        let escape = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            other if *other == options.delimiter => *other,
            other => {
                out.push(*other);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escape]);
    }
}
