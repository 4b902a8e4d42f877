//! The client's messages: framing, and every body that guard reads.

use guard_agent::wire::postgres::{
    BindHead, Frontend, HEADER_BYTES, Header, MAX_MESSAGE_BYTES, ParseHead, close_or_describe, function_oid,
    parse_message, query,
};

/// What holds: a header does not depend on what follows it, and what is read of a body stands in it.
pub fn run(mut data: &[u8]) {
    while let Some(header) = header(data) {
        let Ok(kind) = Frontend::from_tag(header.tag) else { return };
        let Some(body) = data.get(HEADER_BYTES..header.total()) else { return };
        match kind {
            Frontend::Query => {
                if let Ok(text) = query(body) {
                    assert_eq!([text, b"\0"].concat(), body);
                }
            }
            Frontend::Parse => parse(body, &data[..header.total()]),
            Frontend::Bind => bind(body),
            Frontend::Close | Frontend::Describe => {
                if let Ok((_, name)) = close_or_describe(body) {
                    assert_eq!([&body[..1], name, b"\0"].concat(), body);
                }
            }
            Frontend::FunctionCall => assert_eq!(function_oid(body).is_ok(), body.len() >= 4),
            _ => {}
        }
        data = &data[header.total()..];
    }
}

/// The header at the start of `data`: the same from its five bytes alone, and none from fewer.
pub fn header(data: &[u8]) -> Option<Header> {
    let read = Header::read(data, MAX_MESSAGE_BYTES);
    let head = &data[..data.len().min(HEADER_BYTES)];
    assert_eq!(read, Header::read(head, MAX_MESSAGE_BYTES));
    let header = read.ok().flatten()?;
    assert!(header.body <= MAX_MESSAGE_BYTES);
    assert_eq!(Header::read(&head[..4], MAX_MESSAGE_BYTES), Ok(None));
    if header.body > 0 {
        assert!(Header::read(head, header.body - 1).is_err(), "a limit is a limit");
    }
    Some(header)
}

fn parse(body: &[u8], message: &[u8]) {
    let Ok(head) = ParseHead::read(body) else { return };
    assert!(!head.name.contains(&0) && !head.text.contains(&0));
    assert!(body.starts_with(&[head.name, b"\0", head.text, b"\0"].concat()));
    let types = body.len() - head.name.len() - head.text.len() - 2;
    if types == 2
        && let (Ok(name), Ok(text)) = (std::str::from_utf8(head.name), std::str::from_utf8(head.text))
    {
        assert_eq!(parse_message(name, text), message, "what is written is what was read");
    }
}

/// Names that are there stay what they are when more of the message comes.
fn bind(body: &[u8]) {
    let whole = BindHead::read(body);
    for end in [body.len() / 2, body.len().saturating_sub(1)] {
        let part = BindHead::read(&body[..end]);
        assert!(part.is_none() || part == whole);
    }
    if let Some(head) = whole {
        assert!(body.starts_with(&[head.portal, b"\0", head.statement, b"\0"].concat()));
    }
}

/// A message: tag, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// Every message of a client, in the orders that drivers send them.
pub fn seeds() -> Vec<Vec<u8>> {
    let simple = message(b'Q', b"SELECT 1\0");
    let extended = [
        parse_message("s1", "SELECT $1"),
        message(b'B', b"p1\0s1\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07\0\0"),
        message(b'D', b"Pp1\0"),
        message(b'E', b"p1\0\0\0\0\x0a"),
        message(b'C', b"Ss1\0"),
        message(b'H', b""),
        message(b'S', b""),
    ];
    let copy = [
        message(b'Q', b"COPY t FROM STDIN\0"),
        message(b'd', b"1\tx\n"),
        message(b'c', b""),
        message(b'f', b"no\0"),
    ];
    let typed = message(b'P', b"s\0SELECT $1\0\0\x02\0\0\0\x17\0\0\0\x19");
    let call = message(b'F', b"\0\0\x03\xbc\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x01\0\x01");
    let password = [message(b'p', b"SCRAM-SHA-256\0\0\0\0\x03n,,"), message(b'X', b"")];
    vec![
        simple,
        extended.concat(),
        copy.concat(),
        typed,
        call,
        password.concat(),
        b"Q\xff\xff\xff\xff".to_vec(),
        b"P\x7f\xff\xff\xffx\0".to_vec(),
    ]
}
