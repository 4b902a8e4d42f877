//! What must hold of the bytes that came out of a session, told by what went in. It reads the protocol by itself.

use guard_agent::sql::{Classifier, Encoding, Limits, Modes, Statement};
use guard_policy::vocabulary::{Action, ObjectKind};

use super::Seen;
use crate::guards;

/// What guard's stand-in for a refused statement begins with.
const STAND_IN: &[u8] = b"guard_refused_";

/// Bytes of the random part of its name.
const MARK: usize = 32;

/// The first message of `bytes`, if all of it is there.
pub fn split_message(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?.checked_sub(4)?;
    Some((*tag, rest.get(..length)?))
}

/// Whole messages, and the bytes behind them that are none.
pub fn messages(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut messages = Vec::new();
    while let Some((_, body)) = split_message(bytes) {
        let (one, rest) = bytes.split_at(5 + body.len());
        messages.push(one);
        bytes = rest;
    }
    (messages, bytes)
}

/// A message with the random part of guard's stand-in taken out.
pub fn without_marks(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let mut at = 0;
    while let Some(found) = message[at..].windows(STAND_IN.len()).position(|window| window == STAND_IN) {
        at += found + STAND_IN.len();
        let end = (at + MARK).min(message.len());
        message[at..end].fill(b'x');
    }
    message
}

/// What the server has is what the client sent, in its order, but for what was refused or skipped.
pub fn towards_server(seen: &Seen) {
    let (sent, unfinished) = messages(&seen.from_client);
    let (received, cut) = messages(&seen.to_server);
    let mut left = sent.iter();
    for message in received {
        if is_stand_in(message) {
            continue;
        }
        assert!(left.any(|sent| *sent == message), "the server has what nobody sent: {message:?}");
        if seen.enforcing {
            assert_permitted(message);
        }
    }
    let mut whole = left.map(|sent| &**sent).chain([unfinished]);
    assert!(
        whole.any(|sent| sent.starts_with(cut)),
        "the server has half a message that nobody sent: {cut:?}"
    );
}

/// What the client has is what the server sent, in its order, but for what guard says itself.
pub fn towards_client(seen: &Seen) {
    let (sent, unfinished) = messages(&seen.from_server);
    let (received, cut) = messages(&seen.to_client);
    let mut left = sent.iter();
    for message in received {
        let mut ahead = left.clone();
        if ahead.any(|sent| *sent == message) {
            left = ahead;
        } else {
            let ours = message[0] == b'E' && message.windows(5).any(|window| window == b"guard");
            assert!(ours, "the client has what nobody sent: {message:?}");
        }
    }
    let mut whole = left.map(|sent| &**sent).chain([unfinished]);
    assert!(
        whole.any(|sent| sent.starts_with(cut)),
        "the client has half a message that nobody sent: {cut:?}"
    );
}

fn is_stand_in(message: &[u8]) -> bool {
    matches!(message[0], b'Q' | b'P') && message[5..].starts_with(STAND_IN)
}

/// The built-in policies refuse some things whoever asks. Under at least one of the settings that the session may have had,
/// a statement that went to the server does none of them.
fn assert_permitted(message: &[u8]) {
    let text = match (message[0], &message[5..]) {
        (b'Q', body) => body.strip_suffix(&[0]).unwrap_or(body),
        (b'P', body) => body.split(|byte| *byte == 0).nth(1).unwrap_or(&[]),
        _ => return,
    };
    let mut modes = Vec::new();
    for standard_conforming_strings in [true, false] {
        for client_encoding in [Encoding::Utf8, Encoding::Latin1, Encoding::AsciiSafe, Encoding::Other] {
            modes.push(guards::with(Modes::default(), standard_conforming_strings, client_encoding));
        }
    }
    let readings = modes.iter().map(|modes| Classifier::new(Limits::default()).classify(text, modes));
    let harmless = readings.into_iter().any(|statement| !is_refused(&statement));
    assert!(harmless, "a refused statement went to the server: {:?}", String::from_utf8_lossy(text));
}

fn is_refused(statement: &Statement) -> bool {
    statement.effects.iter().any(|effect| match effect.action {
        Action::Truncate | Action::Unreadable => true,
        Action::Drop => {
            matches!(effect.object.kind, ObjectKind::Table | ObjectKind::Schema | ObjectKind::Database)
        }
        Action::Delete | Action::Update => effect.has_where == Some(false),
        _ => false,
    })
}
