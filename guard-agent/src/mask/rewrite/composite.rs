//! Rows within rows: values of row types and anonymous records, in both formats.
//!
//! Layouts: `record_out` and `record_send` in
//! <https://github.com/postgres/postgres/blob/REL_17_0/src/backend/utils/adt/rowtypes.c>.

use super::{
    Base, Detector, Field, Format, ValueType,
    array::Fields,
    engine::{Engine, Job, Outcome},
    quoting::{self, Literal},
};

/// Fields that a row can have.
const MAX_FIELDS: usize = 1_664;

/// Fields of anonymous records as text: nobody but people reads those.
const TEXT: &ValueType = &ValueType::new(Base::Text);

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn composite(
        &mut self,
        fields: Option<&'a [Field]>,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let nothing_to_do = matches!(job, Job::Pass)
            && fields.is_none_or(|fields| {
                let inner = |base: &Base| matches!(base, Base::Composite(_) | Base::Array(_));
                fields.iter().all(|field| field.treatment.is_none() && !inner(&field.value_type.base))
            });
        if nothing_to_do {
            return Some(Outcome::Same);
        }
        match format {
            Format::Text => self.composite_text(fields, job, value, out),
            Format::Binary => self.composite_binary(fields, job, value, out),
        }
    }

    fn composite_text(
        &mut self,
        fields: Option<&'a [Field]>,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let mut at = value.starts_with(b"(").then_some(1)?;
        let mut from = 0;
        for number in 0..MAX_FIELDS {
            let part = quoting::part(value, at, b",()")?;
            // Nothing at all is NULL.
            if part.quoted || !part.raw.is_empty() {
                let (value_type, job) = match fields {
                    Some(fields) => field_of(fields.get(number)?, job),
                    None => (TEXT, job),
                };
                if self.part(value_type, job, (part, Literal::Row, &value[from..at]), out) {
                    from = part.end;
                }
            }
            at = part.end + 1;
            match value.get(part.end)? {
                b',' => {}
                b')' if at == value.len() && fields.is_none_or(|fields| fields.len() <= number + 1) => {
                    if from == 0 {
                        return Some(Outcome::Same);
                    }
                    out.extend_from_slice(&value[from..]);
                    return Some(Outcome::Written);
                }
                _ => return None,
            }
        }
        None
    }

    fn composite_binary(
        &mut self,
        described: Option<&'a [Field]>,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let count = value.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))?;
        let count = usize::try_from(count).ok().filter(|count| *count <= MAX_FIELDS)?;
        if described.is_some_and(|fields| fields.len() != count) {
            return None;
        }
        let mut fields = Fields { value, at: 4 };
        let mut from = 0;
        for number in 0..count {
            let oid = value.get(fields.at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
            fields.at += 4;
            match described.and_then(|fields| fields.get(number)) {
                Some(field) => {
                    let (value_type, job) = field_of(field, job);
                    self.field(value_type, Format::Binary, job, (&mut fields, &mut from), out)?;
                }
                None => self.field_of_type(oid, job, (&mut fields, &mut from), out)?,
            }
        }
        if fields.at != value.len() {
            return None;
        }
        if from == 0 {
            return Some(Outcome::Same);
        }
        out.extend_from_slice(&value[from..]);
        Some(Outcome::Written)
    }

    /// A field of an anonymous record: what its OID says, as far as it is a built-in type.
    fn field_of_type(
        &mut self,
        oid: u32,
        job: Job<'a>,
        place: (&mut Fields<'_>, &mut usize),
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let value_type = ValueType::built_in(oid, -1);
        // Its type lives as long as this call, and so does the engine that reads by it.
        let Engine { detector, rules, settings, .. } = *self;
        let mut engine = Engine { detector, rules, settings, state: &mut *self.state };
        engine.field(&value_type, Format::Binary, job, place, out)?;
        Some(())
    }
}

fn field_of<'a>(field: &'a Field, job: Job<'a>) -> (&'a ValueType, Job<'a>) {
    (&field.value_type, field.treatment.as_ref().map_or(job, Job::of))
}
