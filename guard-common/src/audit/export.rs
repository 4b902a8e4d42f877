//! The form in which records leave a host: JSON lines that prove themselves.
//!
//! The first line says whose chain it is; each other line holds one record twice, once for people and programs, and once
//! as the bytes that the hash chain covers. Enters: sealed records, or lines. Leaves: the other of the two. A line whose
//! readable part says something else than its bytes is refused.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::{Message, bytes::Bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    MAX_SEALED_LEN,
    v1::{Record, SealedRecord},
};

/// Longest line in bytes that is taken: a record of [`MAX_SEALED_LEN`] as base64 and as JSON with everything escaped.
pub const MAX_LINE: usize = 9 * MAX_SEALED_LEN;

/// The form that this build writes.
pub const FORM: u32 = 1;

/// What is not a line of an export.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LineError {
    /// No JSON, or other fields.
    #[error("not a line of an export: {0}")]
    Malformed(String),
    /// Written by a later version.
    #[error("an export of form {0}, this program knows form {FORM}: take a newer one")]
    Newer(u32),
    /// The part for people was changed.
    #[error("record {0}: its readable part does not say what its bytes say")]
    Readable(u64),
}

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Header {
    /// [`FORM`].
    pub guard_audit_export: u32,
    /// UUID of the agent whose chain it is.
    pub agent_id: String,
    /// The public key that lay beside the journal, in hex: a hint. Whoever verifies takes the key that they kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

impl Header {
    /// Reads the first line.
    pub fn read(line: &str) -> Result<Self, LineError> {
        let header: Self =
            serde_json::from_str(line).map_err(|error| LineError::Malformed(error.to_string()))?;
        if header.guard_audit_export > FORM {
            return Err(LineError::Newer(header.guard_audit_export));
        }
        Ok(header)
    }
}

/// One record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    sequence: u64,
    previous: String,
    hash: String,
    payload: String,
    record: Value,
}

impl fmt::Debug for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Line").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Line {
    /// The line of a sealed record.
    pub fn of(sealed: &SealedRecord) -> Self {
        Self {
            sequence: sealed.sequence,
            previous: hex::encode(&sealed.previous),
            hash: hex::encode(&sealed.hash),
            payload: STANDARD.encode(&sealed.payload),
            record: readable(&sealed.payload),
        }
    }

    /// The sealed record of a line.
    pub fn read(line: &str) -> Result<SealedRecord, LineError> {
        let malformed = |error: &dyn fmt::Display| LineError::Malformed(error.to_string());
        let line: Self = serde_json::from_str(line).map_err(|error| malformed(&error))?;
        let bytes = |text: &str| hex::decode(text).map(Bytes::from).map_err(|error| malformed(&error));
        let sealed = SealedRecord {
            sequence: line.sequence,
            previous: bytes(&line.previous)?,
            hash: bytes(&line.hash)?,
            payload: STANDARD.decode(&line.payload).map_err(|error| malformed(&error))?.into(),
        };
        if readable(&sealed.payload) != line.record {
            return Err(LineError::Readable(line.sequence));
        }
        Ok(sealed)
    }
}

/// A record as JSON; null where its bytes are none.
fn readable(payload: &Bytes) -> Value {
    let record = Record::decode(payload.clone()).ok();
    record.and_then(|record| serde_json::to_value(record).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        chain::Head,
        v1::{AgentStopped, record::Body},
    };

    fn sealed(reason: &str) -> SealedRecord {
        let body = Body::AgentStopped(AgentStopped { reason: reason.to_owned() });
        Head::default().seal(Record::now(body).encode_to_vec().into())
    }

    #[test]
    fn a_record_comes_back_as_it_went() {
        for reason in ["", "a \"quoted\" \u{202e} \u{0} text\n", &"long ".repeat(10_000)] {
            let sealed = sealed(reason);
            let line = serde_json::to_string(&Line::of(&sealed)).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(Line::read(&line).unwrap(), sealed);
        }
    }

    #[test]
    fn what_people_read_is_what_is_proved() {
        let line = serde_json::to_string(&Line::of(&sealed("told"))).unwrap();
        let changed = line.replace("\"told\"", "\"untold\"");
        assert_ne!(line, changed);
        assert_eq!(Line::read(&changed), Err(LineError::Readable(1)));
    }

    #[test]
    fn a_record_of_a_later_version_is_still_proved() {
        // Field 1000 of a later schema, and bytes that are no record at all.
        for payload in [&b"\xc2\x3e\x03abc"[..], b"\xff\xff\xff\xff\xff"] {
            let sealed = Head::default().seal(Bytes::copy_from_slice(payload));
            let line = serde_json::to_string(&Line::of(&sealed)).unwrap();
            assert_eq!(Line::read(&line).unwrap(), sealed);
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "{}", "[1]", "{\"sequence\":1}", "null"] {
            assert!(matches!(Line::read(line), Err(LineError::Malformed(_))), "{line}");
        }
        let header = |form| format!("{{\"guard_audit_export\":{form},\"agent_id\":\"x\"}}");
        assert!(Header::read(&header(1)).is_ok());
        assert_eq!(Header::read(&header(2)), Err(LineError::Newer(2)));
    }
}
