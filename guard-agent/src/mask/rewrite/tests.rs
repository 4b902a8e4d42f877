//! A detector for tests, and tests that go through whole rows.

use std::sync::Arc;

use guard_policy::vocabulary::DataKind;

use super::*;
use crate::mask::detect::Evidence;

mod copies;
mod hostile;
mod messages;
mod types;

/// Finds mail addresses of ASCII, and sixteen digits in one piece that begin with 4.
#[derive(Clone, Copy, Debug)]
pub(super) struct Simple;

impl Detector for Simple {
    fn scan(&self, cell: &[u8], _hint: Hint, hits: &mut Hits) {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"@._".contains(byte);
        hits.clear();
        let mut at = 0;
        for piece in cell.split(|byte| !word(byte)) {
            let middle = piece.iter().position(|byte| *byte == b'@');
            let card = piece.len() == 16 && piece[0] == b'4' && piece.iter().all(u8::is_ascii_digit);
            let kind = match middle {
                Some(1..) if piece.ends_with(b".com") => Some(DataKind::Email),
                _ => card.then_some(DataKind::PaymentCard),
            };
            if let Some(kind) = kind {
                hits.push(kind, at..at + piece.len(), Evidence::Format);
            }
            at += piece.len() + 1;
        }
    }

    fn scan_integer(&self, value: i64, _hint: Hint) -> Option<DataKind> {
        (4_000_000_000_000_000..5_000_000_000_000_000).contains(&value).then_some(DataKind::PaymentCard)
    }
}

pub(super) fn partial() -> Arc<Rules> {
    Arc::new(Rules::new(|_| Some(Rule::Partial)))
}

pub(super) fn scan(value_type: ValueType, format: Format) -> Column {
    Column { treatment: Treatment::Scan(Hint::default()), value_type, format, computed: false }
}

pub(super) fn mask(kind: DataKind, rule: Rule, value_type: ValueType, format: Format) -> Column {
    Column { treatment: Treatment::Mask { kind, rule }, value_type, format, computed: false }
}

/// The body of a DataRow.
pub(super) fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        match value {
            Some(value) => {
                body.extend_from_slice(&i32::try_from(value.len()).unwrap().to_be_bytes());
                body.extend_from_slice(value);
            }
            None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    body
}

pub(super) fn rewriter(columns: Vec<Column>) -> RowRewriter<Simple> {
    RowRewriter::new(columns, partial(), Settings::default(), Simple)
}

/// What becomes of one value: `None` is NULL.
pub(super) fn one(column: Column, value: &[u8]) -> Option<Vec<u8>> {
    one_of(&mut rewriter(vec![column]), value)
}

pub(super) fn one_of(rewriter: &mut RowRewriter<Simple>, value: &[u8]) -> Option<Vec<u8>> {
    let body = row(&[Some(value)]);
    let mut out = Vec::new();
    match rewriter.row(&body, &mut out).unwrap() {
        Rewritten::Untouched => Some(value.to_vec()),
        Rewritten::Changed => {
            assert_eq!(out[0], b'D');
            assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - 1);
            let mut fields = array::Fields { value: &out[5..], at: 2 };
            let value = fields.next().unwrap().map(<[u8]>::to_vec);
            assert_eq!(fields.at, out.len() - 5);
            value
        }
    }
}

#[test]
fn only_what_changes_is_written() {
    let text = || ValueType::new(Base::Text);
    let mut rewriter = rewriter(vec![
        Column::pass(),
        scan(text(), Format::Text),
        mask(DataKind::Email, Rule::Partial, text(), Format::Text),
        mask(DataKind::Email, Rule::Null, text(), Format::Text),
    ]);
    let mut out = b"kept".to_vec();
    let clean = row(&[Some(b"ana@example.com"), Some(b"hello"), None, None]);
    assert_eq!(rewriter.row(&clean, &mut out), Ok(Rewritten::Untouched));
    assert_eq!(out, b"kept");
    let dirty = row(&[
        Some(b"ana@example.com"),
        Some(b"to ana@example.com, soon"),
        Some(b"bob@example.com"),
        Some(b"x"),
    ]);
    assert_eq!(rewriter.row(&dirty, &mut out), Ok(Rewritten::Changed));
    let expected =
        row(&[Some(b"ana@example.com"), Some(b"to a***@example.com, soon"), Some(b"b***@example.com"), None]);
    assert_eq!(out[..5], *b"keptD");
    assert_eq!(out[9..], expected);
    let tally = rewriter.take_tally();
    assert_eq!((tally.rows(), tally.masked_rows(), tally.values()), (2, 1, 3));
    assert_eq!(rewriter.tally().rows(), 0);
}

#[test]
fn kinds_in_clear_stay() {
    let rules = Arc::new(Rules::new(|kind| (kind != DataKind::Email).then_some(Rule::Full)));
    let columns = vec![scan(ValueType::new(Base::Text), Format::Text)];
    let mut rewriter = RowRewriter::new(columns, rules, Settings::default(), Simple);
    let value = one_of(&mut rewriter, b"ana@example.com 4111111111111111").unwrap();
    assert_eq!(value, b"ana@example.com ***");
}

#[test]
fn rows_that_lie_are_errors() {
    let mut rewriter = rewriter(vec![Column::pass(), scan(ValueType::new(Base::Text), Format::Text)]);
    let fine = row(&[Some(b"ana@example.com"), Some(b"ana@example.com")]);
    let mut out = Vec::new();
    assert!(rewriter.row(&fine, &mut out).is_ok());
    out.clear();
    for end in 0..fine.len() {
        assert!(rewriter.row(&fine[..end], &mut out).is_err(), "{end}");
    }
    assert_eq!(rewriter.row(&[&fine[..], b"x"].concat(), &mut out), Err(RewriteError::Malformed));
    assert_eq!(rewriter.row(&row(&[None]), &mut out), Err(RewriteError::Columns { expected: 2, found: 1 }));
    for length in [-2_i32, i32::MIN, i32::MAX, 16] {
        let mut lie = fine.clone();
        lie[2..6].copy_from_slice(&length.to_be_bytes());
        assert!(rewriter.row(&lie, &mut out).is_err(), "{length}");
    }
    assert_eq!(out, b"", "nothing is left of a row that was refused");
}

#[test]
fn letters_that_hold_delimiters_are_never_cut() {
    let settings = Settings::reported("ISO, MDY", "SJIS");
    assert!(!settings.ascii_is_ascii());
    let german = Settings::reported("German, DMY", "UTF8");
    assert_eq!(german, Settings { day_first: true, ..Settings::default() });
    assert!(!Settings::reported("ISO, MDY", "LATIN1").utf8);
    let of = |column| RowRewriter::new(vec![column], partial(), settings, Simple);
    let text = ValueType::new(Base::Text);
    assert_eq!(one_of(&mut of(scan(text.clone(), Format::Text)), b"\x95\x5c ana@example.com"), None);
    let email = mask(DataKind::Email, Rule::Partial, text, Format::Text);
    assert_eq!(one_of(&mut of(email), b"\x95\x5c@example.com").unwrap(), b"***");
    let json = mask(DataKind::Email, Rule::Full, ValueType::new(Base::Json), Format::Text);
    assert_eq!(one_of(&mut of(json), b"{}"), None);
}
