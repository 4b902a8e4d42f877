//! What stands before the reading of a statement: encodings, caps, the lexer, the canonical spelling.

use guard_agent::sql::{Classifier, Encoding, Limits, Modes, Statement};
use guard_policy::vocabulary::{Action, Parse};

use crate::{input::Input, words};

/// A literal that no record may show.
const SECRET: &str = "kq7zxcanary";

/// Small caps: so that short inputs reach them.
fn tight() -> Limits {
    Limits {
        max_statement_bytes: 768,
        max_tokens: 96,
        max_depth: 6,
        max_parse_tokens: 64,
        cache_entries: 4,
        cache_bytes: 16 * 1024,
    }
}

/// What the session's settings are, by the first byte of an input.
pub fn modes(choice: u8) -> Modes {
    let client_encoding = match choice >> 1 & 7 {
        0..=2 => Encoding::Utf8,
        3 => Encoding::Latin1,
        4 => Encoding::AsciiSafe,
        5 => Encoding::named("GBK"),
        6 => Encoding::named("SJIS"),
        _ => Encoding::Other,
    };
    with(Modes::default(), choice & 1 == 0, client_encoding)
}

/// `modes` with these two settings.
pub fn with(mut modes: Modes, standard_conforming_strings: bool, client_encoding: Encoding) -> Modes {
    modes.standard_conforming_strings = standard_conforming_strings;
    modes.client_encoding = client_encoding;
    modes
}

/// Reads a text without a memory of others.
pub fn read(text: &[u8], modes: &Modes, limits: Limits) -> std::sync::Arc<Statement> {
    Classifier::new(limits).classify(text, modes)
}

/// What holds: caps and encodings end in `unreadable`, what separates statements changes nothing, and no literal is kept.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let modes = modes(input.byte().unwrap_or(0));
    let text = input.rest();
    let statement = read(text, &modes, tight());
    check(&statement);
    let foreign = match modes.client_encoding {
        Encoding::Utf8 => std::str::from_utf8(text).is_err(),
        Encoding::Latin1 | Encoding::AsciiSafe | Encoding::Table(_) => false,
        // Anything may hide in a letter whose second byte looks like a backslash.
        Encoding::Other => text.windows(2).any(|pair| pair[0] >= 0x80 && pair[1] == b'\\'),
    };
    if foreign || text.contains(&0) || text.len() > tight().max_statement_bytes {
        assert!(is_unreadable(&statement), "{statement:?}");
    }
    if modes.client_encoding == Encoding::Other && !text.is_ascii() {
        assert!(!statement.text.contains("not valid SQL"), "a syntax error is guessed: {statement:?}");
    }
    if statement.parse != Parse::None && text.len() < tight().max_statement_bytes {
        let longer = read(&[text, b"\n"].concat(), &modes, tight());
        assert_eq!((&longer.effects, &longer.fingerprint), (&statement.effects, &statement.fingerprint));
    }
    let secret = [format!("SELECT '{SECRET}' ;").as_bytes(), text].concat();
    let kept = read(&secret, &modes, tight());
    check(&kept);
    // A name that is spelled like the literal may stand there.
    let named = text.to_ascii_lowercase().windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(named || !kept.text.contains(SECRET), "a literal is on record: {}", kept.text);
}

/// What every reading looks like.
pub fn check(statement: &Statement) {
    assert!(statement.effects.windows(2).all(|pair| pair[0] < pair[1]), "sorted, without repeats");
    assert!(statement.parts == 0 || !statement.effects.is_empty(), "something is done: {statement:?}");
    assert_eq!(statement.fingerprint.len(), 16);
    assert!(statement.text.len() <= 64 * 1024, "a record is bounded");
}

/// It is said that nobody can say.
pub fn is_unreadable(statement: &Statement) -> bool {
    statement.effects.iter().any(|effect| effect.action == Action::Unreadable)
}

/// The statements that the reading is tested on, under every setting.
pub fn seeds() -> Vec<Vec<u8>> {
    let with_choice = |(at, text): (usize, String)| {
        let choice = [0, 1, 4, 5, 6][at % 5];
        [&[choice][..], text.as_bytes()].concat()
    };
    words::statements().into_iter().enumerate().map(with_choice).collect()
}
