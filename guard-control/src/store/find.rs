//! Finds decisions in the embedded store: a question enters, a page of the newest that match leaves.
//!
//! Three ways lead to them, and the question says which is short: along an index of the moments; along one agent's own chain;
//! or by the matters that match, of which there are few where there are many records.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use guard_common::api::control::{DecisionsRequest, DecisionsResponse};
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};

use super::{
    StoreError,
    filter::{Filter, NEAR, Page, access_of, behind, limit, micros_of, page_sql, verdict_of},
    id::first_id,
    matter::Part,
    row::kind,
};

/// Matters that are looked up one by one. With more, what matches is so frequent that the newest records have it soon.
const MANY: usize = if cfg!(test) { 8 } else { 20_000 };
/// Records of a chain that is looked through as a whole.
const SHORT: i64 = if cfg!(test) { 100 } else { 200_000 };
/// Matters, or reports, between looks at the clock.
const TURN: usize = 64;
/// Reports that are followed to their connections.
const REPORTS: i64 = 20_000;

/// A moment and a record's id: by which pages are ordered.
type Place = (i64, i64);

struct Whose {
    agent: i64,
    records: i64,
}

/// Decisions that match, the newest first.
pub(super) fn decisions(
    connection: &Connection,
    request: &DecisionsRequest,
    until: Instant,
) -> Result<DecisionsResponse, StoreError> {
    let whose = match request.agent_id.as_str() {
        "" => None,
        agent_id => match whose(connection, agent_id)? {
            None => return Ok(DecisionsResponse::default()),
            found => found,
        },
    };
    let agent = whose.as_ref().map(|whose| whose.agent);
    // The words are not in the records; but it says as well what makes no sense.
    Filter::of(agent, request)?;
    let filter = Filter::of(agent, &wordless(request))?;
    let by_words = !request.contains.is_empty() || request.kind == "connection";
    if by_words {
        return by_matter(connection, request, whose.as_ref(), (filter, until));
    }
    let timed = request.since.is_some() || request.until.is_some();
    let rare = verdict_of(&request.verdict).is_some_and(|verdict| verdict > 1) || request.non_proxied;
    match whose {
        Some(whose) if !timed && !rare => {
            let places = along_chain(connection, request, &whose, None)?;
            fetch(connection, places, limit(request))
        }
        _ => walk(connection, &filter, request, None),
    }
}

fn whose(connection: &Connection, agent_id: &str) -> Result<Option<Whose>, StoreError> {
    let select = "SELECT id, head_sequence FROM agents WHERE agent_id = ?1";
    let mut statement = connection.prepare_cached(select)?;
    let found = statement.query_row([agent_id], |row| Ok(Whose { agent: row.get(0)?, records: row.get(1)? }));
    Ok(found.optional()?)
}

/// The same question without what the words of matters answer.
fn wordless(request: &DecisionsRequest) -> DecisionsRequest {
    DecisionsRequest { contains: String::new(), ..request.clone() }
}

/// By the matters that match.
fn by_matter(
    connection: &Connection,
    request: &DecisionsRequest,
    whose: Option<&Whose>,
    (filter, until): (Filter, Instant),
) -> Result<DecisionsResponse, StoreError> {
    let part = Part::new(&request.contains);
    let Some(matters) = matching(connection, request, &part)? else {
        return walk(connection, &filter, request, Some(&part));
    };
    let mut reported = reported(connection, request, (&filter, &part), until)?;
    reported.extend(by_address(connection, request, &filter)?);
    let mut places = match whose {
        _ if matters.is_empty() => Vec::new(),
        Some(whose) if whose.records <= SHORT => along_chain(connection, request, whose, Some(&matters))?,
        _ => newest(connection, (request, whose), &matters, until)?,
    };
    if !reported.is_empty() {
        places.extend(reported);
        places.sort_unstable_by_key(|place| Reverse(*place));
        places.dedup();
        places.truncate(limit(request) + 1);
    }
    fetch(connection, places, limit(request))
}

/// The newest connections whose client's address begins so.
fn by_address(
    connection: &Connection,
    request: &DecisionsRequest,
    filter: &Filter,
) -> Result<Vec<Place>, StoreError> {
    let beginning = request.contains.to_ascii_lowercase();
    let is_of_addresses = |letter: u8| letter.is_ascii_hexdigit() || b"[]:. >".contains(&letter);
    if beginning.is_empty() || !beginning.bytes().all(is_of_addresses) || request.kind == "statement" {
        return Ok(Vec::new());
    }
    let next = filter.values.len() + 1;
    let mut connections = connection.prepare_cached(&format!(
        "SELECT r.at, r.id FROM records r INDEXED BY flows WHERE r.kind = 20 AND {} AND r.flow >= ?{next}
         AND r.flow < ?{next} || char(1114111) ORDER BY r.at DESC, r.id DESC LIMIT {}",
        filter.sql,
        limit(request) + 1
    ))?;
    let beginning = [beginning.into()];
    let values = filter.values.iter().chain(&beginning).map(|value| value as &dyn ToSql);
    let mut rows = connections.query(params_from_iter(values))?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        places.push((row.get(0)?, row.get(1)?));
    }
    Ok(places)
}

/// The newest connections whose other end, as another host's agent reports it, has `part` in what it is.
fn reported(
    connection: &Connection,
    request: &DecisionsRequest,
    (filter, part): (&Filter, &Part),
    until: Instant,
) -> Result<Vec<Place>, StoreError> {
    let mut places = Vec::new();
    if request.contains.is_empty() || request.kind == "statement" {
        return Ok(places);
    }
    let mut matters = connection.prepare_cached("SELECT id, words FROM matters WHERE kind = 23")?;
    let mut reports = connection.prepare_cached(
        "SELECT flow, at FROM records INDEXED BY decisions_by_matter WHERE matter = ?1 AND flow IS NOT NULL
         ORDER BY at DESC LIMIT ?2",
    )?;
    let next = filter.values.len() + 1;
    let mut connections = connection.prepare_cached(&format!(
        "SELECT r.at, r.id FROM records r INDEXED BY flows WHERE r.kind = 20 AND {} AND r.flow = ?{next}
         AND r.at > ?{} AND r.at < ?{} ORDER BY r.at DESC LIMIT {}",
        filter.sql,
        next + 1,
        next + 2,
        limit(request) + 1
    ))?;
    let mut left = REPORTS;
    let mut matters = matters.query([])?;
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
            let values = filter.values.iter().chain(&around).map(|value| value as &dyn ToSql);
            let mut rows = connections.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                places.push((row.get(0)?, row.get(1)?));
            }
        }
    }
    Ok(places)
}

/// The matters that match, in the order of their numbers; nothing where they are too many.
fn matching(
    connection: &Connection,
    request: &DecisionsRequest,
    part: &Part,
) -> Result<Option<Vec<i64>>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, words FROM matters WHERE (?1 IS NULL OR verdict = ?1) AND (?2 IS NULL OR kind = ?2)
             AND (?3 IS NULL OR access = ?3) AND kind <> 23 ORDER BY id",
    )?;
    let wanted = match request.kind.as_str() {
        "connection" => Some(kind::CONNECTION_OPENED),
        "statement" => Some(kind::STATEMENT),
        _ => None,
    };
    let mut rows = statement.query(params![verdict_of(&request.verdict), wanted, access_of(request)])?;
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
fn newest(
    connection: &Connection,
    (request, whose): (&DecisionsRequest, Option<&Whose>),
    matters: &[i64],
    until: Instant,
) -> Result<Vec<Place>, StoreError> {
    let wanted = limit(request) + 1;
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
    let mut found: BinaryHeap<Reverse<Place>> = BinaryHeap::with_capacity(wanted + 1);
    for (turn, matter) in matters.iter().enumerate() {
        if turn % TURN == 0 && Instant::now() > until {
            return Err(StoreError::TooSlow);
        }
        let oldest = found.peek().filter(|_| found.len() == wanted);
        let since = oldest.map_or(since, |Reverse((at, _))| since.max(*at));
        let most = i64::try_from(wanted).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![matter, since, before.0, before.1, first, end, most])?;
        while let Some(row) = rows.next()? {
            found.push(Reverse((row.get(0)?, row.get(1)?)));
            if found.len() > wanted {
                found.pop();
            }
        }
    }
    // Smallest of the reversed first: the newest.
    Ok(found.into_sorted_vec().into_iter().map(|Reverse(place)| place).collect())
}

/// The newest places in an agent's own chain, in its order; of these matters, where some are named.
fn along_chain(
    connection: &Connection,
    request: &DecisionsRequest,
    whose: &Whose,
    matters: Option<&[i64]>,
) -> Result<Vec<Place>, StoreError> {
    let unpaged = DecisionsRequest { page: String::new(), ..wordless(request) };
    let mut filter = Filter::of(Some(whose.agent), &unpaged)?;
    if let Some((_, id)) = behind(&request.page)? {
        filter.and("r.id < ", id.into());
    }
    let select = format!(
        "SELECT r.at, r.id, r.matter FROM records r NOT INDEXED WHERE {} ORDER BY r.id DESC",
        filter.sql
    );
    let mut statement = connection.prepare_cached(&select)?;
    let mut rows =
        statement.query(params_from_iter(filter.values.iter().map(|value| value as &dyn ToSql)))?;
    let wanted = limit(request) + 1;
    let mut places = Vec::new();
    while places.len() < wanted
        && let Some(row) = rows.next()?
    {
        let matter: Option<i64> = row.get(2)?;
        let wanted = |matters: &[i64]| matter.is_some_and(|matter| matters.binary_search(&matter).is_ok());
        if matters.is_none_or(wanted) {
            places.push((row.get(0)?, row.get(1)?));
        }
    }
    Ok(places)
}

/// The records at these places.
fn fetch(connection: &Connection, places: Vec<Place>, limit: usize) -> Result<DecisionsResponse, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT r.payload, a.agent_id, a.host FROM records r JOIN agents a ON a.id = r.id >> 44 WHERE r.id = ?1",
    )?;
    let mut page = Page::new(limit);
    for (at, id) in places {
        let mut rows = statement.query([id])?;
        // Deleted meanwhile it cannot be: all of this is read of one state of the store.
        let Some(row) = rows.next()? else { continue };
        let payload = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        if !page.take((id, at), payload, || Ok((row.get(1)?, row.get(2)?)))? {
            break;
        }
    }
    Ok(page.answer)
}

/// Along an index of the moments; where `part` is looked for, every matter is held against it.
fn walk(
    connection: &Connection,
    filter: &Filter,
    request: &DecisionsRequest,
    part: Option<&Part>,
) -> Result<DecisionsResponse, StoreError> {
    let index = match verdict_of(&request.verdict) {
        Some(2..) => "refusals",
        _ if request.non_proxied => "non_proxied",
        _ => "decisions",
    };
    let limit = limit(request);
    let sql = match part {
        None => page_sql(&filter.sql, Some(index), limit),
        Some(_) => format!(
            "SELECT r.id, r.at, r.payload, a.agent_id, a.host, m.words
             FROM records r INDEXED BY {index} CROSS JOIN matters m ON m.id = r.matter CROSS JOIN agents a ON a.id = r.id >> 44
             WHERE {} ORDER BY r.at DESC, r.id DESC",
            filter.sql
        ),
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows =
        statement.query(params_from_iter(filter.values.iter().map(|value| value as &dyn ToSql)))?;
    let mut page = Page::new(limit);
    while let Some(row) = rows.next()? {
        if let Some(part) = part
            && !part.is_in(row.get_ref(5)?.as_bytes().map_err(rusqlite::Error::from)?)
        {
            continue;
        }
        let payload = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        if !page.take((row.get(0)?, row.get(1)?), payload, || Ok((row.get(3)?, row.get(4)?)))? {
            break;
        }
    }
    Ok(page.answer)
}

#[cfg(test)]
mod tests;
