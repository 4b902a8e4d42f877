//! Deletes from the embedded store what is older than its time, in steps that hold nobody up for long.
//!
//! A step enters, how much it deleted and the next one leave. Agent by agent, from the beginning of each chain, for as long as there
//! is something old: records lie there in the order of time, but for clocks that were set. An agent's last record stays: its chain
//! goes on there.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    OWN, StoreError,
    id::{RANGE, first_id},
    tally::SLOT,
};

/// Records, or matters, that are looked at in one transaction.
const MOST: i64 = 5_000;
/// Records at the beginning of what is left of a chain. Where none of them is old, nothing behind them is.
const BEGINNING: i64 = 64;
/// Agents that are looked at in one transaction.
const AGENTS: usize = 200;

/// What is to be deleted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Records behind this id, of before this moment (microseconds since 1970), and the counts of their decisions.
    Records {
        /// The moment.
        oldest: i64,
        /// The id.
        behind: i64,
    },
    /// Matters behind this number that no record is about any more.
    Matters {
        /// The number.
        behind: i64,
    },
}

/// What a step came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forgotten {
    /// Records that are gone.
    pub(super) records: u64,
    /// What is left to do.
    pub(super) next: Option<Step>,
}

/// Does one step.
pub(super) fn forget(at: &Connection, step: Step) -> Result<Forgotten, StoreError> {
    match step {
        Step::Records { oldest, behind } => records(at, oldest, behind),
        Step::Matters { behind } => matters(at, behind),
    }
}

fn records(at: &Connection, oldest: i64, mut behind: i64) -> Result<Forgotten, StoreError> {
    for _ in 0..AGENTS {
        let mut next = at.prepare_cached("SELECT id FROM records WHERE id > ?1 ORDER BY id LIMIT 1")?;
        let Some(first) = next.query_row([behind], |row| row.get::<_, i64>(0)).optional()? else {
            at.prepare_cached("DELETE FROM tallies WHERE slot < ?1")?.execute([oldest.div_euclid(SLOT)])?;
            return Ok(Forgotten { records: 0, next: Some(Step::Matters { behind: 0 }) });
        };
        let end = first_id(first / RANGE + 1);
        let begins_old =
            "SELECT count(*) FROM (SELECT at FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3)
             WHERE at < ?4";
        let old: i64 = at
            .prepare_cached(begins_old)?
            .query_row(params![first, end, BEGINNING, oldest], |row| row.get(0))?;
        if old == 0 {
            behind = end - 1;
            continue;
        }
        let last =
            "SELECT max(id) FROM (SELECT id FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3)";
        let last: i64 = at.prepare_cached(last)?.query_row(params![first, end, MOST], |row| row.get(0))?;
        let delete = "DELETE FROM records WHERE id >= ?1 AND id <= ?2 AND at < ?3 AND id NOT IN
                 (SELECT a.id * ?4 + a.head_sequence FROM agents a WHERE a.id = ?5)
             AND NOT EXISTS (SELECT 1 FROM agents a WHERE a.id = ?5 AND a.mode = ?6)";
        let values = params![first, last, oldest, RANGE, first / RANGE, OWN];
        let records = at.prepare_cached(delete)?.execute(values)? as u64;
        return Ok(Forgotten { records, next: Some(Step::Records { oldest, behind: last }) });
    }
    Ok(Forgotten { records: 0, next: Some(Step::Records { oldest, behind }) })
}

fn matters(at: &Connection, behind: i64) -> Result<Forgotten, StoreError> {
    let select =
        "SELECT coalesce(max(id), 0) FROM (SELECT id FROM matters WHERE id > ?1 ORDER BY id LIMIT ?2)";
    let last: i64 = at.prepare_cached(select)?.query_row([behind, MOST], |row| row.get(0))?;
    let delete = "DELETE FROM matters WHERE id > ?1 AND id <= ?2
         AND NOT EXISTS (SELECT 1 FROM records r WHERE r.matter = matters.id)";
    at.prepare_cached(delete)?.execute([behind, last])?;
    let next = (last > behind).then_some(Step::Matters { behind: last });
    Ok(Forgotten { records: 0, next })
}
