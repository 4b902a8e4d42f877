//! How records are numbered in the store: an agent's row and a number in its chain enter, a record's id leaves, and the way
//! back. The ids of one agent lie together, in the order of its chain; SQL that reckons with them takes [`RANGE`] from here.

const SEQUENCE_BITS: u32 = 44;

/// Ids that each agent has for itself.
pub(crate) const RANGE: i64 = 1 << SEQUENCE_BITS;

/// The id of a record; nothing where the number is out of range.
pub(super) fn record_id(agent: i64, sequence: u64) -> Option<i64> {
    let sequence = i64::try_from(sequence).ok().filter(|sequence| *sequence < RANGE)?;
    let fits = (0..1 << (63 - SEQUENCE_BITS)).contains(&agent);
    fits.then_some(first_id(agent) | sequence)
}

/// Below it no record of the agent has its id.
pub(crate) fn first_id(agent: i64) -> i64 {
    agent << SEQUENCE_BITS
}

/// The number in its chain of the record with this id.
pub(crate) fn sequence_of(id: i64) -> u64 {
    (id & (RANGE - 1)).cast_unsigned()
}
