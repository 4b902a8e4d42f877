//! A server that keeps to the protocol: it answers what it is sent, as PostgreSQL would.

use super::oracle::split_message;
use crate::frontend::message;

/// Where it stands.
#[derive(Debug, Default)]
pub struct Honest {
    /// Bytes that it has dealt with.
    at: usize,
    /// It failed and skips to Sync.
    skipping: bool,
    /// It takes COPY data; true where the COPY came by a simple query.
    copying: Option<bool>,
}

impl Honest {
    /// Its answers to everything whole that has come since it was asked last. `received` is all that ever came.
    pub fn answer(&mut self, received: &[u8]) -> Vec<u8> {
        let mut answers = Vec::new();
        while let Some((tag, body)) = split_message(received.get(self.at..).unwrap_or(&[])) {
            self.at += 5 + body.len();
            self.one(tag, body, &mut answers);
        }
        answers
    }

    fn one(&mut self, tag: u8, body: &[u8], answers: &mut Vec<u8>) {
        let mut say = |tag, body: &[u8]| answers.extend(message(tag, body));
        if let Some(simple) = self.copying {
            match tag {
                b'c' => say(b'C', b"COPY 1\0"),
                b'f' => say(b'E', b"SERROR\0VERROR\0C57014\0MCOPY failed\0\0"),
                _ => return,
            }
            self.copying = None;
            self.skipping = !simple && tag == b'f';
            if simple {
                say(b'Z', b"I");
            }
            return;
        }
        if self.skipping && tag != b'S' {
            return;
        }
        let text = if tag == b'P' { body.splitn(2, |byte| *byte == 0).nth(1).unwrap_or(body) } else { body };
        let refused = text.starts_with(b"guard_refused_");
        match tag {
            b'Q' | b'P' if refused => {
                let word = String::from_utf8_lossy(text.split(|byte| *byte == 0).next().unwrap_or(text))
                    .into_owned();
                let error = format!("SERROR\0VERROR\0C42601\0Msyntax error at or near \"{word}\"\0\0");
                say(b'E', error.as_bytes());
                match tag {
                    b'Q' => say(b'Z', b"I"),
                    _ => self.skipping = true,
                }
            }
            b'Q' if text.to_ascii_uppercase().starts_with(b"COPY") => {
                say(b'G', b"\0\0\0");
                self.copying = Some(true);
            }
            b'Q' | b'F' => {
                say(if tag == b'Q' { b'C' } else { b'V' }, b"SELECT 1\0");
                say(b'Z', b"I");
            }
            b'P' => say(b'1', b""),
            b'B' => say(b'2', b""),
            b'C' => say(b'3', b""),
            b'D' => say(b'n', b""),
            b'E' => say(b'C', b"SELECT 1\0"),
            b'S' => {
                self.skipping = false;
                say(b'Z', b"I");
            }
            _ => {}
        }
    }
}
