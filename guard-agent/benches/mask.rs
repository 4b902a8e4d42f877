//! Megabytes per second of masking: one line of JSON per round on standard output.
//!
//! `cargo xtask bench mask` runs it, takes medians and prints a table. Everything is measured on one thread, through
//! the same calls as a session makes; megabytes are those of the rows as the server sends them.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_agent::mask::rewrite::{
    Base, Column, CopyFormat, CopyOptions, CopyRewriter, Detectors, Format, HashKey, Hint, MAX_ROW_BYTES,
    RowRewriter, Rule, Rules, Settings, Treatment, ValueType,
};
use guard_policy::vocabulary::DataKind;

/// How long each figure is measured in a round.
const SLICE: Duration = Duration::from_millis(200);

/// Rows of a result.
const ROWS: usize = 4_096;

const FIRST: &[&str] = &["Ana", "Björn", "Chidinma", "Dmitri", "Élodie", "Farouk", "Guðrún", "Hiroshi"];
const LAST: &[&str] = &["Lindqvist", "O'Connor", "García Márquez", "Nakamura", "Okonkwo", "Petrov"];
const WORDS: &[&str] = &[
    "order",
    "was",
    "delivered",
    "to",
    "the",
    "front",
    "desk",
    "and",
    "signed",
    "for",
    "by",
    "a",
    "colleague",
    "invoice",
    "follows",
    "please",
    "call",
    "before",
    "eleven",
];

/// Numbers that repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds: u32 = match rounds.and_then(|at| arguments.get(at + 1)) {
        Some(rounds) => rounds.parse().context("`--rounds` takes a number")?,
        None => 1,
    };
    let customers = customers();
    let notes = notes();
    for _ in 0..rounds {
        let mut figures = BTreeMap::new();
        for (name, rule) in [
            ("full", Rule::Full),
            ("partial", Rule::Partial),
            ("hash", Rule::Hash(HashKey::new(b"a key for the bench"))),
            ("null", Rule::Null),
        ] {
            figures.insert(format!("rows_{name}_mb_s"), rows(&customers, masked(&rule))?);
        }
        figures.insert("copy_text_partial_mb_s".to_owned(), copied(&customers, CopyFormat::Text)?);
        figures.insert("copy_csv_partial_mb_s".to_owned(), copied(&customers, CopyFormat::Csv)?);
        figures.insert("rows_scan_clean_mb_s".to_owned(), rows(&notes, scanned(3))?);
        figures.insert("rows_scan_found_mb_s".to_owned(), rows(&customers, scanned(6))?);
        println!("{}", serde_json::to_string(&figures)?);
    }
    Ok(())
}

/// id, name, mail, telephone, card and a note.
fn customers() -> Vec<Vec<String>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let row = |number: usize| {
        let (first, last) = (FIRST[random.below(FIRST.len())], LAST[random.below(LAST.len())]);
        vec![
            (100_000 + number).to_string(),
            format!("{first} {last}"),
            format!("{}.{}@example.com", WORDS[random.below(WORDS.len())], random.below(10_000)),
            format!("+49 30 {:07}", random.below(10_000_000)),
            format!("4111 1111 1111 {:04}", random.below(10_000)),
            sentence(&mut random, 8),
        ]
    };
    (0..ROWS).map(row).collect()
}

/// Rows in which nothing is sensitive.
fn notes() -> Vec<Vec<String>> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    (0..ROWS)
        .map(|number| {
            vec![(100_000 + number).to_string(), sentence(&mut random, 3), sentence(&mut random, 25)]
        })
        .collect()
}

fn sentence(random: &mut Random, words: usize) -> String {
    let words: Vec<_> = (0..words).map(|_| WORDS[random.below(WORDS.len())]).collect();
    words.join(" ")
}

fn text(treatment: Treatment) -> Column {
    Column { treatment, value_type: ValueType::new(Base::Text), format: Format::Text, computed: false }
}

/// The personal columns of a customer are masked; number and note pass.
fn masked(rule: &Rule) -> Vec<Column> {
    let kinds = [DataKind::PersonName, DataKind::Email, DataKind::Phone, DataKind::PaymentCard];
    let masked = kinds.map(|kind| text(Treatment::Mask { kind, rule: rule.clone() }));
    [Column::pass()].into_iter().chain(masked).chain([Column::pass()]).collect()
}

/// All columns are texts of which nothing is known.
fn scanned(columns: usize) -> Vec<Column> {
    (0..columns).map(|_| text(Treatment::Scan(Hint::default()))).collect()
}

fn rules() -> Arc<Rules> {
    Arc::new(Rules::new(|_| Some(Rule::Partial)))
}

/// Megabytes per second of rows as DataRow messages.
fn rows(data: &[Vec<String>], columns: Vec<Column>) -> Result<f64> {
    let bodies: Vec<Vec<u8>> = data.iter().map(|row| body(row)).collect();
    let bytes: usize = bodies.iter().map(Vec::len).sum();
    let mut rewriter = RowRewriter::new(columns, rules(), Settings::default(), Detectors);
    let mut out = Vec::new();
    let speed = speed(bytes, || {
        out.clear();
        for body in &bodies {
            rewriter.row(black_box(body), &mut out)?;
        }
        black_box(&out);
        Ok(())
    })?;
    ensure!(rewriter.tally().rows() > 0, "no row was looked at");
    Ok(speed)
}

/// The same as COPY data, one row per message.
fn copied(data: &[Vec<String>], format: CopyFormat) -> Result<f64> {
    let separator = if format == CopyFormat::Csv { "," } else { "\t" };
    let lines: Vec<String> = data.iter().map(|row| row.join(separator) + "\n").collect();
    let bytes: usize = lines.iter().map(String::len).sum();
    let with = (rules(), Detectors);
    let options = CopyOptions::of(format);
    let mut copy =
        CopyRewriter::new(masked(&Rule::Partial), options, with, Settings::default(), MAX_ROW_BYTES)?;
    let mut out = Vec::new();
    speed(bytes, || {
        out.clear();
        for line in &lines {
            copy.data(black_box(line.as_bytes()), &mut out)?;
        }
        black_box(&out);
        Ok(())
    })
}

fn body(values: &[String]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap_or(0).to_be_bytes().to_vec();
    for value in values {
        body.extend_from_slice(&i32::try_from(value.len()).unwrap_or(0).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    body
}

/// Repeats `batch` of so many bytes until there is enough.
fn speed(bytes: usize, mut batch: impl FnMut() -> Result<()>) -> Result<f64> {
    batch()?;
    let (started, mut batches) = (Instant::now(), 0_u32);
    while started.elapsed() < SLICE {
        batch()?;
        batches += 1;
    }
    let bytes = f64::from(u32::try_from(bytes)?) * f64::from(batches);
    Ok(bytes / 1e6 / started.elapsed().as_secs_f64())
}
