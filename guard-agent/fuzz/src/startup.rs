//! The first packet of a connection.

use guard_agent::wire::postgres::{MAX_STARTUP_BYTES, StartupPacket};

/// What holds: the length is bounded, a longer buffer does not change it, and what is read is what stands there.
pub fn run(data: &[u8]) {
    let Ok(Some(length)) = StartupPacket::length(data) else {
        // As bytes come in one by one: never an opinion before the length is there, never another one after it.
        assert!(data.len() < 4 || StartupPacket::length(&data[..4]).is_err());
        return;
    };
    assert!((8..=MAX_STARTUP_BYTES).contains(&length));
    assert_eq!(StartupPacket::length(&data[..4]), Ok(Some(length)));
    let Some(packet) = data.get(..length) else { return };
    match StartupPacket::read(packet) {
        Ok(StartupPacket::Start(startup)) => {
            // Names and values stand in the packet in this order, each with its NUL.
            let mut at = 8;
            for (name, value) in &startup.parameters {
                let mut next = || {
                    let end = at + packet[at..].iter().position(|byte| *byte == 0).expect("its NUL");
                    let bytes = &packet[at..end];
                    at = end + 1;
                    bytes
                };
                assert_eq!(String::from_utf8_lossy(next()), name.as_str());
                let whole = next();
                // The server cuts the names of users and databases.
                let cut = if matches!(name.as_str(), "user" | "database") { 63 } else { whole.len() };
                assert_eq!(String::from_utf8_lossy(&whole[..whole.len().min(cut)]), value.as_str());
            }
            assert_eq!(&packet[at..], b"\0", "nothing is left over");
            let user = startup.user();
            assert!(startup.parameters.iter().any(|(_, value)| value == user) || user.is_empty());
            assert!(!startup.database().is_empty() || user.is_empty());
            let _: bool = startup.replication();
        }
        Ok(StartupPacket::Cancel(key)) => {
            assert_eq!(key.key.len() + 12, length);
            let shown = format!("{key:?}");
            assert!(!shown.contains("key:"), "{shown}");
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

/// One of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    const REQUEST: u32 = 1234 << 16;
    vec![
        packet(3 << 16, b"user\0app\0\0"),
        packet(3 << 16 | 2, b"user\0app\0database\0shop\0application_name\0psql\0client_encoding\0UTF8\0\0"),
        packet(3 << 16, &[b"user\0", &[0xf9; 70][..], b"\0\0"].concat()),
        packet(3 << 16, b"user\0app\0replication\0database\0options\0-c search_path=x\0_pq_.some\0x\0\0"),
        packet(REQUEST | 5678, &[0, 0, 1, 2, 3, 4, 5, 6]),
        packet(REQUEST | 5679, b""),
        packet(REQUEST | 5680, b""),
        packet(2 << 16, b""),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x15\x38\x15\x39".to_vec(),
    ]
}
