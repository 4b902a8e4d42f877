//! What people and programs read: JSON lines, or tables with colours where there is a terminal.

use std::io::{self, BufWriter, IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use guard_common::audit::v1::decision::Verdict;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

/// Writes raw bytes to stdout.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes one JSON object per line.
pub fn json_lines(values: impl IntoIterator<Item = Result<Value, serde_json::Error>>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for value in values {
        serde_json::to_writer(&mut out, &value?).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// An empty table with these headings.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings);
    if !has_colours() {
        table.force_no_tty();
    }
    table
}

/// Prints a table.
pub fn print(table: &Table) -> anyhow::Result<()> {
    write(format!("{table}\n").as_bytes())
}

fn has_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A verdict in its colour. The table drops colours where there is no terminal.
pub fn verdict(verdict: Verdict) -> Cell {
    match verdict {
        Verdict::Allowed => Cell::new("allowed").fg(Color::Green),
        Verdict::Refused => Cell::new("refused").fg(Color::Red),
        Verdict::WouldRefuse => Cell::new("would refuse").fg(Color::Yellow),
        Verdict::Held => Cell::new("held").fg(Color::Yellow),
        Verdict::WouldHold => Cell::new("would hold").fg(Color::Yellow),
        Verdict::Unspecified => Cell::new("unknown"),
    }
}

/// A time in the zone of whoever reads it.
pub fn time(at: Option<&pbjson_types::Timestamp>) -> String {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()).map_or_else(
        || "-".to_owned(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
    )
}
