//! By who is at the other end: words enter, the connections leave whose client's address begins so, or of whose client
//! another host's agent reports that it is so.

use std::time::Instant;

use rusqlite::{Connection, params, params_from_iter, types::Value};

use super::{Newest, TURN, values};
use crate::store::{
    StoreError,
    filter::{Filter, NEAR},
    matter::Part,
    row::kind::{CLIENT_CONNECTED, CONNECTION_OPENED},
};

/// Reports that are followed to their connections.
const REPORTS: i64 = if cfg!(test) { 128 } else { 20_000 };

/// The newest connections whose client's address begins with `part`.
pub(super) fn by_address(
    connection: &Connection,
    (filter, part): (&Filter, &str),
    newest: &mut Newest,
) -> Result<(), StoreError> {
    let is_of_addresses = |letter: u8| letter.is_ascii_hexdigit() || b"[]:. >".contains(&letter);
    if !part.bytes().all(is_of_addresses) {
        return Ok(());
    }
    let next = filter.values.len() + 1;
    let beginning = format!("r.flow >= ?{next} AND r.flow < ?{next} || char(1114111)");
    let mut connections = connection.prepare_cached(&connections_sql(filter, &beginning, newest))?;
    newest.put_all(&mut connections, with(filter, &[part.to_ascii_lowercase().into()]))
}

/// The newest connections whose other end, as another host's agent reports it, has `part` in what it is.
pub(super) fn by_report(
    connection: &Connection,
    (filter, part): (&Filter, &Part),
    until: Instant,
    newest: &mut Newest,
) -> Result<(), StoreError> {
    let mut matters = connection.prepare_cached("SELECT id, words FROM matters WHERE kind = ?1")?;
    let mut reports = connection.prepare_cached(
        "SELECT flow, at FROM records INDEXED BY decisions_by_matter WHERE matter = ?1 AND flow IS NOT NULL
         ORDER BY at DESC LIMIT ?2",
    )?;
    let next = filter.values.len() + 1;
    let near = format!("r.flow = ?{next} AND r.at > ?{} AND r.at < ?{}", next + 1, next + 2);
    let mut connections = connection.prepare_cached(&connections_sql(filter, &near, newest))?;
    let mut left = REPORTS;
    let mut matters = matters.query([CLIENT_CONNECTED])?;
    while let Some(matter) = matters.next()? {
        if !part.is_in(matter.get_ref(1)?.as_bytes().map_err(rusqlite::Error::from)?) {
            continue;
        }
        let mut rows = reports.query(params![matter.get::<_, i64>(0)?, left])?;
        while let Some(row) = rows.next()? {
            if left % TURN as i64 == 0 && Instant::now() > until {
                return Err(StoreError::TooSlow);
            }
            left -= 1;
            let (flow, at): (String, i64) = (row.get(0)?, row.get(1)?);
            let around = [flow.into(), at.saturating_sub(NEAR).into(), at.saturating_add(NEAR).into()];
            newest.put_all(&mut connections, with(filter, &around))?;
        }
    }
    Ok(())
}

/// The newest connections with these ends.
fn connections_sql(filter: &Filter, ends: &str, newest: &Newest) -> String {
    format!(
        "SELECT r.at, r.id FROM records r INDEXED BY flows
         WHERE r.kind = {CONNECTION_OPENED} AND {} AND {ends} ORDER BY {} LIMIT {}",
        filter.sql,
        newest.order.sql(),
        newest.wanted
    )
}

/// The values of a filter and those of the ends behind them.
fn with<'a>(filter: &'a Filter, ends: &'a [Value]) -> impl rusqlite::Params + 'a {
    params_from_iter(values(filter).chain(ends.iter().map(|value| value as &dyn rusqlite::ToSql)))
}
