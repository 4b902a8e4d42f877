//! A server that lies: its client is told so where it can be, and nothing grows without end.

use super::*;

/// The session ends with guard's own error.
async fn ends_with_08p01(mut session: Session, what: &str) {
    let (tag, error) = read_message(&mut session.client).await.expect(what);
    assert_eq!((tag, code(&error).as_str()), (b'E', "08P01"), "{what}");
    assert_eq!(read_message(&mut session.client).await, None, "{what}");
    assert_eq!(read_message(&mut session.server).await, None, "{what}");
}

#[test]
fn answers_that_nobody_asked_for_end_the_session() {
    let lies = [
        ("a second ParseComplete", message(b'1', b"")),
        ("a BindComplete", message(b'2', b"")),
        ("a CloseComplete", message(b'3', b"")),
        ("a second ReadyForQuery", [message(b'C', b"SELECT 1\0"), ready(), ready()].concat()),
    ];
    for (what, lie) in lies {
        local(async {
            let mut session = Session::begin(Mode::Enforce).await;
            session.send(&[query("SELECT 1")]).await;
            assert_eq!(read_tags(&mut session.server, 1).await, "Q");
            session.answer(std::slice::from_ref(&lie)).await;
            // What came in one piece with the lie may be held back with it.
            let mut client = Vec::new();
            session.client.read_to_end(&mut client).await.unwrap();
            assert!(client.windows(5).any(|window| window == b"08P01"), "{what}");
        });
    }
}

#[test]
fn lengths_that_cannot_be_end_the_session() {
    let with_length = |tag: u8, length: i32| [&[tag][..], &length.to_be_bytes()].concat();
    let lies = [
        ("a row of -1 bytes", with_length(b'D', -1)),
        ("a row of 3 bytes", with_length(b'D', 3)),
        ("a row of 2 GiB", with_length(b'D', i32::MAX)),
        ("a command tag of 16 MiB", with_length(b'C', 1 << 24)),
        ("a setting of 16 MiB", with_length(b'S', 1 << 24)),
        ("a ReadyForQuery of 1 GiB", with_length(b'Z', 1 << 30)),
        ("a ReadyForQuery without a state", message(b'Z', b"")),
        ("a state that there is not", message(b'Z', b"X")),
        ("a command tag without an end", message(b'C', b"SELECT 1")),
        ("a setting without a value", message(b'S', b"name\0")),
        ("an error without an end", message(b'E', b"SERROR\0C42601\0Mjunk")),
        ("an error without anything", message(b'E', b"")),
        ("a client's message", message(b'Q', b"SELECT 1\0")),
    ];
    for (what, lie) in lies {
        local(async {
            let mut session = Session::begin(Mode::Enforce).await;
            session.send(&[query("SELECT 1")]).await;
            assert_eq!(read_tags(&mut session.server, 1).await, "Q");
            session.answer(std::slice::from_ref(&lie)).await;
            ends_with_08p01(session, what).await;
        });
    }
}

#[test]
fn settings_without_end_are_not_collected_before_the_login_is_through() {
    local(async {
        let mut session = Session::logging_in(Mode::Enforce, Ok(())).await;
        // The same again is nothing new.
        let known: Vec<Vec<u8>> = (0..300).map(|_| message(b'S', b"client_encoding\0UTF8\0")).collect();
        session.answer(&known).await;
        assert_eq!(read_tags(&mut session.client, 300).await, "S".repeat(300));
        let others: Vec<Vec<u8>> =
            (0..300).map(|number| message(b'S', format!("setting_{number}\0x\0").as_bytes())).collect();
        session.answer(&others).await;
        let (reason, _) = session.end().await;
        assert!(reason.contains("protocol violation by the server"), "{reason}");
    });
}

#[test]
fn settings_without_end_pass_in_a_running_session() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        for round in 0..200 {
            let settings: Vec<Vec<u8>> =
                (0..50).map(|number| message(b'S', format!("s_{round}_{number}\0x\0").as_bytes())).collect();
            session.answer(&settings).await;
            assert_eq!(read_tags(&mut session.client, 50).await, "S".repeat(50));
        }
        session.send(&[query("DROP TABLE t")]).await;
        session.replacement(b'Q').await;
    });
}

#[test]
fn ready_in_the_middle_of_a_copy_opens_no_door() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        session.send(&[query("COPY t FROM STDIN")]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "Q");
        session.answer(&[message(b'G', b"\0\0\0"), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 2).await, "GZ");
        session.send(&[message(b'd', b"1\n"), query("DROP TABLE t"), message(b'c', b""), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "d");
        let word = session.replacement(b'Q').await;
        assert_eq!(read_tags(&mut session.server, 2).await, "cS");
        session.answer(&[syntax_error(&word), ready(), ready()]).await;
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "42501");
        assert_eq!(read_tags(&mut session.client, 2).await, "ZZ");
    });
}

#[test]
fn a_server_that_closes_in_mid_message_leaves_no_half_truth() {
    let halves = [
        ("a command tag", message(b'C', b"SELECT 1\0")),
        ("a state", ready()),
        ("an error", syntax_error("x")),
        ("a header", message(b'D', b"")[..3].to_vec()),
    ];
    for (what, whole) in halves {
        local(async {
            let mut session = Session::begin(Mode::Enforce).await;
            session.send(&[query("SELECT 1")]).await;
            assert_eq!(read_tags(&mut session.server, 1).await, "Q");
            session.answer(&[whole[..whole.len() - 1].to_vec()]).await;
            session.server.shutdown().await.unwrap();
            assert_eq!(read_message(&mut session.client).await, None, "{what}");
            let (reason, bodies) = session.end().await;
            assert_eq!(reason, "closed by the server", "{what}");
            assert_eq!(outcomes(&bodies)[0].0, Status::Unknown, "{what}");
        });
    }
}

#[test]
fn a_row_without_end_passes_as_it_comes_and_is_cut_where_it_is_cut() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        session.send(&[query("SELECT 1")]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "Q");
        let announced = [&b"D"[..], &(512_i32 << 20).to_be_bytes()].concat();
        let (mut server, mut client) = (session.server, session.client);
        let sending = tokio::task::spawn_local(async move {
            server.write_all(&announced).await.unwrap();
            for _ in 0..64 {
                server.write_all(&[7; 128 * 1024]).await.unwrap();
            }
            server.shutdown().await.unwrap();
            server
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), HEADER_BYTES + 64 * 128 * 1024, "no word of guard's in the middle of a row");
        assert!(got[HEADER_BYTES..].iter().all(|byte| *byte == 7));
        drop(sending.await.unwrap());
    });
}

#[test]
fn what_a_server_says_of_a_refusal_it_cannot_know_is_passed_on_as_it_is() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        session.send(&[query("DROP TABLE t"), query("SELECT 1")]).await;
        let word = session.replacement(b'Q').await;
        assert_eq!(read_tags(&mut session.server, 1).await, "Q");
        let elsewhere = format!(
            "{}99999999999999999999999",
            word.trim_end_matches(|letter: char| letter.is_ascii_digit())
        );
        session.answer(&[syntax_error(&elsewhere), ready(), syntax_error(&word), ready()]).await;
        let (_, error) = read_message(&mut session.client).await.unwrap();
        assert_eq!(code(&error), "42601");
        assert_eq!(read_tags(&mut session.client, 3).await, "ZEZ");
    });
}

#[test]
fn guards_last_word_stands_behind_the_row_before_the_lie() {
    local(async {
        let mut session = Session::begin(Mode::Enforce).await;
        session.send(&[query("SELECT 1")]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "Q");
        let row = message(b'D', &[7; 90]);
        session.answer(&[row[..40].to_vec()]).await;
        tokio::task::yield_now().await;
        let mut begun = [0; 40];
        session.client.read_exact(&mut begun).await.unwrap();
        session.answer(&[row[40..].to_vec(), message(b'1', b"")]).await;
        let mut rest = vec![0; row.len() - 40];
        session.client.read_exact(&mut rest).await.unwrap();
        assert_eq!([&begun[..], &rest].concat(), row);
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "08P01");
    });
}
