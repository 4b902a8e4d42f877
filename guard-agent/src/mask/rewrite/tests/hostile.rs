//! Whatever bytes come: no panic, and what was sensitive is gone.

use super::*;

/// Numbers that repeat with their seed.
pub(in super::super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit.max(1)
    }
}

fn bases() -> Vec<ValueType> {
    let of = |base| ValueType::new(base);
    let fields = || {
        Box::new([
            Field { value_type: of(Base::Text), treatment: None },
            Field { value_type: of(Base::Int4), treatment: None },
        ])
    };
    vec![
        of(Base::Text),
        of(Base::Bpchar),
        of(Base::Name),
        of(Base::Bool),
        of(Base::Int2),
        of(Base::Int4),
        of(Base::Int8),
        of(Base::Float4),
        of(Base::Float8),
        of(Base::Numeric),
        of(Base::Money),
        of(Base::Date),
        of(Base::Timestamp),
        of(Base::Timestamptz),
        of(Base::Time),
        of(Base::Timetz),
        of(Base::Interval),
        of(Base::Bytea),
        of(Base::Uuid),
        of(Base::Inet),
        of(Base::Cidr),
        of(Base::Macaddr),
        of(Base::Macaddr8),
        of(Base::Json),
        of(Base::Jsonb),
        of(Base::Xml),
        of(Base::Hstore),
        of(Base::Enum),
        of(Base::Unknown),
        of(Base::Composite(None)),
        of(Base::Composite(Some(fields()))),
        ValueType::array(of(Base::Text)),
        ValueType::array(of(Base::Composite(Some(fields())))),
        of(Base::Range(Box::new(of(Base::Date)))),
        of(Base::Multirange(Box::new(of(Base::Numeric)))),
    ]
}

const SEEDS: &[&[u8]] = &[
    b"ana@example.com",
    b"4111111111111111",
    b"1985-03-12 10:11:12.5+02",
    b"{\"a\":[1,\"ana@example.com\",null]}",
    b"{ana@example.com,NULL,\"x\\\"y\"}",
    b"(ana@example.com,\"a,\"\"b\")",
    b"\"k\"=>\"ana@example.com\", \"l\"=>NULL",
    b"\\x616e61406578616d706c652e636f6d",
    b"192.168.1.2/24",
    b"$1,234.56",
    b"[1,5)",
    b"{[1,5),[7,9)}",
    b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x01\0\0\0\x01\0\0\0\x0fana@example.com",
    b"\0\0\0\x01\0\0\0\x19\0\0\0\x0fana@example.com",
    b"\x01{\"a\":1}",
    b"\0\x02\0\x01\0\0\0\x02\0\x01\0\x02",
    b"\x02\0\0\0\x04\0\0\0\x01\0\0\0\x04\0\0\0\x05",
    "Łukasz Żak".as_bytes(),
    b"\xff\xfe\x80",
];

#[test]
fn no_bytes_panic_and_nothing_masked_stays() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let rules = [Rule::Full, Rule::Partial, Rule::Hash(HashKey::new(b"k")), Rule::Fixed("7".into())];
    let mut columns = Vec::new();
    for value_type in bases() {
        for format in [Format::Text, Format::Binary] {
            columns.push(rewriter(vec![scan(value_type.clone(), format)]));
            for rule in &rules {
                columns.push(rewriter(vec![mask(DataKind::Email, rule.clone(), value_type.clone(), format)]));
            }
        }
    }
    for round in 0..400 {
        let mut value = SEEDS[round % SEEDS.len()].to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(value.len());
            match random.below(4) {
                0 => value.truncate(at),
                1 => value.insert(at, random.below(256) as u8),
                2 => value.extend_from_slice(SEEDS[random.below(SEEDS.len())]),
                _ => {
                    if let Some(byte) = value.get_mut(at) {
                        *byte = random.below(256) as u8;
                    }
                }
            }
        }
        for rewriter in &mut columns {
            let left = one_of(rewriter, &value).unwrap_or_default();
            let exempt = matches!(rewriter.columns[0].value_type.base, Base::Enum) || !value.is_ascii();
            if !exempt && value.windows(15).any(|window| window == b"ana@example.com") {
                // Unreadable as a value of its type, it is NULL; read, it is rewritten.
                let clear = left.windows(15).any(|window| window == b"ana@example.com");
                let scans = matches!(rewriter.columns[0].treatment, Treatment::Scan(_));
                assert!(!clear || scans, "{:?}: {:?}", rewriter.columns, String::from_utf8_lossy(&value));
            }
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let mut deep = ValueType::new(Base::Text);
    for _ in 0..40 {
        deep = ValueType::new(Base::Composite(Some(Box::new([Field { value_type: deep, treatment: None }]))));
    }
    let mut value = b"x".to_vec();
    for _ in 0..14 {
        let mut quoted = b"(".to_vec();
        quoting::quote(&value, &mut quoted);
        quoted.push(b')');
        value = quoted;
    }
    assert_eq!(one(mask(DataKind::Email, Rule::Full, deep.clone(), Format::Text), b"(x"), None);
    assert!(one(mask(DataKind::Email, Rule::Full, deep, Format::Text), &value).is_some());
    let json = [vec![b'['; 600], vec![b']'; 600]].concat();
    assert_eq!(one(scan(ValueType::new(Base::Json), Format::Text), &json), None);
}

#[test]
fn an_array_cannot_claim_more_than_it_holds() {
    let mut value = types::array(25, &[Some(b"a")]);
    value[12..16].copy_from_slice(&i32::MAX.to_be_bytes());
    assert_eq!(one(scan(ValueType::built_in(1009, -1), Format::Binary), &value), None);
}
