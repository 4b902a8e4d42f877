//! A row as JSON that fits. What does not fit is cut, and the object says so: `"cut": true`.

use std::{borrow::Cow, fmt::Write};

use guard_common::audit::{display::visible, flat::Flat};
use serde_json::{Map, Value};

/// The row as one line of at most `room` bytes; `whole`: with the record itself, where it fits. `room`: 1,200 or more.
pub(super) fn bounded(flat: &Flat, room: usize, whole: bool) -> String {
    let (mut object, _) = flat.json(usize::MAX);
    // What does not fit as it is does not fit as JSON either.
    if whole && let Some(record) = flat.record.as_ref().filter(|record| record.len() < room) {
        object.insert("record".to_owned(), serde_json::from_str(record).unwrap_or_default());
        let text = line(object);
        if text.len() <= room {
            return text;
        }
        object = flat.json(usize::MAX).0;
    }
    if !whole || flat.record.is_none() {
        let text = line(object);
        if text.len() <= room {
            return text;
        }
    }
    let mut limit = room / 2;
    while limit >= 16 {
        let (mut object, _) = flat.json(limit);
        object.insert("cut".to_owned(), Value::Bool(true));
        let text = line(object);
        if text.len() <= room {
            return text;
        }
        limit /= 2;
    }
    least(flat)
}

/// What names the record, and nothing else: below 1,200 bytes, whatever is in it.
fn least(flat: &Flat) -> String {
    // A byte becomes six at the most.
    let (mut object, _) = flat.json(24);
    object.retain(|name, _| {
        matches!(name.as_str(), "agent_id" | "sequence" | "host" | "occurred_at" | "kind" | "verdict")
    });
    object.insert("cut".to_owned(), Value::Bool(true));
    // The key is the agent's id, a UUID, and a number.
    if let Some(key) = flat.key.as_ref().filter(|key| key.len() <= 64) {
        object.insert("key".to_owned(), Value::from(key.as_str()));
    }
    line(object)
}

/// As text in which every control and every hidden character is an escape of JSON's own.
fn line(object: Map<String, Value>) -> String {
    let text = Value::Object(object).to_string();
    if matches!(visible(&text), Cow::Borrowed(_)) {
        return text;
    }
    let mut safe = String::with_capacity(text.len() + 64);
    for letter in text.chars() {
        let mut bytes = [0; 4];
        if matches!(visible(letter.encode_utf8(&mut bytes)), Cow::Borrowed(_)) {
            safe.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_it_fits_and_says_what_was_cut() {
        let evil = "\u{0}\"\\\u{202e}\u{9b}\u{e0001}".repeat(10_000);
        let mut flat = Flat { key: Some(evil.clone()), sequence: Some(7), ..Flat::default() };
        assert!(bounded(&flat, 1_200, false).len() <= 1_200);
        flat = Flat { statement: Some(evil.clone()), key: Some("a:7".to_owned()), ..flat };
        for name in [
            &mut flat.host,
            &mut flat.db_user,
            &mut flat.workload,
            &mut flat.agent_id,
            &mut flat.kind,
            &mut flat.policy,
        ] {
            *name = Some(evil.clone());
        }
        for room in [1_200, 2_048, 8_192, 1 << 22] {
            let text = bounded(&flat, room, true);
            assert!(text.len() <= room && text == visible(&text), "{room}: {}", text.len());
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["cut"] == true, room < 1 << 22, "{room}");
        }
    }

    #[test]
    fn the_record_itself_goes_along_where_it_fits() {
        let record = format!("{{\"statement\":{{\"text\":\"{}\"}}}}", "x".repeat(2_000));
        let flat = Flat { record: Some(record), db_user: Some("app".to_owned()), ..Flat::default() };
        let value: Value = serde_json::from_str(&bounded(&flat, 8_192, true)).unwrap();
        assert!(value["record"]["statement"]["text"].is_string() && value["cut"].is_null());
        let value: Value = serde_json::from_str(&bounded(&flat, 1_500, true)).unwrap();
        assert!(value["record"].is_null() && value["cut"] == true && value["db_user"] == "app");
        let value: Value = serde_json::from_str(&bounded(&flat, 8_192, false)).unwrap();
        assert!(value["record"].is_null() && value["cut"].is_null());
    }
}
