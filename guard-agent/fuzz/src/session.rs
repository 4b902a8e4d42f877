//! Whole sessions: a client and a server that both do what the input says, with guard between them.

mod oracle;
mod play;
mod server;
mod world;

use std::cell::RefCell;

pub use self::{
    oracle::{messages, without_marks},
    play::{Seen, honest_login},
    server::Honest,
    world::World,
};
use crate::frontend::message;

/// Sessions after which everything that they share is made anew: what waits for a timer that never rings is gone then.
const LIFETIME: u32 = 10_000;

thread_local! {
    static WORLD: RefCell<Option<(World, u32)>> = const { RefCell::new(None) };
}

/// Lends the world of this thread.
pub fn with_world<T>(act: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(_, sessions)| *sessions >= LIFETIME) {
            *slot = None;
        }
        let (world, sessions) = slot.get_or_insert_with(|| (World::new(), 0));
        *sessions += 1;
        act(world)
    })
}

/// What holds: no panic, an end, whole messages both ways in the order in which they were sent, and nothing of a refused
/// statement at the server.
pub fn run(data: &[u8]) {
    let seen = with_world(|world| play::play(world, data));
    if !seen.logged_in {
        return;
    }
    oracle::towards_server(&seen);
    oracle::towards_client(&seen);
}

/// What clients and servers do, rightly and wrongly. The form of an input: see `play`.
pub fn seeds() -> Vec<Vec<u8>> {
    use play::op;
    let text = |text: &str| op(2, text.as_bytes());
    let parse = |text: &str| op(3, text.as_bytes());
    let run = op(4, b"");
    let sync = op(1, &[b'S', 0]);
    let answers = op(7, b"");
    let server = |tag: u8, body: &[u8]| op(6, &[&[tag, 0][..], body].concat());
    let scripts: Vec<Vec<Vec<u8>>> = vec![
        vec![
            text("SELECT 1"),
            answers.clone(),
            text("DROP TABLE t"),
            answers.clone(),
            text("SELECT 2"),
            answers.clone(),
        ],
        vec![
            parse("SELECT 1"),
            run.clone(),
            parse("DELETE FROM t"),
            run.clone(),
            sync.clone(),
            answers.clone(),
        ],
        vec![text("PREPARE s AS SELECT 1"), text("EXECUTE s"), text("DEALLOCATE s"), answers.clone()],
        vec![
            text("COPY t FROM STDIN"),
            answers.clone(),
            op(1, b"d\0x\n"),
            op(1, b"c\0"),
            sync.clone(),
            answers.clone(),
        ],
        vec![
            text("BEGIN"),
            text("TRUNCATE t"),
            text("UPDATE t SET a = 1"),
            answers.clone(),
            text("ROLLBACK"),
            answers.clone(),
        ],
        vec![op(1, b"F\0\0\0\x03\xbc\0\0\0\0\0\x01"), answers.clone(), op(1, b"X\0")],
        vec![
            parse("SELECT 1"),
            op(1, b"H\0"),
            server(b'E', b"SERROR\0C42703\0Mno\0\0"),
            run.clone(),
            sync.clone(),
            answers.clone(),
        ],
        vec![server(b'Z', b"I"), server(b'1', b""), text("SELECT 1")],
        vec![
            text("SELECT 1"),
            server(b'S', b"standard_conforming_strings\0off\0"),
            server(b'C', b"SELECT 1\0"),
            server(b'Z', b"I"),
        ],
        vec![text("SELECT 1"), server(b'G', b"\0\0\0"), server(b'Z', b"E"), op(1, b"d\0x"), answers.clone()],
        vec![text("SELECT 1"), op(5, b"D\0\0\0\xff"), op(9, b""), text("SELECT 2")],
        vec![op(0, b"Q\0\0\0\x0dDROP"), op(0, b" TABL"), op(0, b"E t\0"), answers.clone(), op(8, b"")],
    ];
    let mut seeds = Vec::new();
    for script in scripts {
        for flags in [0, 1] {
            seeds.push([&[flags][..], &script.concat()].concat());
        }
    }
    // A client that says nothing of a login, and one that says it itself.
    seeds.push([&[2][..], &op(0, b"\0\0\0\x08\x04\xd2\x16\x2f")].concat());
    seeds.push(
        [&[2][..], &op(0, b"\0\0\0\x12\0\x03\0\0user\0app\0\0"), &op(5, &message(b'R', &[0; 4]))].concat(),
    );
    seeds
}

#[cfg(test)]
mod tests {
    use super::{play::op, *};

    fn seen(to_server: &[u8], to_client: &[u8]) -> Seen {
        let from_client = [message(b'Q', b"SELECT 1\0"), message(b'Q', b"TRUNCATE t\0")].concat();
        let from_server = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
        let (to_server, to_client) = (to_server.to_vec(), to_client.to_vec());
        Seen { enforcing: true, logged_in: true, from_client, to_server, from_server, to_client }
    }

    fn holds(seen: Seen) -> bool {
        std::panic::catch_unwind(|| {
            oracle::towards_server(&seen);
            oracle::towards_client(&seen);
        })
        .is_ok()
    }

    #[test]
    fn a_refused_statement_is_replaced_and_an_allowed_one_answered() {
        let script = [op(2, b"DROP TABLE t"), op(7, b""), op(2, b"SELECT 1"), op(7, b"")].concat();
        let seen = with_world(|world| play::play(world, &[&[0][..], &script].concat()));
        let (received, _) = messages(&seen.to_server);
        assert!(received[0].windows(14).any(|window| window == b"guard_refused_"), "{received:?}");
        assert_eq!(received[1], message(b'Q', b"SELECT 1\0"));
        let tags: Vec<u8> = messages(&seen.to_client).0.iter().map(|message| message[0]).collect();
        assert_eq!(tags, b"EZCZ");
        oracle::towards_server(&seen);
        oracle::towards_client(&seen);
    }

    #[test]
    fn the_oracle_sees_what_must_not_be() {
        let select = message(b'Q', b"SELECT 1\0");
        let (complete, ready) = (message(b'C', b"SELECT 1\0"), message(b'Z', b"I"));
        assert!(holds(seen(&select, &[&complete[..], &ready].concat())));
        assert!(!holds(seen(&message(b'Q', b"TRUNCATE t\0"), b"")), "a refused statement");
        assert!(!holds(seen(&message(b'Q', b"SELECT 2\0"), b"")), "a statement that nobody sent");
        assert!(!holds(seen(&[&select[..], &select].concat(), b"")), "a statement twice");
        assert!(!holds(seen(&select, &[&ready[..], &complete].concat())), "answers in another order");
        assert!(!holds(seen(&select, b"C\0\0\0\x0dSELECT 9")), "half of another answer");
    }
}
