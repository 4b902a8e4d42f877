//! How often and how much: the figures of the last minute that policies may read, and which of their values a set of
//! policies can tell apart.
//!
//! A policy's syntax tree enters; the bounds that it compares with leave. Decisions are cached by the place between these
//! bounds. A figure that is used in any other way than compared with a number counts as read exactly: then each value is
//! its own place, and nothing is shared.

use serde_json::Value;

/// The last minute of one principal on one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Statements that it asked for, the one in question included.
    pub statements: u64,
    /// Rows that it was sent or that its statements changed.
    pub rows: u64,
}

/// Rates as far as a set of policies can tell them apart: a part of the key of decision caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RatesKey([u64; 2]);

/// What policies read of [`Rates`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    statements: Figure,
    rows: Figure,
}

/// How one figure is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Figure {
    /// Sorted. Values between two neighbours are the same to every comparison.
    bounds: Vec<i64>,
    /// Read in a way that bounds do not cover.
    exactly: bool,
}

impl Figure {
    fn is_read(&self) -> bool {
        self.exactly || !self.bounds.is_empty()
    }

    fn compared_with(&mut self, number: i64) {
        // Below it, equal to it, above it.
        self.bounds.extend([number, number.saturating_add(1)]);
        self.bounds.sort_unstable();
        self.bounds.dedup();
    }

    fn key(&self, value: u64) -> u64 {
        if self.exactly {
            return value;
        }
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.bounds.partition_point(|bound| *bound <= value) as u64
    }

    fn merge(&mut self, other: &Self) {
        self.exactly |= other.exactly;
        self.bounds.extend(&other.bounds);
        self.bounds.sort_unstable();
        self.bounds.dedup();
    }
}

impl Reading {
    /// What the policy with this syntax tree (Cedar's JSON form) reads.
    pub(crate) fn of(policy: &Value) -> Self {
        let mut reading = Self::default();
        reading.walk(&policy["conditions"]);
        reading
    }

    /// Of a policy that could read anything.
    pub(crate) fn all() -> Self {
        let exactly = Figure { bounds: Vec::new(), exactly: true };
        Self { statements: exactly.clone(), rows: exactly }
    }

    /// True where any figure is read.
    pub(crate) fn any(&self) -> bool {
        self.statements.is_read() || self.rows.is_read()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.statements.merge(&other.statements);
        self.rows.merge(&other.rows);
    }

    /// The same for rates that lead to the same decisions.
    pub(crate) fn key(&self, rates: Rates) -> RatesKey {
        RatesKey([self.statements.key(rates.statements), self.rows.key(rates.rows)])
    }

    fn figure(&mut self, attribute: &str) -> Option<&mut Figure> {
        match attribute {
            "statements_per_minute" => Some(&mut self.statements),
            "rows_per_minute" => Some(&mut self.rows),
            _ => None,
        }
    }

    fn walk(&mut self, node: &Value) {
        match node {
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.walk_field(key, value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.walk(value)),
            _ => {}
        }
    }

    fn walk_field(&mut self, key: &str, value: &Value) {
        match key {
            "<" | "<=" | ">" | ">=" | "==" | "!=" => {
                let (left, right) = (&value["left"], &value["right"]);
                for (figure, number) in [(left, right), (right, left)] {
                    let attribute = figure.get(".").and_then(attribute_of_context);
                    if let (Some(attribute), Some(number)) = (attribute, number["Value"].as_i64())
                        && let Some(figure) = self.figure(attribute)
                    {
                        figure.compared_with(number);
                        return;
                    }
                }
                self.walk(value);
            }
            "." => match attribute_of_context(value) {
                Some(attribute) => {
                    if let Some(figure) = self.figure(attribute) {
                        figure.exactly = true;
                    }
                }
                None => self.walk(value),
            },
            // Its keys are names that the policy chose.
            "Record" => value.as_object().into_iter().flatten().for_each(|(_, value)| self.walk(value)),
            // Whether an attribute is there says nothing of its value: it always is.
            "has" if is_context(&value["left"]) => {}
            // The context as a whole: whatever happens to it.
            "Var" if value == "context" => {
                self.statements.exactly = true;
                self.rows.exactly = true;
            }
            // A text that happens to look like a variable is a value, not a part of the tree.
            "Value" => {}
            _ => self.walk(value),
        }
    }
}

fn is_context(node: &Value) -> bool {
    node["Var"] == "context"
}

/// The attribute, where `access` reads one of the context.
fn attribute_of_context(access: &Value) -> Option<&str> {
    is_context(&access["left"]).then(|| access["attr"].as_str()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(condition: &str) -> Reading {
        let text = format!("forbid (principal, action, resource) when {{ {condition} }};");
        let policy: cedar_policy::Policy = text.parse().unwrap();
        Reading::of(&policy.to_json().unwrap())
    }

    fn rows(reading: &Reading, value: u64) -> RatesKey {
        reading.key(Rates { rows: value, ..Rates::default() })
    }

    #[test]
    fn values_that_no_comparison_tells_apart_share_a_key() {
        let reading = reading("principal.agent && context.rows_per_minute > 1000");
        assert!(reading.any());
        assert_eq!(rows(&reading, 0), rows(&reading, 999));
        assert_ne!(rows(&reading, 1000), rows(&reading, 1001));
        assert_eq!(rows(&reading, 1001), rows(&reading, u64::MAX));
        assert_eq!(reading.key(Rates { statements: 1, rows: 0 }), reading.key(Rates::default()));
    }

    #[test]
    fn equality_and_the_other_order_are_comparisons_too() {
        let equal = reading("context.rows_per_minute == 5");
        assert_ne!(rows(&equal, 4), rows(&equal, 5));
        assert_ne!(rows(&equal, 5), rows(&equal, 6));
        let turned = reading("5 <= context.rows_per_minute");
        assert_ne!(rows(&turned, 4), rows(&turned, 5));
        assert_eq!(rows(&turned, 6), rows(&turned, 7));
    }

    #[test]
    fn what_is_not_a_plain_comparison_is_read_exactly() {
        for condition in [
            "context.rows_per_minute * 2 > 1000",
            "context.rows_per_minute > context.parts",
            "[1, 2].contains(context.rows_per_minute)",
            "(if principal.agent then context else context).rows_per_minute > 5",
            "{a: context}.a.rows_per_minute == 6",
            "{Value: context}.Value.rows_per_minute == 6",
            "context == {rows_per_minute: 6}",
        ] {
            let reading = reading(condition);
            assert_ne!(rows(&reading, 100), rows(&reading, 101), "{condition}");
        }
    }

    #[test]
    fn policies_that_read_no_rates_tell_none_apart() {
        for condition in ["context.has_where", "context has rows_per_minute", "principal.name == \"context\""]
        {
            let reading = reading(condition);
            assert!(!reading.any(), "{condition}");
            assert_eq!(rows(&reading, 1), rows(&reading, 2));
        }
    }
}
