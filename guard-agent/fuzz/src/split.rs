//! The network cuts a client's bytes where it likes: that changes nothing.
//!
//! An input is a piece of lengths of cuts, then the client's bytes after the login.

use crate::{
    frontend,
    input::Input,
    session::{Seen, honest_login, messages, with_world, without_marks},
};

/// What holds: whether the bytes come at once or cut, the server gets the same messages, and the client the same answers.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.piece();
    let bytes = input.rest();
    let whole = relay(&[bytes]);
    let mut pieces = Vec::new();
    let (mut rest, mut lengths) = (bytes, cuts.iter().cycle());
    while !rest.is_empty() {
        let length = lengths.next().map_or(1, |length| usize::from(*length) + 1).min(rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    let cut = relay(&pieces);
    if !whole.logged_in || !cut.logged_in {
        return;
    }
    let (one, other) = (said(&whole.to_server), said(&cut.to_server));
    if is_violation(&whole) || is_violation(&cut) {
        // What stands before the nonsense is on its way or not when the session ends.
        let both = one.len().min(other.len());
        assert_eq!(one[..both], other[..both]);
        return;
    }
    assert_eq!(one, other, "the server is sent other messages");
    assert_eq!(said(&whole.to_client), said(&cut.to_client), "the client is sent other messages");
}

/// The server answers when everything has been said: what fails early cannot change what is sent after it.
fn relay(pieces: &[&[u8]]) -> Seen {
    with_world(|world| {
        honest_login(world, async |peers| {
            for piece in pieces {
                peers.say(piece);
                peers.settle().await;
            }
            // Every refusal waits for its record before anything goes on; the shortest message has five bytes.
            let turns = 16 + pieces.iter().map(|piece| piece.len()).sum::<usize>();
            peers.wait(turns).await;
            let mut answered = usize::MAX;
            while answered != peers.to_server().len() {
                answered = peers.to_server().len();
                peers.answer();
                peers.wait(turns).await;
            }
        })
    })
}

fn said(bytes: &[u8]) -> Vec<Vec<u8>> {
    messages(bytes).0.into_iter().map(without_marks).collect()
}

fn is_violation(seen: &Seen) -> bool {
    seen.to_client.windows(5).any(|window| window == b"08P01")
}

/// Everything that a client says, and some that guard refuses, cut into single bytes and into larger ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let refused = [
        frontend::message(b'Q', b"DROP TABLE t\0"),
        frontend::message(b'P', b"\0TRUNCATE t\0\0\0"),
        frontend::message(b'S', b""),
        frontend::message(b'Q', b"SELECT 2\0"),
    ];
    let mut streams = frontend::seeds();
    streams.push(refused.concat());
    let mut seeds = Vec::new();
    for stream in &streams {
        for cuts in [&[0][..], &[2], &[6, 0, 3], &[30]] {
            let length = u8::try_from(cuts.len()).unwrap_or(0);
            seeds.push([&[length][..], cuts, stream].concat());
        }
    }
    seeds
}
