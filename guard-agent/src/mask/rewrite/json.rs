//! json and jsonb: what stands in it is rewritten, its form stays. Keys say what their values are.
//!
//! A document is walked once and without recursion. What is no JSON cannot be read, and becomes NULL.

use guard_policy::vocabulary::DataKind;
use smallvec::SmallVec;

use super::{
    Detector, Rule,
    decimal::{self, Decimal},
    engine::{Engine, Job, Outcome},
    number::Digits,
    shape::FULL,
};

/// How deep objects and arrays may lie in each other.
const MAX_DEPTH: usize = 512;

/// An object or an array under way.
#[derive(Clone, Copy)]
struct Level<'a> {
    object: bool,
    /// What is done with what stands in it.
    job: Job<'a>,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    /// The first value of an array, or its end.
    ValueOrEnd,
    Key,
    /// The first key of an object, or its end.
    KeyOrEnd,
    CommaOrEnd,
    Nothing,
}

/// Where a walk stands.
struct Walk<'v, 'a> {
    value: &'v [u8],
    at: usize,
    /// What stands before it has been written.
    from: usize,
    levels: SmallVec<[Level<'a>; 8]>,
}

impl<'v> Walk<'v, '_> {
    fn space(&mut self) {
        let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.value[self.at..].iter().take_while(space).count();
    }

    fn byte(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    /// Takes a string; returns what stands between its quotes.
    fn string(&mut self) -> Option<&'v [u8]> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.value.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.at = at + 1;
        Some(&self.value[start..at])
    }

    /// Takes a number or a word.
    fn scalar(&mut self) -> &'v [u8] {
        let start = self.at;
        let part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        self.at += self.value[start..].iter().take_while(part).count();
        &self.value[start..self.at]
    }

    /// Writes what has not been written before `start`. What stands from there to `end` is replaced.
    fn copy_to(&mut self, start: usize, end: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.value[self.from..start]);
        self.from = end;
    }
}

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn json(&mut self, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Option<Outcome> {
        if matches!(job, Job::Pass) {
            return Some(Outcome::Same);
        }
        let mut walk = Walk { value, at: 0, from: 0, levels: SmallVec::new() };
        let (mut expect, mut next) = (Expect::Value, job);
        loop {
            walk.space();
            let Some(byte) = walk.byte() else { break };
            let inside = walk.levels.last().copied();
            expect = match (expect, byte) {
                (Expect::Value | Expect::ValueOrEnd, b'{' | b'[') => {
                    if walk.levels.len() == MAX_DEPTH {
                        return None;
                    }
                    walk.at += 1;
                    walk.levels.push(Level { object: byte == b'{', job: next });
                    if byte == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd }
                }
                (Expect::ValueOrEnd | Expect::CommaOrEnd, b']')
                    if inside.is_some_and(|level| !level.object) =>
                {
                    self.leave(&mut walk)
                }
                (Expect::KeyOrEnd | Expect::CommaOrEnd, b'}') if inside.is_some_and(|level| level.object) => {
                    self.leave(&mut walk)
                }
                (Expect::CommaOrEnd, b',') => {
                    walk.at += 1;
                    let level = inside?;
                    next = level.job;
                    if level.object { Expect::Key } else { Expect::Value }
                }
                (Expect::Key | Expect::KeyOrEnd, b'"') => {
                    next = self.json_key(inside?.job, &mut walk, out)?;
                    Expect::Value
                }
                (Expect::Value | Expect::ValueOrEnd, b'"') => {
                    self.json_string(next, &mut walk, out)?;
                    after(&walk)
                }
                (Expect::Value | Expect::ValueOrEnd, _) => {
                    self.json_scalar(next, &mut walk, out)?;
                    after(&walk)
                }
                _ => return None,
            };
        }
        if expect != Expect::Nothing {
            return None;
        }
        if walk.from == 0 {
            return Some(Outcome::Same);
        }
        out.extend_from_slice(&value[walk.from..]);
        Some(Outcome::Written)
    }

    fn leave(&mut self, walk: &mut Walk<'_, 'a>) -> Expect {
        walk.at += 1;
        walk.levels.pop();
        after(walk)
    }

    /// A key and its colon. Returns what is to be done with its value.
    fn json_key(&mut self, job: Job<'a>, walk: &mut Walk<'_, 'a>, out: &mut Vec<u8>) -> Option<Job<'a>> {
        let start = walk.at;
        let raw = walk.string()?;
        let place = (start, walk.at);
        let mut plain = self.buffer();
        let next = unescape(raw, &mut plain).and_then(|text| {
            self.rewrite_string(self.job_on_key(job), text, place, walk, out);
            walk.space();
            if walk.byte() != Some(b':') {
                return None;
            }
            walk.at += 1;
            walk.space();
            Some(self.job_of_key(text, job, walk.byte()?))
        });
        self.done(plain);
        next
    }

    fn json_string(&mut self, job: Job<'a>, walk: &mut Walk<'_, 'a>, out: &mut Vec<u8>) -> Option<()> {
        let start = walk.at;
        let raw = walk.string()?;
        let mut plain = self.buffer();
        let place = (start, walk.at);
        let done = unescape(raw, &mut plain).map(|text| self.rewrite_string(job, text, place, walk, out));
        self.done(plain);
        done
    }

    /// Rewrites the string `text` that stands, in quotes, at `place`.
    fn rewrite_string(
        &mut self,
        job: Job<'a>,
        text: &[u8],
        (start, end): (usize, usize),
        walk: &mut Walk<'_, 'a>,
        out: &mut Vec<u8>,
    ) {
        let mut rewritten = self.buffer();
        let outcome = match job {
            Job::Mask(kind, Rule::Null) => {
                self.count(kind);
                Outcome::Null
            }
            job => self.any_text(job, text, &mut rewritten),
        };
        if outcome != Outcome::Same {
            walk.copy_to(start, end, out);
        }
        match outcome {
            Outcome::Same => {}
            // Escapes were read as UTF-8, which another encoding would not take.
            Outcome::Written if !self.settings.utf8 && !rewritten.is_ascii() => quote(FULL, out),
            Outcome::Written => quote(&rewritten, out),
            Outcome::Null => out.extend_from_slice(b"null"),
        }
        self.done(rewritten);
    }

    /// A number, true, false or null.
    fn json_scalar(&mut self, job: Job<'a>, walk: &mut Walk<'_, 'a>, out: &mut Vec<u8>) -> Option<()> {
        let start = walk.at;
        let text = walk.scalar();
        let (kind, rule) = match text {
            b"null" => return Some(()),
            b"true" | b"false" => match job {
                Job::Mask(kind, rule) => (kind, rule),
                Job::Scan(_) | Job::Pass => return Some(()),
            },
            _ => {
                if !text.first()?.is_ascii_digit() && text.first() != Some(&b'-') {
                    return None;
                }
                match self.rule_of_number(job, text) {
                    Some(found) => found,
                    None => return Some(()),
                }
            }
        };
        self.count(kind);
        walk.copy_to(start, walk.at, out);
        if matches!(rule, Rule::Null) {
            out.extend_from_slice(b"null");
        } else if matches!(text, b"true" | b"false") {
            out.extend_from_slice(b"false");
        } else {
            let masked = decimal::masked(kind, rule, Decimal::read(text), 15)?;
            out.extend_from_slice(Digits::of(i64::try_from(masked).ok()?).as_bytes());
        }
        Some(())
    }

    fn rule_of_number(&self, job: Job<'a>, text: &[u8]) -> Option<(DataKind, &'a Rule)> {
        if let Job::Mask(kind, rule) = job {
            return Some((kind, rule));
        }
        self.rule_of_integer(job, Decimal::read(text)?.integer()?)
    }
}

fn after(walk: &Walk<'_, '_>) -> Expect {
    if walk.levels.is_empty() { Expect::Nothing } else { Expect::CommaOrEnd }
}

/// What a string stands for: `raw` itself where it holds no escape. `None`: an escape that is none.
fn unescape<'v>(raw: &'v [u8], plain: &'v mut Vec<u8>) -> Option<&'v [u8]> {
    if !raw.contains(&b'\\') {
        return Some(raw);
    }
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        at += 1;
        if *byte != b'\\' {
            plain.push(*byte);
            continue;
        }
        let escape = raw.get(at)?;
        at += 1;
        plain.push(match escape {
            b'"' | b'\\' | b'/' => *escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = four(raw, at)?;
                at += 4;
                // A letter beyond the first 65,536 is written as two.
                if (0xd800..0xdc00).contains(&unit)
                    && raw.get(at..at + 2) == Some(b"\\u")
                    && let Some(low @ 0xdc00..0xe000) = four(raw, at + 2)
                {
                    at += 6;
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                }
                let letter = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                plain.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        });
    }
    Some(plain)
}

fn four(raw: &[u8], at: usize) -> Option<u32> {
    let digits = raw.get(at..at + 4)?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Writes `text` as a JSON string.
fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..32 => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(*byte)]);
            }
            other => out.push(*other),
        }
    }
    out.push(b'"');
}
