//! Messages from the server.

use super::frame::{WireError, cstring, printable};

/// Kinds of messages that a server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Authentication request or success.
    Authentication,
    /// Process id and key for cancel requests.
    BackendKeyData,
    /// Bind succeeded.
    BindComplete,
    /// Close succeeded.
    CloseComplete,
    /// A statement ended well.
    CommandComplete,
    /// Data of a COPY.
    CopyData,
    /// The end of a COPY.
    CopyDone,
    /// The client may send COPY data.
    CopyInResponse,
    /// COPY data follows.
    CopyOutResponse,
    /// COPY both ways: replication.
    CopyBothResponse,
    /// A row.
    DataRow,
    /// The statement was empty.
    EmptyQueryResponse,
    /// It failed.
    ErrorResponse,
    /// The result of a function call.
    FunctionCallResponse,
    /// The minor protocol version or options that the server does not know.
    NegotiateProtocolVersion,
    /// It returns no rows.
    NoData,
    /// A warning or a message.
    NoticeResponse,
    /// NOTIFY of another session.
    NotificationResponse,
    /// Types of parameters.
    ParameterDescription,
    /// A setting's value.
    ParameterStatus,
    /// Parse succeeded.
    ParseComplete,
    /// The row limit of Execute was reached.
    PortalSuspended,
    /// Ready for the next command.
    ReadyForQuery,
    /// The form of the rows.
    RowDescription,
}

impl Backend {
    /// The kind that `tag` names.
    pub fn from_tag(tag: u8) -> Result<Self, WireError> {
        Ok(match tag {
            b'R' => Self::Authentication,
            b'K' => Self::BackendKeyData,
            b'2' => Self::BindComplete,
            b'3' => Self::CloseComplete,
            b'C' => Self::CommandComplete,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'G' => Self::CopyInResponse,
            b'H' => Self::CopyOutResponse,
            b'W' => Self::CopyBothResponse,
            b'D' => Self::DataRow,
            b'I' => Self::EmptyQueryResponse,
            b'E' => Self::ErrorResponse,
            b'V' => Self::FunctionCallResponse,
            b'v' => Self::NegotiateProtocolVersion,
            b'n' => Self::NoData,
            b'N' => Self::NoticeResponse,
            b'A' => Self::NotificationResponse,
            b't' => Self::ParameterDescription,
            b'S' => Self::ParameterStatus,
            b'1' => Self::ParseComplete,
            b's' => Self::PortalSuspended,
            b'Z' => Self::ReadyForQuery,
            b'T' => Self::RowDescription,
            other => return Err(WireError::Unknown(printable(other))),
        })
    }
}

/// Where the session stands, from ReadyForQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction.
    #[default]
    Idle,
    /// In a transaction.
    Active,
    /// In a failed transaction.
    Failed,
}

/// The body of a ReadyForQuery.
pub fn ready_for_query(body: &[u8]) -> Result<TransactionStatus, WireError> {
    match body {
        b"I" => Ok(TransactionStatus::Idle),
        b"T" => Ok(TransactionStatus::Active),
        b"E" => Ok(TransactionStatus::Failed),
        _ => Err(WireError::Malformed('Z')),
    }
}

/// Name and value in the body of a ParameterStatus.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let malformed = || WireError::Malformed('S');
    let (name, rest) = cstring(body).ok_or_else(malformed)?;
    let (value, _) = cstring(rest).ok_or_else(malformed)?;
    Ok((name, value))
}

/// The mechanisms in the body of an AuthenticationSASL; `None` for every other authentication message.
pub fn sasl_mechanisms(body: &[u8]) -> Option<&[u8]> {
    body.strip_prefix(&[0, 0, 0, 10])
}

/// An AuthenticationSASL that offers what `mechanisms` offers, but those that bind to the channel (`-PLUS`).
pub fn without_channel_binding(mut mechanisms: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut offered = Vec::with_capacity(mechanisms.len());
    loop {
        let (name, rest) = cstring(mechanisms).ok_or(WireError::Malformed('R'))?;
        if name.is_empty() {
            break;
        }
        if !name.ends_with(b"-PLUS") {
            offered.extend_from_slice(name);
            offered.push(0);
        }
        mechanisms = rest;
    }
    offered.push(0);
    let mut message = Vec::with_capacity(offered.len() + 9);
    super::frame::write(&mut message, b'R', |out| {
        out.extend_from_slice(&[0, 0, 0, 10]);
        out.extend_from_slice(&offered);
    });
    Ok(message)
}

/// The body of a CommandComplete, such as `INSERT 0 3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandTag<'a> {
    /// The tag as the server sent it.
    pub text: &'a str,
}

impl<'a> CommandTag<'a> {
    /// Reads the body of a CommandComplete.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let (text, _) = cstring(body).ok_or(WireError::Malformed('C'))?;
        Ok(Self { text: std::str::from_utf8(text).unwrap_or_default() })
    }

    /// The number of rows at its end; 0 where it has none.
    pub fn rows(self) -> u64 {
        let count = self.text.bytes().rposition(|byte| byte == b' ').map_or(0, |space| space + 1);
        self.text.get(count..).and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// The fields of an ErrorResponse or a NoticeResponse that guard reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorFields<'a> {
    /// SQLSTATE.
    pub code: &'a [u8],
    /// Untranslated severity: `ERROR`, `FATAL`, `PANIC`, ..
    pub severity: &'a [u8],
    /// The message. May hold values: never logged.
    pub message: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads the fields that stand whole in `start`, the first bytes of an ErrorResponse's body.
    pub fn start(mut start: &'a [u8]) -> Self {
        let mut fields = Self::default();
        while let Some((kind @ 1.., rest)) = start.split_first()
            && let Some((value, rest)) = cstring(rest)
        {
            fields.set(*kind, value);
            start = rest;
        }
        fields
    }

    /// Reads the body of an ErrorResponse.
    pub fn read(mut body: &'a [u8]) -> Result<Self, WireError> {
        let malformed = || WireError::Malformed('E');
        let mut fields = Self::default();
        loop {
            let (kind, rest) = body.split_first().ok_or_else(malformed)?;
            if *kind == 0 {
                return Ok(fields);
            }
            let (value, rest) = cstring(rest).ok_or_else(malformed)?;
            fields.set(*kind, value);
            body = rest;
        }
    }

    fn set(&mut self, kind: u8, value: &'a [u8]) {
        match kind {
            b'C' => self.code = value,
            b'V' => self.severity = value,
            b'M' => self.message = value,
            // Unknown fields are to be ignored, says the protocol.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_tags_count_rows() {
        let rows = |tag: &[u8]| CommandTag::read(tag).unwrap().rows();
        assert_eq!(rows(b"INSERT 0 3\0"), 3);
        assert_eq!(rows(b"SELECT 12\0"), 12);
        assert_eq!(rows(b"CREATE TABLE\0"), 0);
        assert!(CommandTag::read(b"SELECT 1").is_err());
    }

    #[test]
    fn mechanisms_that_bind_to_the_channel_are_left_out() {
        let body = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let offered = without_channel_binding(sasl_mechanisms(body).unwrap()).unwrap();
        assert_eq!(offered, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
        assert!(sasl_mechanisms(b"\0\0\0\x0b").is_none());
        assert!(without_channel_binding(b"SCRAM").is_err());
    }

    #[test]
    fn error_fields_are_bounded_by_the_body() {
        let body = b"SFEHLER\0VERROR\0C42601\0Msyntax error\0P1\0\0";
        let fields = ErrorFields::read(body).unwrap();
        assert_eq!(
            (fields.code, fields.severity, fields.message),
            (&b"42601"[..], &b"ERROR"[..], &b"syntax error"[..])
        );
        for end in 0..body.len() {
            assert!(ErrorFields::read(&body[..end]).is_err(), "{end}");
        }
        let start = ErrorFields::start(&body[..27]);
        assert_eq!((start.code, start.message), (&b"42601"[..], &b""[..]), "the message is cut off");
    }
}
