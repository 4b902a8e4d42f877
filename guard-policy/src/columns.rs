//! Columns with sensitive data, as policies see them: which they are, how they may be seen, what they may be used for.
//!
//! A column with its kind and tags enters; [`Sight`] leaves: in clear, or rewritten by a [`Mask`].

use std::{fmt, str::FromStr};

use crate::vocabulary::{DataKind, MaskRule, Object, ObjectKind};

/// Longest text of `fixed:TEXT` in bytes.
const MAX_FIXED: usize = 256;

/// What policies decide about columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnAction {
    /// See its values.
    Reveal,
    /// Let a statement depend on values that are not seen.
    Infer,
}

impl ColumnAction {
    /// Every one, in order.
    pub const ALL: [Self; 2] = [Self::Reveal, Self::Infer];

    /// The word as policies spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reveal => "reveal",
            Self::Infer => "infer",
        }
    }
}

/// A column that holds sensitive data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// The schema of its table; empty where it is not known.
    pub schema: String,
    /// Its table; `*` where it is not known.
    pub table: String,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: DataKind,
    /// Tags of the configuration and of comments, beside those of the kind.
    pub tags: Vec<String>,
    /// What says that it holds it.
    pub evidence: String,
}

impl Column {
    /// The table, as an object of policies.
    pub(crate) fn object(&self) -> Object {
        let schema = (!self.schema.is_empty()).then_some(self.schema.as_str());
        Object::named(ObjectKind::Table, schema, &self.table)
    }

    /// Everything that `resource.tags` holds.
    pub(crate) fn all_tags(&self) -> impl Iterator<Item = &str> {
        let of_kind = self.kind.tags().iter().copied();
        of_kind.chain([self.kind.as_str()]).chain(self.tags.iter().map(String::as_str))
    }
}

impl fmt::Display for Column {
    /// `schema.table.column`, as far as it is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.schema.is_empty() {
            write!(f, "{}.", self.schema)?;
        }
        if self.table != "*" {
            write!(f, "{}.", self.table)?;
        }
        f.write_str(&self.name)
    }
}

/// A rule, with the text of `fixed:TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mask {
    /// The rule.
    pub rule: MaskRule,
    /// What stands in the value's place; empty for every other rule.
    pub text: String,
}

impl Mask {
    /// Nothing of a value is left.
    pub const FULL: Self = Self { rule: MaskRule::Full, text: String::new() };

    /// How much of a value is left: more is more.
    pub fn shows(&self) -> u8 {
        match self.rule {
            MaskRule::Null => 0,
            MaskRule::Full => 1,
            MaskRule::Fixed => 2,
            MaskRule::Hash => 3,
            MaskRule::Partial => 4,
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            MaskRule::Fixed => write!(f, "fixed:{}", self.text),
            rule => f.write_str(rule.as_str()),
        }
    }
}

impl FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(fixed) = text.strip_prefix("fixed:") {
            if fixed.len() > MAX_FIXED || fixed.contains('\0') {
                return Err(format!("the text behind `fixed:` has at most {MAX_FIXED} bytes and no NUL"));
            }
            return Ok(Self { rule: MaskRule::Fixed, text: fixed.to_owned() });
        }
        let rule = MaskRule::ALL.iter().copied().find(|rule| rule.as_str() == text);
        match rule.filter(|rule| *rule != MaskRule::Fixed) {
            Some(rule) => Ok(Self { rule, text: String::new() }),
            None => Err(format!(
                "`{text}` is no rule of masking: write `full`, `partial`, `hash`, `null` or `fixed:TEXT`"
            )),
        }
    }
}

/// How a principal sees a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// `None`: in clear.
    pub mask: Option<Mask>,
    /// The policy that says so; `not-revealed` where none does.
    pub policy: String,
    /// Its `@reason`.
    pub reason: String,
    /// Evaluation errors. Each one masks.
    pub errors: Vec<String>,
}

/// How a statement uses a column without showing it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Use {
    /// Some of [`Use::WORDS`].
    pub words: Vec<&'static str>,
    /// It is only compared for equality.
    pub equality: bool,
}

impl Use {
    /// Where a statement can use a column, and `tag`: it says by a comment what the column holds.
    pub const WORDS: [&'static str; 6] = ["where", "join", "group", "order", "distinct", "tag"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in ["full", "partial", "hash", "null", "fixed:***", "fixed:"] {
            assert_eq!(text.parse::<Mask>().unwrap().to_string(), text);
        }
        for wrong in ["", "fixed", "Partial", "stars", "fixed:\0"] {
            assert!(wrong.parse::<Mask>().is_err(), "{wrong:?}");
        }
        assert!(format!("fixed:{}", "x".repeat(257)).parse::<Mask>().is_err());
    }
}
