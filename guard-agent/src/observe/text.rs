//! From the string that a server runs to the statement in it that runs now.
//!
//! Strings hold several statements, and may be longer than what the kernel copies: the rest is read from the server's
//! memory, and believed only where what was copied still stands before it.

use std::{fs::File, os::unix::fs::FileExt};

use sha2::{Digest, Sha256};

use crate::{
    sensor::{Cut, StatementSeen},
    sql::{Encoding, Modes},
};

/// Of a string no more is read.
const LIMIT: usize = 16 * 1024 * 1024;
/// Of a longer string the record has the hash.
const HASHED_FROM: usize = 64 * 1024;
/// Bytes that are read at once.
const STEP: usize = 256 * 1024;

/// The statement's own text, and what is known of the string around it.
#[derive(Debug, Default)]
pub struct Source {
    /// The statement alone.
    pub text: Vec<u8>,
    /// Bytes of the string.
    pub bytes: u64,
    /// SHA-256 of a long string, or of as much as is known of one, hex.
    pub sha256: String,
    /// Why the text is not whole.
    pub loss: &'static str,
}

impl Source {
    /// Of what was seen. Reads the memory of the server's process for what is missing.
    pub fn of(seen: &mut StatementSeen) -> Self {
        let mut string = std::mem::take(&mut seen.text);
        let mut loss = "";
        match seen.cut {
            None => {}
            Some(Cut::Long) => match rest(seen.pid, seen.address, &string) {
                Some(whole) => string = whole,
                None => loss = "longer than what is copied, and gone from the server's memory",
            },
            Some(Cut::Lost) => loss = "a part of it was lost on its way",
        }
        let bytes = string.len() as u64;
        let long = string.len() > HASHED_FROM || !loss.is_empty();
        let sha256 = if long { hex::encode(Sha256::digest(&string)) } else { String::new() };
        Self { text: part(string, seen.location, seen.length), bytes, sha256, loss }
    }
}

/// The statement at `location`; the whole string where that is not in it.
fn part(mut string: Vec<u8>, location: Option<usize>, length: usize) -> Vec<u8> {
    let Some(start) = location.filter(|start| *start < string.len()) else { return string };
    let end = if length == 0 { string.len() } else { start.saturating_add(length).min(string.len()) };
    string.truncate(end);
    string.drain(..start);
    string
}

/// The whole string at `address` of process `pid`, where it still begins as it did.
fn rest(pid: u32, address: u64, copied: &[u8]) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut whole = Vec::with_capacity(copied.len() + STEP);
    let mut at = address;
    let mut buffer = vec![0; STEP];
    while whole.len() < LIMIT {
        // Less than asked for where memory ends: the string may end just before.
        let read = memory.read_at(&mut buffer, at).ok().filter(|read| *read > 0)?;
        let bytes = buffer.get(..read)?;
        if let Some(end) = memchr::memchr(0, bytes) {
            whole.extend_from_slice(&bytes[..end]);
            return (whole.len() > copied.len() && whole.starts_with(copied)).then_some(whole);
        }
        whole.extend_from_slice(bytes);
        at = at.checked_add(read as u64)?;
    }
    None
}

/// How the text is to be read: by the server itself it is kept in its own encoding, of which every ASCII byte is a
/// letter of its own.
pub fn modes(text: &[u8], standard_strings: bool) -> Modes {
    let utf8 = std::str::from_utf8(text).is_ok();
    Modes {
        standard_conforming_strings: standard_strings,
        client_encoding: if utf8 { Encoding::Utf8 } else { Encoding::AsciiSafe },
        server_utf8: utf8,
        grammar_known: true,
    }
}

/// Whether a replication connection's text is a command of its own; else it is SQL and is seen as such.
pub fn is_replication_command(text: &[u8]) -> bool {
    const COMMANDS: [&str; 11] = [
        "IDENTIFY_SYSTEM",
        "BASE_BACKUP",
        "START_REPLICATION",
        "CREATE_REPLICATION_SLOT",
        "DROP_REPLICATION_SLOT",
        "ALTER_REPLICATION_SLOT",
        "READ_REPLICATION_SLOT",
        "TIMELINE_HISTORY",
        "UPLOAD_MANIFEST",
        "TIMELINE",
        "READ_REPLICATION",
    ];
    let text = text.trim_ascii_start();
    let end =
        text.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').unwrap_or(text.len());
    COMMANDS.iter().any(|command| command.as_bytes().eq_ignore_ascii_case(&text[..end]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sensor::Level;

    fn seen(text: &[u8], cut: Option<Cut>, address: u64) -> StatementSeen {
        StatementSeen {
            pid: std::process::id(),
            start_ns: 0,
            at: Duration::ZERO,
            sequence: 1,
            level: Level::Executor,
            nested: false,
            standard_strings: true,
            location: None,
            length: 0,
            text: text.to_vec(),
            address,
            cut,
            counted: None,
            utility: 0,
        }
    }

    #[test]
    fn one_statement_of_several_is_taken() {
        let string = b"select 1; drop table t ;select 2".to_vec();
        let of = |location, length| String::from_utf8(part(string.clone(), location, length)).unwrap();
        assert_eq!(of(Some(0), 8), "select 1");
        assert_eq!(of(Some(9), 14), " drop table t ");
        assert_eq!(of(Some(24), 0), "select 2");
        for odd in [None, Some(32), Some(usize::MAX)] {
            assert_eq!(of(odd, 5).len(), string.len());
        }
        assert_eq!(of(Some(24), usize::MAX), "select 2");
    }

    #[test]
    fn the_rest_of_a_long_text_is_read_from_memory() {
        let mut string = vec![b'x'; 300_000];
        string.push(0);
        let address = string.as_ptr() as u64;
        let mut long = seen(&string[..65_536], Some(Cut::Long), address);
        let source = Source::of(&mut long);
        assert_eq!((source.bytes, source.loss), (300_000, ""));
        assert_eq!(source.sha256, hex::encode(Sha256::digest(&string[..300_000])));
        // Another text stands there by now: it is not taken for this one's rest.
        let mut other = seen(&[b'y'; 65_536], Some(Cut::Long), address);
        let source = Source::of(&mut other);
        assert_eq!(source.bytes, 65_536);
        assert!(!source.loss.is_empty());
        let mut gone = seen(&[b'y'; 65_536], Some(Cut::Long), 8);
        assert!(!Source::of(&mut gone).loss.is_empty());
    }

    #[test]
    fn replication_commands_are_told_from_sql() {
        for command in [" START_REPLICATION SLOT s", "identify_system", "BASE_BACKUP(x)"] {
            assert!(is_replication_command(command.as_bytes()), "{command}");
        }
        for sql in ["select 1", "", "show x", "drop_replication_slots()"] {
            assert!(!is_replication_command(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn bytes_of_an_unknown_encoding_are_not_guessed() {
        assert_eq!(modes(b"select '\xe4'", true).client_encoding, Encoding::AsciiSafe);
        assert_eq!(modes("select 'ä'".as_bytes(), false).client_encoding, Encoding::Utf8);
    }
}
