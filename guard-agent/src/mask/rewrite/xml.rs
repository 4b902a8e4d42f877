//! xml: text between the marks. Whole, it becomes an element that holds what takes its place.

use super::{
    Detector, Rule,
    engine::{Engine, Job, Outcome},
    shape::FULL,
};

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn xml(&mut self, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Option<Outcome> {
        match job {
            Job::Pass => Some(Outcome::Same),
            Job::Mask(kind, rule) => {
                let mut text = self.buffer();
                match rule {
                    // What a part of a document would be does not depend on its kind.
                    Rule::Partial => {
                        self.count(kind);
                        text.extend_from_slice(FULL);
                    }
                    _ => self.masked_text(kind, rule, value, &mut text),
                }
                out.extend_from_slice(b"<masked>");
                escape(&text, out);
                out.extend_from_slice(b"</masked>");
                self.done(text);
                Some(Outcome::Written)
            }
            Job::Scan(hint) => {
                let hits = self.scan(hint, value);
                let mut text = self.buffer();
                let mut from = 0;
                for hit in &hits {
                    let Some(rule) = self.rules.rule(hit.kind) else { continue };
                    // A hit that begins or ends in a mark is none that could be rewritten.
                    let found = value
                        .get(hit.start..hit.end)
                        .filter(|found| !found.iter().any(|byte| b"<>&".contains(byte)));
                    let (Some(found), Some(before)) = (found, value.get(from..hit.start)) else {
                        self.scanned(hits);
                        return None;
                    };
                    out.extend_from_slice(before);
                    text.clear();
                    self.masked_text(hit.kind, rule, found, &mut text);
                    escape(&text, out);
                    from = hit.end;
                }
                self.scanned(hits);
                self.done(text);
                if from == 0 {
                    return Some(Outcome::Same);
                }
                out.extend_from_slice(&value[from..]);
                Some(Outcome::Written)
            }
        }
    }
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            other => out.push(*other),
        }
    }
}
