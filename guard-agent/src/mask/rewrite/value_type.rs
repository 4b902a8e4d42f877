//! Types of values as rewriting needs them: what their text and binary forms are made of.
//!
//! Built-in types come from their OID; types that a database defines itself are put together by the caller from its
//! catalog. Type OIDs: PostgreSQL's `pg_type.dat`, where they never change.

use super::Treatment;

/// The type of a column's values, or of parts of them.
#[derive(Clone, Debug)]
pub struct ValueType {
    /// What its values look like.
    pub base: Base,
    /// Its modifier (`atttypmod`): for varchar(n) and char(n) n + 4, for numeric(p, s) its precision and scale; -1
    /// where there is none.
    pub modifier: i32,
}

/// What the values of a type look like. A domain is its base type.
#[derive(Clone, Debug)]
pub enum Base {
    /// text, varchar, citext, name, unknown: the text itself.
    Text,
    /// char(n): the text, padded with blanks.
    Bpchar,
    /// name: cut at 63 bytes.
    Name,
    /// bool.
    Bool,
    /// smallint.
    Int2,
    /// integer.
    Int4,
    /// bigint.
    Int8,
    /// real.
    Float4,
    /// double precision.
    Float8,
    /// numeric.
    Numeric,
    /// money.
    Money,
    /// date.
    Date,
    /// timestamp without time zone.
    Timestamp,
    /// timestamp with time zone.
    Timestamptz,
    /// time without time zone.
    Time,
    /// time with time zone.
    Timetz,
    /// interval.
    Interval,
    /// bytea.
    Bytea,
    /// uuid.
    Uuid,
    /// inet.
    Inet,
    /// cidr: an address without bits beyond its network.
    Cidr,
    /// macaddr.
    Macaddr,
    /// macaddr8.
    Macaddr8,
    /// json: text.
    Json,
    /// jsonb: in binary with its version before it.
    Jsonb,
    /// xml.
    Xml,
    /// hstore, of the extension of that name.
    Hstore,
    /// An array of any number of dimensions.
    Array(Box<ValueType>),
    /// A row type. `None`: an anonymous record.
    Composite(Option<Box<[Field]>>),
    /// A range over a type.
    Range(Box<ValueType>),
    /// Several ranges over a type.
    Multirange(Box<ValueType>),
    /// An enum: takes none but its own values.
    Enum,
    /// Any other. In clear it passes; rewritten it is NULL.
    Unknown,
}

/// A field of a row type.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its type.
    pub value_type: ValueType,
    /// What is done with it, where that is not what is done with the whole.
    pub treatment: Option<Treatment>,
}

impl ValueType {
    /// Whether parts of its values are treated otherwise than the whole, and not passed.
    pub(super) fn has_own_treatments(&self) -> bool {
        match &self.base {
            Base::Array(element) => element.has_own_treatments(),
            Base::Composite(Some(fields)) => fields.iter().any(|field| {
                let own = field.treatment.as_ref().is_some_and(|own| !matches!(own, Treatment::Pass));
                own || field.value_type.has_own_treatments()
            }),
            _ => false,
        }
    }

    /// A type without a modifier.
    pub const fn new(base: Base) -> Self {
        Self { base, modifier: -1 }
    }

    /// A type that is not known.
    pub const fn unknown() -> Self {
        Self::new(Base::Unknown)
    }

    /// An array of `element`s.
    pub fn array(element: ValueType) -> Self {
        Self::new(Base::Array(Box::new(element)))
    }

    /// The built-in type of this OID with its modifier; [`Base::Unknown`] for any other.
    pub fn built_in(oid: u32, modifier: i32) -> Self {
        if let Some(base) = scalar(oid) {
            return Self { base, modifier };
        }
        let element = ELEMENTS.iter().find(|(array, _)| *array == oid).map(|(_, element)| *element);
        if let Some(base) = element.and_then(scalar) {
            return Self::array(Self { base, modifier });
        }
        let of = |base| Box::new(Self::new(base));
        match oid {
            3904 => Self::new(Base::Range(of(Base::Int4))),
            3906 => Self::new(Base::Range(of(Base::Numeric))),
            3908 => Self::new(Base::Range(of(Base::Timestamp))),
            3910 => Self::new(Base::Range(of(Base::Timestamptz))),
            3912 => Self::new(Base::Range(of(Base::Date))),
            3926 => Self::new(Base::Range(of(Base::Int8))),
            4451 => Self::new(Base::Multirange(of(Base::Int4))),
            4532 => Self::new(Base::Multirange(of(Base::Numeric))),
            4533 => Self::new(Base::Multirange(of(Base::Timestamp))),
            4534 => Self::new(Base::Multirange(of(Base::Timestamptz))),
            4535 => Self::new(Base::Multirange(of(Base::Date))),
            4536 => Self::new(Base::Multirange(of(Base::Int8))),
            _ => Self::unknown(),
        }
    }

    /// Characters that varchar(n) and char(n) hold at most.
    pub(super) fn characters(&self) -> Option<usize> {
        usize::try_from(self.modifier.checked_sub(4)?).ok().filter(|limit| *limit > 0)
    }

    /// Digits before the point that numeric(p, s) holds at most.
    pub(super) fn whole_digits(&self) -> Option<usize> {
        let modifier = u32::try_from(self.modifier.checked_sub(4)?).ok()?;
        let precision = usize::try_from(modifier >> 16 & 0xffff).ok()?;
        // Eleven bits with a sign, since PostgreSQL 15; before it was never negative.
        let scale = i32::try_from(modifier & 0x7ff).ok()?;
        let scale = (scale ^ 1024) - 1024;
        let whole = i32::try_from(precision).ok()?.checked_sub(scale)?;
        // A negative scale rounds to tens: such a column holds what Full writes, 0.
        usize::try_from(whole).ok().filter(|_| scale >= 0)
    }
}

fn scalar(oid: u32) -> Option<Base> {
    Some(match oid {
        16 => Base::Bool,
        17 => Base::Bytea,
        19 => Base::Name,
        20 => Base::Int8,
        21 => Base::Int2,
        23 => Base::Int4,
        25 | 705 | 1043 | 2275 => Base::Text,
        1042 => Base::Bpchar,
        114 => Base::Json,
        142 => Base::Xml,
        650 => Base::Cidr,
        700 => Base::Float4,
        701 => Base::Float8,
        774 => Base::Macaddr8,
        790 => Base::Money,
        829 => Base::Macaddr,
        869 => Base::Inet,
        1082 => Base::Date,
        1083 => Base::Time,
        1114 => Base::Timestamp,
        1184 => Base::Timestamptz,
        1186 => Base::Interval,
        1266 => Base::Timetz,
        1700 => Base::Numeric,
        2249 => Base::Composite(None),
        2950 => Base::Uuid,
        3802 => Base::Jsonb,
        _ => return None,
    })
}

/// Arrays of built-in types: their OIDs and those of their elements.
const ELEMENTS: &[(u32, u32)] = &[
    (199, 114),
    (143, 142),
    (651, 650),
    (775, 774),
    (791, 790),
    (1000, 16),
    (1001, 17),
    (1003, 19),
    (1005, 21),
    (1007, 23),
    (1009, 25),
    (1014, 1042),
    (1015, 1043),
    (1016, 20),
    (1021, 700),
    (1022, 701),
    (1040, 829),
    (1041, 869),
    (1115, 1114),
    (1182, 1082),
    (1183, 1083),
    (1185, 1184),
    (1187, 1186),
    (1231, 1700),
    (1263, 2275),
    (1270, 1266),
    (2287, 2249),
    (2951, 2950),
    (3807, 3802),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_are_read_as_the_server_writes_them() {
        assert_eq!(ValueType::built_in(1043, 24).characters(), Some(20));
        assert_eq!(ValueType::built_in(1043, -1).characters(), None);
        // numeric(10, 2), numeric(5), numeric(3, -2).
        assert_eq!(ValueType::built_in(1700, ((10 << 16) | 2) + 4).whole_digits(), Some(8));
        assert_eq!(ValueType::built_in(1700, (5 << 16) + 4).whole_digits(), Some(5));
        assert_eq!(ValueType::built_in(1700, ((3 << 16) | 0x7fe) + 4).whole_digits(), None);
        assert_eq!(ValueType::built_in(1700, -1).whole_digits(), None);
        assert_eq!(ValueType::built_in(1700, i32::MIN).whole_digits(), None);
    }

    #[test]
    fn arrays_know_their_elements() {
        for (array, element) in ELEMENTS {
            assert!(scalar(*element).is_some(), "{element}");
            assert!(matches!(ValueType::built_in(*array, -1).base, Base::Array(_)), "{array}");
        }
        assert!(matches!(ValueType::built_in(600, -1).base, Base::Unknown));
    }
}
