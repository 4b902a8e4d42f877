//! Reads the JSON that guard's command lines print: records of the journal, decisions of the control plane.
//!
//! Field names are those of `guard/audit/v1/record.proto`; 64-bit numbers are strings.

use anyhow::{Context, Result};
use serde_json::Value;

/// The objects of a JSON Lines text, or of one JSON array.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).context("not a JSON array");
    }
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a JSON object: {line}")))
        .collect()
}

/// A number, printed as a number or as a string; absent counts as 0, as protobuf has it.
pub fn number(object: &Value, key: &str) -> u64 {
    match object.get(key) {
        Some(Value::String(text)) => text.parse().unwrap_or_default(),
        Some(value) => value.as_u64().unwrap_or_default(),
        None => 0,
    }
}

/// A text; absent counts as empty.
pub fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The texts of a list; absent counts as empty.
pub fn texts<'a>(object: &'a Value, key: &str) -> Vec<&'a str> {
    object.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The objects of a list; absent counts as empty.
pub fn objects<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The position of a record in its agent's chain.
pub fn sequence(record: &Value) -> u64 {
    number(record, "sequence")
}

/// What a record is about, if it is of this kind: `connection_opened`, `statement`, ..
pub fn body<'a>(record: &'a Value, kind: &str) -> Option<&'a Value> {
    let inside = record.get("record").unwrap_or(record);
    inside.get(kind).filter(|body| body.is_object())
}

/// All bodies of this kind, in the order of `records`.
pub fn bodies<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter_map(|record| body(record, kind)).collect()
}

/// Verdict of the decision in a connection or statement: `ALLOWED`, `REFUSED`, `WOULD_REFUSE`.
pub fn verdict(body: &Value) -> &str {
    body.get("decision").map_or("", |decision| text(decision, "verdict"))
}

/// Whether a connection went round the proxy.
pub fn non_proxied(connection: &Value) -> bool {
    text(connection, "access") == "NON_PROXIED"
}

/// Process id of the workload of a connection.
pub fn workload_pid(connection: &Value) -> u64 {
    connection.get("workload").map_or(0, |workload| number(workload, "pid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_arrays_read_the_same() {
        let lines = "{\"sequence\":\"2\"}\n\n{\"sequence\":3}\n";
        let array = "[{\"sequence\":\"2\"},{\"sequence\":3}]";
        assert_eq!(parse(lines).unwrap(), parse(array).unwrap());
        assert_eq!(parse(lines).unwrap().iter().map(sequence).collect::<Vec<_>>(), [2, 3]);
        assert!(parse("{broken").is_err());
    }

    #[test]
    fn a_body_is_found_inside_its_envelope() {
        let record: Value = serde_json::from_str(
            r#"{"sequence":"1","record":{"statement":{"decision":{"verdict":"REFUSED"}}}}"#,
        )
        .unwrap();
        assert_eq!(body(&record, "statement").map(verdict), Some("REFUSED"));
        assert!(body(&record, "connection_opened").is_none());
    }
}
