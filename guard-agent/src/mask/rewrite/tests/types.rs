//! One value of each type, in both formats.

use super::*;

fn text_of(base: Base, rule: Rule, kind: DataKind, value: &str) -> Option<String> {
    let column = mask(kind, rule, ValueType::new(base), Format::Text);
    one(column, value.as_bytes()).map(|value| String::from_utf8(value).unwrap())
}

fn full(base: Base, value: &str) -> Option<String> {
    text_of(base, Rule::Full, DataKind::Tagged, value)
}

fn binary(base: Base, rule: Rule, kind: DataKind, value: &[u8]) -> Option<Vec<u8>> {
    one(mask(kind, rule, ValueType::new(base), Format::Binary), value)
}

fn scanned(value_type: ValueType, value: &str) -> Option<String> {
    one(scan(value_type, Format::Text), value.as_bytes()).map(|value| String::from_utf8(value).unwrap())
}

fn key() -> HashKey {
    HashKey::new(b"a key for tests")
}

#[test]
fn full_leaves_a_value_of_the_type() {
    for (base, value, expected) in [
        (Base::Text, "ana", "***"),
        (Base::Text, "", "***"),
        (Base::Bool, "t", "f"),
        (Base::Int2, "-7", "0"),
        (Base::Int4, "7", "0"),
        (Base::Int8, "4111111111111111", "0"),
        (Base::Float4, "1.5", "0"),
        (Base::Float8, "NaN", "0"),
        (Base::Numeric, "12345.670", "0.000"),
        (Base::Numeric, "NaN", "0"),
        (Base::Money, "-$1,234.56", "$0.00"),
        (Base::Money, "1.234,56 €", "0,00 €"),
        (Base::Date, "1985-03-12", "1970-01-01"),
        (Base::Timestamptz, "1985-03-12 01:02:03.4+02", "1970-01-01 00:00:00+00"),
        (Base::Time, "13:14:15.5", "00:00:00"),
        (Base::Timetz, "13:14:15.5+02", "00:00:00+00"),
        (Base::Interval, "1 year 02:00:00", "00:00:00"),
        (Base::Interval, "P1Y", "PT0S"),
        (Base::Bytea, "\\x616e61", "\\x2a2a2a"),
        (Base::Bytea, "an\\\\a\\001", "\\x2a2a2a"),
        (Base::Uuid, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "00000000-0000-0000-0000-000000000000"),
        (Base::Inet, "192.168.1.2/24", "0.0.0.0"),
        (Base::Cidr, "2001:db8::/32", "::/128"),
        (Base::Macaddr, "08:00:2b:01:02:03", "00:00:00:00:00:00"),
        (Base::Macaddr8, "08:00:2b:01:02:03:04:05", "00:00:00:00:00:00:00:00"),
        (Base::Xml, "<a>b</a>", "<masked>***</masked>"),
        (Base::Json, r#"{"a": ["x", 12.5, true, null]}"#, r#"{"a": ["***", 0, false, null]}"#),
        (Base::Hstore, r#""a"=>"x", "b"=>NULL"#, r#""a"=>"***", "b"=>NULL"#),
        (Base::Range(Box::new(ValueType::new(Base::Int4))), "[1,5)", "empty"),
        (Base::Multirange(Box::new(ValueType::new(Base::Int4))), "{[1,5)}", "{}"),
        (Base::Composite(None), "(ana,,\"b c\")", "(***,,***)"),
        (Base::Array(Box::new(ValueType::new(Base::Text))), "{ana,NULL,\"b,c\"}", "{***,NULL,***}"),
        (
            Base::Array(Box::new(ValueType::new(Base::Int4))),
            "[0:1][1:2]={{1,2},{3,4}}",
            "[0:1][1:2]={{0,0},{0,0}}",
        ),
        (Base::Array(Box::new(ValueType::new(Base::Int4))), "{}", "{}"),
    ] {
        assert_eq!(full(base.clone(), value).as_deref(), Some(expected), "{base:?} {value}");
    }
    for (base, value) in
        [(Base::Enum, "red"), (Base::Unknown, "(1,2)"), (Base::Date, "soon"), (Base::Int4, "x")]
    {
        assert_eq!(full(base.clone(), value), None, "{base:?}: NULL where nothing else fits");
    }
}

#[test]
fn partial_leaves_what_its_kind_allows() {
    for (base, kind, value, expected) in [
        (Base::Int8, DataKind::PaymentCard, "4111111111111234", "1234"),
        (Base::Numeric, DataKind::Income, "52340.17", "50000.00"),
        (Base::Float8, DataKind::Location, "52.5200", "52"),
        (Base::Date, DataKind::BirthDate, "1985-03-12", "1985-01-01"),
        (Base::Timestamp, DataKind::BirthDate, "1985-03-12 10:11:12", "1985-01-01 00:00:00"),
        (Base::Time, DataKind::Tagged, "13:14:15", "13:00:00"),
        (Base::Inet, DataKind::IpAddress, "192.168.17.4/24", "192.168.0.0/24"),
        (Base::Cidr, DataKind::IpAddress, "10.0.0.0/8", "10.0.0.0/8"),
        (Base::Macaddr, DataKind::Device, "08:00:2b:01:02:03", "08:00:2b:00:00:00"),
        (
            Base::Uuid,
            DataKind::Device,
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6ba7b810-0000-0000-0000-000000000000",
        ),
        (
            Base::Json,
            DataKind::Email,
            r#"["ana@example.com",{"k":"x"}]"#,
            r#"["a***@example.com",{"k":"***"}]"#,
        ),
    ] {
        let left = text_of(base.clone(), Rule::Partial, kind, value);
        assert_eq!(left.as_deref(), Some(expected), "{base:?} {value}");
    }
}

#[test]
fn lengths_of_types_are_respected() {
    let column =
        |base, modifier, rule| mask(DataKind::Tagged, rule, ValueType { base, modifier }, Format::Text);
    assert_eq!(one(column(Base::Text, 4 + 2, Rule::Full), b"ab").unwrap(), b"**");
    assert_eq!(one(column(Base::Text, 4 + 10, Rule::Hash(key())), b"ab").unwrap().len(), 10);
    let fixed = Rule::Fixed("äöüß".into());
    assert_eq!(one(column(Base::Text, 4 + 3, fixed.clone()), b"ab").unwrap(), "äöü".as_bytes());
    assert_eq!(one(column(Base::Bpchar, 4 + 6, Rule::Full), b"ab    ").unwrap(), b"***   ");
    assert_eq!(one(column(Base::Bpchar, 4 + 2, fixed), b"ab").unwrap(), "äö".as_bytes());
    let long = Rule::Fixed("ä".repeat(60).into());
    assert_eq!(one(column(Base::Name, -1, long), b"ab").unwrap().len(), 62);
    // numeric(6, 2).
    let small = column(Base::Numeric, ((6 << 16) | 2) + 4, Rule::Hash(key()));
    let value = String::from_utf8(one(small, b"1234.56").unwrap()).unwrap();
    assert!(value.len() <= 7 && value.ends_with(".00"), "{value}");
    // Something found makes a text longer than its type.
    let limited = ValueType { base: Base::Text, modifier: 4 + 12 };
    assert_eq!(scanned(limited, "abcd@xyz.com").unwrap(), "a***@xyz.com");
}

#[test]
fn hashes_join_across_types_and_formats() {
    let hash = || Rule::Hash(key());
    let text = |base, value| text_of(base, hash(), DataKind::Tagged, value).unwrap();
    assert_eq!(text(Base::Int4, "42"), text(Base::Int8, "42"));
    assert_eq!(text(Base::Int4, "42"), text(Base::Numeric, "42"));
    assert_eq!(text(Base::Text, "x"), text(Base::Bpchar, "x   "));
    assert_eq!(text(Base::Text, "x").len(), 32);
    assert_ne!(text(Base::Int4, "42"), text(Base::Int4, "43"));
    let value = binary(Base::Int8, hash(), DataKind::Tagged, &42_i64.to_be_bytes()).unwrap();
    assert_eq!(i64::from_be_bytes(value.try_into().unwrap()).to_string(), text(Base::Int8, "42"));
    let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let value = binary(Base::Uuid, hash(), DataKind::Tagged, uuid::Uuid::parse_str(uuid).unwrap().as_bytes());
    assert_eq!(uuid::Uuid::from_slice(&value.unwrap()).unwrap().to_string(), text(Base::Uuid, uuid));
    let value = binary(Base::Inet, hash(), DataKind::Tagged, &[2, 32, 0, 4, 10, 1, 2, 3]).unwrap();
    let address = std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&value[4..]).unwrap());
    assert_eq!(address.to_string(), text(Base::Inet, "10.1.2.3"));
    let email = |value| text_of(Base::Text, hash(), DataKind::Email, value);
    assert_eq!(email("Ana@Example.com"), email("ana@example.com"));
}

#[test]
fn binary_values_keep_their_form() {
    let full = |base, value: &[u8]| binary(base, Rule::Full, DataKind::Tagged, value);
    assert_eq!(full(Base::Int2, &[1, 2]).unwrap(), [0; 2]);
    assert_eq!(full(Base::Int4, &[1; 4]).unwrap(), [0; 4]);
    assert_eq!(full(Base::Bool, &[1]).unwrap(), [0]);
    assert_eq!(full(Base::Float4, &1.5_f32.to_be_bytes()).unwrap(), [0; 4]);
    assert_eq!(full(Base::Date, &[0; 4]).unwrap(), (-10_957_i32).to_be_bytes());
    assert_eq!(full(Base::Timestamp, &[0; 8]).unwrap(), (-10_957_i64 * 86_400_000_000).to_be_bytes());
    assert_eq!(full(Base::Interval, &[7; 16]).unwrap(), [0; 16]);
    assert_eq!(full(Base::Timetz, &[7; 12]).unwrap(), [0; 12]);
    assert_eq!(full(Base::Jsonb, b"\x01{\"a\":1}").unwrap(), b"\x01{\"a\":0}");
    assert_eq!(full(Base::Money, &[1; 8]).unwrap(), [0; 8]);
    assert_eq!(full(Base::Macaddr, &[1; 6]).unwrap(), [0; 6]);
    assert_eq!(full(Base::Cidr, &[2, 8, 1, 4, 10, 0, 0, 0]).unwrap(), [2, 32, 1, 4, 0, 0, 0, 0]);
    assert_eq!(full(Base::Range(Box::new(ValueType::new(Base::Int4))), b"\x01").unwrap(), [1]);
    assert_eq!(full(Base::Bytea, b"\xff\0").unwrap(), b"***");
    // What has not the length of its type cannot be read.
    for base in [Base::Int2, Base::Int4, Base::Int8, Base::Bool, Base::Float8, Base::Date, Base::Timestamptz]
    {
        assert_eq!(full(base.clone(), &[0; 3]), None, "{base:?}");
    }
    assert_eq!(full(Base::Jsonb, b"\x02{}"), None, "a version to come");
    assert_eq!(full(Base::Unknown, b"anything"), None);
}

/// The binary form of a one-dimensional array.
pub(super) fn array(oid: u32, elements: &[Option<&[u8]>]) -> Vec<u8> {
    let fields = row(elements);
    let head = [1, i32::from(elements.contains(&None)), i32::try_from(oid).unwrap()];
    let bounds = [i32::try_from(elements.len()).unwrap(), 1];
    let words = head.into_iter().chain(bounds).flat_map(i32::to_be_bytes);
    words.chain(fields[2..].iter().copied()).collect()
}

#[test]
fn arrays_and_rows_in_binary() {
    let texts = ValueType::built_in(1009, -1);
    let value = array(25, &[Some(b"ana@example.com"), None, Some(b"hello")]);
    let expected = array(25, &[Some(b"a***@example.com"), None, Some(b"hello")]);
    assert_eq!(one(scan(texts.clone(), Format::Binary), &value).unwrap(), expected);
    let clean = array(25, &[Some(b"hello")]);
    assert_eq!(one(scan(texts, Format::Binary), &clean).unwrap(), clean);
    // Elements that become NULL set the flag that says so.
    let enums = ValueType::array(ValueType::new(Base::Enum));
    let column = mask(DataKind::Special, Rule::Full, enums, Format::Binary);
    assert_eq!(one(column, &array(99, &[Some(b"red")])).unwrap(), array(99, &[None]));
    // An anonymous record says itself which types it has.
    let record = |fields: &[(u32, &[u8])]| {
        let mut value = u32::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
        for (oid, field) in fields {
            value.extend_from_slice(&oid.to_be_bytes());
            value.extend_from_slice(&row(&[Some(field)])[2..]);
        }
        value
    };
    let value = record(&[(25, b"ana@example.com"), (20, &4_111_111_111_111_234_i64.to_be_bytes())]);
    let expected = record(&[(25, b"a***@example.com"), (20, &1_234_i64.to_be_bytes())]);
    let column = scan(ValueType::built_in(2249, -1), Format::Binary);
    assert_eq!(one(column, &value).unwrap(), expected);
}

#[test]
fn fields_of_rows_have_treatments_of_their_own() {
    let field = |treatment| Field { value_type: ValueType::new(Base::Text), treatment };
    let email = Treatment::Mask { kind: DataKind::Email, rule: Rule::Partial };
    let fields = [field(None), field(Some(email)), field(Some(Treatment::Pass))];
    let customer = ValueType::new(Base::Composite(Some(Box::new(fields))));
    let mut column = scan(customer.clone(), Format::Text);
    column.treatment = Treatment::Pass;
    let value = b"(ana@example.com,\"bob \"\"b\"\"@example.com\",c@example.com)";
    let left = one(column, value).unwrap();
    assert_eq!(left, b"(ana@example.com,***,c@example.com)");
    let several = scan(ValueType::array(customer), Format::Text);
    let value = br#"{"(ana@example.com,b@example.com,c@example.com)","(,,)"}"#;
    let left = String::from_utf8(one(several, value).unwrap()).unwrap();
    assert_eq!(left, r#"{"(a***@example.com,***@example.com,c@example.com)","(,,)"}"#);
}

#[test]
fn scanning_reads_what_is_inside() {
    let of = |base| ValueType::new(base);
    for (value_type, value, expected) in [
        (
            of(Base::Json),
            r#"{"to": "ana@example.com", "n": 4111111111111234}"#,
            r#"{"to": "a***@example.com", "n": 1234}"#,
        ),
        (of(Base::Json), r#"["ana\u0040example.com\n"]"#, r#"["a***@example.com\n"]"#),
        (
            of(Base::Json),
            r#"{"password": "hunter2", "x": {"password": [1, "a"]}}"#,
            r#"{"password": "***", "x": {"password": [0, "***"]}}"#,
        ),
        (of(Base::Json), r#"{"ana@example.com": 1}"#, r#"{"a***@example.com": 1}"#),
        (of(Base::Json), r#"  "plain" "#, r#"  "plain" "#),
        (of(Base::Bytea), "\\x616e61406578616d706c652e636f6d", "\\x612a2a2a406578616d706c652e636f6d"),
        (of(Base::Xml), "<m>ana@example.com</m>", "<m>a***@example.com</m>"),
        (
            of(Base::Hstore),
            r#""password"=>"x y", "m"=>"ana@example.com""#,
            r#""password"=>"***", "m"=>"a***@example.com""#,
        ),
        (of(Base::Text), r#"{"password": 12345, "n": 1}"#, r#"{"password": 0, "n": 1}"#),
        (of(Base::Text), "[x] ana@example.com", "[x] a***@example.com"),
        (of(Base::Int8), "4111111111111234", "1234"),
        (of(Base::Int8), "42", "42"),
        (of(Base::Float8), "4.111111111111234e+15", "1234"),
        (of(Base::Numeric), "4111111111111234.00", "1234.00"),
        (of(Base::Inet), "10.1.2.3", "10.1.0.0"),
        (of(Base::Date), "1985-03-12", "1985-03-12"),
        (of(Base::Enum), "red", "red"),
        (of(Base::Unknown), "(1,2)", "(1,2)"),
        (ValueType::built_in(3926, -1), "[4111111111111234,4111111111111235)", "empty"),
        (ValueType::built_in(3926, -1), "[1,5)", "[1,5)"),
        (ValueType::built_in(2249, -1), "(1,\"x ana@example.com\")", "(1,\"x a***@example.com\")"),
    ] {
        assert_eq!(scanned(value_type, value).as_deref(), Some(expected), "{value}");
    }
    assert_eq!(scanned(of(Base::Unknown), "'ana@example.com':1"), None);
    for broken in ["{", "[1,]", "{\"a\"}", "{\"a\":1]", "tru", "\"a", "[1] 2", "", "{\"a\":\"\\u00\"}"] {
        let left = scanned(of(Base::Json), broken);
        assert!(left.is_none() || broken == "tru", "{broken}");
    }
}

#[test]
fn keys_are_values_where_an_expression_made_them() {
    let mut column = mask(DataKind::PersonName, Rule::Full, ValueType::new(Base::Json), Format::Text);
    assert_eq!(one(column.clone(), br#"{"Ana": 1}"#).unwrap(), br#"{"Ana": 0}"#);
    column.computed = true;
    assert_eq!(one(column, br#"{"Ana": 1}"#).unwrap(), br#"{"***": 0}"#);
}

#[test]
fn networks_are_nobodys_addresses() {
    let kept = |base, value: &str| scanned(ValueType::new(base), value).is_some_and(|seen| seen == value);
    assert!(kept(Base::Cidr, "10.0.0.0/8") && kept(Base::Inet, "127.0.0.1") && kept(Base::Inet, "::1"));
    assert!(!kept(Base::Inet, "192.168.1.2/24") && !kept(Base::Inet, "203.0.113.7"));
    assert!(!kept(Base::Cidr, "203.0.113.7/32"));
}
