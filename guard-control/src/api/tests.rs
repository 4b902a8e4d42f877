use std::collections::BTreeSet;

use super::*;

fn described() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

/// `.route("/x", get(..))` in this module's source, as method and address.
fn routed() -> BTreeSet<(String, String)> {
    let source = include_str!("../api.rs");
    let routes = source.split(".route(\"").skip(1).map(|rest| {
        let (address, rest) = rest.split_once("\", ").unwrap();
        let method = rest.split('(').next().unwrap();
        (method.to_owned(), address.to_owned())
    });
    routes.collect()
}

#[test]
fn every_address_is_described_and_nothing_else() {
    let described = described();
    let paths = described["paths"].as_object().unwrap();
    let described: BTreeSet<_> = paths
        .iter()
        .flat_map(|(address, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.clone(), address.clone()))
        })
        .collect();
    assert_eq!(described, routed());
}

#[test]
fn what_is_referred_to_is_there() {
    let described = described();
    let mut open = vec![&described];
    let mut seen = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(name)) = fields.get("$ref") {
                    let at = name.trim_start_matches('#');
                    assert!(described.pointer(at).is_some(), "{name}");
                    seen += 1;
                }
                open.extend(fields.values());
            }
            Value::Array(all) => open.extend(all),
            _ => {}
        }
    }
    assert!(seen > 10);
}
