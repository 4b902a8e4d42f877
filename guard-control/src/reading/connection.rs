//! Everything that is on record about one connection, in order.
//!
//! Records are not indexed by connection. A connection's id carries its time, and an agent's records lie in the order of
//! time: the search begins at the right place and ends soon after the connection does.

use std::time::Instant;

use guard_common::{
    api::control::{StoredDecision, stored_decision::Subject},
    audit::v1::{Record, record::Body},
};
use pbjson_types::Timestamp;
use prost::Message;
use uuid::Uuid;

use super::{ReadingError, Readings, first_since};
use crate::store::{
    LOOK_TIME,
    id::{first_id, sequence_of},
    sql::Sql,
};

/// Records of one connection that are shown.
const MOST: usize = 2_000;
/// Records that are looked at in one step.
const STEP: i64 = 20_000;
/// Records that are looked at in all.
const FAR: i64 = 3_000_000;
/// Records that are looked at after its end: outcomes may follow.
const AFTER: i64 = 5_000;
/// How much earlier than its id a connection's first record may be: a clock was set.
const EARLIER: i64 = 60_000_000;

/// One connection.
#[derive(Debug, Default)]
pub struct Course {
    /// Its records with number and time.
    pub records: Vec<(u64, Option<Timestamp>, Body)>,
    /// Not everything is here: why.
    pub cut: Option<&'static str>,
}

impl Course {
    /// How it was opened, as a decision of that agent.
    pub fn opened(&self, agent_id: &str) -> Option<StoredDecision> {
        self.records.iter().find_map(|(sequence, at, body)| match body {
            Body::ConnectionOpened(opened) => Some(StoredDecision {
                agent_id: agent_id.to_owned(),
                sequence: *sequence,
                at: *at,
                subject: Some(Subject::Connection(opened.clone())),
                ..StoredDecision::default()
            }),
            _ => None,
        })
    }
}

impl Readings {
    /// Everything about `connection_id` at `agent_id`; nothing where there is none.
    pub async fn connection(
        &self,
        agent_id: &str,
        connection_id: Uuid,
    ) -> Result<Option<Course>, ReadingError> {
        let Some(agent) = self.agent(agent_id).await? else { return Ok(None) };
        let course = self.course(agent, connection_id).await?;
        Ok((!course.records.is_empty()).then_some(course))
    }

    async fn course(&self, (agent, last): (i64, i64), wanted: Uuid) -> Result<Course, ReadingError> {
        let begun = Instant::now();
        let base = first_id(agent);
        let text = wanted.hyphenated().to_string();
        let mut at = base + 1 + self.begin((base, last), wanted).await?;
        let mut end = base.saturating_add(last).min(at.saturating_add(FAR));
        let select = "SELECT id, payload FROM records WHERE id >= $1 AND id <= $2 AND instr(payload, $3) > 0
             ORDER BY id LIMIT $4";
        let mut course = Course::default();
        while at <= end {
            if begun.elapsed() > LOOK_TIME {
                return Err(ReadingError::TooSlow);
            }
            let to = end.min(at + STEP - 1);
            let most = i64::try_from(MOST + 1).unwrap_or(i64::MAX);
            let values = [at.into(), to.into(), text.as_bytes().into(), most.into()];
            for line in self.ask(Sql::new(select, values)).await? {
                let id = line.int(0);
                let Ok(Record { at, body: Some(body), .. }) = Record::decode(line.bytes(1)) else { continue };
                // What merely quotes the id is no part of it.
                if connection_of(&body) != Some(text.as_str()) {
                    continue;
                }
                if course.records.len() == MOST {
                    course.cut = Some("the first 2,000 records are shown: search for the rest");
                    return Ok(course);
                }
                if matches!(body, Body::ConnectionClosed(_)) {
                    end = end.min(id + AFTER);
                }
                let body = match body {
                    Body::Statement(statement) => Body::Statement(statement.shown()),
                    body => body,
                };
                course.records.push((sequence_of(id), at, body));
            }
            at = to + 1;
        }
        let closed = course.records.iter().any(|(_, _, body)| matches!(body, Body::ConnectionClosed(_)));
        if end < base + last && !closed {
            course.cut = Some("it was open for longer than what is looked through here: search for the rest");
        }
        Ok(course)
    }

    /// How many of the agent's records lie before the connection began.
    async fn begin(&self, agent: (i64, i64), wanted: Uuid) -> Result<i64, ReadingError> {
        let Some((seconds, nanos)) = wanted.get_timestamp().map(|time| time.to_unix()) else { return Ok(0) };
        let micros = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let since = micros.saturating_add(i64::from(nanos) / 1_000).saturating_sub(EARLIER);
        Ok(first_since(&self.0.store, agent, since).await?)
    }
}

/// Which connection a record is about.
fn connection_of(body: &Body) -> Option<&str> {
    Some(match body {
        Body::ConnectionOpened(opened) => &opened.connection_id,
        Body::ConnectionClosed(closed) => &closed.connection_id,
        Body::SessionStarted(session) => &session.connection_id,
        Body::Statement(statement) => &statement.connection_id,
        Body::Outcomes(outcomes) => &outcomes.connection_id,
        Body::Approval(approval) => &approval.connection_id,
        _ => return None,
    })
}
