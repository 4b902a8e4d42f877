//! The form of a result: RowDescription.

use super::frame::{WireError, cstring};

/// Most columns of a result that are believed; the server has at most 1664.
const MAX_FIELDS: usize = 8_192;

/// One column of a RowDescription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDescription<'a> {
    /// Its name in the result.
    pub name: &'a [u8],
    /// OID of the relation that it is a column of; 0 for what is computed.
    pub relation: u32,
    /// The column's number there; 0 for what is computed.
    pub attribute: i16,
    /// OID of its type; of a domain the type that it is based on.
    pub type_oid: u32,
    /// The type's modifier.
    pub modifier: i32,
    /// 0: text, 1: binary.
    pub format: i16,
}

/// The columns in the body of a RowDescription.
pub fn row_description(body: &[u8]) -> Result<Vec<FieldDescription<'_>>, WireError> {
    let malformed = || WireError::Malformed('T');
    let (count, mut rest) = body.split_first_chunk().ok_or_else(malformed)?;
    let count = usize::from(u16::from_be_bytes(*count));
    if count > MAX_FIELDS {
        return Err(malformed());
    }
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, after) = cstring(rest).ok_or_else(malformed)?;
        let (fixed, after) = after.split_first_chunk::<18>().ok_or_else(malformed)?;
        let [r0, r1, r2, r3, a0, a1, t0, t1, t2, t3, _, _, m0, m1, m2, m3, f0, f1] = *fixed;
        fields.push(FieldDescription {
            name,
            relation: u32::from_be_bytes([r0, r1, r2, r3]),
            attribute: i16::from_be_bytes([a0, a1]),
            type_oid: u32::from_be_bytes([t0, t1, t2, t3]),
            modifier: i32::from_be_bytes([m0, m1, m2, m3]),
            format: i16::from_be_bytes([f0, f1]),
        });
        rest = after;
    }
    if rest.is_empty() { Ok(fields) } else { Err(malformed()) }
}

/// A Describe message for the portal called `name`.
pub fn describe_portal(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 7);
    super::frame::write(&mut out, b'D', |out| {
        out.push(b'P');
        out.extend_from_slice(name);
        out.push(0);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(fields: &[(&str, u32, i16, u32)]) -> Vec<u8> {
        let mut body = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
        for (name, relation, attribute, type_oid) in fields {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(&relation.to_be_bytes());
            body.extend_from_slice(&attribute.to_be_bytes());
            body.extend_from_slice(&type_oid.to_be_bytes());
            body.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1]);
        }
        body
    }

    #[test]
    fn descriptions_are_read_whole_or_not_at_all() {
        let body = described(&[("id", 16384, 1, 23), ("?column?", 0, 0, 25)]);
        let fields = row_description(&body).unwrap();
        assert_eq!((fields[0].name, fields[0].relation, fields[0].attribute), (&b"id"[..], 16384, 1));
        assert_eq!((fields[1].type_oid, fields[1].modifier, fields[1].format), (25, -1, 1));
        for end in 0..body.len() {
            assert!(row_description(&body[..end]).is_err(), "{end}");
        }
        assert!(row_description(&[0xff, 0xff]).is_err());
        assert!(row_description(&[0, 0]).unwrap().is_empty());
    }

    #[test]
    fn a_describe_names_its_portal() {
        assert_eq!(describe_portal(b"p"), b"D\0\0\0\x07Pp\0");
    }
}
