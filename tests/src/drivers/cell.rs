//! What came out for one driver and one behaviour.
//!
//! Enters: a program's line from each way. Leaves: a [`Cell`]. A refusal may differ: straight to the server it is the server
//! that refuses, with the same SQLSTATE and for want of the same right. So may what is masked: in its values, not its types.

use serde_json::Value;

/// One cell of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The driver's user sees the same both ways.
    Same,
    /// The driver has no such thing; why.
    Unsupported(String),
    /// The program does not get to it without guard either; what it says.
    Broken(String),
    /// The two ways are not the same.
    Differs {
        /// Straight to the server.
        direct: Value,
        /// Through guard.
        proxied: Value,
    },
}

impl Cell {
    /// Judges what a program printed about `behaviour` on each way.
    pub fn of(behaviour: &str, direct: Option<&Value>, proxied: Option<&Value>) -> Self {
        let (Some(direct), Some(proxied)) = (direct, proxied) else {
            return Self::Broken("the program printed nothing about it".to_owned());
        };
        if let Some(error) = direct.get("error") {
            return Self::Broken(error.as_str().unwrap_or_default().to_owned());
        }
        // Not what guard's way alone lacks: what works without guard and not with it is a difference.
        if let Some(reason) = direct.get("unsupported").and_then(Value::as_str) {
            return Self::Unsupported(reason.to_owned());
        }
        // What else a line has, such as its time, is for who reads it.
        let (shown, other) = (direct.get("value"), proxied.get("value"));
        let by_guard = behaviour.starts_with("refused") || behaviour == "masked";
        let same = if by_guard { refusals_match(shown, other) } else { shown == other };
        if same { Self::Same } else { Self::Differs { direct: direct.clone(), proxied: proxied.clone() } }
    }

    /// Whether it speaks against guard, or against the program.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Differs { .. })
    }
}

fn refusals_match(direct: Option<&Value>, proxied: Option<&Value>) -> bool {
    let (Some(direct), Some(proxied)) = (direct, proxied) else { return false };
    by_guard(direct, false) && by_guard(proxied, true) && without_author(direct) == without_author(proxied)
}

/// The members of a refusal that say who refused: they are there, and all say what is expected.
fn by_guard(value: &Value, expected: bool) -> bool {
    let mut found = Vec::new();
    authors(value, &mut found);
    !found.is_empty() && found.iter().all(|&author| author == expected)
}

fn authors(value: &Value, found: &mut Vec<bool>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::Bool(author) if is_author(name) => found.push(*author),
                    other => authors(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| authors(item, found)),
        _ => {}
    }
}

fn is_author(name: &str) -> bool {
    matches!(name, "by_guard" | "hint")
}

fn without_author(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| !is_author(name));
            Value::Object(kept.map(|(name, member)| (name.clone(), without_author(member))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_author).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell(behaviour: &str, direct: Value, proxied: Value) -> Cell {
        Cell::of(behaviour, Some(&direct), Some(&proxied))
    }

    #[test]
    fn values_are_compared_and_reasons_kept() {
        assert_eq!(
            cell("simple", json!({"value": [1], "seconds": 1}), json!({"value": [1], "seconds": 2})),
            Cell::Same
        );
        assert!(cell("simple", json!({"value": [1]}), json!({"value": [2]})).is_failure());
        assert!(cell("simple", json!({"value": 1}), json!({"error": "broken"})).is_failure());
        assert!(matches!(cell("simple", json!({"error": "e"}), json!({"error": "e"})), Cell::Broken(_)));
        assert!(Cell::of("simple", None, Some(&json!({"value": 1}))).is_failure());
        let reason = json!({"unsupported": "no large objects"});
        assert!(cell("tls", json!({"value": 1}), reason.clone()).is_failure(), "only guard lacks it");
        assert_eq!(cell("simple", reason.clone(), reason), Cell::Unsupported("no large objects".to_owned()));
    }

    #[test]
    fn a_refusal_is_the_servers_on_one_way_and_guards_on_the_other() {
        let refusal = |guard: bool, state: &str| json!({"value": [{"sqlstate": state, "by_guard": guard, "hint": guard}, "usable"]});
        assert_eq!(cell("refused", refusal(false, "42501"), refusal(true, "42501")), Cell::Same);
        assert!(cell("refused", refusal(false, "42501"), refusal(true, "42601")).is_failure());
        assert!(
            cell("refused", refusal(false, "42501"), refusal(false, "42501")).is_failure(),
            "guard let it pass"
        );
        assert!(
            cell("refused", json!({"value": []}), json!({"value": []})).is_failure(),
            "nothing was refused"
        );
    }
}
