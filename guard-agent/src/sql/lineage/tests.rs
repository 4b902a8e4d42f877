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
    std::thread::Builder::new().stack_size(16 * 1024 * 1024).spawn(run).unwrap().join().unwrap();
}

fn corpora() -> Vec<String> {
    let sources = [
        include_str!("../testdata/queries.txt"),
        include_str!("../testdata/utilities.txt"),
        include_str!("../testdata/disguises.txt"),
        include_str!("../testdata/applications.txt"),
        include_str!("../testdata/lineage.txt"),
    ];
    let mut texts = Vec::new();
    for source in sources {
        let mut lines: Vec<&str> = Vec::new();
        for line in source.lines() {
            if line.starts_with("=>") {
                texts.push(lines.join("\n"));
                lines.clear();
            } else if !(line.starts_with('#') || line.is_empty() || line.starts_with('@')) {
                lines.push(line);
            }
        }
    }
    texts
}

fn on_session_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(16 * 1024 * 1024).spawn(test).unwrap().join().unwrap();
}

/// Literals gone and lists shortened, a text shows what it showed before.
#[test]
fn the_canonical_spelling_has_the_same_lineage() {
    on_session_stack(|| {
        let catalog = sample::shop().catalog();
        let world = World { catalog: &catalog, path: &SearchPath::Initial, user: "app" };
        let mut classifier = Classifier::new(Limits::default());
        let describe = |lineage: &Lineage| lineage.parts.iter().map(describe).collect::<Vec<_>>();
        let mut compared = 0;
        for text in corpora() {
            // Rows of literals become shorter, and have nothing to show.
            let Some(tree) = reference::tree(&text, true).filter(|_| !text.contains("VALUES")) else {
                continue;
            };
            let statement = classifier.classify(text.as_bytes(), &Modes::default());
            // Where a literal ends in them depends on a setting: both readings count.
            if statement.origin.weight() == 0 {
                continue;
            }
            let raw = statement::read(&tree, &world, Keep::Sensitive);
            assert_eq!(describe(&of(&statement, &world)), describe(&raw), "{text}");
            compared += 1;
        }
        assert!(compared > 600, "{compared}");
    });
}

/// A generator that gives the same numbers every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most.max(1)
    }
}

#[test]
fn no_text_makes_it_panic() {
    on_session_stack(|| {
        let catalog = sample::shop().catalog();
        let texts = corpora();
        let words: Vec<Vec<&str>> = texts.iter().map(|text| text.split(' ').collect()).collect();
        let mut classifier = Classifier::new(Limits::default());
        let mut dice = Dice(7);
        for _ in 0..4_000 {
            let mut mixed = words[dice.below(words.len())].clone();
            for _ in 0..=dice.below(3) {
                let other = &words[dice.below(words.len())];
                let (at, from) = (dice.below(mixed.len()), dice.below(other.len()));
                match dice.below(3) {
                    0 => drop(mixed.remove(at)),
                    1 => mixed.insert(at, other[from]),
                    _ => {
                        mixed.truncate(at);
                        mixed.extend_from_slice(&other[from..]);
                    }
                }
                if mixed.is_empty() {
                    break;
                }
            }
            lineage(&mut classifier, &catalog, &mixed.join(" "));
        }
    });
}

#[test]
fn no_tree_makes_it_panic() {
    on_session_stack(|| {
        let catalog = sample::shop().catalog();
        let world = World { catalog: &catalog, path: &SearchPath::Initial, user: "app" };
        let mut dice = Dice(11);
        for text in corpora() {
            let Some(bytes) = reference::serialised(&text) else { continue };
            for _ in 0..8 {
                let mut broken = bytes.clone();
                for _ in 0..=dice.below(3) {
                    let at = dice.below(broken.len());
                    if let Some(byte) = broken.get_mut(at) {
                        *byte = u8::try_from(dice.below(256)).unwrap();
                    }
                }
                if let Some(tree) = reference::Tree::read(broken) {
                    statement::read(&tree, &world, Keep::Sensitive);
                }
            }
        }
    });
}

/// However deep a text hides a column, or however often it copies it: it is shown or said not to be known, in time.
#[test]
fn depth_and_size_hide_nothing() {
    on_session_stack(|| {
        let catalog = sample::shop().catalog();
        let mut classifier = Classifier::new(Limits::default());
        let doubling: String = (0..40)
            .map(|level| match level {
                0 => "x0 AS (SELECT c FROM customers c)".to_owned(),
                level => {
                    let below = level - 1;
                    format!("x{level} AS (SELECT a.c AS c FROM x{below} a, x{below} b)")
                }
            })
            .collect::<Vec<_>>()
            .join(", ");
        let stars: String =
            (1..40).map(|level| format!(", x{level} AS (SELECT * FROM x{0} a, x{0} b)", level - 1)).collect();
        let texts = [
            format!("WITH x0 AS (SELECT * FROM customers){stars} SELECT * FROM x39"),
            format!("SELECT email {} FROM customers", "IS NULL ".repeat(900)),
            format!(
                "SELECT {} 1 {} , email FROM customers",
                "CASE WHEN ".repeat(200),
                "THEN 1 END ".repeat(200)
            ),
            format!(
                "SELECT {} x {} , email FROM customers",
                "CASE ".repeat(200),
                "WHEN 1 THEN 1 WHEN 2 THEN 2 END ".repeat(200)
            ),
            format!("SELECT {}email{} FROM customers", "count(DISTINCT ".repeat(80), ")".repeat(80)),
            format!("SELECT {}email{} FROM customers", "note[".repeat(300), "]".repeat(300)),
            format!("SELECT {}email{} FROM customers", "(SELECT ".repeat(60), ")".repeat(60)),
            format!("SELECT {}email{} FROM customers", "upper(".repeat(80), ")".repeat(80)),
            format!("SELECT email{} FROM customers", " || 'x'".repeat(900)),
            format!("SELECT 'a'{}", " UNION ALL SELECT email FROM customers".repeat(300)),
            format!("SELECT c.email FROM customers c{}", " JOIN orders USING (id)".repeat(300)),
            format!("WITH {doubling} SELECT c FROM x39"),
            format!(
                "SELECT email FROM {}customers{}",
                "(SELECT * FROM ".repeat(70),
                (0..70).map(|level| format!(") t{level}")).collect::<String>()
            ),
        ];
        let began = std::time::Instant::now();
        for text in texts {
            let found = lineage(&mut classifier, &catalog, &text);
            assert!(found.contains("customers.email") || found.contains("*.*"), "{found}: {text:.60}");
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    });
}

#[test]
fn a_statement_is_followed_once_for_each_catalog() {
    let database = sample::shop();
    let statement = Classifier::new(Limits::default()).classify(b"SELECT a FROM plain", &Modes::default());
    let path = SearchPath::Initial;
    let follow = |catalog: &Catalog| of(&statement, &World { catalog, path: &path, user: "app" });
    let catalog = database.catalog();
    let first = follow(&catalog);
    assert!(Arc::ptr_eq(&first, &follow(&database.catalog())), "the same catalog");
    let Outputs::Columns(columns) = &first.parts[0].outputs else { panic!("{first:?}") };
    assert!(columns[0].sources.is_empty());
    let copies = Classifier::new(Limits::default())
        .classify(b"INSERT INTO plain (a) SELECT email FROM customers", &Modes::default());
    database.learn(&of(&copies, &World { catalog: &catalog, path: &path, user: "app" }).parts[0].targets);
    let Outputs::Columns(columns) = &follow(&database.catalog()).parts[0].outputs else { panic!() };
    assert_eq!(columns[0].sources.len(), 1, "it was learned that plain.a holds addresses");
}

#[test]
fn the_search_path_says_which_relation_is_meant() {
    let rows = sample::rows_of("1 a.t r: x text, email text\n2 b.t r: email int4, x text\n");
    let database = sample::database(Vec::new());
    sample::read(&database, &rows, &[]);
    let catalog = database.catalog();
    let statement = Classifier::new(Limits::default()).classify(b"SELECT email FROM t", &Modes::default());
    let sources = |path: &str| {
        let path = SearchPath::parse(path);
        let lineage = of(&statement, &World { catalog: &catalog, path: &path, user: "app" });
        outputs(&lineage.parts[0].outputs)
    };
    assert_eq!(sources("a"), "t.email");
    assert_eq!(sources("b"), "-");
    assert_eq!(sources("a, b"), "t.email");
    assert_eq!(sources("\"$user\", x"), "t.email", "it may be either");
    assert_eq!(sources("c"), "t.email", "as does a name that leads nowhere");
}

#[test]
fn functions_that_are_written_as_columns_are_called() {
    let catalog = sample::shop().catalog();
    let mut classifier = Classifier::new(Limits::default());
    let mut calls = |text: &str| {
        let statement = classifier.classify(text.as_bytes(), &Modes::default());
        let lineage = of(&statement, &World { catalog: &catalog, path: &SearchPath::Initial, user: "app" });
        lineage.effects().map(|effect| effect.object.to_string()).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(calls("SELECT (1).wipe"), "wipe");
    assert_eq!(calls("SELECT c.purge FROM customers c"), "purge");
    assert_eq!(calls("SELECT (c).purge FROM customers c"), "purge");
    assert_eq!(calls("SELECT id FROM customers c WHERE c.purge > 0"), "purge");
    assert_eq!(calls("SELECT s.purge FROM (SELECT * FROM customers) s"), "purge");
    assert_eq!(calls("DECLARE x CURSOR FOR SELECT c.purge FROM customers c"), "purge");
    assert_eq!(calls("SELECT c.email, c.ctid, (c).note, c.* FROM customers c"), "");
    assert_eq!(calls("SELECT (data).note, u.x FROM customers, unheard_of u"), "");
}
