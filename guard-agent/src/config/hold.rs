//! What happens to statements that nobody decides on.

use serde::{Deserialize, Serialize};

/// The fate of a statement on which nobody decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldChoice {
    /// It runs.
    Run,
    /// It is cancelled: its client sees SQLSTATE 57014.
    Cancel,
}

impl HoldChoice {
    pub(super) const fn run() -> Self {
        Self::Run
    }

    pub(super) const fn cancel() -> Self {
        Self::Cancel
    }
}
