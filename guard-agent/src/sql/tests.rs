//! Whole statements against expected effects, and properties that hold for any input.

use super::*;

/// Sessions run on threads with this much stack; so do these tests, in a debug build.
const STACK: usize = 32 * 1024 * 1024;

fn on_session_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(test).unwrap().join().unwrap();
}

fn classify(text: &str) -> Arc<Statement> {
    Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default())
}

/// `delete table:public.t all`: as the corpus spells effects.
fn describe(statement: &Statement) -> String {
    let effects = statement.effects.iter().map(|effect| {
        let filter = match effect.has_where {
            None => "",
            Some(true) => " where",
            Some(false) => " all",
        };
        format!("{} {}:{}{filter}", effect.action, effect.object.kind, effect.object)
    });
    let mut parts: Vec<String> = effects.collect();
    if statement.parse != Parse::Full {
        parts.insert(0, statement.parse.as_str().to_owned());
    }
    parts.join(", ")
}

/// One entry of the corpus: lines up to `=> effects`.
struct Case {
    text: String,
    expected: String,
    modes: Modes,
    line: usize,
}

fn corpus(source: &str) -> Vec<Case> {
    const ESCAPES: [(&str, &str); 6] =
        [("{CR}", "\r"), ("{FF}", "\u{c}"), ("{VT}", "\u{b}"), ("{NBSP}", "\u{a0}"), ("{NUL}", "\0"), ("{EM}", "\u{2003}")];
    let mut cases = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for (number, line) in source.lines().enumerate() {
        if let Some(expected) = line.strip_prefix("=>") {
            let mut modes = Modes::default();
            if lines.first() == Some(&"@backslashes") {
                modes.standard_conforming_strings = false;
                lines.remove(0);
            }
            let text = ESCAPES.iter().fold(lines.join("\n"), |text, (name, c)| text.replace(name, c));
            cases.push(Case { text, expected: expected.trim().to_owned(), modes, line: number + 1 });
            lines.clear();
        } else if !(line.is_empty() && lines.is_empty()) && !(line.starts_with('#') && lines.is_empty()) {
            lines.push(line);
        }
    }
    cases
}

fn check(name: &'static str, source: &'static str, at_least: usize) {
    on_session_stack(move || {
        let cases = corpus(source);
        let mut classifier = Classifier::new(Limits::default());
        let mut failures = String::new();
        for case in &cases {
            let found = describe(&classifier.classify(case.text.as_bytes(), &case.modes));
            let cached = describe(&classifier.classify(case.text.as_bytes(), &case.modes));
            if found != case.expected || cached != found {
                failures += &format!("{name}:{}\n  {}\n  expected {}\n  found    {found}\n", case.line, case.text, case.expected);
            }
        }
        assert!(failures.is_empty(), "\n{failures}");
        assert!(cases.len() >= at_least, "{} cases", cases.len());
    });
}

#[test]
fn corpus_of_queries() {
    check("queries.txt", include_str!("testdata/queries.txt"), 100);
}

#[test]
fn corpus_of_utilities() {
    check("utilities.txt", include_str!("testdata/utilities.txt"), 100);
}

#[test]
fn corpus_of_disguises() {
    check("disguises.txt", include_str!("testdata/disguises.txt"), 50);
}

#[test]
fn zz_dump() {
    on_session_stack(|| {
        for (name, source) in [
            ("queries", include_str!("testdata/queries.txt")),
            ("utilities", include_str!("testdata/utilities.txt")),
            ("disguises", include_str!("testdata/disguises.txt")),
        ] {
            println!("##{name}");
            let mut classifier = Classifier::new(Limits::default());
            for case in corpus(source) {
                println!("{}\n=> {}", case.text.replace('\r', "{CR}"), describe(&classifier.classify(case.text.as_bytes(), &case.modes)));
            }
        }
    });
}
