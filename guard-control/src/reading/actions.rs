//! What people did here: the control plane's own chain, the newest first.

use guard_common::audit::v1::{PersonAction, Record, record::Body};
use pbjson_types::Timestamp;
use prost::Message;
use rusqlite::params;

use super::{ReadingError, Readings, first_id, sequence_of};
use crate::store::row::kind;

/// Somebody did something.
#[derive(Clone, Debug)]
pub struct Acted {
    /// Its number in the chain.
    pub sequence: u64,
    /// When.
    pub at: Option<Timestamp>,
    /// What.
    pub action: PersonAction,
}

impl Readings {
    /// Up to `limit` of them, before the one numbered `before`.
    pub async fn actions(&self, before: Option<u64>, limit: usize) -> Result<Vec<Acted>, ReadingError> {
        self.with(move |connection| {
            let mut own = connection.prepare_cached("SELECT id FROM agents WHERE mode = 'control'")?;
            let mut chains = own.query_map([], |row| row.get::<_, i64>(0))?;
            let Some(own) = chains.next().transpose()? else { return Ok(Vec::new()) };
            let first = first_id(own);
            let end = before
                .and_then(|before| i64::try_from(before).ok())
                .map_or(first_id(own + 1), |before| first.saturating_add(before));
            let mut statement = connection.prepare_cached(
                "SELECT id, payload FROM records WHERE id >= $1 AND id < $2 AND kind = $3
                 ORDER BY id DESC LIMIT $4",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![first, end, kind::PERSON_ACTION, limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let payload = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
                let record = Record::decode(payload).unwrap_or_default();
                if let Some(Body::PersonAction(action)) = record.body {
                    found.push(Acted { sequence: sequence_of(row.get(0)?), at: record.at, action });
                }
            }
            Ok(found)
        })
        .await
    }
}
