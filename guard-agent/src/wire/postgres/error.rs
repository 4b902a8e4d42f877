//! Errors that guard itself sends to a client, in the protocol's own form.

/// How much of the session an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement.
    Error,
    /// The connection.
    Fatal,
}

/// An error as a client may read it: SQLSTATE and safe text.
///
/// What goes to the log is another type; nothing of a peer's bytes may stand here unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// How much it ends.
    pub severity: Severity,
    /// SQLSTATE, five characters.
    pub code: &'static str,
    /// One line.
    pub message: String,
    /// Why; may be empty.
    pub detail: String,
    /// What to do; may be empty.
    pub hint: String,
}

/// Longest field in bytes.
const MAX_FIELD: usize = 4_096;

impl ErrorResponse {
    /// An error that ends the connection.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        let (detail, hint) = (String::new(), String::new());
        Self { severity: Severity::Fatal, code, message: message.into(), detail, hint }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The whole message.
    pub fn encode(&self) -> Vec<u8> {
        let severity = match self.severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        self.encode_as(b'E', severity)
    }

    /// The same as a NoticeResponse, which ends nothing.
    pub fn encode_notice(&self) -> Vec<u8> {
        self.encode_as(b'N', "NOTICE")
    }

    fn encode_as(&self, tag: u8, severity: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.message.len() + self.detail.len() + self.hint.len());
        super::frame::write(&mut out, tag, |out| {
            let fields = [
                (b'S', severity),
                (b'V', severity),
                (b'C', self.code),
                (b'M', &self.message),
                (b'D', &self.detail),
                (b'H', &self.hint),
            ];
            for (kind, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                out.push(kind);
                let end = value.floor_char_boundary(MAX_FIELD);
                out.extend(value.as_bytes()[..end].iter().filter(|byte| **byte != 0));
                out.push(0);
            }
            out.push(0);
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ErrorFields, Header};
    use super::*;

    #[test]
    fn what_is_encoded_reads_back() {
        let error = ErrorResponse::fatal("08006", "no\0thing").with_hint("x".repeat(9_999));
        let bytes = error.encode();
        let header = Header::read(&bytes, 10_000).unwrap().unwrap();
        assert_eq!(header.total(), bytes.len());
        let fields = ErrorFields::read(&bytes[5..]).unwrap();
        assert_eq!((fields.code, fields.message), (&b"08006"[..], &b"nothing"[..]));
        assert!(bytes.len() < 5_000);
    }
}
