//! The table at the end: what was seen, and what was decided about it.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets::UTF8_BORDERS_ONLY};
use guard_tests::records::{body, non_proxied, objects, text, verdict};
use serde_json::Value;

use crate::style;

/// Longest statement that is shown.
const STATEMENT: usize = 64;

/// Lays out the decisions of the control plane, the oldest first. What psql asks the catalogs by itself is left out.
pub fn render(decisions: &[Value]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["times", "who", "how", "what", "decision", "policy"]);
    for ([who, how, what, decision, policy], times) in grouped(decisions.iter().rev().filter_map(row)) {
        let mut cell = Cell::new(&decision);
        if style::colours() {
            cell = cell.fg(if decision == "allowed" { Color::Green } else { Color::Red });
        }
        let times = Cell::new(times).set_alignment(CellAlignment::Right);
        table.add_row([times, Cell::new(who), Cell::new(how), Cell::new(what), cell, Cell::new(policy)]);
    }
    table.to_string()
}

type Row = [String; 5];

/// Equal rows become one, where the first of them was, with their number.
fn grouped(rows: impl Iterator<Item = Row>) -> Vec<(Row, usize)> {
    let mut groups: Vec<(Row, usize)> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|(other, _)| *other == row) {
            Some((_, times)) => *times += 1,
            None => groups.push((row, 1)),
        }
    }
    groups
}

fn row(decision: &Value) -> Option<Row> {
    if let Some(connection) = body(decision, "connection").or_else(|| body(decision, "connection_opened")) {
        let route = if non_proxied(connection) { "round the proxy" } else { "proxy" };
        let how = format!("{route}, {}", text(connection, "transport").to_lowercase());
        return Some(line(workload(connection), how, "connects".to_owned(), connection));
    }
    let statement = body(decision, "statement")?;
    let sql = text(statement, "text").split_whitespace().collect::<Vec<_>>().join(" ");
    if sql.contains("pg_catalog.") {
        return None;
    }
    let short = match sql.char_indices().nth(STATEMENT) {
        Some((end, _)) => format!("{}..", &sql[..end]),
        None => sql,
    };
    let how = format!("proxy, {}", text(statement, "protocol").to_lowercase());
    Some(line(text(statement, "workload").to_owned(), how, short, statement))
}

fn line(who: String, how: String, what: String, body: &Value) -> Row {
    let policy = body.get("decision").map_or("", |decision| text(decision, "policy"));
    [who, how, what, verdict(body).to_lowercase().replace('_', " "), policy.to_owned()]
}

/// The shortest useful name, as statements have it: AI agent, unit, executable.
fn workload(connection: &Value) -> String {
    let Some(workload) = connection.get("workload") else { return String::new() };
    let executable = text(workload, "executable").rsplit('/').next().unwrap_or_default();
    match text(workload, "ai_agent") {
        "" => {}
        agent => return format!("{executable} via {agent}"),
    }
    let named = [text(workload, "unit"), executable, text(workload, "comm")];
    named.into_iter().find(|name| !name.is_empty()).unwrap_or("?").to_owned()
}

/// A workload as one reads it, one line per fact.
pub fn describe(connection: &Value) -> String {
    let Some(workload) = connection.get("workload") else { return "no workload".to_owned() };
    let number = |key| guard_tests::records::number(workload, key);
    let argv = guard_tests::records::texts(workload, "argv").join(" ");
    let ancestry: Vec<String> = objects(workload, "ancestry")
        .iter()
        .map(|ancestor| {
            format!("{} ({})", text(ancestor, "comm"), guard_tests::records::number(ancestor, "pid"))
        })
        .collect();
    let mut lines = vec![
        format!("access      {} over {}", text(connection, "access"), text(connection, "transport")),
        format!("pid         {}  ({})", number("pid"), text(workload, "evidence")),
        format!("executable  {}", text(workload, "executable")),
        format!("argv        {argv}"),
        format!("uid         {} {}", number("uid"), text(workload, "user")),
        format!("ancestry    {}", ancestry.join(" < ")),
        format!("cgroup      {}", text(workload, "cgroup")),
    ];
    for (label, key) in [("unit        ", "unit"), ("ai agent    ", "ai_agent")] {
        if !text(workload, key).is_empty() {
            lines.push(format!("{label}{}", text(workload, key)));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(json: &str) -> Value {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn connections_and_statements_become_rows() {
        let connection = decision(
            r#"{"connection":{"access":"NON_PROXIED","transport":"UNIX","workload":{"executable":"/usr/bin/psql"},
                "decision":{"verdict":"WOULD_REFUSE","policy":"round"}}}"#,
        );
        assert_eq!(
            row(&connection).unwrap(),
            ["psql", "round the proxy, unix", "connects", "would refuse", "round"].map(str::to_owned)
        );
        let statement = decision(
            r#"{"statement":{"text":"SELECT\n  1","workload":"claude","protocol":"SIMPLE",
                "decision":{"verdict":"ALLOWED"}}}"#,
        );
        assert_eq!(row(&statement).unwrap()[2], "SELECT 1");
    }

    #[test]
    fn equal_rows_are_counted_where_the_first_was() {
        let row = |who: &str| [who, "", "", "", ""].map(str::to_owned);
        let groups = grouped([row("a"), row("b"), row("a")].into_iter());
        assert_eq!(groups, [(row("a"), 2), (row("b"), 1)]);
    }

    #[test]
    fn long_statements_are_cut_between_characters() {
        let long = "é".repeat(100);
        let statement = decision(&format!(r#"{{"statement":{{"text":"{long}"}}}}"#));
        assert!(row(&statement).unwrap()[2].ends_with("é.."));
    }
}
