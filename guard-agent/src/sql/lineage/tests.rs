//! Whole texts against the sensitive columns that their results show.

use super::*;
use crate::catalog::sample;
use crate::sql::{Classifier, Limits, Modes};

/// `customers.email`, `+` between several, `~` where the value is changed, `?` where code that no text shows made it.
fn sources(columns: &[Column]) -> String {
    let name = |column: &Column| match column.id {
        Some(_) => format!("{}.{}", column.table, column.column),
        None => format!("({}.{})", column.table, column.column),
    };
    match columns {
        [] => "-".to_owned(),
        columns => columns.iter().map(name).collect::<Vec<_>>().join("+"),
    }
}

fn outputs(outputs: &Outputs) -> String {
    match outputs {
        Outputs::None => "none".to_owned(),
        Outputs::Unknown(columns) => format!("unknown {}", sources(columns)),
        Outputs::Prepared(name) => format!("prepared {name}"),
        Outputs::Cursor(name) => format!("cursor {name}"),
        Outputs::Columns(outputs) => {
            let output = |output: &Output| {
                let changed = if output.same || output.sources.is_empty() { "" } else { "~" };
                let opaque = if output.opaque { "?" } else { "" };
                let steered = match output.steered_by.as_slice() {
                    [] => String::new(),
                    columns => format!("({})", sources(columns)),
                };
                format!("{opaque}{}{changed}{steered}", sources(&output.sources))
            };
            outputs.iter().map(output).collect::<Vec<_>>().join(" | ")
        }
    }
}

fn describe(part: &Part) -> String {
    let mut text = outputs(&part.outputs);
    for used in &part.uses {
        let equality = if used.equality { " =" } else { "" };
        let column = sources(std::slice::from_ref(&used.column));
        text += &format!("; {} {column}{equality}", used.usage.as_str());
    }
    for target in &part.targets {
        text += &format!("; writes {}.{} {}", target.table, target.column, sources(&target.sources));
    }
    match &part.names {
        None => {}
        Some(Named::Prepared(name, part)) => text += &format!("; prepares {name}: {}", describe(part)),
        Some(Named::Cursor(name, part)) => text += &format!("; declares {name}: {}", describe(part)),
    }
    text
}

fn lineage(classifier: &mut Classifier, catalog: &Catalog, text: &str) -> String {
    let statement = classifier.classify(text.as_bytes(), &Modes::default());
    let world = World { catalog, path: &SearchPath::Initial, user: "app" };
    of(&statement, &world).parts.iter().map(describe).collect::<Vec<_>>().join(" && ")
}

/// `text`, then `=> what it shows`. With `GUARD_BLESS` set to a file the corpus is written there as it is read now.
#[test]
fn corpus_of_lineage() {
    let source = include_str!("../testdata/lineage.txt");
    let run = move || {
        let catalog = sample::shop().catalog();
        let mut classifier = Classifier::new(Limits::default());
        let (mut failures, mut now, mut cases) = (String::new(), String::new(), 0);
        let mut lines: Vec<&str> = Vec::new();
        for line in source.lines() {
            let Some(expected) = line.strip_prefix("=>") else {
                if line.starts_with('#') || line.is_empty() {
                    now += &format!("{line}\n");
                } else {
                    lines.push(line);
                }
                continue;
            };
            let text = lines.join("\n");
            lines.clear();
            let found = lineage(&mut classifier, &catalog, &text);
            now += &format!("{text}\n=> {found}\n");
            if found != expected.trim() {
                failures += &format!("{text}\n  expected {}\n  found    {found}\n", expected.trim());
            }
            cases += 1;
        }
        if let Some(file) = std::env::var_os("GUARD_BLESS") {
            std::fs::write(file, now).unwrap();
        }
        assert!(failures.is_empty(), "\n{failures}");
        assert!(cases >= 300, "{cases} cases");
    };
    std::thread::Builder::new().stack_size(8 * 1024 * 1024).spawn(run).unwrap().join().unwrap();
}
