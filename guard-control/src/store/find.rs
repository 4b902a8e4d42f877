//! Finds decisions in the embedded store: a question enters, a page of the newest that match leaves.
//!
//! The question says which way is short: along an index of the moments; along one agent's own chain; or, where it has words
//! in it, by the matters that match, of which there are few where there are many records ([`matters`]), and by what other
//! hosts say of a connection's other end ([`reported`]).

use std::{collections::BTreeSet, time::Instant};

use guard_common::api::control::{DecisionsRequest, DecisionsResponse};
use rusqlite::{Connection, OptionalExtension, ToSql, params_from_iter};

use super::{
    StoreError,
    filter::{Filter, Page, behind, limit, page_sql, verdict_of},
    matter::Part,
};

mod matters;
mod reported;

/// Records of a chain that is looked through as a whole.
const SHORT: i64 = if cfg!(test) { 100 } else { 200_000 };
/// Matters, or reports, between looks at the clock.
const TURN: usize = 64;

/// A moment and a record's id: by which pages are ordered.
type Place = (i64, i64);

struct Whose {
    agent: i64,
    records: i64,
}

/// In which order pages go.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// By the moment.
    Moment,
    /// By the place in one agent's chain.
    Chain,
}

impl Order {
    const fn sql(self) -> &'static str {
        match self {
            Self::Moment => "r.at DESC, r.id DESC",
            Self::Chain => "r.id DESC",
        }
    }
}

/// The newest places of those that are put in, as many as a page takes and one.
struct Newest {
    order: Order,
    wanted: usize,
    /// What orders them comes first.
    places: BTreeSet<(i64, i64)>,
}

impl Newest {
    fn new(order: Order, request: &DecisionsRequest) -> Self {
        Self { order, wanted: limit(request) + 1, places: BTreeSet::new() }
    }

    fn put(&mut self, (at, id): Place) {
        self.places.insert(match self.order {
            Order::Moment => (at, id),
            Order::Chain => (id, at),
        });
        if self.places.len() > self.wanted {
            self.places.pop_first();
        }
    }

    /// Puts in what a statement finds: moments and ids.
    fn put_all(
        &mut self,
        statement: &mut rusqlite::Statement<'_>,
        values: impl rusqlite::Params,
    ) -> Result<(), StoreError> {
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            self.put((row.get(0)?, row.get(1)?));
        }
        Ok(())
    }

    /// The oldest moment that still counts; nothing while there is room, or where moments order nothing.
    fn oldest(&self) -> Option<i64> {
        let full = self.order == Order::Moment && self.places.len() == self.wanted;
        self.places.first().filter(|_| full).map(|(at, _)| *at)
    }

    /// The newest first.
    fn into_places(self) -> Vec<Place> {
        let order = self.order;
        let place = |(first, second)| match order {
            Order::Moment => (first, second),
            Order::Chain => (second, first),
        };
        self.places.into_iter().rev().map(place).collect()
    }
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
            let mut newest = Newest::new(Order::Chain, request);
            along_chain(connection, &of_chain(request, &whose)?, None, &mut newest)?;
            fetch(connection, newest.into_places(), limit(request))
        }
        _ => along_moments(connection, &filter, request),
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

/// By the matters that match, and by what others report.
fn by_matter(
    connection: &Connection,
    request: &DecisionsRequest,
    whose: Option<&Whose>,
    (filter, until): (Filter, Instant),
) -> Result<DecisionsResponse, StoreError> {
    let part = Part::new(&request.contains);
    let matters = matters::matching(connection, request, &part)?;
    let short = whose.filter(|whose| matters.is_some() && whose.records <= SHORT);
    let (order, filter) = match short {
        Some(whose) => (Order::Chain, of_chain(request, whose)?),
        None => (Order::Moment, filter),
    };
    let mut newest = Newest::new(order, request);
    match (&matters, short) {
        (None, _) => along_words(connection, &filter, request, &part, &mut newest)?,
        (Some(matters), _) if matters.is_empty() => {}
        (Some(matters), Some(_)) => along_chain(connection, &filter, Some(matters), &mut newest)?,
        (Some(matters), None) => matters::newest(connection, (request, whose), matters, until, &mut newest)?,
    }
    if !request.contains.is_empty() && request.kind != "statement" {
        reported::by_report(connection, (&filter, &part), until, &mut newest)?;
        reported::by_address(connection, (&filter, &request.contains), &mut newest)?;
    }
    fetch(connection, newest.into_places(), limit(request))
}

/// What a question asks of one agent's chain, in its order.
fn of_chain(request: &DecisionsRequest, whose: &Whose) -> Result<Filter, StoreError> {
    let unpaged = DecisionsRequest { page: String::new(), ..wordless(request) };
    let mut filter = Filter::of(Some(whose.agent), &unpaged)?;
    if let Some((_, id)) = behind(&request.page)? {
        filter.and("r.id < ", id.into());
    }
    Ok(filter)
}

/// The newest places in an agent's own chain; of these matters, where some are named.
fn along_chain(
    connection: &Connection,
    filter: &Filter,
    matters: Option<&[i64]>,
    newest: &mut Newest,
) -> Result<(), StoreError> {
    let select = format!(
        "SELECT r.at, r.id, r.matter FROM records r NOT INDEXED WHERE {} ORDER BY r.id DESC",
        filter.sql
    );
    let mut statement = connection.prepare_cached(&select)?;
    let mut rows = statement.query(params_from_iter(values(filter)))?;
    while newest.places.len() < newest.wanted
        && let Some(row) = rows.next()?
    {
        let matter: Option<i64> = row.get(2)?;
        let wanted = |matters: &[i64]| matter.is_some_and(|matter| matters.binary_search(&matter).is_ok());
        if matters.is_none_or(wanted) {
            newest.put((row.get(0)?, row.get(1)?));
        }
    }
    Ok(())
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

/// The index of the moments that leads to what is asked for.
fn index_of(request: &DecisionsRequest) -> &'static str {
    match verdict_of(&request.verdict) {
        Some(2..) => "refusals",
        _ if request.non_proxied => "non_proxied",
        _ => "decisions",
    }
}

fn values(filter: &Filter) -> impl Iterator<Item = &dyn ToSql> {
    filter.values.iter().map(|value| value as &dyn ToSql)
}

/// Along an index of the moments.
fn along_moments(
    connection: &Connection,
    filter: &Filter,
    request: &DecisionsRequest,
) -> Result<DecisionsResponse, StoreError> {
    let limit = limit(request);
    let mut statement = connection.prepare_cached(&page_sql(&filter.sql, Some(index_of(request)), limit))?;
    let mut rows = statement.query(params_from_iter(values(filter)))?;
    let mut page = Page::new(limit);
    while let Some(row) = rows.next()? {
        let payload = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        if !page.take((row.get(0)?, row.get(1)?), payload, || Ok((row.get(3)?, row.get(4)?)))? {
            break;
        }
    }
    Ok(page.answer)
}

/// Along an index of the moments, where the words are held against every matter that is met.
fn along_words(
    connection: &Connection,
    filter: &Filter,
    request: &DecisionsRequest,
    part: &Part,
    newest: &mut Newest,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT r.at, r.id, m.words FROM records r INDEXED BY {} CROSS JOIN matters m ON m.id = r.matter
         WHERE {} ORDER BY r.at DESC, r.id DESC",
        index_of(request),
        filter.sql
    ))?;
    let mut rows = statement.query(params_from_iter(values(filter)))?;
    while newest.places.len() < newest.wanted
        && let Some(row) = rows.next()?
    {
        if part.is_in(row.get_ref(2)?.as_bytes().map_err(rusqlite::Error::from)?) {
            newest.put((row.get(0)?, row.get(1)?));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
