//! What steering connections to servers' own addresses takes of this host.

use super::Check;
use crate::steering;

/// One check for each part.
pub(super) fn checks() -> Vec<Check> {
    steering::probe().into_iter().map(|(name, ok, detail)| Check::new(name, ok, detail)).collect()
}
