//! Messages from the client, once the startup is over.

use super::frame::{WireError, cstring, printable};

/// Kinds of messages that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// Parameters for a prepared statement: makes a portal.
    Bind,
    /// Forget a prepared statement or a portal.
    Close,
    /// Data of a COPY.
    CopyData,
    /// The end of a COPY.
    CopyDone,
    /// The client gives a COPY up.
    CopyFail,
    /// Describe a prepared statement or a portal.
    Describe,
    /// Run a portal.
    Execute,
    /// Send what is waiting.
    Flush,
    /// Call a function by its number.
    FunctionCall,
    /// Prepare a statement.
    Parse,
    /// Any answer to an authentication request.
    Password,
    /// Run a string of statements.
    Query,
    /// End of a pipeline.
    Sync,
    /// Goodbye.
    Terminate,
}

impl Frontend {
    /// The kind that `tag` names.
    pub fn from_tag(tag: u8) -> Result<Self, WireError> {
        Ok(match tag {
            b'B' => Self::Bind,
            b'C' => Self::Close,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail,
            b'D' => Self::Describe,
            b'E' => Self::Execute,
            b'H' => Self::Flush,
            b'F' => Self::FunctionCall,
            b'P' => Self::Parse,
            b'p' => Self::Password,
            b'Q' => Self::Query,
            b'S' => Self::Sync,
            b'X' => Self::Terminate,
            other => return Err(WireError::Unknown(printable(other))),
        })
    }
}

/// The text of a Query body.
pub fn query(body: &[u8]) -> Result<&[u8], WireError> {
    match body.split_last() {
        // A NUL inside stays: the statement's reading refuses it, as the server would read only what stands before.
        Some((0, text)) => Ok(text),
        _ => Err(WireError::Malformed('Q')),
    }
}

/// Name and text of a Parse body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseHead<'a> {
    /// The prepared statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement.
    pub text: &'a [u8],
}

impl<'a> ParseHead<'a> {
    /// Reads a whole Parse body.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let malformed = WireError::Malformed('P');
        let (name, rest) = cstring(body).ok_or(malformed.clone())?;
        let (text, types) = cstring(rest).ok_or(malformed.clone())?;
        let Some((count, types)) = types.split_first_chunk() else {
            return Err(malformed);
        };
        if types.len() != usize::from(u16::from_be_bytes(*count)) * 4 {
            return Err(malformed);
        }
        Ok(Self { name, text })
    }
}

/// Names in a Bind body; the parameters behind them are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindHead<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement's name.
    pub statement: &'a [u8],
}

impl<'a> BindHead<'a> {
    /// Reads the start of a Bind body; `None` until both names are there.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = cstring(body)?;
        let (statement, _) = cstring(rest)?;
        Some(Self { portal, statement })
    }
}

/// Gives `each` value of a Bind, with whether it is binary, from `values`: its body behind the two names. `None` is NULL.
/// Returns how many there were; nothing where the body is malformed.
pub fn bind_values<'a>(values: &'a [u8], mut each: impl FnMut(Option<&'a [u8]>, bool)) -> Option<usize> {
    let (formats, rest) = values.split_first_chunk()?;
    let (formats, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*formats)) * 2)?;
    let formats = formats.as_chunks::<2>().0;
    let (count, mut rest) = rest.split_first_chunk()?;
    let count = usize::from(u16::from_be_bytes(*count));
    for number in 0..count {
        let (length, after) = rest.split_first_chunk()?;
        let format = match formats {
            [] => [0, 0],
            [one] => *one,
            many => *many.get(number)?,
        };
        rest = after;
        let value = match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => None,
            Ok(length) => {
                let (value, after) = rest.split_at_checked(length)?;
                rest = after;
                Some(value)
            }
        };
        each(value, u16::from_be_bytes(format) == 1);
    }
    Some(count)
}

/// What a Close or a Describe is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseKind {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// Kind and name in the body of a Close or a Describe.
pub fn close_or_describe(body: &[u8]) -> Result<(CloseKind, &[u8]), WireError> {
    let malformed = || WireError::Malformed('C');
    let (kind, rest) = body.split_first().ok_or_else(malformed)?;
    let (name, rest) = cstring(rest).ok_or_else(malformed)?;
    match (kind, rest.is_empty()) {
        (b'S', true) => Ok((CloseKind::Statement, name)),
        (b'P', true) => Ok((CloseKind::Portal, name)),
        _ => Err(malformed()),
    }
}

/// The function's object id in a FunctionCall body.
pub fn function_oid(body: &[u8]) -> Result<u32, WireError> {
    body.first_chunk().map(|oid| u32::from_be_bytes(*oid)).ok_or(WireError::Malformed('F'))
}

/// A Query message with `text`.
pub fn query_message(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    super::frame::write(&mut out, b'Q', |out| {
        out.extend_from_slice(text);
        out.push(0);
    });
    out
}

/// A Parse message for `text` under `name`, without parameter types.
pub fn parse_message(name: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + text.len() + 16);
    super::frame::write(&mut out, b'P', |out| {
        for part in [name, text] {
            out.extend_from_slice(part.as_bytes());
            out.push(0);
        }
        out.extend_from_slice(&[0, 0]);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_and_malformed_ones_refused() {
        let message = parse_message("s1", "SELECT 1");
        let head = ParseHead::read(&message[5..]).unwrap();
        assert_eq!((head.name, head.text), (&b"s1"[..], &b"SELECT 1"[..]));
        for end in 5..message.len() {
            assert!(ParseHead::read(&message[5..end]).is_err());
        }
        assert!(ParseHead::read(b"s\0t\0\0\x01").is_err());
        assert_eq!(BindHead::read(b"p\0"), None);
        assert_eq!(BindHead::read(b"p\0s\0rest").unwrap().statement, b"s");
        assert_eq!(query(b"SELECT 1\0"), Ok(&b"SELECT 1"[..]));
        assert!(query(b"SELECT 1").is_err());
        assert!(query(b"").is_err());
        assert_eq!(close_or_describe(b"Sname\0"), Ok((CloseKind::Statement, &b"name"[..])));
        assert!(close_or_describe(b"Xname\0").is_err());
        assert!(function_oid(&[0, 0]).is_err());
    }
}
