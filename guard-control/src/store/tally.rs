//! Counts decisions as they come, so that charts over millions of them need not read them.
//!
//! Decisions of a batch enter, counts for each quarter of a minute go into the store with the batch. They follow the agents'
//! clocks, as everything that people see does.

use std::collections::BTreeMap;

use guard_common::audit::v1::connection_opened::Access;
use rusqlite::{Connection, params};

use super::{StoreError, matter::Matter};

/// Microseconds that are counted together. Charts have parts of 75 seconds and more, whole numbers of these.
pub(crate) const SLOT: i64 = 15_000_000;

/// The counts of one batch.
#[derive(Debug, Default)]
pub(super) struct Tally<'a>(BTreeMap<(i64, i32, bool, &'a str), i64>);

impl<'a> Tally<'a> {
    /// A decision at this moment.
    pub(super) fn count(&mut self, at: i64, matter: &'a Matter) {
        let round = matter.access == Some(Access::NonProxied.into());
        *self.0.entry((at.div_euclid(SLOT), matter.verdict, round, &matter.policy)).or_default() += 1;
    }

    /// Adds them to what is stored.
    pub(super) fn keep(&self, at: &Connection) -> Result<(), StoreError> {
        let mut add = at.prepare_cached(
            "INSERT INTO tallies (slot, verdict, round, policy, count) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET count = count + excluded.count",
        )?;
        for ((slot, verdict, round, policy), count) in &self.0 {
            add.execute(params![slot, verdict, round, policy, count])?;
        }
        Ok(())
    }
}
