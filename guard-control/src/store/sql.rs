//! Statements that both stores understand, for what is written seldom: certificates, policies, tree heads.
//!
//! Values enter beside the text, never inside of it. Placeholders are `$1`, `$2`, ..: PostgreSQL's form.

/// A value of a statement or of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A whole number; times are microseconds since 1970.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One statement.
#[derive(Clone, Debug)]
pub struct Sql {
    /// With `$1` ..
    pub text: String,
    /// In the order of the placeholders.
    pub values: Vec<Value>,
}

impl Sql {
    /// A statement with its values.
    pub fn new(text: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Self {
        Self { text: text.into(), values: values.into_iter().collect() }
    }
}

/// One row of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<Value>);

impl Line {
    /// The number in column `at`; 0 where there is none.
    pub fn int(&self, at: usize) -> i64 {
        match self.0.get(at) {
            Some(Value::Int(number)) => *number,
            _ => 0,
        }
    }

    /// The number in column `at`, where there is one.
    pub fn maybe_int(&self, at: usize) -> Option<i64> {
        match self.0.get(at) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        }
    }

    /// The text in column `at`; empty where there is none.
    pub fn text(&self, at: usize) -> &str {
        match self.0.get(at) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The text in column `at`, where there is one.
    pub fn maybe_text(&self, at: usize) -> Option<&str> {
        match self.0.get(at) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The bytes in column `at`; empty where there are none.
    pub fn bytes(&self, at: usize) -> &[u8] {
        match self.0.get(at) {
            Some(Value::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }
}
