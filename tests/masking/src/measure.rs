//! Runs the data through guard's finding and compares.

use guard_agent::mask::{
    columns::{self, ColumnType, Named},
    detect::{self, Hint, Hits},
};
use guard_policy::vocabulary::DataKind;

use crate::{
    figures::Figures,
    locales::{LOCALES, Locale},
    random::Random,
    values,
};

/// Values per column, and per kind and country.
const ROWS: usize = 60;
const CELLS: usize = 120;
/// Decoys per form.
const DECOYS: usize = 600;

/// Columns whose names say what they hold, and columns whose names say that they hold something else.
pub fn telling_columns(seed: u64) -> Figures {
    let mut figures = Figures::default();
    let mut random = Random::new(seed);
    let mut hits = Hits::new();
    for locale in LOCALES {
        for (kind, column) in named(locale) {
            let named = columns::by_name(locale.people, column, ColumnType::Text);
            for _ in 0..ROWS {
                let value = values::value(kind, locale, &mut random);
                let found = read(named, &value, &mut hits);
                figures.value(kind, found, &format!("{}: {}.{column} = {value}", locale.code, locale.people));
            }
        }
    }
    for &(table, column, pattern) in values::OTHER_COLUMNS {
        let named = columns::by_name(table, column, ColumnType::Text);
        for _ in 0..ROWS {
            let value = random.fill(pattern);
            figures.decoy(read(named, &value, &mut hits), &format!("{table}.{column} = {value}"));
        }
    }
    figures
}

/// The columns of a country with their kinds.
fn named(locale: &Locale) -> impl Iterator<Item = (DataKind, &str)> {
    locale.columns.lines().filter_map(|line| line.split_once(": ")).flat_map(|(kind, names)| {
        let kind = DataKind::ALL.iter().copied().find(|known| known.as_str() == kind);
        names.split(' ').filter_map(move |name| Some((kind?, name)))
    })
}

/// What a value is taken for in a column.
fn read(named: Named, value: &str, hits: &mut Hits) -> Option<DataKind> {
    let hint = match named {
        Named::Sensitive(kind) => return Some(kind),
        Named::Hint(hint) => hint,
        Named::Plain => Hint::default(),
    };
    detect::scan(value.as_bytes(), hint, hits);
    hits.as_slice().first().map(|hit| hit.kind)
}

/// Values and decoys where no name says anything.
pub fn untelling_columns(seed: u64) -> Figures {
    let mut figures = Figures::default();
    let mut random = Random::new(seed ^ 0x5EED);
    let mut hits = Hits::new();
    for locale in LOCALES {
        for &kind in values::TELLING {
            for _ in 0..CELLS {
                let (cell, start, end) = values::cell(kind, locale, &mut random);
                detect::scan(cell.as_bytes(), Hint::default(), &mut hits);
                // Nothing of it may stay in clear, but for its separators at the edges.
                let hit = hits.as_slice().iter().find(|hit| hit.start < end && hit.end > start);
                let whole = hit.filter(|hit| hit.start <= start && hit.end >= end);
                figures.value(kind, whole.map(|hit| hit.kind), &format!("{}: {cell}", locale.code));
            }
        }
    }
    for (what, patterns) in values::DECOYS {
        for pattern in *patterns {
            for _ in 0..DECOYS / patterns.len() {
                let cell = random.fill(pattern);
                detect::scan(cell.as_bytes(), Hint::default(), &mut hits);
                figures.decoy(hits.as_slice().first().map(|hit| hit.kind), &format!("{what}: {cell}"));
            }
        }
    }
    figures
}
