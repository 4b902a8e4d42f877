//! Values, rows, COPY data and messages that masking rewrites.

use std::sync::Arc;

use guard_agent::{
    mask::rewrite::{
        About, Base, Column, CopyFormat, CopyOptions, CopyRewriter, Detectors, Field, Format, HashKey, Hint,
        RewriteError, Rewritten, RowRewriter, Rule, Rules, Scrubber, Settings, Treatment, ValueType,
    },
    wire::postgres::{DataRow, ErrorFields},
};
use guard_policy::vocabulary::DataKind;

use crate::input::Input;

/// Bytes of a row that a COPY holds.
const LIMIT: usize = 4_096;

/// What holds: a row stays a row of as many values, NULL stays NULL, what is masked whole does not depend on the value;
/// COPY data leaves the same however it is cut; a message stays a message.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mode, choice) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0));
    match mode % 4 {
        0 => values(choice, input),
        1 => row(choice, input.rest()),
        2 => copy(choice, input),
        _ => message(choice, input.rest()),
    }
}

fn rules() -> Arc<Rules> {
    Arc::new(Rules::new(|kind| (kind != DataKind::Phone).then_some(Rule::Partial)))
}

fn settings(choice: u8) -> Settings {
    match choice % 4 {
        0 => Settings::reported("German, DMY", "LATIN1"),
        1 => Settings::reported("SQL, MDY", "SJIS"),
        _ => Settings::default(),
    }
}

/// Every type, and what is done with it.
fn types() -> Vec<ValueType> {
    let of = ValueType::new;
    let fields = || {
        let field = |value_type, treatment| Field { value_type, treatment };
        Base::Composite(Some(Box::new([
            field(of(Base::Text), None),
            field(of(Base::Int4), Some(Treatment::Pass)),
            field(of(Base::Json), Some(Treatment::Scan(Hint::default()))),
        ])))
    };
    let built_in = [
        16, 17, 19, 20, 21, 23, 25, 114, 142, 650, 700, 701, 774, 790, 829, 869, 1042, 1043, 1082, 1083,
        1114, 1184, 1186, 1266, 1700, 2249, 2950, 3802, 1009, 1016, 1231, 3807, 2287, 3904, 3912, 4532, 600,
    ];
    let own = [of(Base::Hstore), of(Base::Enum), of(fields()), ValueType::array(of(fields()))];
    built_in.into_iter().map(|oid| ValueType::built_in(oid, 12)).chain(own).collect()
}

fn treatment(choice: u8) -> Treatment {
    let rule = match choice / 2 % 6 {
        0 => Rule::Full,
        1 => Rule::Partial,
        2 => Rule::Hash(HashKey::new(b"key")),
        3 => Rule::Null,
        4 => Rule::Fixed("a\"b\\c".into()),
        _ => return Treatment::Scan(Hint::default()),
    };
    let kind = DataKind::ALL[usize::from(choice) % DataKind::ALL.len()];
    Treatment::Mask { kind, rule }
}

fn column(choice: u8, value_type: ValueType, format: Format) -> Column {
    Column { treatment: treatment(choice), value_type, format, computed: choice & 1 == 1 }
}

/// One value as every type in both formats.
fn values(choice: u8, mut input: Input<'_>) {
    let settings = settings(input.byte().unwrap_or(0));
    let value = input.rest();
    let body = [&[0, 1][..], &u32::try_from(value.len()).unwrap_or(0).to_be_bytes(), value].concat();
    for value_type in types() {
        for format in [Format::Text, Format::Binary] {
            let column = column(choice, value_type.clone(), format);
            let full = matches!(&column.treatment, Treatment::Mask { rule: Rule::Full, .. });
            let text = matches!(column.value_type.base, Base::Text);
            let mut rewriter = RowRewriter::new(vec![column], rules(), settings, Detectors);
            let mut out = Vec::new();
            if rewriter.row(&body, &mut out) == Ok(Rewritten::Changed) {
                let mut row = DataRow::read(&out[5..]).expect("a row stays a row");
                assert_eq!(row.width(), 1);
                if full && text {
                    assert_eq!(row.next().flatten(), Some(&b"***"[..]));
                }
            } else {
                assert!(out.is_empty() && !(full && text));
            }
        }
    }
}

/// A row that may lie.
fn row(choice: u8, body: &[u8]) {
    let columns: Vec<Column> = (0..3_u8)
        .map(|at| column(choice.wrapping_add(at), ValueType::new(Base::Text), Format::Text))
        .chain([Column::pass()])
        .collect();
    let mut rewriter = RowRewriter::new(columns, rules(), settings(choice), Detectors);
    let mut out = b"before".to_vec();
    let read = DataRow::read(body).ok().filter(|row| row.width() == 4);
    match rewriter.row(body, &mut out) {
        Ok(Rewritten::Untouched) => assert!(read.is_some() && out == b"before"),
        Ok(Rewritten::Changed) => {
            let before = read.expect("only a row is rewritten");
            let after = DataRow::read(&out[11..]).expect("a row stays a row");
            assert!(before.zip(after).all(|(before, after)| before.is_some() || after.is_none()));
        }
        Err(_) => assert!(read.is_none() && out == b"before"),
    }
}

/// The same data in one piece and in pieces.
fn copy(choice: u8, mut input: Input<'_>) {
    let format = [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary][usize::from(choice % 3)];
    let options = match choice / 3 % 3 {
        0 => CopyOptions::of(format),
        1 => CopyOptions { header: true, ..CopyOptions::of(format) },
        _ => CopyOptions {
            delimiter: b';',
            quote: b'\'',
            escape: b'\\',
            null: b"n".to_vec(),
            ..CopyOptions::of(format)
        },
    };
    let cuts = input.piece();
    let data = input.rest();
    let rewritten = |pieces: &[&[u8]]| -> Result<Vec<u8>, RewriteError> {
        let text = || ValueType::new(Base::Text);
        let columns =
            vec![Column::pass(), column(choice, text(), Format::Text), column(11, text(), Format::Text)];
        let with = (rules(), Detectors);
        let mut copy = CopyRewriter::new(columns, options.clone(), with, Settings::default(), LIMIT)?;
        let mut data = Vec::new();
        for piece in pieces {
            let mut out = Vec::new();
            if copy.data(piece, &mut out)? == Rewritten::Untouched {
                data.extend_from_slice(piece);
                continue;
            }
            let mut rest = &out[..];
            while let Some((&[tag, a, b, c, d], after)) = rest.split_first_chunk() {
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0) - 4;
                assert_eq!(tag, b'd');
                data.extend_from_slice(&after[..length]);
                rest = &after[length..];
            }
            assert!(rest.is_empty());
        }
        copy.finish()?;
        Ok(data)
    };
    let mut pieces = Vec::new();
    let mut rest = data;
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(rewritten(&[data]).ok(), rewritten(&pieces).ok(), "{pieces:?}");
}

/// The fields of an error.
fn message(choice: u8, body: &[u8]) {
    let mut scrubber = Scrubber::new(rules(), settings(choice), Detectors);
    let sent: [&[u8]; 1] = [b"SELECT 'sent'"];
    let about = About { sent: &sent, strict: choice & 1 == 1, plain_table: choice & 2 == 2 };
    let mut out = Vec::new();
    match scrubber.message(b'E', body, about, &mut out) {
        Ok(Rewritten::Changed) => {
            let before = ErrorFields::read(body).expect("only a message is scrubbed");
            let after = ErrorFields::read(&out[5..]).expect("a message stays a message");
            assert_eq!((before.code, before.severity), (after.code, after.severity));
        }
        Ok(Rewritten::Untouched) | Err(_) => assert!(out.is_empty()),
    }
    let _ = scrubber.notification(body, body.len() % 2 == 0, &mut out);
}

/// Inputs to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let values: &[&[u8]] = &[
        b"ana@example.com",
        b"4111 1111 1111 1111",
        b"1985-03-12 10:11:12.5+02",
        b"{\"a\": [1, \"ana@example.com\", null, true], \"password\": \"x\\u0040\"}",
        b"{ana@example.com,NULL,\"x\\\"y\"}",
        b"[0:1][1:2]={{1,2},{3,4}}",
        b"(ana@example.com,7,\"{\"\"a\"\":1}\")",
        b"\"k\"=>\"ana@example.com\", \"l\"=>NULL",
        b"\\x616e61406578616d706c652e636f6d",
        b"192.168.1.2/24",
        b"-$1,234.56",
        b"{[1,5),[7,9)}",
        b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x01\0\0\0\x01\0\0\0\x0fana@example.com",
        b"\0\x02\0\x01\0\0\0\x02\0\x01\0\x02",
    ];
    let mut seeds = Vec::new();
    for (at, value) in values.iter().enumerate() {
        for choice in [0_u8, 2, 4, 6, 8, 10] {
            let choice = choice.wrapping_add(u8::try_from(at % 2).unwrap_or(0));
            seeds.push([&[0, choice, 2], *value].concat());
        }
    }
    let row = b"\0\x04\0\0\0\x0fana@example.com\xff\xff\xff\xff\0\0\0\0\0\0\0\x01x";
    seeds.extend([0, 2, 10].map(|choice| [&[1, choice], &row[..]].concat()));
    let cuts = b"\x03\x05\x01\x09";
    let copies: [&[u8]; 3] = [
        b"1\tana@example.com\\n\t\\N\n\\N\t\\\\\ty\n",
        b"1,\"a,\n\"\"ana@example.com\"\"\",x\n,,\n",
        b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\x01a\0\0\0\x0fana@example.com\xff\xff\xff\xff\xff\xff",
    ];
    for (format, data) in (0_u8..).zip(copies) {
        seeds.extend([0, 3, 6].map(|options| [&[2, format + options], &cuts[..], data].concat()));
    }
    let error = b"SERROR\0VERROR\0C23505\0Mduplicate \"x\"\0DKey (mail)=(ana@example.com) already exists.\0WCOPY t: \"v\"\0tt\0\0";
    seeds.extend([2, 3].map(|choice| [&[3, choice], &error[..]].concat()));
    seeds.push([&[3, 2], &b"\0\0\0\x07news\0from ana@example.com\0"[..]].concat());
    seeds
}
