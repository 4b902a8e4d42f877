//! By what decisions are about: words enter, the newest places of the matters that have them leave.

use std::time::Instant;

use guard_common::api::control::DecisionsRequest;
use rusqlite::{Connection, params};

use super::{Newest, TURN, Whose};
use crate::store::{
    StoreError,
    filter::{access_of, behind, micros_of, verdict_of},
    id::first_id,
    matter::Part,
    row::kind,
};

/// Matters that are looked up one by one. With more, what matches is so frequent that the newest records have it soon.
const MANY: usize = if cfg!(test) { 8 } else { 20_000 };

/// The matters that match, in the order of their numbers; nothing where they are too many.
pub(super) fn matching(
    connection: &Connection,
    request: &DecisionsRequest,
    part: &Part,
) -> Result<Option<Vec<i64>>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, words FROM matters WHERE (?1 IS NULL OR verdict = ?1) AND (?2 IS NULL OR kind = ?2)
             AND (?3 IS NULL OR access = ?3) AND kind <> ?4 ORDER BY id",
    )?;
    let wanted = match request.kind.as_str() {
        "connection" => Some(kind::CONNECTION_OPENED),
        "statement" => Some(kind::STATEMENT),
        _ => None,
    };
    let verdict = verdict_of(&request.verdict);
    let mut rows = statement.query(params![verdict, wanted, access_of(request), kind::CLIENT_CONNECTED])?;
    let mut matters = Vec::new();
    while let Some(row) = rows.next()? {
        if !part.is_in(row.get_ref(1)?.as_bytes().map_err(rusqlite::Error::from)?) {
            continue;
        }
        if matters.len() == MANY {
            return Ok(None);
        }
        matters.push(row.get(0)?);
    }
    Ok(Some(matters))
}

/// The newest places of these matters: from each only what is newer than what the others have brought.
pub(super) fn newest(
    connection: &Connection,
    (request, whose): (&DecisionsRequest, Option<&Whose>),
    matters: &[i64],
    until: Instant,
    newest: &mut Newest,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT at, id FROM records INDEXED BY decisions_by_matter
         WHERE matter = ?1 AND at >= ?2 AND (at, id) < (?3, ?4) AND id >= ?5 AND id < ?6
         ORDER BY at DESC, id DESC LIMIT ?7",
    )?;
    let since = request.since.as_ref().map_or(i64::MIN, micros_of);
    let before = request.until.as_ref().map_or((i64::MAX, i64::MAX), |until| (micros_of(until), 0));
    let before = behind(&request.page)?.map_or(before, |page| page.min(before));
    let (first, end) =
        whose.map_or((0, i64::MAX), |whose| (first_id(whose.agent), first_id(whose.agent + 1)));
    let most = i64::try_from(newest.wanted).unwrap_or(i64::MAX);
    for (turn, matter) in matters.iter().enumerate() {
        if turn % TURN == 0 && Instant::now() > until {
            return Err(StoreError::TooSlow);
        }
        let since = newest.oldest().map_or(since, |oldest| since.max(oldest));
        newest.put_all(&mut statement, params![matter, since, before.0, before.1, first, end, most])?;
    }
    Ok(())
}
