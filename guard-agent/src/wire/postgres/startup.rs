//! The first packet of a connection: it has no tag.

use std::fmt;

use super::frame::{WireError, cstring};

/// Longest startup packet, as the server has it (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP_BYTES: usize = 10_000;

/// Longest name of a user or database in bytes (`NAMEDATALEN` less one): the server cuts what is longer, wherever that
/// falls (`ProcessStartupPacket`). Versions 17.0 to 17.2 do not, and find no such user or database.
const MAX_NAME_BYTES: usize = 63;

/// Bytes of a key to cancel: 4 in protocol 3.0, as many as these in 3.2.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// Protocol number of a CancelRequest.
const CANCEL: u32 = 1234 << 16 | 5678;
/// Protocol number of an SSLRequest.
const SSL: u32 = 1234 << 16 | 5679;
/// Protocol number of a GSSENCRequest.
const GSS: u32 = 1234 << 16 | 5680;

/// What a client opens with.
#[derive(Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// It asks for TLS; the answer is one byte.
    Ssl,
    /// It asks for GSSAPI encryption; the answer is one byte.
    Gss,
    /// It asks to cancel what another connection runs; there is no answer.
    Cancel(CancelKey),
    /// It starts a session.
    Start(Startup),
}

/// Which session to cancel. The key is a secret: it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The backend's process id.
    pub process_id: u32,
    /// 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub key: Vec<u8>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// A StartupMessage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// Minor protocol version asked for.
    pub minor: u16,
    /// Names and values, in order; names of user and database as the server cuts them.
    pub parameters: Vec<(String, String)>,
}

impl Startup {
    /// The value of the last parameter called `name`: the server takes the last.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The user to log in as.
    pub fn user(&self) -> &str {
        self.parameter("user").unwrap_or_default()
    }

    /// The database: the user's name where none is given.
    pub fn database(&self) -> &str {
        self.parameter("database").filter(|name| !name.is_empty()).unwrap_or_else(|| self.user())
    }

    /// True for a replication connection, physical or logical (`replication=true|database|..`). What the server takes for
    /// false is everything that it reads as that (`parse_bool`): words may be cut short.
    pub fn replication(&self) -> bool {
        let off = ["f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"];
        self.parameter("replication").is_some_and(|value| !off.contains(&value.to_ascii_lowercase().as_str()))
    }
}

impl StartupPacket {
    /// Bytes of the whole packet at the start of `buffer`, length field counted; `None` until the length is there.
    pub fn length(buffer: &[u8]) -> Result<Option<usize>, WireError> {
        let Some(length) = buffer.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else {
            return Ok(None);
        };
        match usize::try_from(length) {
            Ok(length @ 8..=MAX_STARTUP_BYTES) => Ok(Some(length)),
            _ => Err(WireError::Startup("its length is not between 8 and 10000 bytes")),
        }
    }

    /// Reads a whole packet, length field included.
    pub fn read(packet: &[u8]) -> Result<Self, WireError> {
        let Some((code, body)) = packet.get(4..).and_then(|rest| rest.split_first_chunk()) else {
            return Err(WireError::Startup("it is too short"));
        };
        let code = u32::from_be_bytes(*code);
        match (code, code >> 16) {
            (SSL, _) => Ok(Self::Ssl),
            (GSS, _) => Ok(Self::Gss),
            (CANCEL, _) => match body.split_first_chunk() {
                Some((process_id, key)) if KEY_BYTES.contains(&key.len()) => {
                    let process_id = u32::from_be_bytes(*process_id);
                    Ok(Self::Cancel(CancelKey { process_id, key: key.to_vec() }))
                }
                _ => Err(WireError::Startup("a cancel request has a key of 4 to 256 bytes")),
            },
            (_, 3) => {
                let minor = u16::try_from(code & 0xffff).unwrap_or_default();
                Ok(Self::Start(Startup { minor, parameters: parameters(body)? }))
            }
            (_, major) => {
                let version = |part| u16::try_from(part & 0xffff).unwrap_or(u16::MAX);
                Err(WireError::Version(version(major), version(code)))
            }
        }
    }
}

/// The process id in a BackendKeyData, whose key a client can send back.
pub fn backend_process_id(body: &[u8]) -> Result<u32, WireError> {
    match body.split_first_chunk() {
        Some((process_id, key)) if KEY_BYTES.contains(&key.len()) => Ok(u32::from_be_bytes(*process_id)),
        _ => Err(WireError::Malformed('K')),
    }
}

fn parameters(mut body: &[u8]) -> Result<Vec<(String, String)>, WireError> {
    let malformed = WireError::Startup("expected parameters as NUL-terminated names and values");
    let mut parameters = Vec::new();
    loop {
        let (name, rest) = cstring(body).ok_or(malformed.clone())?;
        if name.is_empty() {
            return if rest.is_empty() { Ok(parameters) } else { Err(malformed) };
        }
        let (value, rest) = cstring(rest).ok_or(malformed.clone())?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let kept = match name {
            // The server does not know the encoding yet: a letter may be cut in two.
            b"user" | b"database" => &value[..value.len().min(MAX_NAME_BYTES)],
            _ => value,
        };
        parameters.push((text(name), text(kept)));
        body = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + body.len()).unwrap();
        [&length.to_be_bytes()[..], &code.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn reads_the_four_kinds_of_first_packets() {
        assert_eq!(StartupPacket::read(&packet(SSL, b"")), Ok(StartupPacket::Ssl));
        assert_eq!(StartupPacket::read(&packet(GSS, b"")), Ok(StartupPacket::Gss));
        let cancel = StartupPacket::read(&packet(CANCEL, b"\0\0\0\x07\x01\x02\x03\x04")).unwrap();
        assert_eq!(cancel, StartupPacket::Cancel(CancelKey { process_id: 7, key: vec![1, 2, 3, 4] }));
        let body = b"user\0ana\0database\0shop\0user\0bob\0\0";
        let StartupPacket::Start(startup) = StartupPacket::read(&packet(3 << 16 | 2, body)).unwrap() else {
            panic!("a startup message");
        };
        assert_eq!((startup.minor, startup.user(), startup.database()), (2, "bob", "shop"));
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        let StartupPacket::Start(startup) = StartupPacket::read(&packet(3 << 16, b"user\0ana\0\0")).unwrap()
        else {
            panic!("a startup message");
        };
        assert_eq!(startup.database(), "ana");
        assert!(!startup.replication());
    }

    fn start(body: &[u8]) -> Startup {
        match StartupPacket::read(&packet(3 << 16, body)) {
            Ok(StartupPacket::Start(startup)) => startup,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_those_that_the_server_sees() {
        let long = "x".repeat(70);
        let startup = start(format!("user\0{long}\0options\0{long}\0\0").as_bytes());
        assert_eq!((startup.user(), startup.database()), (&long[..63], &long[..63]));
        assert_eq!(startup.parameter("options"), Some(&long[..]), "nothing else is cut");
        // In the middle of a letter: the server finds no such database, and nothing here takes it for another.
        let startup = start(format!("user\0a\0database\0{}ü\0\0", &long[..62]).as_bytes());
        assert_eq!(startup.database(), format!("{}\u{fffd}", &long[..62]));
        let startup = start(format!("user\0a\0database\0{}ü\0\0", &long[..61]).as_bytes());
        assert_eq!(startup.database(), format!("{}ü", &long[..61]));
    }

    #[test]
    fn replication_is_what_the_server_takes_for_it() {
        for (value, replicates) in
            [("true", true), ("database", true), ("1", true), ("on", true), ("x", true), ("", true)]
                .into_iter()
                .chain([("false", false), ("FALS", false), ("of", false), ("No", false), ("0", false)])
        {
            let startup = start(format!("user\0a\0replication\0{value}\0\0").as_bytes());
            assert_eq!(startup.replication(), replicates, "{value}");
        }
    }

    #[test]
    fn keys_to_cancel_have_4_to_256_bytes() {
        for (length, fine) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
            let body = [&[0, 0, 0, 7][..], &vec![1; length]].concat();
            assert_eq!(StartupPacket::read(&packet(CANCEL, &body)).is_ok(), fine, "{length}");
            assert_eq!(backend_process_id(&body).ok(), fine.then_some(7), "{length}");
        }
    }

    #[test]
    fn malformed_packets_are_refused() {
        for body in [&b"user\0ana\0"[..], b"user\0ana", b"user", b"", b"user\0ana\0\0x"] {
            assert!(StartupPacket::read(&packet(3 << 16, body)).is_err(), "{body:?}");
        }
        assert!(StartupPacket::read(&packet(CANCEL, b"\0\0\0\x07")).is_err());
        assert_eq!(StartupPacket::read(&packet(2 << 16, b"")), Err(WireError::Version(2, 0)));
        assert_eq!(StartupPacket::length(b"\0\0"), Ok(None));
        for length in [0_u32, 7, 10_001, u32::MAX] {
            assert!(StartupPacket::length(&length.to_be_bytes()).is_err());
        }
        // What a browser sends.
        assert!(StartupPacket::length(b"GET / HTTP/1.1").is_err());
    }

    #[test]
    fn cancel_keys_do_not_reach_logs() {
        let shown = format!("{:?}", CancelKey { process_id: 7, key: vec![222; 4] });
        assert!(!shown.contains("222"));
    }
}
