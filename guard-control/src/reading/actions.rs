//! What people did here: the control plane's own chain, the newest first.

use guard_common::audit::v1::{PersonAction, Record, record::Body};
use pbjson_types::Timestamp;
use prost::Message;

use super::{ReadingError, Readings};
use crate::store::{
    id::{first_id, sequence_of},
    row::kind,
    sql::Sql,
};

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
        let own = self.ask(Sql::new("SELECT id FROM agents WHERE mode = 'control'", [])).await?;
        let Some(own) = own.first().map(|line| line.int(0)) else { return Ok(Vec::new()) };
        let first = first_id(own);
        let end = before
            .and_then(|before| i64::try_from(before).ok())
            .map_or(first_id(own + 1), |before| first.saturating_add(before));
        let select = "SELECT id, payload FROM records WHERE id >= $1 AND id < $2 AND kind = $3
             ORDER BY id DESC LIMIT $4";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = [first.into(), end.into(), kind::PERSON_ACTION.into(), limit.into()];
        let lines = self.ask(Sql::new(select, values)).await?;
        let acted = lines.iter().filter_map(|line| {
            let record = Record::decode(line.bytes(1)).ok()?;
            let Some(Body::PersonAction(action)) = record.body else { return None };
            Some(Acted { sequence: sequence_of(line.int(0)), at: record.at, action })
        });
        Ok(acted.collect())
    }
}
