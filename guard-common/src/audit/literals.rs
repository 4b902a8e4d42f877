//! Statements as they were sent hold what rows hold: no part of them is shown for debugging.

use std::fmt;

use super::v1::{AsSent, Literals, Parameter, Statement, literals::Kept};

impl Statement {
    /// As it may be shown to everybody who sees what happened: not what rows hold.
    #[must_use]
    pub fn shown(mut self) -> Self {
        if let Some(Literals { kept: kept @ Some(Kept::Clear(_)) }) = &mut self.literals {
            *kept = Some(Kept::Withheld("it is in exports of the chain alone".to_owned()));
        }
        self
    }
}

impl fmt::Debug for AsSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, parameters) = (self.text_bytes, self.parameters.len());
        f.debug_struct("AsSent")
            .field("bytes", &bytes)
            .field("parameters", &parameters)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameter").field("null", &self.null).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::audit::v1::{AsSent, Literals, Parameter, Statement, literals::Kept, parameter::Value};

    #[test]
    fn values_do_not_show_in_debug_output() {
        let parameter = Parameter { value: Some(Value::Text("hidden".to_owned())), ..Parameter::default() };
        let sent =
            AsSent { text: "select 'hidden'".to_owned(), parameters: vec![parameter], ..AsSent::default() };
        let literals = Some(Literals { kept: Some(Kept::Clear(sent)) });
        let statement = Statement { literals, ..Statement::default() };
        let debug = format!("{statement:?}");
        assert!(debug.contains("AsSent") && !debug.contains("hidden"), "{debug}");
        let shown = serde_json::to_string(&statement.shown()).unwrap();
        assert!(shown.contains("exports of the chain") && !shown.contains("hidden"), "{shown}");
    }
}
