//! A real server reads back what masking makes of its values: every rule, every type, both formats, every style.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::sync::Arc;

use guard_agent::{
    mask::detect::Evidence,
    mask::rewrite::{
        Base, Column, CopyFormat, CopyOptions, CopyRewriter, Detector, Field, Format, HashKey, Hint, Hits,
        Rewritten, RowRewriter, Rule, Rules, Settings, Treatment, ValueType,
    },
    wire::postgres::{DataRow, RowDescription},
};
use guard_policy::vocabulary::DataKind;
use guard_tests::{
    Postgres, postgres,
    skip::{self, Need},
    wire::{Message, RawClient, first_error, message},
};

/// What a database defines itself: an enum, a domain, a row type, extensions.
const DEFINITIONS: &str = "
    CREATE EXTENSION hstore; CREATE EXTENSION citext;
    CREATE TYPE mood AS ENUM ('well', 'ill');
    CREATE DOMAIN mail AS text CHECK (VALUE IS NULL OR VALUE <> '');
    CREATE TYPE person AS (name text, born date, mails text[], mood mood);
";

/// What values look like depends on these.
const STYLES: &[&str] = &[
    "SET datestyle = 'ISO, MDY'; SET intervalstyle = postgres; SET bytea_output = hex",
    "SET datestyle = 'SQL, DMY'; SET intervalstyle = iso_8601; SET bytea_output = escape",
    "SET datestyle = 'Postgres, MDY'; SET intervalstyle = postgres_verbose; SET timezone = 'Asia/Kolkata'",
    "SET datestyle = 'Postgres, DMY'; SET intervalstyle = sql_standard",
    "SET datestyle = 'German, DMY'; SET timezone = 'America/St_Johns'; SET extra_float_digits = 0",
];

/// Expressions of every type that can carry such data.
const VALUES: &[&str] = &[
    "'ana@example.com'::text",
    "'Łukasz Żak'::varchar(20)",
    "'ab'::char(6)",
    "'ana'::name",
    "'Ana@Example.com'::citext",
    "'ana@example.com'::mail",
    "''::text",
    "true",
    "(-7)::smallint",
    "2147483647",
    "'-9223372036854775808'::bigint",
    "4111111111111111",
    "1.5::real",
    "4111111111111111::float8",
    "'NaN'::float8",
    "'-Infinity'::real",
    "12345678901234567890.123456::numeric",
    "1234.56::numeric(6, 2)",
    "0.000001::numeric",
    "'NaN'::numeric",
    "(10::numeric ^ 200)",
    "'-1234.56'::money",
    "'1985-03-12'::date",
    "'0044-03-15 BC'::date",
    "'infinity'::date",
    "'1985-03-12 10:11:12.123456'::timestamp",
    "'1985-07-12 10:11:12+02'::timestamptz",
    "'0044-03-15 10:11:12 BC'::timestamptz",
    "'-infinity'::timestamptz",
    "'23:59:60'::time",
    "'10:11:12.5+05:30'::timetz",
    "'1 year 2 mons -3 days 04:05:06.7'::interval",
    "'0'::interval",
    "'\\x616e61ff00'::bytea",
    "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid",
    "'192.168.17.4/24'::inet",
    "'2001:db8:1:2::5'::inet",
    "'10.1.0.0/16'::cidr",
    "'2001:db8::/32'::cidr",
    "'08:00:2b:01:02:03'::macaddr",
    "'08:00:2b:01:02:03:04:05'::macaddr8",
    r#"'{"a": [1, "ana@example.com", true, null, {"b": 1e300}]}'::json"#,
    r#"'{"a": [1, "x\"y\u00e9\n", 12.50]}'::jsonb"#,
    "'<a b=\"c\">ana@example.com &amp; bob</a>'::xml",
    "'a=>1, \"b c\"=>NULL, d=>\"e\\\"f\"'::hstore",
    "'well'::mood",
    "ARRAY['ana', NULL, 'b,\"c', '']",
    "'[0:1][2:3]={{1,2},{3,NULL}}'::int[]",
    "'{}'::date[]",
    "ARRAY['1985-03-12'::date, NULL]",
    "ARRAY['{\"a\": \"b\"}'::jsonb]",
    "ARRAY['a=>1'::hstore]",
    "ARRAY['well'::mood]",
    "ROW('Ana', '1985-03-12', ARRAY['ana@example.com', 'a b'], 'ill')::person",
    "ROW('Ana \"A\" (x)', NULL, NULL, NULL)::person",
    "ARRAY[ROW('Ana', '1985-03-12', '{}', 'ill')::person, NULL]",
    "'[1,5)'::int4range",
    "'[1985-03-12,)'::daterange",
    "'{[1,5),[7,9)}'::int8multirange",
    "'empty'::numrange",
    "'(1,2)'::point",
    "'ana@example.com'::tsvector",
    "B'1010'",
];

/// Finds what has an `@`.
#[derive(Clone, Copy, Debug)]
struct Simple;

impl Detector for Simple {
    fn scan(&self, cell: &[u8], _: Hint, hits: &mut Hits) {
        hits.clear();
        if cell.contains(&b'@') {
            hits.push(DataKind::Email, 0..cell.len(), Evidence::Format);
        }
    }

    fn scan_integer(&self, value: i64, _: Hint) -> Option<DataKind> {
        (value > 1_000_000_000_000_000).then_some(DataKind::PaymentCard)
    }
}

/// A type as the catalog describes it.
struct Catalog {
    own: Vec<(u32, ValueType)>,
}

impl Catalog {
    fn read(client: &mut RawClient) -> Self {
        let mut oid = |name: &str| {
            let answers = client.query(&format!("SELECT '{name}'::regtype::oid")).unwrap();
            let row = answers.iter().find(|message| message.tag == b'D').unwrap();
            let text = DataRow::read(&row.body).unwrap().next().flatten().unwrap();
            std::str::from_utf8(text).unwrap().parse::<u32>().unwrap()
        };
        let of = |base| ValueType::new(base);
        let field = |value_type| Field { value_type, treatment: None };
        let texts = ValueType::built_in(1009, -1);
        let person = [of(Base::Text), of(Base::Date), texts, of(Base::Enum)].map(field);
        let person = of(Base::Composite(Some(Box::new(person))));
        let mut own = Vec::new();
        for (name, value_type) in [
            ("hstore", of(Base::Hstore)),
            ("citext", of(Base::Text)),
            ("mood", of(Base::Enum)),
            ("person", person),
        ] {
            own.push((oid(name), value_type.clone()));
            own.push((oid(&format!("{name}[]")), ValueType::array(value_type)));
        }
        Self { own }
    }

    fn value_type(&self, oid: u32, modifier: i32) -> ValueType {
        let own = self.own.iter().find(|(own, _)| *own == oid);
        own.map_or_else(|| ValueType::built_in(oid, modifier), |(_, value_type)| value_type.clone())
    }
}

/// Runs `sql`, with one parameter of this type where there is one; answers come in `format`.
fn run(client: &mut RawClient, sql: &str, parameter: Option<(u32, &[u8])>, format: u8) -> Vec<Message> {
    let count = u8::from(parameter.is_some());
    let mut parse = [b"\0", sql.as_bytes(), b"\0\0", &[count]].concat();
    let mut bind = vec![0, 0, 0, 1, 0, format, 0, count];
    if let Some((oid, value)) = parameter {
        parse.extend_from_slice(&oid.to_be_bytes());
        bind.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        bind.extend_from_slice(value);
    }
    bind.extend_from_slice(&[0, 1, 0, format]);
    let messages = [
        message(b'P', &parse),
        message(b'B', &bind),
        message(b'D', b"P\0"),
        message(b'E', &[0; 5]),
        message(b'S', b""),
    ];
    client.send(&messages.concat()).unwrap();
    client.until_ready().unwrap()
}

/// Type, modifier and the row that came.
fn result(answers: &[Message]) -> Option<(u32, i32, Vec<u8>)> {
    let description = answers.iter().find(|message| message.tag == b'T')?;
    let column = RowDescription::read(&description.body).unwrap().columns().next()?;
    let row = answers.iter().find(|message| message.tag == b'D')?;
    Some((column.type_oid, column.type_modifier, row.body.clone()))
}

fn treatments() -> Vec<Treatment> {
    let rules = [
        Rule::Full,
        Rule::Partial,
        Rule::Null,
        Rule::Hash(HashKey::new(b"a key")),
        Rule::Fixed("7".into()),
        Rule::Fixed("\"a', {b} <c> \\".into()),
    ];
    let kinds = [DataKind::Email, DataKind::PaymentCard, DataKind::BirthDate, DataKind::IpAddress];
    let masks = kinds
        .into_iter()
        .flat_map(|kind| rules.clone().into_iter().map(move |rule| Treatment::Mask { kind, rule }));
    masks.chain([Treatment::Scan(Hint::default())]).collect()
}

#[test]
fn the_server_reads_back_what_masking_writes() {
    if skip::without(&[Need::Postgres]) {
        return;
    }
    let server = Postgres::start().unwrap();
    let mut client = RawClient::log_in(server.address(), postgres::OWNER, "postgres").unwrap();
    assert_eq!(first_error(&client.query(DEFINITIONS).unwrap()), None, "the extensions come with the server");
    let catalog = Catalog::read(&mut client);
    let rules = Arc::new(Rules::new(|_| Some(Rule::Partial)));
    let mut read_back = 0;
    for style in STYLES {
        client.query(style).unwrap();
        let settings = Settings::reported(style, "UTF8");
        for expression in VALUES {
            for (format, code) in [(Format::Text, 0), (Format::Binary, 1)] {
                let answers = run(&mut client, &format!("SELECT {expression}"), None, code);
                let (oid, modifier, row) =
                    result(&answers).unwrap_or_else(|| panic!("{expression}: {:?}", first_error(&answers)));
                for treatment in treatments() {
                    let shown = format!("{style}: {expression} {format:?} {treatment:?}");
                    let column = Column {
                        treatment,
                        value_type: catalog.value_type(oid, modifier),
                        format,
                        computed: false,
                    };
                    let mut rewriter = RowRewriter::new(vec![column], Arc::clone(&rules), settings, Simple);
                    let mut out = Vec::new();
                    // The server does not read all that it writes itself: zones by names that only history knows.
                    if rewriter.row(&row, &mut out).unwrap() == Rewritten::Untouched {
                        continue;
                    }
                    let Some(value) = DataRow::read(&out[5..]).unwrap().next().flatten() else { continue };
                    let back = run(&mut client, "SELECT $1", Some((oid, value)), code);
                    assert_eq!(
                        first_error(&back),
                        None,
                        "{shown}: {} {:?}",
                        String::from_utf8_lossy(value),
                        back.iter().find(|message| message.tag == b'E').map(Message::fields)
                    );
                    read_back += 1;
                }
            }
        }
    }
    assert!(read_back > 5_000, "{read_back}");
}

/// Values that hold all that means something to one of the formats.
const ROWS: &str = r#"
    CREATE TABLE original (id int, mail text, note text, born date, tags text[], doc jsonb, n numeric(20, 2));
    INSERT INTO original VALUES
        (1, 'ana@example.com', E'a\tb\nc\r\\d "e" ''f'', ;*|\\.', '1985-03-12', ARRAY['x', 'a"b', NULL], '{"a": "b@c"}', 12.5),
        (2, NULL, NULL, NULL, NULL, NULL, NULL),
        (3, '', '', 'infinity', '{}', '[]', 0),
        (4, '\N', 'NULL', '0044-03-15 BC', '{"\\.","NULL"}', '"\\N"', -1),
        (5, '\.', E'\\.\n\\.', '2000-01-01', '{@}', '{"k@": 4111111111111111}', 4111111111111111),
        (6, E'\u00e9,"\u00e9"', E'"\n,@\n"', '2000-01-01', '{}', '{}', 'NaN');
    CREATE TABLE copied (LIKE original);
"#;

/// Options as a statement writes them, and as masking takes them.
fn copy_options() -> Vec<(&'static str, CopyOptions)> {
    let of = CopyOptions::of;
    let (text, csv) = (of(CopyFormat::Text), of(CopyFormat::Csv));
    vec![
        ("", text.clone()),
        (
            "(DELIMITER '*', NULL 'NIL')",
            CopyOptions { delimiter: b'*', null: b"NIL".to_vec(), ..text.clone() },
        ),
        ("(DELIMITER '|', HEADER)", CopyOptions { delimiter: b'|', header: true, ..text }),
        ("(FORMAT csv)", csv.clone()),
        ("(FORMAT csv, HEADER, FORCE_QUOTE *)", CopyOptions { header: true, ..csv.clone() }),
        (
            "(FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL '***')",
            CopyOptions {
                delimiter: b';',
                quote: b'\'',
                escape: b'\\',
                null: b"***".to_vec(),
                ..csv.clone()
            },
        ),
        (
            "(FORMAT csv, DELIMITER '*', QUOTE '@')",
            CopyOptions { delimiter: b'*', quote: b'@', escape: b'@', ..csv },
        ),
        ("(FORMAT binary)", of(CopyFormat::Binary)),
    ]
}

/// What is done with the columns of `original`, in text.
fn copied_columns(rule: &Rule) -> Vec<Column> {
    let types = [25, 25, 1082, 1009, 3802].map(|oid| ValueType::built_in(oid, -1));
    let numeric = ValueType::built_in(1700, ((20 << 16) | 2) + 4);
    let mask = |(number, value_type): (usize, ValueType)| {
        let treatment = match number % 2 {
            0 => Treatment::Mask { kind: DataKind::Email, rule: rule.clone() },
            _ => Treatment::Scan(Hint::default()),
        };
        Column { treatment, value_type, format: Format::Text, computed: false }
    };
    let masked = types.into_iter().chain([numeric]).enumerate().map(mask);
    [Column::pass()].into_iter().chain(masked).collect()
}

/// The rows of `table` in order, as the server sends them.
fn rows(client: &mut RawClient, table: &str) -> Vec<Vec<u8>> {
    let answers = client.query(&format!("SELECT * FROM {table} ORDER BY id")).unwrap();
    answers.into_iter().filter(|message| message.tag == b'D').map(|message| message.body).collect()
}

#[test]
fn what_copy_gives_copies_back() {
    if skip::without(&[Need::Postgres]) {
        return;
    }
    let server = Postgres::start().unwrap();
    let mut client = RawClient::log_in(server.address(), postgres::OWNER, "postgres").unwrap();
    assert_eq!(first_error(&client.query(ROWS).unwrap()), None);
    let rules = Arc::new(Rules::new(|_| Some(Rule::Full)));
    let version = client.query("SHOW server_version_num").unwrap();
    let version = version.iter().find(|message| message.tag == b'D').unwrap();
    let header_in_text =
        DataRow::read(&version.body).unwrap().next().flatten().unwrap() >= b"150000".as_slice();
    for rule in [Rule::Full, Rule::Null, Rule::Fixed("*;\t@\\.'\"\n,".into()), Rule::Fixed("\\.".into())] {
        let columns = copied_columns(&rule);
        let mut rewriter = RowRewriter::new(columns.clone(), Arc::clone(&rules), Settings::default(), Simple);
        let expected: Vec<Vec<u8>> = rows(&mut client, "original")
            .into_iter()
            .map(|row| {
                let mut out = Vec::new();
                match rewriter.row(&row, &mut out).unwrap() {
                    Rewritten::Untouched => row,
                    Rewritten::Changed => out[5..].to_vec(),
                }
            })
            .collect();
        for (written, options) in copy_options() {
            if options.header && options.format == CopyFormat::Text && !header_in_text {
                continue;
            }
            let with = (Arc::clone(&rules), Simple);
            let mut copy =
                CopyRewriter::new(columns.clone(), options, with, Settings::default(), 1 << 20).unwrap();
            let mut data = Vec::new();
            let answers = client.query(&format!("COPY original TO STDOUT {written}")).unwrap();
            assert_eq!(first_error(&answers), None, "{written}");
            for piece in answers.iter().filter(|message| message.tag == b'd') {
                // Halves, to see that messages need not be rows.
                let (a, b) = piece.body.split_at(piece.body.len() / 2);
                for part in [a, b] {
                    if copy.data(part, &mut data).unwrap() == Rewritten::Untouched {
                        data.extend(message(b'd', part));
                    }
                }
            }
            copy.finish().unwrap();
            client.query("TRUNCATE copied").unwrap();
            client
                .send(&guard_tests::wire::query(&format!(
                    "COPY copied FROM STDIN {}",
                    written.replace(", FORCE_QUOTE *", "")
                )))
                .unwrap();
            assert_eq!(client.receive().unwrap().unwrap().tag, b'G');
            client.send(&[data, message(b'c', b"")].concat()).unwrap();
            let answers = client.until_ready().unwrap();
            assert_eq!(first_error(&answers), None, "{rule:?} {written}: {:?}", answers[0].fields());
            assert_eq!(rows(&mut client, "copied"), expected, "{rule:?} {written}");
        }
    }
}
