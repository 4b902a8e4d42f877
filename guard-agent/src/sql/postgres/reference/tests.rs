//! The server's grammar alone.

use super::*;

fn effects(text: &str) -> Vec<String> {
    match read(text, true) {
        Reading::Read { findings, .. } => findings
            .into_effects()
            .iter()
            .map(|effect| {
                let filter = match effect.has_where {
                    None => "",
                    Some(true) => " where",
                    Some(false) => " all",
                };
                format!("{} {}:{}{filter}", effect.action, effect.object.kind, effect.object)
            })
            .collect(),
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn queries_are_read_by_the_servers_grammar() {
    assert_eq!(
        effects("with x as (delete from s.t returning *) select * from x, u"),
        ["select table:u", "delete table:s.t all"]
    );
    assert_eq!(
        effects("select xmlelement(name a, f(b)) from t *"),
        ["select table:t", "function function:f"]
    );
    assert_eq!(effects("select 1"), ["select session:*"]);
    assert_eq!(effects("select * from rows from (f(1), generate_series(1, 2)) x"), ["function function:f"]);
    assert_eq!(effects("reindex (verbose) table concurrently s.t"), ["maintain table:s.t"]);
    assert_eq!(effects("prepare transaction 'x'"), ["transaction session:*"]);
}

#[test]
fn syntax_errors_are_told_from_everything_else() {
    assert!(matches!(read("selec 1", true), Reading::Refused));
    assert!(matches!(read("select 'abc", true), Reading::Refused));
    assert!(matches!(read("select 'a\\'; drop table t; --'", false), Reading::Read { parts: 1, .. }));
    assert!(matches!(read("select 'a\\'; drop table t; --'", true), Reading::Read { parts: 2, .. }));
    assert!(matches!(read("select \0", true), Reading::Silent));
}

#[test]
fn no_depth_overflows_the_stack() {
    for stack in [512 * 1024, 2 * 1024 * 1024, 32 * 1024 * 1024] {
        let deep = || {
            for (head, middle, tail) in [
                ("select 1", " + 1", ""),
                ("select ", "not ", "true"),
                ("select ", "- ", "1"),
                ("select 1", "::int", ""),
                ("select 1", " union select 1", ""),
                ("select * from t", " join t on true", ""),
            ] {
                for times in [100, 4_000, 16_000] {
                    let text = format!("{head}{}{tail}", middle.repeat(times));
                    drop(read(&text, true));
                }
            }
            let nested = format!("select {}1{}", "(select ".repeat(5000), ")".repeat(5000));
            drop(read(&nested, true));
        };
        std::thread::Builder::new().stack_size(stack).spawn(deep).unwrap().join().unwrap();
    }
}

#[test]
fn a_truncated_tree_is_no_tree() {
    let native::Parsed::Tree(bytes) = native::parse("select a, 'x' from t where b = 1", true) else {
        panic!("it parses");
    };
    assert!(Tree::read(bytes.clone()).is_some());
    for end in 1..bytes.len() {
        let _ = Tree::read(bytes[..end].to_vec());
        let mut broken = bytes.clone();
        broken[end] ^= 0x55;
        if let Some(tree) = Tree::read(broken) {
            let mut findings = Findings::default();
            for statement in tree.root().list("stmts").filter_map(|raw| raw.get("stmt")) {
                utility::statement(statement, &mut findings, 0);
            }
        }
    }
}
