//! The server's messages: every body that guard reads. The server may lie.

use guard_agent::wire::postgres::{
    Backend, CommandTag, ErrorFields, ErrorResponse, HEADER_BYTES, parameter_status, ready_for_query,
};

use crate::frontend::{header, message};

/// What holds: what is read of a body stands in it, and what guard would say in its turn is whole and bounded.
pub fn run(mut data: &[u8]) {
    while let Some(header) = header(data) {
        let Ok(kind) = Backend::from_tag(header.tag) else { return };
        let Some(body) = data.get(HEADER_BYTES..header.total()) else { return };
        match kind {
            Backend::ErrorResponse | Backend::NoticeResponse => error(body),
            Backend::CommandComplete => {
                if let Ok(tag) = CommandTag::read(body) {
                    assert!(tag.text.is_empty() || body.starts_with(tag.text.as_bytes()));
                    let _: u64 = tag.rows();
                }
            }
            Backend::ReadyForQuery => {
                assert_eq!(ready_for_query(body).is_ok(), matches!(body, b"I" | b"T" | b"E"))
            }
            Backend::ParameterStatus => {
                if let Ok((name, value)) = parameter_status(body) {
                    assert!(body.starts_with(&[name, b"\0", value, b"\0"].concat()));
                }
            }
            _ => {}
        }
        data = &data[header.total()..];
    }
}

fn error(body: &[u8]) {
    let start = ErrorFields::start(body);
    let Ok(fields) = ErrorFields::read(body) else { return };
    // The beginning says no other thing than the whole.
    assert_eq!((start.code, start.message, start.severity), (fields.code, fields.message, fields.severity));
    for value in [fields.code, fields.message, fields.severity] {
        assert!(value.is_empty() || body.windows(value.len()).any(|window| window == value));
    }
    // A refusal may quote what a peer sent.
    let quoted = String::from_utf8_lossy(fields.message);
    let answer = ErrorResponse::fatal("42501", quoted.clone()).with_hint(quoted).encode();
    let header = header(&answer).expect("a whole header");
    assert_eq!(header.total(), answer.len());
    assert!(answer.len() < 16 * 1024, "bounded, whatever it quotes");
    let read = ErrorFields::read(&answer[HEADER_BYTES..]).expect("what is written can be read");
    assert_eq!(read.code, b"42501");
}

/// Every message of a server, honest and otherwise.
pub fn seeds() -> Vec<Vec<u8>> {
    let login = [
        message(b'R', &[0; 4]),
        message(b'S', b"client_encoding\0UTF8\0"),
        message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]),
        message(b'v', b"\0\x03\0\0\0\0\0\0"),
        message(b'Z', b"I"),
    ];
    let rows = [
        message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"),
        message(b'D', b"\0\x01\0\0\0\x01x"),
        message(b'C', b"SELECT 18446744073709551616\0"),
        message(b'Z', b"T"),
    ];
    let extended = [b"1", b"2", b"3", b"n", b"s", b"I", b"t"].map(|tag| message(tag[0], b""));
    let copy =
        [message(b'G', b"\0\0\0"), message(b'H', b"\0\0\0"), message(b'W', b"\0\0\0"), message(b'c', b"")];
    vec![
        login.concat(),
        rows.concat(),
        extended.concat(),
        copy.concat(),
        message(b'E', b"SERROR\0VERROR\0C42601\0Msyntax error at or near \"x\"\0P1\0\0"),
        message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0"),
        message(b'E', b"SERROR"),
        message(b'A', b"\0\0\0\x07channel\0payload\0"),
        message(b'V', b"\xff\xff\xff\xff"),
    ]
}
