//! COPY data in its three formats, in pieces of any size.

use super::{hostile::Random, *};

fn text_columns() -> Vec<Column> {
    let text = || scan(ValueType::new(Base::Text), Format::Text);
    vec![Column::pass(), text(), mask(DataKind::Email, Rule::Null, ValueType::new(Base::Text), Format::Text)]
}

fn copy(columns: Vec<Column>, options: CopyOptions) -> CopyRewriter<Simple> {
    CopyRewriter::new(columns, options, (partial(), Simple), Settings::default(), 4_096).unwrap()
}

/// What leaves, without its frames, when the data comes in these pieces.
fn rewritten(mut copy: CopyRewriter<Simple>, pieces: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    for piece in pieces {
        let mut out = Vec::new();
        if copy.data(piece, &mut out).unwrap() == Rewritten::Untouched {
            assert!(out.is_empty());
            data.extend_from_slice(piece);
        }
        let mut rest = &out[..];
        while let Some((head, body)) = rest.split_first_chunk::<5>() {
            assert_eq!(head[0], b'd');
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
            data.extend_from_slice(&body[..length]);
            rest = &body[length..];
        }
    }
    copy.finish().unwrap();
    data
}

/// The same, and the same again for other pieces.
fn in_pieces(make: impl Fn() -> CopyRewriter<Simple>, data: &[u8]) -> String {
    let whole = rewritten(make(), &[data]);
    let single: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(rewritten(make(), &single), whole, "byte by byte");
    let mut random = Random(7);
    for _ in 0..50 {
        let (mut pieces, mut rest) = (Vec::new(), data);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random.below(rest.len().min(40)));
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(rewritten(make(), &pieces), whole, "{pieces:?}");
    }
    String::from_utf8_lossy(&whole).into_owned()
}

#[test]
fn text_stays_text() {
    let make = || copy(text_columns(), CopyOptions::of(CopyFormat::Text));
    let data = b"ana@example.com\tto ana@example.com\\n\\tbye \\\\\tx\n\\N\tclean\t\\N\n1\t\\N\ty\n\t\t\n";
    let expected =
        "ana@example.com\tto a***@example.com\\n\\tbye \\\\\t\\N\n\\N\tclean\t\\N\n1\t\\N\t\\N\n\t\t\\N\n";
    assert_eq!(in_pieces(make, data), expected);
    let options = CopyOptions {
        delimiter: b'*',
        null: b"nil".to_vec(),
        header: true,
        ..CopyOptions::of(CopyFormat::Text)
    };
    let make = || copy(text_columns(), options.clone());
    let data = b"ana@example.com*b*c\n1*ana@example.com \\* bob@example.com*x\nnil*nil*nil\n";
    let expected =
        "ana@example.com*b*c\n1*a\\*\\*\\*@example.com \\* b\\*\\*\\*@example.com*nil\nnil*nil*nil\n";
    assert_eq!(in_pieces(make, data), expected, "the header stays; a mask that is a delimiter is escaped");
}

#[test]
fn csv_stays_csv() {
    let make = || copy(text_columns(), CopyOptions { header: true, ..CopyOptions::of(CopyFormat::Csv) });
    let data = b"id,\"the\ntext\",x\n1,\"to ana@example.com,\n\"\"bye\"\"\",x\n,,\n\"\",\"\",\"\"\n3,ana@example.com,\n";
    let expected =
        "id,\"the\ntext\",x\n1,\"to a***@example.com,\n\"\"bye\"\"\",\n,,\n\"\",\"\",\n3,a***@example.com,\n";
    assert_eq!(in_pieces(make, data), expected);
    let options = CopyOptions {
        delimiter: b';',
        quote: b'\'',
        escape: b'\\',
        null: b"***".to_vec(),
        ..CopyOptions::of(CopyFormat::Csv)
    };
    let email = mask(DataKind::Email, Rule::Full, ValueType::new(Base::Text), Format::Text);
    let make = || copy(vec![email.clone(), Column::pass()], options.clone());
    let data = b"'it\\'s; \n \\\\ ana@example.com';x\nbob;'a\\'\nb'\n***;y\n";
    let expected = "'***';x\n'***';'a\\'\nb'\n***;y\n";
    assert_eq!(in_pieces(make, data), expected, "what reads as NULL is quoted; NULL stays");
    let fixed = mask(DataKind::Email, Rule::Fixed("\\.".into()), ValueType::new(Base::Text), Format::Text);
    let make = || copy(vec![fixed.clone()], CopyOptions::of(CopyFormat::Csv));
    assert_eq!(in_pieces(make, b"a\n"), "\"\\.\"\n");
}

fn binary(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    rows.iter().for_each(|values| data.extend(row(values)));
    data.extend_from_slice(&[0xff, 0xff]);
    data
}

#[test]
fn binary_stays_binary() {
    let columns = || {
        let email = mask(DataKind::Email, Rule::Null, ValueType::new(Base::Text), Format::Text);
        vec![scan(ValueType::new(Base::Int8), Format::Text), email]
    };
    let make = || copy(columns(), CopyOptions::of(CopyFormat::Binary));
    let card = 4_111_111_111_111_234_i64.to_be_bytes();
    let data = binary(&[&[Some(&[0; 8]), None], &[Some(&card), Some(b"ana@example.com")], &[None, None]]);
    let last = 1_234_i64.to_be_bytes();
    let expected = binary(&[&[Some(&[0; 8]), None], &[Some(&last), None], &[None, None]]);
    assert_eq!(in_pieces(make, &data).as_bytes(), String::from_utf8_lossy(&expected).as_bytes());
    assert_eq!(in_pieces(make, &binary(&[])).as_bytes(), String::from_utf8_lossy(&binary(&[])).as_bytes());
    let refused = |data: &[u8]| make().data(data, &mut Vec::new()).is_err();
    assert!(refused(b"PGCOPX"));
    assert!(refused(&[&data[..], b"x"].concat()), "data behind the trailer");
    let mut flags = data.clone();
    flags[12] = 1;
    assert!(refused(&flags), "tuples with OIDs");
    let mut lie = data.clone();
    lie[21..25].copy_from_slice(&(-9_i32).to_be_bytes());
    assert!(refused(&lie));
}

#[test]
fn one_row_leaves_as_one_message() {
    let mut copy = copy(text_columns(), CopyOptions::of(CopyFormat::Text));
    let mut out = Vec::new();
    assert_eq!(copy.data(b"1\thello\t\\N\n", &mut out), Ok(Rewritten::Untouched));
    assert_eq!(copy.data(b"1\thello\t\\N\n2\tana@example.com\t\\N\n3\tx", &mut out), Ok(Rewritten::Changed));
    assert_eq!(out, b"d\0\0\0\x0f1\thello\t\\N\nd\0\0\0\x1a2\ta***@example.com\t\\N\n");
    out.clear();
    assert_eq!(copy.data(b"yz\t\\N\n", &mut out), Ok(Rewritten::Changed));
    assert_eq!(out, b"d\0\0\0\x0d3\txyz\t\\N\n", "what was held back goes with its row");
    assert_eq!((copy.tally().rows(), copy.tally().masked_rows()), (4, 1));
}

#[test]
fn lies_and_long_rows_are_errors() {
    let data =
        |bytes: &[u8]| copy(text_columns(), CopyOptions::of(CopyFormat::Text)).data(bytes, &mut Vec::new());
    assert_eq!(data(b"1\t2\n"), Err(RewriteError::Columns { expected: 3, found: 2 }));
    assert_eq!(data(b"1\t2\t3\t4\t5\n"), Err(RewriteError::Columns { expected: 3, found: 5 }));
    assert_eq!(data(&[b'x'; 5_000]), Err(RewriteError::TooLong { limit: 4_096 }));
    let mut held = copy(text_columns(), CopyOptions::of(CopyFormat::Text));
    held.data(b"1\t2", &mut Vec::new()).unwrap();
    assert!(held.finish().is_err());
    let csv = copy(text_columns(), CopyOptions::of(CopyFormat::Csv)).data(b"\"a\"b,c,d\n", &mut Vec::new());
    assert_eq!(csv, Err(RewriteError::Copy("a value does not end")));
}

/// Letters whose second bytes are backslashes, bars and quotes; what is found is NULL, what is masked is masked whole.
#[test]
fn letters_hold_no_delimiters() {
    let unknown = Settings::default().in_encoding("ISO-2022-JP");
    let refused =
        CopyRewriter::new(text_columns(), CopyOptions::of(CopyFormat::Csv), (partial(), Simple), unknown, 1);
    assert_eq!(refused.unwrap_err(), RewriteError::Encoding);
    let settings = Settings::default().in_encoding("SJIS");
    let options = |format, delimiter| CopyOptions { delimiter, ..CopyOptions::of(format) };
    for (options, data, expected) in [
        (
            options(CopyFormat::Text, b'|'),
            &b"\x95\\|\x83|\x83\\ ana@example.com|\x83|\n"[..],
            &b"\x95\\|\\N|\\N\n"[..],
        ),
        (options(CopyFormat::Text, b'\t'), b"\x95\\\\t\tana@example.com\tx\n", b"\x95\\\\t\t\\N\t\\N\n"),
        (options(CopyFormat::Csv, b'|'), b"\x83|a|\"\x83|\"\"ana@example.com\"|\xb6\n", b"\x83|a||\n"),
    ] {
        let mut copy =
            CopyRewriter::new(text_columns(), options, (partial(), Simple), settings, 4_096).unwrap();
        let mut out = Vec::new();
        assert_eq!(copy.data(data, &mut out), Ok(Rewritten::Changed), "{data:?}");
        assert_eq!(&out[5..], expected, "{data:?}");
    }
}

#[test]
fn no_bytes_panic() {
    let mut random = Random(11);
    let seeds = [
        &b"1\ta\\tb\t\\N\n"[..],
        b"1,\"a\"\"b\",x\n",
        b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\x01a",
    ];
    for round in 0..3_000 {
        let mut data = seeds[round % 3].to_vec();
        for _ in 0..1 + random.below(4) {
            let at = random.below(data.len());
            data[at] = random.below(256) as u8;
        }
        for format in [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary] {
            let _ = copy(text_columns(), CopyOptions::of(format)).data(&data, &mut Vec::new());
        }
    }
}
