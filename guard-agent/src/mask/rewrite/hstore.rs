//! hstore in both formats: values are rewritten, keys say what they are.

use super::{
    Base, Detector, Format, ValueType,
    array::Fields,
    engine::{Engine, Job, Outcome},
    quoting::{self, Literal},
};

const TEXT: &ValueType = &ValueType::new(Base::Text);

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn hstore(
        &mut self,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let from = match format {
            Format::Text => self.hstore_text(job, value, out)?,
            Format::Binary => self.hstore_binary(job, value, out)?,
        };
        if from == 0 {
            return Some(Outcome::Same);
        }
        out.extend_from_slice(&value[from..]);
        Some(Outcome::Written)
    }

    /// `"key"=>"value", "key"=>NULL`. Returns up to where it has been written.
    fn hstore_text(&mut self, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let (mut at, mut from) = (0, 0);
        let mut plain = Vec::new();
        while at < value.len() {
            let key = quoting::part(value, at, b"=")?;
            if !key.quoted {
                return None;
            }
            plain.clear();
            quoting::unquote(key.raw, &mut plain);
            if self.part(TEXT, self.job_on_key(job), (key, Literal::Key, &value[from..at]), out) {
                from = key.end;
            }
            at = key.end + value.get(key.end..)?.strip_prefix(b"=>").map(|_| 2)?;
            let part = quoting::part(value, at, b",")?;
            if part.quoted {
                let job = self.job_of_key(&plain, job, b'"');
                if self.part(TEXT, job, (part, Literal::Value, &value[from..at]), out) {
                    from = part.end;
                }
            } else if part.raw != b"NULL" {
                return None;
            }
            at = part.end;
            if at < value.len() {
                at += value[at..].strip_prefix(b", ").map(|_| 2)?;
            }
        }
        Some(from)
    }

    fn hstore_binary(&mut self, job: Job<'a>, value: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let count = value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
        let mut fields = Fields { value, at: 4 };
        let mut from = 0;
        for _ in 0..count {
            let before = fields.at;
            let key = fields.next()??;
            fields.at = before;
            // A key cannot be NULL.
            if self.field(TEXT, Format::Binary, self.job_on_key(job), (&mut fields, &mut from), out)? {
                return None;
            }
            let job = self.job_of_key(key, job, b'"');
            self.field(TEXT, Format::Binary, job, (&mut fields, &mut from), out)?;
        }
        (fields.at == value.len()).then_some(from)
    }

    /// What is done with keys themselves. Those of stored values are kept, unless something is found in them.
    pub(super) fn job_on_key(&self, job: Job<'a>) -> Job<'a> {
        match job {
            // A key is never NULL.
            Job::Mask(kind, super::Rule::Null) => Job::Scan(super::Hint::of(kind)),
            Job::Mask(kind, _) if !self.state.computed => Job::Scan(super::Hint::of(kind)),
            other => other,
        }
    }
}
